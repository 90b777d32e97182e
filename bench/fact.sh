#!/bin/bash
# Trains on FACT gammas with the configurations of configs/magic/ without retuning: lengths are
# converted to degrees by the plate scale of the schema, the generator is unchanged.
#
#   bench/fact.sh GAMMA PROTON [FOLDER]
#
# Trains on 70 % of the gammas (no protons), and evaluates on the other gammas and the test part of
# all protons. One JSON line per mode and seed of the split.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=${TAIGA_FLOW:-$root/target/release/taiga-flow}
folder=${3:-fact-runs}
mkdir -p "$folder"
for seed in 1 2 3 4 5; do
    for mode in one-class synthetic-push synthetic-ratio; do
        run=$folder/$mode-$seed
        "$program" -q --overwrite train -c "$root/configs/magic/$mode.toml" -o "$run" \
            --set "data.mixed=[]" --set "data.gamma=[\"$1\"]" --set "split.train=0.6" \
            --set "split.validation=0.1" --set "split.test=0.3" --set "split.seed=$seed" \
            --set "train.seed=$seed" --set "train.batch=64" --set "data.bad_rows=0.05" >&2
        "$program" -q --overwrite --json evaluate -m "$run/model.safetensors" \
            --gamma "$1" --hadron "$2" -o "$run/evaluation" > "$run/evaluation.out"
        python3 - "$run" "$mode" "$seed" <<'PYTHON'
import json, sys
run, mode, seed = sys.argv[1:]
e = json.load(open(f"{run}/evaluation/evaluation.json"))
print(json.dumps({"set": "FACT", "mode": mode, "seed": int(seed), "auc": e["auc"]["value"],
                  "auc_error": e["auc"]["error"], "counts": e["counts"]}), flush=True)
PYTHON
    done
done
