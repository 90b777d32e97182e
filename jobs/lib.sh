# What the job scripts share: starting ranks, waiting for them, and going on by themselves
# after a stop. To be sourced; settings stand in env.sh beside it.

say() { printf '%s %s: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "${SLURM_JOB_NAME:-job}" "$*"; }
fail() { say "$*" >&2; exit 2; }

source "$TAIGA_FLOW_JOBS/env.sh"
command -v "$TAIGA_FLOW_PROGRAM" >/dev/null ||
    fail "no program '$TAIGA_FLOW_PROGRAM' on $(uname -n): set TAIGA_FLOW_PROGRAM in $TAIGA_FLOW_JOBS/env.sh to a path that all nodes see"

# What env.sh sets is for the ranks too, also after `sbatch --export=NONE`.
export SLURM_EXPORT_ENV=ALL TAIGA_FLOW_JOBS

# Arguments for a device and threads, after what Slurm has given. Where GPUs were asked for,
# the job insists on them: a silent fall back to the processor would waste them.
hardware() {
    local engine=${TAIGA_FLOW_ENGINE:-}
    [ -n "$engine" ] || [ -z "${SLURM_GPUS_ON_NODE:-}${SLURM_JOB_GPUS:-}" ] || engine=cuda
    printf '%s\n' --threads "${SLURM_CPUS_PER_TASK:-1}"
    [ -z "$engine" ] || printf '%s\n' --engine "$engine"
}

# Runs the program over the ranks of the job (on_ranks) or as one process (alone), with its
# outputs in the folder OUTPUT, and decides what follows. PRODUCT is what stands in OUTPUT
# when all is done. Does not return.
#
#   on_ranks OUTPUT PRODUCT COMMAND…
on_ranks() {
    local launch
    begun=$3
    read -ra launch <<<"$TAIGA_FLOW_LAUNCH"
    # srun no longer takes the number of cores per task from the job (since Slurm 22.05), and
    # would wait for the others where one rank has failed.
    [ "${launch[0]}" != srun ] ||
        launch+=(--kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
    supervise "$1" "$2" "${launch[@]}" "$TAIGA_FLOW_PROGRAM" "${@:3}"
}

alone() {
    begun=$3
    supervise "$1" "$2" "$TAIGA_FLOW_PROGRAM" "${@:3}"
}

# Whether the command keeps what an earlier start has finished; the others begin again.
keeps() { [[ $begun == train || $begun == score || $begun == sweep || $begun == extract ]]; }

supervise() {
    local output=$1 product=$2 status child marker since tries=3
    ending= requeued=
    shift 2
    # A later start resumes what it keeps, and replaces the rest only if this job has written it.
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
        fail "no temporary file can be made for the state of the job"
    # The program makes this file when its ranks are connected.
    export TAIGA_FLOW_STARTED=$marker.started
    trap 'rm -f "$marker" "$TAIGA_FLOW_STARTED"; drop_note "$output"' EXIT
    # Slurm signals ranks by itself; a signal to this shell alone is handed on. SIGTERM is a
    # cancellation or a preemption, after which Slurm knows better than we whether to go on.
    trap 'kill -USR1 "$child" 2>/dev/null' USR1
    trap 'kill -USR2 "$child" 2>/dev/null' USR2
    trap 'ending=1; [ -n "${SLURM_JOB_ID:-}" ] || kill -TERM "$child" 2>/dev/null' TERM
    while :; do
        say "start ${SLURM_RESTART_COUNT:-0} on ${SLURM_JOB_NODELIST:-$(uname -n)}: $*"
        since=$SECONDS
        rm -f "$TAIGA_FLOW_STARTED"
        # In the background: only a shell that waits hears signals at once.
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
        say "the program was not started; $output/$product, if there, is of an earlier job"
        status=1
    fi
    [ "$status" -ne 0 ] || [ -e "$output/$product" ] || status=1
    if [ "$status" -eq 0 ]; then
        say "done: $output/$product"
        exit 0
    fi
    say "ended with exit code $status"
    if ! keeps && [ "$status" -eq $((128 + $(kill -l USR1))) ]; then
        say "the time limit is near, and '$begun' keeps nothing of what it has done: submit it with a longer --time"
        exit "$status"
    fi
    # Codes of the program: 75 stopped with a checkpoint, 5 a rank or the disk is gone; 1 is
    # srun's when a node fails, above 128 something was killed.
    if [ -z "$ending" ] && [[ $status -eq 75 || $status -eq 5 || $status -eq 1 || $status -gt 128 ]]; then
        go_on "$output" "$marker" "$status"
    fi
    exit "$status"
}

# Name of the note that there were no outputs at the first start of this job: what a later start
# finds then is of this job. The note is next to the output, and goes with the job.
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

# Removes the note, but where Slurm may start a job again whose outputs are there.
drop_note() { # OUTPUT
    [ -n "${TAIGA_FLOW_NOTE:-}" ] || return 0
    [ -n "${ending:-}${requeued:-}" ] && holds_outputs "$1" || rm -f "$TAIGA_FLOW_NOTE"
}

# Whether there is a file below a folder that a command may have written.
holds_outputs() { # OUTPUT
    [ -n "$(find "$1" -type f \( -name '*.json' -o -name '*.html' -o -name '*.h5' -o -name '*.csv' \) -print -quit 2>/dev/null)" ]
}

# Whether ranks have run at all. srun reports success where it could launch no task, and
# kills the others where it could launch some: both pass (a node still busy with the last
# step of this job).
launched() { # STATUS PRODUCT SECONDS
    [ "$1" -eq 0 ] && ! started "$2" && return 1
    [ "$1" -gt 128 ] && [ "$3" -lt 10 ] && return 1
    return 0
}

# Whether the program was started in this attempt. A product of an earlier job does not tell,
# nor does its age: a command that finds all done writes nothing. A new product does.
started() { # PRODUCT
    [ -e "$TAIGA_FLOW_STARTED" ] || [ "$1" -nt "$marker" ]
}

# The folder next to an output, or the nearest one above it that is there.
existing() { # OUTPUT
    local folder=$1
    while folder=$(dirname "$folder") && [ ! -d "$folder" ]; do :; done
    cd "$folder" && pwd
}

# Puts this job back into the queue, as often as TAIGA_FLOW_RESTARTS says, if something was
# gained since it started: a job that fails at once must not do so for ever.
go_on() {
    local output=$1 marker=$2 status=$3 done_before=${TAIGA_FLOW_RESTARTED:-${SLURM_RESTART_COUNT:-0}}
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    local gained
    gained=$(find "$output" \( -name manifest.json -path '*/step-*' -o -name '*.h5' \) -newer "$marker" -print -quit 2>/dev/null)
    # A file that ended its reader is known now: the next start leaves it out.
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
        say "put back into the queue, to go on"
        requeued=1
        rm -f "$marker" "$TAIGA_FLOW_STARTED"
        # Slurm ends this script, after its KillWait. An exit of its own, also by SIGTERM, can count
        # as the end of the job.
        trap '' TERM
        sleep 60
        return 0
    fi
    follow_up "$done_before" "$job"
}

# Where jobs may not be requeued: another job like this one, when this one is over. Jobs that
# wait for this one wait for that one then.
follow_up() {
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
    # Arrays have no follow-up job of one element that knows its number.
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        options+=(--array="$SLURM_ARRAY_TASK_ID")
        export SHARDS=${SHARDS:-$SLURM_ARRAY_TASK_COUNT}
    fi
    export TAIGA_FLOW_RESTARTED=$(($1 + 1))
    requeued=1
    if ! next=$(sbatch --parsable "${options[@]}" "$0" "${arguments[@]}"); then
        say "this job cannot be requeued, and no job could be submitted to go on: submit it again"
        return 0
    fi
    say "this job cannot be requeued: job $next goes on"
    squeue --noheader --user="$(id -un)" --format='%i %E' 2>/dev/null |
        while read -r waiting dependency; do
            [[ "$dependency" =~ (afterok|afterany):${SLURM_JOB_ID}([^0-9]|$) && $waiting != "$next" ]] || continue
            scontrol update jobid="$waiting" dependency="${BASH_REMATCH[1]}:$next" &&
                say "job $waiting waits for job $next now"
        done
}
