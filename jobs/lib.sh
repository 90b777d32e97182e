# Functions of the job scripts: start ranks, wait for them, and requeue the job after a stop. Source
# this file; settings are in env.sh in the same folder.

say() { printf '%s %s: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "${SLURM_JOB_NAME:-job}" "$*"; }
fail() { say "$*" >&2; exit 2; }

source "$TAIGA_FLOW_JOBS/env.sh"
command -v "$TAIGA_FLOW_PROGRAM" >/dev/null ||
    fail "no program '$TAIGA_FLOW_PROGRAM' on $(uname -n): set TAIGA_FLOW_PROGRAM in $TAIGA_FLOW_JOBS/env.sh to a path that all nodes see"

# Settings of env.sh also apply to the ranks, also after `sbatch --export=NONE`.
export SLURM_EXPORT_ENV=ALL TAIGA_FLOW_JOBS

# Prints the options for device and threads, from the allocation of Slurm. If GPUs were allocated,
# the job requires them: a fallback to the processor would waste them.
hardware() {
    local engine=${TAIGA_FLOW_ENGINE:-}
    [ -n "$engine" ] || [ -z "${SLURM_GPUS_ON_NODE:-}${SLURM_JOB_GPUS:-}" ] || engine=cuda
    printf '%s\n' --threads "${SLURM_CPUS_PER_TASK:-1}"
    [ -z "$engine" ] || printf '%s\n' --engine "$engine"
}

# Runs the program over the ranks of the job (on_ranks) or as one process (alone), with its outputs
# in the folder OUTPUT, and decides how to continue. PRODUCT is the file in OUTPUT that exists when
# all work is done. Does not return.
#
#   on_ranks OUTPUT PRODUCT COMMAND…
on_ranks() {
    local launch
    begun=$3
    read -ra launch <<<"$TAIGA_FLOW_LAUNCH"
    # Since Slurm 22.05 srun does not take the number of cores per task from the job. Without
    # --kill-on-bad-exit it would wait for the other ranks after one has failed.
    [ "${launch[0]}" != srun ] ||
        launch+=(--kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
    supervise "$1" "$2" "${launch[@]}" "$TAIGA_FLOW_PROGRAM" "${@:3}"
}

alone() {
    begun=$3
    supervise "$1" "$2" "$TAIGA_FLOW_PROGRAM" "${@:3}"
}

# Succeeds if the command keeps finished work of an earlier start; other commands start from
# scratch.
keeps() { [[ $begun == train || $begun == score || $begun == sweep || $begun == extract ]]; }

supervise() {
    local output=$1 product=$2 status child marker since tries=3
    ending= requeued=
    shift 2
    # A later start resumes kept work, and replaces other outputs only if this job has written them.
    if [ "${TAIGA_FLOW_RESTARTED:-${SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then
        local word words=()
        for word in "$@"; do
            [ "$word" = --overwrite ] && keeps || words+=("$word")
        done
        TAIGA_FLOW_NOTE=${TAIGA_FLOW_NOTE:-$(find_note "$output")}
        [ -f "$TAIGA_FLOW_NOTE" ] || TAIGA_FLOW_NOTE=
        [ -z "$TAIGA_FLOW_NOTE" ] || [[ " ${words[*]} " == *" --overwrite "* ]] || words+=(--overwrite)
        set -- "${words[@]}"
    else
        TAIGA_FLOW_NOTE=
        keeps || holds_outputs "$output" || TAIGA_FLOW_NOTE=$(write_note "$output")
    fi
    export TAIGA_FLOW_NOTE
    # Next to the outputs: the file system that rank 0 writes to, wherever it runs.
    marker=$(mktemp -p "$(existing "$output")" .taiga-flow-job.XXXXXX 2>/dev/null || mktemp) ||
        fail "cannot create a temporary file for the state of the job"
    # The program creates this file when its ranks are connected.
    export TAIGA_FLOW_STARTED=$marker.started
    trap 'rm -f "$marker" "$TAIGA_FLOW_STARTED"; drop_note "$output"' EXIT
    # Slurm signals the ranks itself; a signal to this shell alone is forwarded. SIGTERM is a
    # cancellation or a preemption, after which Slurm decides whether to restart the job.
    trap 'kill -USR1 "$child" 2>/dev/null' USR1
    trap 'kill -USR2 "$child" 2>/dev/null' USR2
    trap 'ending=1; [ -n "${SLURM_JOB_ID:-}" ] || kill -TERM "$child" 2>/dev/null' TERM
    while :; do
        say "start ${SLURM_RESTART_COUNT:-0} on ${SLURM_JOB_NODELIST:-$(uname -n)}: $*"
        since=$SECONDS
        rm -f "$TAIGA_FLOW_STARTED"
        # In the background: only a waiting shell handles signals at once.
        "$@" &
        child=$!
        while :; do
            status=0
            wait "$child" || status=$?
            kill -0 "$child" 2>/dev/null || break
        done
        tries=$((tries - 1))
        launched "$status" "$output/$product" $((SECONDS - since)) || [ -n "$ending" ] || [ "$tries" -eq 0 ] && break
        say "srun ended with $status without having launched all ranks; again in 10 s"
        sleep 10 &
        wait "$!"
    done
    if [ "$status" -eq 0 ] && ! started "$output/$product"; then
        say "the program was not started; $output/$product, if present, belongs to an earlier job"
        status=1
    fi
    [ "$status" -ne 0 ] || [ -e "$output/$product" ] || status=1
    if [ "$status" -eq 0 ]; then
        say "done: $output/$product"
        exit 0
    fi
    say "ended with exit code $status"
    if ! keeps && [ "$status" -eq $((128 + $(kill -l USR1))) ]; then
        say "the time limit is near, and '$begun' cannot resume: submit it with a longer --time"
        exit "$status"
    fi
    # Exit codes of the program: 75 stopped with a checkpoint, 5 a rank or the disk is lost. 1 is
    # the code of srun when a node fails; above 128 a process was killed.
    if [ -z "$ending" ] && [[ $status -eq 75 || $status -eq 5 || $status -eq 1 || $status -gt 128 ]]; then
        requeue_or_submit "$output" "$marker" "$status"
    fi
    exit "$status"
}

# Prints the name of a note that there were no outputs at the first start of this job: outputs that
# a later start finds belong to this job. The note is next to the output and is removed with the
# job.
note_name() {
    printf '.taiga-flow-job-%s\n' "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
}

write_note() { # OUTPUT
    local note
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    note=$(existing "$1")/$(note_name)
    ! : 2>/dev/null >"$note" || printf '%s\n' "$note"
}

find_note() { # OUTPUT
    local folder=$1 name
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    name=$(note_name)
    while folder=$(dirname "$folder"); do
        [ ! -f "$folder/$name" ] || { printf '%s\n' "$folder/$name"; return; }
        [[ $folder != / && $folder != . ]] || return 0
    done
}

# Removes the note, unless Slurm may restart a job that has outputs.
drop_note() { # OUTPUT
    [ -n "${TAIGA_FLOW_NOTE:-}" ] || return 0
    [ -n "${ending:-}${requeued:-}" ] && holds_outputs "$1" || rm -f "$TAIGA_FLOW_NOTE"
}

# Succeeds if there is a file below a folder that a command may have written.
holds_outputs() { # OUTPUT
    [ -n "$(find "$1" -type f \( -name '*.json' -o -name '*.html' -o -name '*.h5' -o -name '*.csv' \) -print -quit 2>/dev/null)" ]
}

# Succeeds if ranks have run. srun reports success if it could launch no task, and kills the others
# if it could launch only some. Both happen on a node still busy with the last step of this job.
launched() { # STATUS PRODUCT SECONDS
    [ "$1" -eq 0 ] && ! started "$2" && return 1
    [ "$1" -gt 128 ] && [ "$3" -lt 10 ] && return 1
    return 0
}

# Succeeds if the program was started in this attempt. A product of an earlier job proves nothing,
# nor does its age: a command that finds all work done writes nothing. A new product does.
started() { # PRODUCT
    [ -e "$TAIGA_FLOW_STARTED" ] || [ "$1" -nt "$marker" ]
}

# Prints the folder that contains an output, or its nearest existing parent.
existing() { # OUTPUT
    local folder=$1
    while folder=$(dirname "$folder") && [ ! -d "$folder" ]; do :; done
    cd "$folder" && pwd
}

# Requeues this job, at most TAIGA_FLOW_RESTARTS times, if it has made progress since its start: a
# job that fails at once must not be repeated indefinitely.
requeue_or_submit() {
    local output=$1 marker=$2 status=$3 done_before=${TAIGA_FLOW_RESTARTED:-${SLURM_RESTART_COUNT:-0}}
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    local gained
    gained=$(find "$output" \( -name manifest.json -path '*/step-*' -o -name '*.h5' \) -newer "$marker" -print -quit 2>/dev/null)
    # A file that ended its reader is recorded: the next start skips it.
    [ -n "$gained" ] || gained=$(find "$output/ledger" -name '*.reading' -newer "$marker" \
        -exec sh -c 'read -r line <"$1"; case $line in *\"probed\":true*) false ;; *\"output\"*) ;; *) false ;; esac' sh {} ';' \
        -print -quit 2>/dev/null)
    if [ -z "$gained" ] && [ "$status" -ne 75 ]; then
        say "not put back into the queue: nothing was finished since this start"
        return 0
    fi
    if [ "$done_before" -ge "$TAIGA_FLOW_RESTARTS" ]; then
        say "not put back into the queue: $done_before restarts (TAIGA_FLOW_RESTARTS in env.sh)"
        return 0
    fi
    local job=$SLURM_JOB_ID
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if [ -z "${TAIGA_FLOW_RESTARTED:-}" ] && scontrol requeue "$job" 2>/dev/null; then
        say "put back into the queue, to resume"
        requeued=1
        rm -f "$marker" "$TAIGA_FLOW_STARTED"
        # Slurm ends this script, after its KillWait. If the script exits itself, also by SIGTERM,
        # this can count as the end of the job.
        trap '' TERM
        sleep 60
        return 0
    fi
    submit_successor "$done_before" "$job"
}

# For jobs that may not be requeued: submits a successor that starts when this job is over. Jobs
# that wait for this job then wait for the successor.
submit_successor() {
    local job=$2 facts limit next waiting options=()
    facts=$(scontrol show job "$job" --oneliner | head -1)
    fact() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$facts"; }
    limit=$(fact TimeLimit)
    options=(--job-name="$SLURM_JOB_NAME" --partition="$SLURM_JOB_PARTITION" --time="$limit"
        --nodes="$SLURM_JOB_NUM_NODES" --ntasks="${SLURM_NTASKS:-1}" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}"
        --output="$(fact StdOut)" --open-mode=append --export=ALL --dependency=afterany:"$SLURM_JOB_ID")
    [ -z "${SLURM_JOB_ACCOUNT:-}" ] || options+=(--account="$SLURM_JOB_ACCOUNT")
    [ -z "${SLURM_MEM_PER_CPU:-}" ] || options+=(--mem-per-cpu="$SLURM_MEM_PER_CPU")
    [ -z "${SLURM_MEM_PER_NODE:-}" ] || options+=(--mem="$SLURM_MEM_PER_NODE")
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || options+=(--gpus-per-node="$SLURM_GPUS_ON_NODE")
    # The successor of an array element must keep its number.
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        options+=(--array="$SLURM_ARRAY_TASK_ID")
        export SHARDS=${SHARDS:-$SLURM_ARRAY_TASK_COUNT}
    fi
    export TAIGA_FLOW_RESTARTED=$(($1 + 1))
    requeued=1
    if ! next=$(sbatch --parsable "${options[@]}" "$0" "${arguments[@]}"); then
        say "this job cannot be requeued, and no successor could be submitted: submit it again"
        return 0
    fi
    say "this job cannot be requeued: job $next resumes it"
    squeue --noheader --user="$(id -un)" --format='%i %E' 2>/dev/null |
        while read -r waiting dependency; do
            [[ "$dependency" =~ (afterok|afterany):${SLURM_JOB_ID}([^0-9]|$) && $waiting != "$next" ]] || continue
            scontrol update jobid="$waiting" dependency="${BASH_REMATCH[1]}:$next" &&
                say "job $waiting now waits for job $next"
        done
}
