#!/usr/bin/env bash
# `sbatch` with the settings of env.sh (account, partition), and GPUs by one variable:
#
#   jobs/submit.sh [sbatch options] train.sbatch CONFIG RUN
#   GPUS=4 jobs/submit.sh --nodes=2 train.sbatch CONFIG RUN      4 GPUs and 4 ranks per node
#
# Prints the number of the job.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$folder/env.sh"
options=()
while [ $# -gt 0 ] && [[ $1 == -* ]]; do
    options+=("$1")
    shift
done
if [ $# -eq 0 ] || [ ! -f "$folder/$1" ]; then
    echo "usage: $0 [--option=VALUE of sbatch…] SCRIPT.sbatch ARGUMENTS; scripts: $(cd "$folder" && echo *.sbatch)" >&2
    exit 2
fi
if [ -n "${GPUS:-}" ]; then
    case " ${options[*]:-} " in *" --nodes"* | *" -N"*) ;; *) options=(--nodes=1 ${options[@]+"${options[@]}"}) ;; esac
    # The scripts set --ntasks; together with --ntasks-per-node it would be an upper limit.
    nodes=$(printf '%s\n' "${options[@]}" | sed -n 's/^--nodes=//p' | tail -1)
    options+=(--gpus-per-node="$GPUS" --ntasks-per-node="$GPUS" --ntasks=$((GPUS * ${nodes:-1})))
    export TAIGA_FLOW_ENGINE=${TAIGA_FLOW_ENGINE:-cuda}
fi
export TAIGA_FLOW_JOBS=$folder
exec sbatch --parsable ${options[@]+"${options[@]}"} "$folder/$1" "${@:2}"
