#!/usr/bin/env bash
# Weak scaling on one machine: two ranks on two cores with twice the events, against one rank
# on one core. Training: the time of seven epochs more. Scoring: files of equal length, one per
# rank. To be run on a machine with nothing else to do; prints one JSON object per line.
#
#   bash bench/scaling/weak.sh PROGRAM [ROUNDS]
set -euo pipefail
program=$(realpath "$1") rounds=${2:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
events=300000
for i in 1 2; do
    "$program" -q simulate -o "$work/gamma-$i.h5" --class gamma --events "$events" --seed "$i"
    mkdir -p "$work/archive-$i"
    for j in $(seq "$i"); do
        "$program" -q simulate -o "$work/archive-$i/run-$j.h5" --class hadron --events 1500000 --seed "$i$j"
    done
done
config() { # RANKS EPOCHS: the reference network, a batch in proportion
    local files="\"$work/gamma-1.h5\""
    [ "$1" -eq 1 ] || files="$files, \"$work/gamma-2.h5\""
    sed "s#\"train/gamma.h5\"#$files#; s/^hidden = .*/hidden = [512]/; s/^batch = .*/batch = $((8192 * $1))\nshards = 16/; s/^epochs = .*/epochs = $2/; s/^patience = .*/patience = 0/" \
        "$(dirname "${BASH_SOURCE[0]}")/../../configs/quickstart.toml" >"$work/study.toml"
}
timed() { # COMMAND…: seconds
    local since
    since=$(date +%s.%N)
    "$@" >/dev/null 2>&1
    echo "$(date +%s.%N) - $since" | bc
}
run() { # RANKS COMMAND…
    mpirun -n "$1" --bind-to core "$program" -q "${@:2}" --threads 1 --overwrite
}
for round in $(seq "$rounds"); do
    for ranks in 1 2; do
        config "$ranks" 2
        short=$(timed run "$ranks" train -c "$work/study.toml" -o "$work/run")
        config "$ranks" 9
        long=$(timed run "$ranks" train -c "$work/study.toml" -o "$work/run")
        training[ranks]=$(echo "$long - $short" | bc)
        scoring[ranks]=$(timed run "$ranks" score -m "$work/run/model.safetensors" -o "$work/scores-$ranks" "$work/archive-$ranks")
    done
    printf '{"case":"weak","round":%s,"train_1_s":%s,"train_2_s":%s,"train_efficiency":%.3f,"score_1_s":%s,"score_2_s":%s,"score_efficiency":%.3f,"load":%s}\n' \
        "$round" "${training[1]}" "${training[2]}" "$(echo "scale=4; ${training[1]} / ${training[2]}" | bc)" \
        "${scoring[1]}" "${scoring[2]}" "$(echo "scale=4; ${scoring[1]} / ${scoring[2]}" | bc)" "$(cut -d' ' -f1 /proc/loadavg)"
done
