"""Prints one JSON line of bench/magic.sh for an evaluated run: magic_line.py RUN CONFIGURATION."""

import json
import math
import sys
from pathlib import Path


def main(run, configuration):
    evaluation = json.loads(Path(run, "evaluation", "evaluation.json").read_text())
    survival = next(a for a in evaluation["at_survival"] if a["hadron_survival"] == 0.01)
    point = survival["point"]
    quality = None
    if point is not None:
        gamma, hadron = point["gamma_efficiency"]["value"], point["hadron_survival"]["value"]
        quality = gamma / math.sqrt(hadron)
    line = {
        "mode": configuration.removesuffix("-10"),
        "features": 10 if configuration.endswith("-10") else 6,
        "auc": evaluation["auc"]["value"],
        "auc_error": evaluation["auc"]["error"],
        "q_at_0.01": quality,
        "scores": str(Path(run, "scores", "test.h5")),
        "model": evaluation["about"]["model"],
        "normal_nll": (evaluation["normal_nll"] or {}).get("mean"),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
