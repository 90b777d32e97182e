#!/bin/bash
# Reproduces the reference study (configs/reference-study.toml, either class as normal) on the folds
# that bench/magic_folds.sh made in FOLDER:
#
#   bench/reference_study.sh FOLDER
#
# One JSON line per fold and normal class: AUC of the score, and precision and recall with the
# anomaly as positive class at equal numbers of both, as the study is assumed to define them. The
# program is TAIGA_FLOW (default target/release/taiga-flow).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=${TAIGA_FLOW:-$root/target/release/taiga-flow}
[ $# -eq 1 ] || { sed -n '2,10p' "$0" | sed 's/^# \?//' >&2; exit 2; }
for fold in 0 1 2 3 4; do
    for normal in gamma hadron; do
        run=$1/fold-$fold/study-$normal
        "$program" -q --overwrite train -c "$root/configs/reference-study.toml" -o "$run" \
            --set "data.gamma=[]" --set "data.hadron=[]" \
            --set "data.mixed=[\"$1/fold-$fold/train.h5\"]" --set "model.normal=$normal" \
            --set split.train=0.88 --set split.validation=0.12 --set split.test=0.0 >&2
        "$program" -q --overwrite --json evaluate -m "$run/model.safetensors" \
            "$1/fold-$fold/test.h5" -o "$run/evaluation" > "$run/evaluation.out"
        python3 - "$run/evaluation/evaluation.json" "$fold" "$normal" <<'PYTHON'
import json
import sys

path, fold, normal = sys.argv[1:]
evaluation = json.load(open(path))
after = evaluation["at_threshold"]["after_cuts"]
gamma, hadron = after["gamma_efficiency"]["value"], after["hadron_survival"]["value"]
# Shares of the anomalies and of the normal events that are classified as anomalies.
found, false = (1 - hadron, 1 - gamma) if normal == "gamma" else (gamma, hadron)
print(json.dumps({
    "fold": int(fold), "normal": normal, "auc": evaluation["auc"]["value"],
    "recall": found, "precision": found / (found + false),
    "gammas": evaluation["counts"]["gamma"], "hadrons": evaluation["counts"]["hadron"],
}), flush=True)
PYTHON
    done
done
