#!/usr/bin/env bash
# Demonstrates the job scripts without a cluster: starts a real Slurm of two virtual nodes on this
# machine (Debian or Ubuntu, as root), submits train.sbatch and score.sbatch unchanged except for
# env.sh, stops the training as a time limit would, and shows the outputs at the end.
#
#   bash jobs/slurm-demo.sh [FOLDER]         FOLDER: working folder, default ./slurm-demo
#
# FOLDER must be empty, new, or one that this script has used before (.slurm-demo marks it). The
# script stops everything it has started. TAIGA_FLOW_PROGRAM selects a program that is already
# built; the script respects CARGO_TARGET_DIR.
set -euo pipefail

readonly TRAINING_EVENTS=100000 ARCHIVE_EVENTS=40000 EPOCHS=60 LIMIT_S=280

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'slurm-demo: %s\n' "$*" >&2; exit 5; }

readonly MARKER=.slurm-demo
folder=$(realpath -m "${1:-slurm-demo}")
if [ -e "$folder" ] && [ ! -f "$folder/$MARKER" ] && [ -n "$(ls -A "$folder")" ]; then
    printf 'slurm-demo: %s is not empty, and this script has not worked in it: name another folder\n' "$folder" >&2
    exit 2
fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ "$(id -u)" -eq 0 ] || fail "Slurm's daemons need root here: sudo bash jobs/slurm-demo.sh"

wanted=() missing=()
command -v slurmctld >/dev/null && command -v slurmd >/dev/null || wanted+=(slurm-wlm)
command -v munged >/dev/null || wanted+=(munge)
if [ -z "${TAIGA_FLOW_PROGRAM:-}" ]; then
    wanted+=(libclang-dev libhdf5-dev libopenmpi-dev openmpi-bin build-essential pkg-config)
fi
for package in ${wanted[@]+"${wanted[@]}"}; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if [ -z "${TAIGA_FLOW_PROGRAM:-}" ]; then
    command -v cargo >/dev/null || fail "no cargo: install Rust, see https://rustup.rs"
    say "building taiga-flow (minutes the first time)"
    target=${CARGO_TARGET_DIR:-$repository/target}
    # The nodes of this cluster have no GPUs.
    cargo build --release --locked --no-default-features --manifest-path "$repository/Cargo.toml" --target-dir "$target"
    TAIGA_FLOW_PROGRAM=$(cd "$target" && pwd)/release/taiga-flow
fi
program=$(realpath "$(command -v "$TAIGA_FLOW_PROGRAM")")
mkdir -p "$folder"
cd "$folder"
: >"$MARKER"
rm -rf slurm jobs run scores ./*.log
SECONDS=0

say "a Slurm of 2 nodes with 2 cores each"
coproc cluster { exec "$repository/tests/slurm/cluster.sh" "$folder/slurm" 2 2; }
# Its standard input is that of this script: when it ends, everything is stopped.
cluster_process=$cluster_PID
trap 'exec {cluster[1]}>&- || true; wait "$cluster_process" 2>/dev/null || true' EXIT
read -r up <&"${cluster[0]}" || fail "it did not come up; see $folder/slurm/log"
[ "$up" = up ] || fail "$up"
export SLURM_CONF=$folder/slurm/slurm.conf
sinfo

cp -r "$repository/jobs" jobs
cat >jobs/env.sh <<SITE
# This site: several nodes on one host share no memory, and more ranks than cores must not spin.
: "\${TAIGA_FLOW_PROGRAM:=$program}" "\${TAIGA_FLOW_LAUNCH:=srun --mpi=pmix}" "\${TAIGA_FLOW_RESTARTS:=50}"
export TAIGA_FLOW_PROGRAM TAIGA_FLOW_LAUNCH TAIGA_FLOW_RESTARTS
export OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
SITE

say "toy events"
"$program" -q simulate -o train/gamma.h5 --class gamma --events "$TRAINING_EVENTS" --seed 1 --overwrite
for run in 1 2 3; do
    "$program" -q simulate -o "archive/night-1/run-$run.h5" --class hadron --events "$ARCHIVE_EVENTS" --seed "1$run" --overwrite
done

state() { squeue --noheader --states=all --jobs="$1" --format=%T 2>/dev/null | head -1; }

# Waits for a job; one that waits after a requeue starts when its last step has ended (Slurm itself
# would wait two minutes).
finish() { # JOB
    local now
    while :; do
        now=$(state "$1")
        case $now in
            COMPLETED) return 0 ;;
            PENDING)
                [ -n "$(find slurm/spool -name "stepd.slurm.pmix.$1.*" -print -quit 2>/dev/null)" ] ||
                    scontrol update jobid="$1" StartTime=now 2>/dev/null || true
                ;;
            RUNNING | CONFIGURING | COMPLETING | "") ;;
            *) fail "job $1 is $now; see its log in $folder" ;;
        esac
        [ "$SECONDS" -lt "$LIMIT_S" ] || fail "job $1 takes too long"
        sleep 0.5
    done
}

say "sbatch jobs/train.sbatch quickstart.toml run"
sed "s/^epochs = .*/epochs = $EPOCHS/; s/^patience = .*/patience = 0/" "$repository/configs/quickstart.toml" >quickstart.toml
training=$(sbatch --parsable jobs/train.sbatch quickstart.toml run)
echo "job $training"
while [ "$(wc -l 2>/dev/null <run/metrics.jsonl || echo 0)" -lt 5 ]; do
    [ "$(state "$training")" != FAILED ] && [ "$SECONDS" -lt "$LIMIT_S" ] || fail "no progress; see train-$training.log"
    sleep 0.2
done
say "taiga-flow status run"
"$program" status run
say "SIGUSR1, as before a time limit"
scancel --signal=USR1 "$training"
while [ "$(state "$training")" != PENDING ]; do
    [ "$(state "$training")" != COMPLETED ] || break
    [ "$SECONDS" -lt "$LIMIT_S" ] || fail "no requeue; see train-$training.log"
    sleep 0.2
done
squeue --jobs="$training"
finish "$training"
say "train-$training.log, without its epochs"
grep -v 'epoch [0-9]*: ' "train-$training.log" | cut -c1-160

say "sbatch jobs/score.sbatch run/model.safetensors scores archive"
scoring=$(sbatch --parsable jobs/score.sbatch run/model.safetensors scores archive)
echo "job $scoring"
finish "$scoring"
cut -c1-160 "score-$scoring.log"

say "outputs, $SECONDS s after the build"
"$program" status run
ls -l run/model.safetensors run/report.html scores/manifest.json scores/*/*.h5
