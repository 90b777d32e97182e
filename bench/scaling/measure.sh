#!/usr/bin/env bash
# Measures the inputs of the cost model (model.py), on several hosts of one machine with links of
# limited bandwidth (tests/slurm/hosts.sh; as root):
#
#   bash bench/scaling/measure.sh REDUCE >measurements.jsonl
#
# REDUCE is the built bench `reduce`. One JSON object per line: sums over 2 hosts of 1 and 2 ranks,
# flat and by lanes, at several bandwidths, each with the load of the machine. runs.sh measures
# whole runs.
set -euo pipefail
reduce=$(realpath "$1")
hosts=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../tests/slurm/hosts.sh")
# Two connections between hosts: with one, acknowledgements of Open MPI wait behind its data.
export OMPI_MCA_btl_tcp_links=2
: "${RATES:=100mbit 200mbit 400mbit 600mbit 1gbit}" "${ROUNDS:=25}" "${SUMS:=5}"
: "${SHAPES:=1x2 2x2}"

with() { # RATE: adds it and the load to a line of JSON
    sed "s/}\$/,\"rate\":\"$1\",\"load\":$(cut -d' ' -f1 /proc/loadavg)}/"
}

for rate in $RATES; do
    for shape in $SHAPES; do
        for way in flat lanes packed; do
            TAIGA_FLOW_REDUCTION=$way "$hosts" "${shape%x*}" "${shape#*x}" "$rate" "$reduce" 57392 "$ROUNDS" "$SUMS" 2>/dev/null |
                grep '"case"' | with "$rate"
        done
    done
done
