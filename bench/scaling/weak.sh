#!/usr/bin/env bash
# Measures weak scaling on one machine, in training and scoring: two ranks on two cores with twice
# the work, compared with one rank on one core. Two independent processes, each bound to its own
# core and with the work of one rank, show the limit of the machine.
#
#   bash bench/scaling/weak.sh prepare PROGRAM FOLDER       inputs, once
#   bash bench/scaling/weak.sh train|positions|score PROGRAM FOLDER
#                                                           one round, about 110 s, one JSON object
#
# ALLOWED=no skips the independent processes, and half the time.
#
# `train`: the reference network, a batch in proportion, EPOCHS (28) of 300 000 events per rank.
# `positions`: scores at six positions, ROWS (4 000 000) per rank in four files; `score`: without
# positions, four times as many rows in sixteen files, copies of these. All values are wall time
# from start to end, including the start of MPI (`mpi_s`: the additional time of two idle ranks
# compared with one). Cores are bound, the page cache is warm. Run it on an otherwise idle machine;
# compare medians of several rounds.
set -euo pipefail
what=$1 program=$(realpath "$2") folder=$(realpath -m "$3")
: "${EPOCHS:=28}" "${ROWS:=4000000}" "${ALLOWED:=yes}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

study() { # RANKS FILES… : the configuration of a training
    local ranks=$1 files
    files=$(printf '"%s", ' "${@:2}")
    sed "s#\"train/gamma.h5\"#${files%, }#; s/^hidden = .*/hidden = [512]/; s/^batch = .*/batch = $((8192 * ranks))\nshards = 16/; s/^epochs = .*/epochs = $EPOCHS/; s/^patience = .*/patience = 0/" \
        "$sources/configs/quickstart.toml"
}

if [ "$what" = prepare ]; then
    mkdir -p "$folder"
    for i in 1 2; do
        "$program" -q simulate -o "$folder/gamma-$i.h5" --class gamma --events 300000 --seed "$i" --overwrite >/dev/null
        for j in 1 2 3 4; do
            "$program" -q simulate -o "$folder/archive-$i/$j.h5" --class hadron --events $((ROWS / 4)) --seed "$i$j" --overwrite >/dev/null
            for copy in 1 2 3 4; do
                mkdir -p "$folder/long-$i"
                cp "$folder/archive-$i/$j.h5" "$folder/long-$i/$j-$copy.h5"
            done
        done
        study 1 "$folder/gamma-$i.h5" >"$folder/one-$i.toml"
    done
    study 2 "$folder/gamma-1.h5" "$folder/gamma-2.h5" >"$folder/two.toml"
    EPOCHS=1 study 1 "$folder/gamma-1.h5" >"$folder/model.toml"
    "$program" -q train -c "$folder/model.toml" -o "$folder/model" --overwrite >/dev/null
    exit
fi

now() { date +%s.%N; }
timed() { # COMMAND…: seconds
    local since
    since=$(now)
    "$@" >/dev/null
    echo "$(now) - $since" | bc
}
# Cores of a rank are set by `mpirun`, those of a single process by `taskset`.
ranks() { mpirun -n "$1" --bind-to core "$program" -q "${@:2}"; }
lone() { taskset -c "$1" "$program" -q "${@:2}"; }
inputs=archive options=()
case $what in
    train) command() { echo train -c "$folder/$1.toml" -o "$folder/run-$1" --threads 1 --overwrite; } ;;
    positions) options=(--set score.positions=6) ;;
    score) inputs=long ;;
    *) echo "weak.sh: prepare, train, positions or score" >&2; exit 2 ;;
esac
if [ "$what" != train ]; then
    command() { # one-1, one-2 or two
        local given=("$folder/$inputs-${1#one-}")
        [ "$1" != two ] || given=("$folder/$inputs-1" "$folder/$inputs-2")
        echo score -m "$folder/model/model.safetensors" -o "$folder/scores-$1" "${given[@]}" --root "$folder" \
            --threads 1 --overwrite --set 'score.columns=["score"]' ${options[@]+"${options[@]}"}
    }
fi
at_once() {
    local each pids=()
    for each in 1 2; do
        # shellcheck disable=SC2046 # words of a command
        lone $((each - 1)) $(command "one-$each") &
        pids+=($!)
    done
    wait "${pids[@]}"
}
# shellcheck disable=SC2046
{
    one=$(timed ranks 1 $(command one-1))
    two=$(timed ranks 2 $(command two))
    if [ "$ALLOWED" = yes ]; then
        lone=$(timed lone 0 $(command one-1))
        both=$(timed at_once)
    fi
    # Time that MPI takes to start and to end.
    nothing=(train -c "$folder/two.toml" -o "$folder/dry" --dry-run)
    start=$(echo "$(timed ranks 2 "${nothing[@]}") - $(timed ranks 1 "${nothing[@]}")" | bc)
}
share() { echo "scale=4; $1 / $2" | bc; }
allowed=
[ "$ALLOWED" != yes ] ||
    allowed=$(printf ',"one_process_s":%.3f,"two_processes_s":%.3f,"allowed":%.3f' "$lone" "$both" "$(share "$lone" "$both")")
printf '{"case":"weak","what":"%s","one_rank_s":%.3f,"two_ranks_s":%.3f,"efficiency":%.3f,"mpi_s":%.2f%s,"load":%s}\n' \
    "$what" "$one" "$two" "$(share "$one" "$two")" "$start" "$allowed" "$(cut -d' ' -f1 /proc/loadavg)"
