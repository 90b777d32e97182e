#!/bin/bash
# Trains every mode on one table of the MAGIC set and evaluates it on another:
#
#   bench/magic.sh FILE_TRAIN FILE_TEST [FOLDER]
#
# Configurations and seeds are those of configs/magic/. One JSON line per run on standard output;
# score files, models and reports remain in FOLDER (default magic-runs). The program is TAIGA_FLOW
# (default target/release/taiga-flow). MODES selects some configurations.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=${TAIGA_FLOW:-$root/target/release/taiga-flow}
[ $# -ge 2 ] || { sed -n '2,9p' "$0" | sed 's/^# \?//' >&2; exit 2; }
folder=${3:-magic-runs}
modes=${MODES:-"one-class synthetic-push synthetic-ratio ratio ratio-10"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
"$program" -q --overwrite convert "$1" -o "$folder/train.h5" >&2
"$program" -q --overwrite convert "$2" -o "$folder/test.h5" >&2
for mode in $modes; do
    run=$folder/$mode
    "$program" -q --overwrite train -c "$root/configs/magic/$mode.toml" -o "$run" \
        --set "data.mixed=[\"$folder/train.h5\"]" >&2
    "$program" -q --overwrite --json evaluate -m "$run/model.safetensors" "$folder/test.h5" \
        -o "$run/evaluation" > "$run/evaluation.out"
    "$program" -q --overwrite score -m "$run/model.safetensors" "$folder/test.h5" \
        -o "$run/scores" >&2
    python3 "$root/bench/magic_line.py" "$run" "$mode"
done
