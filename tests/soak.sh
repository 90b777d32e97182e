#!/usr/bin/env bash
# The tests of what must not be lost, at their full counts: 200 kills of training and of
# scoring, a fault of every kind in every operation on the disk, a million inputs per fuzz
# target, 20 stopped or killed ranks, 30 signals. Takes about an hour; what it prints is
# kept in bench/runs/.
#
#   bash tests/soak.sh FOLDER [arguments of `cargo test -- `]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=${1:?usage: bash tests/soak.sh FOLDER, for instance bench/runs/$(date +%F)-$(hostname)}
shift
mkdir -p "$output"
{
    echo "# commit $(git rev-parse --short HEAD), $(nproc) cores, $(uname -r)"
    grep -m1 'model name' /proc/cpuinfo || true
} > "$output/soak.txt"
started=$SECONDS
status=0
TAIGA_FLOW_SOAK=1 timeout --foreground 14400 \
    cargo test --test promises -- --nocapture --test-threads 2 kills:: failing_disk:: stopping:: damage:: "$@" \
    2>&1 | tee "$output/soak.log" || status=$?
grep -av ' so far$' "$output/soak.log" | grep -av '^faults: ' | grep -aE '^(test |watchdog:|stop protocol:|faults in|training killed|scoring killed|fuzz:|model file:|test result)' \
    | sort -u >> "$output/soak.txt" || true
rm "$output/soak.log"
echo "# exit code $status after $((SECONDS - started)) s" | tee -a "$output/soak.txt"
exit "$status"
