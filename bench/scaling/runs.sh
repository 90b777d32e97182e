#!/usr/bin/env bash
# Measures whole training runs, on one host and on two hosts of one rank with links of limited
# bandwidth (tests/slurm/hosts.sh; as root). model.py fits a run from its start to its end to them.
#
#   bash bench/scaling/runs.sh PROGRAM >>measurements.jsonl
#
# One JSON object per run: wall time; ranks; events trained on, over all epochs; steps; rows read;
# checkpoints; the packed size of a word in the sums of training. About two minutes a round, on an
# otherwise idle machine; ROUNDS (1), RATES and CASES choose.
set -euo pipefail
program=$(realpath "$1")
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: "${ROUNDS:=1}" "${RATES:=100mbit 200mbit 400mbit 1gbit}" "${CASES:=alone reading checkpoints hosts}"
export OMPI_MCA_btl_tcp_links=2

for events in 60000 1200000; do
    "$program" -q simulate -o "$work/$events.h5" --class gamma --events "$events" >/dev/null
done

# All usable events are trained on and none held out, so that a run is only reading and steps.
run() { # RANKS RATE ROWS BATCH EPOCHS [options of train]
    local ranks=$1 rate=$2 rows=$3 batch=$4 epochs=$5 launch=() since seconds log steps checkpoints bytes
    shift 5
    [ "$ranks" -eq 1 ] || launch=("$sources/tests/slurm/hosts.sh" 1 "$ranks" "$rate")
    sed "s#train/gamma.h5#$work/$rows.h5#; s/^hidden = .*/hidden = [512]/; s/^batch = .*/batch = $batch\nshards = 4/; s/^epochs = .*/epochs = $epochs/; s/^train = .*/train = 1/; s/^validation = .*/validation = 0/; s/^test = .*/test = 0/; s/^checkpoint_seconds = .*/checkpoint_seconds = 3600/" \
        "$sources/configs/quickstart.toml" >"$work/study.toml"
    rm -rf "$work/run"
    since=$(date +%s.%N)
    "${launch[@]}" "$program" train -c "$work/study.toml" -o "$work/run" --threads 1 "$@" >/dev/null 2>"$work/log"
    seconds=$(echo "$(date +%s.%N) - $since" | bc)
    log=$(cat "$work/run/train.log")
    steps=$(tail -1 "$work/run/metrics.jsonl" | sed 's/.*"step":\([0-9]*\).*/\1/')
    trained=$(sed -n 's/.*training on \([0-9]*\) events.*/\1/p' <<<"$log")
    checkpoints=$(sed -n 's/^\([0-9]*\) checkpoint(s) took.*/\1/p' <<<"$log")
    bytes=$(sed -n 's/.*; \([0-9.]*\) bytes per word when packed.*/\1/p' "$work/log" | tail -1)
    printf '{"case":"run","ranks":%s,"rate":"%s","rows":%s,"batch":%s,"events":%s,"steps":%s,"checkpoints":%s,"bytes_per_word":%s,"seconds":%.4f,"parameters":57392,"load":%s}\n' \
        "$ranks" "$rate" "$rows" "$batch" $((trained * epochs)) "$steps" "${checkpoints:-0}" "${bytes:-0}" "$seconds" "$(cut -d' ' -f1 /proc/loadavg)"
}

for _ in $(seq "$ROUNDS"); do
    for case in $CASES; do
        case $case in
            alone)
                run 1 none 60000 8192 20
                run 1 none 60000 512 8
                ;;
            reading)
                run 1 none 1200000 65536 1
                run 2 none 1200000 65536 1
                ;;
            checkpoints) run 1 none 60000 4096 6 --set run.checkpoint_seconds=0 ;;
            hosts)
                for rate in $RATES; do
                    run 2 "$rate" 60000 8192 16
                    run 2 "$rate" 60000 1024 4
                done
                ;;
        esac
    done
done
