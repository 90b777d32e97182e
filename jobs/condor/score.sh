#!/bin/bash
# One part of an archive, as score.sub starts it: MODEL OUTPUT INPUT PART PARTS.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$folder/env.sh"
exec "$TAIGA_FLOW_PROGRAM" score -m "$1" -o "$2" "$3" --shard "$4/$5" --threads "${OMP_NUM_THREADS:-1}"
