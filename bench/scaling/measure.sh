#!/usr/bin/env bash
# Measures what the cost model of model.py is fitted to, on several hosts of one machine with
# links of limited bandwidth (tests/slurm/hosts.sh; as root):
#
#   bash bench/scaling/measure.sh REDUCE PROGRAM >measurements.jsonl
#
# REDUCE is the built bench `reduce`, PROGRAM the built taiga-flow. One JSON object per line:
# sums over 2 hosts of 1 and 2 ranks, flat and by lanes, at several bandwidths; whole
# training steps at some of them; and the machine's load beside each.
set -euo pipefail
reduce=$(realpath "$1") program=$(realpath "$2")
hosts=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../tests/slurm/hosts.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Two connections between hosts: with one, Open MPI's answers wait behind its data.
export OMPI_MCA_btl_tcp_links=2
: "${RATES:=100mbit 200mbit 400mbit 600mbit 1gbit}" "${ROUNDS:=25}" "${SUMS:=5}" "${STEP_RATES=100mbit 200mbit 400mbit}"
: "${SHAPES:=1x2 2x2}"

with() { # RATE: adds it and the load to a line of JSON
    sed "s/}\$/,\"rate\":\"$1\",\"load\":$(cut -d' ' -f1 /proc/loadavg)}/"
}

for rate in $RATES; do
    for shape in $SHAPES; do
        for way in flat lanes packed; do
            TAIGA_FLOW_REDUCTION=$way "$hosts" "${shape%x*}" "${shape#*x}" "$rate" "$reduce" 57392 "$ROUNDS" "$SUMS" 2>/dev/null |
                grep '"case"' | with "$rate"
        done
    done
done

# Whole steps: the log says events per second; what one rank does alone is the compute.
"$program" -q simulate -o "$work/gamma.h5" --class gamma --events 60000 >/dev/null
sed "s#train/gamma.h5#$work/gamma.h5#; s/^hidden = .*/hidden = [512]/; s/^batch = .*/batch = 4096/; s/^epochs = .*/epochs = 3/" \
    "$(dirname "${BASH_SOURCE[0]}")/../../configs/quickstart.toml" >"$work/study.toml"
step() { # NAME COMMAND…: seconds of a step, from three epochs less one
    local epochs times=() since
    for epochs in 1 3; do
        since=$(date +%s.%N)
        "${@:2}" -q train -c "$work/study.toml" -o "$work/run" --overwrite --threads 1 --set train.epochs=$epochs --set run.watchdog_seconds=0 >/dev/null 2>&1
        times+=("$(echo "$(date +%s.%N) - $since" | bc)")
    done
    local steps
    steps=$(tail -1 "$work/run/metrics.jsonl" | sed 's/.*"step":\([0-9]*\).*/\1/')
    printf '{"case":"step","ranks":%s,"seconds":%.6f,"batch":4096,"parameters":57392,"rate":"%s","load":%s}\n' \
        "${1%:*}" "$(echo "scale=6; (${times[1]} - ${times[0]}) / ($steps * 2 / 3)" | bc)" "${1#*:}" "$(cut -d' ' -f1 /proc/loadavg)"
}
[ -n "$STEP_RATES" ] || exit 0
step 1:none "$program"
for rate in $STEP_RATES; do
    step "2:$rate" "$hosts" 1 2 "$rate" "$program"
done
