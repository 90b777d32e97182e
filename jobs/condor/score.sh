#!/bin/bash
# Scores one part of an archive, started by score.sub: MODEL OUTPUT INPUT PART PARTS.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$folder/env.sh"
exec "$TAIGA_FLOW_PROGRAM" score -m "$1" -o "$2" "$3" --shard "$4/$5" --threads "${OMP_NUM_THREADS:-1}"
