#!/usr/bin/env bash
# Runs the durability tests at their full counts. Takes some hours. They contain
#   200 kills of training and of scoring,
#   a fault of every kind in every disk operation of a single process and of either of two ranks,
#   a million inputs per fuzz target, and 2000 damaged files of each kind,
#   stopped and killed ranks, and signals,
#   every writing command started twice, and on full or read-only disks,
#   200 sequences of changes of an archive.
# The output goes to FOLDER group by group, so that an interrupted soak keeps its results. Failing
# inputs of the fuzzers are kept in FOLDER/failures.
#
#   bash tests/soak.sh FOLDER [groups, such as failing_disk:: kills::]
#
# SOAK_FEATURES are arguments of cargo, such as --no-default-features.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=${1:?usage: bash tests/soak.sh FOLDER, for instance bench/runs/$(date +%F)-$(hostname)}
shift
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(
    damage:: fuzz:: stopping:: failing_disk:: kills:: two_starts:: archive_sequences:: streams::
)
read -ra features <<< "${SOAK_FEATURES:-}"
mkdir -p "$output"
TAIGA_FLOW_FAILURES=$(realpath "$output")/failures
export TAIGA_FLOW_FAILURES

# Appends the results of a group, without its progress lines.
keep() {
    grep -a '^\(test \|watchdog:\|stop protocol:\|faults in\|training killed\|scoring killed\|fuzz:\|model file:\|restarts of\|two starts\|archive sequences:\|streams:\|full disks:\|read-only disks:\|quotas:\|test result\)' "$output/soak.log" \
        | grep -av ' so far$' | sed 's/^\(test .* \.\.\. \)random inputs.*/\1/' | sort -u >> "$output/soak.txt" || true
    rm -f "$output/soak.log"
}

{
    echo "# commit $(git rev-parse --short HEAD), $(nproc) cores, $(uname -r)"
    grep -m1 'model name' /proc/cpuinfo || true
} >> "$output/soak.txt"
status=0
# On a signal, also keeps the progress of each test of this group.
end() {
    kill $! 2>/dev/null || true
    grep -a '^faults: \| so far$' "$output/soak.log" | tail -n 6 >> "$output/soak.txt" || true
    keep
    echo "# interrupted in $group after $((SECONDS - started)) s" >> "$output/soak.txt"
    exit 143
}
trap end TERM INT
for group in "${groups[@]}"; do
    started=$SECONDS
    : > "$output/soak.log"
    code=0
    TAIGA_FLOW_SOAK=1 timeout 14400 cargo test "${features[@]}" --test promises -- --nocapture --test-threads 2 "$group" \
        > "$output/soak.log" 2>&1 &
    wait $! || code=$?
    keep
    echo "# $group: exit code $code after $((SECONDS - started)) s, load $(cut -d' ' -f1 /proc/loadavg)" | tee -a "$output/soak.txt"
    [ $code -eq 0 ] || status=$code
done
exit "$status"
