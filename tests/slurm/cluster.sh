#!/bin/bash
# Starts a real Slurm on this machine, from Debian's packages (slurm-wlm, munge), as root and
# without systemd: one controller and some virtual nodes, all on this host.
#
#   tests/slurm/cluster.sh FOLDER NODES CPUS_PER_NODE
#
# Prints "up" when all nodes are idle (some seconds), and stays in the foreground. When its standard
# input ends it stops everything, so a caller that dies leaves no processes. FOLDER then contains
# slurm.conf (for SLURM_CONF), pids (name and process id of each daemon), and log/.
set -euo pipefail
folder=$(realpath -m "$1") nodes=$2 cpus=$3
host=$(uname -n)
host=${host%%.*}
# Ports that another cluster on this machine is unlikely to use.
port=$((17000 + $$ % 1800 * 8))

for needed in munged slurmctld slurmd srun; do
    command -v "$needed" >/dev/null || { echo "cluster.sh: no $needed: install slurm-wlm and munge" >&2; exit 1; }
done
[ "$(id -u)" -eq 0 ] || { echo "cluster.sh: needs root" >&2; exit 1; }
[ "$nodes" -le 6 ] || { echo "cluster.sh: at most 6 nodes" >&2; exit 1; }

mkdir -p "$folder"/{state,log,spool,run,tmp}
chmod 755 "$folder"
: >"$folder/pids"
head -c 128 /dev/urandom >"$folder/munge.key"
chmod 600 "$folder/munge.key"

cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
CredType=cred/munge
SlurmctldPort=$port
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
TmpFS=$folder/tmp/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=5
MinJobAge=600
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=${SLURMD_TIMEOUT:-60}
NodeName=node[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1))-$((port + nodes)) CPUs=$cpus RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
[ "$nodes" -gt 1 ] || sed -i 's/node\[1-1\]/node1/; s/ Port=\([0-9]*\)-[0-9]*/ Port=\1/' "$folder/slurm.conf"
export SLURM_CONF=$folder/slurm.conf

daemon() { # NAME COMMAND…
    "${@:2}" >"$folder/log/$1.out" 2>&1 </dev/null &
    echo "$1 $!" >>"$folder/pids"
}

stop() {
    trap - EXIT
    timeout 5 scancel --user=root 2>/dev/null
    local name process waited
    while read -r name process; do
        kill "$process" 2>/dev/null
    done < <(tac "$folder/pids")
    for waited in $(seq 40); do
        while read -r name process; do
            ! kill -0 "$process" 2>/dev/null || { sleep 0.1; continue 2; }
        done <"$folder/pids"
        break
    done
    while read -r name process; do
        kill -9 "$process" 2>/dev/null
    done <"$folder/pids"
    # Steps outlive their daemons by design: kill those with the configuration of this cluster.
    for process in $(pgrep slurmstepd); do
        ! grep -qz "SLURM_CONF=$SLURM_CONF" "/proc/$process/environ" 2>/dev/null || kill -9 "$process" 2>/dev/null
    done
}
trap 'set +e; stop' EXIT

daemon munged munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" \
    --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/run/munge.seed" \
    --num-threads=2
for _ in $(seq 100); do
    munge --socket="$folder/run/munge.sock" --no-input >/dev/null 2>&1 && break
    sleep 0.05
done
daemon slurmctld slurmctld -D -i -f "$SLURM_CONF"
for n in $(seq "$nodes"); do
    mkdir -p "$folder/spool/node$n" "$folder/tmp/node$n"
    daemon "node$n" slurmd -D -N "node$n" -f "$SLURM_CONF"
done
for _ in $(seq 300); do
    [ "$(sinfo -h -o '%T %D' 2>/dev/null)" = "idle $nodes" ] && break
    sleep 0.1
done
if [ "$(sinfo -h -o '%T %D')" != "idle $nodes" ]; then
    echo "cluster.sh: the nodes did not come up: $(sinfo -h -o '%T %D' 2>&1); see $folder/log" >&2
    exit 1
fi
echo up
cat >/dev/null
