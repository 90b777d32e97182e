#!/usr/bin/env bash
# All steps as dependent jobs: extract → train → evaluate → score → season.
#
#   CONFIG=study.toml WORK=/project/study ARCHIVE=/data/season bash jobs/pipeline.sh
#
# | variable  |                                                                            |
# |-----------|----------------------------------------------------------------------------|
# | CONFIG    | configuration of the training                                              |
# | WORK      | folder of all outputs: hillas/, run/, run/evaluation/, scores/, season/     |
# | ARCHIVE   | event files to score, or a folder of them                                  |
# | IMAGES    | camera images instead of ARCHIVE: extracted into WORK/hillas first         |
# | EXTRACT   | options of `taiga-flow extract`                                            |
# | GAMMA, HADRON | labelled files to evaluate on, by class; without them the test part     |
# |           | of LABELLED (files with a class column); without any no evaluation         |
# | RANKS     | ranks of training and scoring (4)                                          |
# | SHARDS    | above 1: scoring as an array of this many jobs, without MPI                |
# | SCORE     | options of `taiga-flow score`, such as -c configs/score/archive.toml       |
# | SEASON    | options of `taiga-flow season`, or a blank; if unset, no season. A season  |
# |           | needs scores at several positions: SCORE                                   |
# | ALLOW_FAILED | files that may fail (0): up to this many are listed and excluded by     |
# |           | extraction, scoring and season, and do not stop the following jobs         |
# | GPUS, NODES | of training and scoring: GPUs per node, and nodes (see submit.sh)        |
#
# Each job waits for the success of the previous one. Jobs that stop early are resumed
# automatically, and the following ones wait for them. Prints the names and numbers of the jobs.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${CONFIG:?the configuration of the training}" "${WORK:?the folder of all outputs}"
: "${RANKS:=4}" "${SHARDS:=1}" "${ALLOW_FAILED:=0}"
[[ $ALLOW_FAILED =~ ^[0-9]+$ ]] || { echo "ALLOW_FAILED: a number of files, not '$ALLOW_FAILED'" >&2; exit 2; }
allow=()
[ "$ALLOW_FAILED" -eq 0 ] || allow=(--allow-failed "$ALLOW_FAILED")
mkdir -p "$WORK"
after=
# With GPUs submit.sh sets the number of ranks.
tasks=(--ntasks="$RANKS")
[ -z "${GPUS:-}" ] || tasks=(--nodes="${NODES:-1}")

submit() { # NAME [sbatch options] SCRIPT ARGUMENTS…
    local name=$1 job
    shift
    # A job whose predecessor has failed would wait indefinitely.
    job=$(bash "$folder/submit.sh" --job-name="$name" --kill-on-invalid-dep=yes --output="$WORK/%x-%j.log" \
        ${after:+--dependency=afterok:$after} "$@")
    after=${job%%;*}
    printf '%-10s %s\n' "$name" "$after"
}

archive=${ARCHIVE:-}
if [ -n "${IMAGES:-}" ]; then
    archive=$WORK/hillas
    read -ra options <<<"${EXTRACT:-}"
    GPUS='' submit extract --ntasks="$RANKS" run.sbatch "$archive" . extract -o "$archive" "$IMAGES" "${allow[@]}" "${options[@]}"
fi
submit train "${tasks[@]}" train.sbatch "$CONFIG" "$WORK/run"
model=$WORK/run/model.safetensors
evaluate=(run.sbatch "$WORK/run/evaluation" evaluation.json evaluate -m "$model" -o "$WORK/run/evaluation")
if [ -n "${GAMMA:-}${HADRON:-}" ]; then
    GPUS='' submit evaluate "${evaluate[@]}" ${GAMMA:+--gamma $GAMMA} ${HADRON:+--hadron $HADRON}
elif [ -n "${LABELLED:-}" ]; then
    # shellcheck disable=SC2086 # several files
    GPUS='' submit evaluate "${evaluate[@]}" $LABELLED
fi
[ -n "$archive" ] || exit 0
read -ra options <<<"${SCORE:-}"
score=("$model" "$WORK/scores" "$archive" "${allow[@]}" "${options[@]}")
if [ "$SHARDS" -gt 1 ]; then
    GPUS='' submit score --array="0-$((SHARDS - 1))" score-array.sbatch "${score[@]}"
else
    submit score "${tasks[@]}" score.sbatch "${score[@]}"
fi
[ -n "${SEASON:-}" ] || exit 0
read -ra options <<<"$SEASON"
GPUS='' submit season run.sbatch "$WORK/season" season.json season "$WORK/scores" -o "$WORK/season" "${allow[@]}" "${options[@]}"
