#!/usr/bin/env bash
# The tests of what must not be lost, at their full counts: 200 kills of training and of
# scoring, a fault of every kind in every operation on the disk of one rank and of either of
# two, a million inputs per fuzz target, 2000 damaged files of each kind, ranks stopped and
# killed, signals, every writing command started twice and on disks that are full or read-only,
# 200 sequences of changes of an archive. Takes some hours; what it prints is kept in
# bench/runs/, group by group, so that a soak that is ended early says how far it came.
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

# What a group has shown so far, without the lines that only say that it goes on.
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
# Ended from outside: how far each test of this group came, too.
end() {
    kill $! 2>/dev/null || true
    grep -a '^faults: \| so far$' "$output/soak.log" | tail -n 6 >> "$output/soak.txt" || true
    keep
    echo "# ended in $group after $((SECONDS - started)) s" >> "$output/soak.txt"
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
