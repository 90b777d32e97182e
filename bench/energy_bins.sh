#!/usr/bin/env bash
# Computes the significance per energy bin of a background without a source, over many toys.
#
#   bench/energy_bins.sh [PROGRAM]     default: target/release/taiga-flow
#
# Each of TOYS (20) toys has EVENTS (1000000) hadrons, scored at six positions with an energy
# table that depends on `dist`. The bins of all toys are pooled. Expected: a mean within 0.2 of
# 0, a width of 0.85 to 1.15, none beyond 4 sigma; else the exit code is 1. Needs python3 and 2 GB of disk.
set -euo pipefail
program=$(realpath "${1:-target/release/taiga-flow}")
toys=${TOYS:-20} events=${EVENTS:-1000000} first=${SEED:-1}
work=$(mktemp -d "${TMPDIR:-/tmp}/energy-bins.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

"$program" simulate -q -o gamma.h5 --class gamma --events 30000 --seed "$((first + 1000000))" > /dev/null
cat > train.toml <<'T'
[data]
gamma = ["gamma.h5"]
[features]
columns = [
  { name = "size", transform = "log10" }, { name = "width", transform = "ln", offset = 0.01 },
  { name = "length", transform = "ln", offset = 0.01 }, { name = "con2", transform = "logit" },
  { name = "dist" }, { name = "alpha", transform = "signed" },
]
[cuts]
size = { min = 60 }
[model]
blocks = 4
hidden = [24]
permutation = { seeded = 1 }
[train]
epochs = 12
batch = 2048
learning_rate = 1e-2
T
"$program" train -q -c train.toml -o run > /dev/null
cat > table.toml <<'T'
log10_size = [1.0, 6.0]
dist = [0.0, 9.0]
log10_energy = [[-0.8, 2.35], [3.7, 6.85]]
T
cat > score.toml <<'T'
[score]
positions = 6
columns = ["score"]
keys = false
energy_table = "table.toml"
T
for toy in $(seq "$first" "$((first + toys - 1))"); do
  "$program" simulate -q -o hadron.h5 --class hadron --events "$events" --seed "$toy" --overwrite > /dev/null
  "$program" score -q -m run/model.safetensors -c score.toml -o scores hadron.h5 > /dev/null
  "$program" season -q scores -o "season-$toy" --threshold "${THRESHOLD:--30}" > /dev/null
  rm -rf scores hadron.h5
done
python3 - season-*/season.json <<'P'
import json, math, sys
pooled, events = [], 0
for path in sys.argv[1:]:
    bins = json.load(open(path))["total"]["energy"]
    pooled += [b["significance"] for b in bins]
    events += sum(b["on"] + b["off"] for b in bins)
    print(path, " ".join(f"{b['significance']:6.2f}" for b in bins))
mean = sum(pooled) / len(pooled)
width = math.sqrt(sum((s - mean) ** 2 for s in pooled) / (len(pooled) - 1))
far = max(abs(s) for s in pooled)
print(f"{len(pooled)} bins, {events} counts: mean {mean:.3f}, width {width:.3f}, largest {far:.2f} sigma")
sys.exit(not (abs(mean) <= 0.2 and 0.85 <= width <= 1.15 and far < 4.0))
P
