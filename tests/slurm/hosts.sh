#!/bin/bash
# Simulates several hosts on one machine, as root: network namespaces connected by a bridge. Each has
# its own name, link of limited bandwidth and /dev/shm, so that MPI uses TCP between the hosts and
# shared memory within a host.
#
#   tests/slurm/hosts.sh RANKS_PER_HOST HOSTS RATE COMMAND…      RATE: in units of tc (1gbit), or none
#
# Runs COMMAND under mpirun on all hosts, and then removes them. Environment variables OMPI_MCA_…
# and TAIGA_FLOW_… are passed to the ranks. Names and networks contain the number of this process,
# so several instances can run at the same time.
set -euo pipefail
ranks=$1 hosts=$2 rate=$3
shift 3
[ "$(id -u)" -eq 0 ] || { echo "hosts.sh: needs root" >&2; exit 1; }
for needed in ip tc unshare mpirun; do
    command -v "$needed" >/dev/null || { echo "hosts.sh: no $needed: install iproute2, openmpi-bin" >&2; exit 1; }
done
id=$((BASHPID % 50000))
network=10.$((100 + id / 250 % 100)).$((id % 250))
folder=$(mktemp -d)

down() {
    set +e
    trap - EXIT
    for i in $(seq 0 "$hosts"); do
        # Kill all processes of the host.
        ip netns pids "tf$id-$i" 2>/dev/null | xargs -r kill -9 2>/dev/null
        ip netns del "tf$id-$i" 2>/dev/null
        rm -rf "/etc/netns/tf$id-$i"
    done
    rm -rf "$folder"
}
trap down EXIT

bridge=tf$id-0
ip netns add "$bridge"
ip -n "$bridge" link set lo up
ip -n "$bridge" link add bridge0 type bridge
ip -n "$bridge" link set bridge0 up
list=
for i in $(seq "$hosts"); do
    name=tf$id-$i
    ip netns add "$name"
    ip -n "$name" link set lo up
    ip link add "v$id-$i" netns "$name" type veth peer name "p$i" netns "$bridge"
    ip -n "$name" link set "v$id-$i" name eth0
    ip -n "$name" addr add "$network.$i/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$bridge" link set "p$i" master bridge0 up
    # As clusters use; the default of this machine may pace its packets.
    ip netns exec "$name" sysctl -qw net.ipv4.tcp_congestion_control=cubic 2>/dev/null || true
    # The bucket must hold a packet, and last for one interval of the kernel's clock. After a pause
    # a full bucket is sent without limit, so measure messages in direct succession.
    ip -n "$name" link set eth0 gso_max_size 32768
    [ "$rate" = none ] ||
        ip netns exec "$name" tc qdisc add dev eth0 root tbf rate "$rate" burst 64kb latency 100ms
    mkdir -p "/etc/netns/$name"
    list=$list${list:+,}$name:$ranks
done
for i in $(seq "$hosts"); do
    { echo "127.0.0.1 localhost"; for j in $(seq "$hosts"); do echo "$network.$j tf$id-$j"; done; } >"/etc/netns/tf$id-$i/hosts"
done

# Agent by which mpirun starts its daemons: AGENT HOST COMMAND…
cat >"$folder/agent" <<'AGENT'
#!/bin/bash
while [[ $1 == -* ]]; do shift; done
host=$1
shift
exec ip netns exec "$host" unshare --uts --mount --ipc bash -c \
    'hostname "$0"; mount -t tmpfs none /dev/shm; eval "$1"' "$host" "$*"
AGENT
chmod +x "$folder/agent"

passed=()
while IFS='=' read -r name _; do
    case $name in TAIGA_FLOW_* | OMPI_MCA_*) passed+=(-x "$name") ;; esac
done < <(env)
timeout -k 5 "${LIMIT_S:-300}" "$folder/agent" "tf$id-1" "$(printf '%q ' mpirun --allow-run-as-root --oversubscribe \
    --mca plm_rsh_agent "$folder/agent" --mca orte_keep_fqdn_hostnames 1 \
    --mca oob_tcp_if_include "$network.0/24" --mca btl_tcp_if_include "$network.0/24" \
    --mca btl self,vader,tcp --mca pml ob1 --mca mpi_yield_when_idle 1 --mca hwloc_base_binding_policy none \
    ${passed[@]+"${passed[@]}"} -H "$list" --map-by slot -n $((ranks * hosts)) "$@")"
