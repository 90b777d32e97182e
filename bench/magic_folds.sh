#!/bin/bash
# Runs bench/magic.sh and boosted trees on the five folds of bench/folds.py:
#
#   bench/magic_folds.sh FILE [FOLDER]
#
# One JSON line per run and fold in FOLDER/runs.jsonl, then the summary. Needs Python with h5py,
# numpy and scikit-learn for trees and paired errors.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${2:-magic-folds}
python=${PYTHON:-python3}
python3 "$root/bench/folds.py" "$1" "$folder"
: > "$folder/runs.jsonl"
for fold in 0 1 2 3 4; do
    MODES=${MODES:-"one-class synthetic-push synthetic-ratio ratio ratio-10 reference-cuts"} \
        bash "$root/bench/magic.sh" "$folder/train-$fold.data" "$folder/test-$fold.data" \
        "$folder/fold-$fold" | sed "s/^{/{\"fold\": $fold, /" >> "$folder/runs.jsonl"
done
"$python" "$root/bench/magic_summary.py" "$folder"
