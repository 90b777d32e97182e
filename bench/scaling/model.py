"""Models the cost of a training step on any number of ranks: fit, check, predictions.

    python3 bench/scaling/model.py MEASUREMENTS.jsonl [--cores N] >tables.md

Fits latencies, link efficiency and the cost of packing to sums measured at several bandwidths
(bench/scaling/measure.sh). It omits one bandwidth at a time and prints the error of the
prediction for it. Then it predicts 8 to 1024 ranks on several networks, the batch with an
efficiency of 0.9, and the largest cost at each point. Writes prediction.svg to the same
folder. Standard library only.

The model, in seconds. A job has R ranks, k on each of L = R/k nodes; P words of 8 bytes are
summed; a packed word has w bytes.

    run         = start + rows/R · t_row + steps · step + checkpoints · t_checkpoint
    step        = events/rank · t_event · (1 + slowest) + t_step + sum
    slowest     = j · √(2 ln R): the largest of R normal deviations of j = 0.5 % each
    sum(lanes)  = node + 2·log2(L)·a + 2·(L-1)/L · 8·P/B
    sum(packed) = node + 2·log2(L)·a + 2·(L-1)/L · w·P/B + 4·c·P/k
    node        = 2·log2(k)·s + 2·(k-1)/k · 8·P/M + m·8·P

t_row: a row read at the start, with all its processing before the first step; t_checkpoint: a
checkpoint, which rank 0 writes and all ranks wait for; every 300 s in predictions. a: one
exchange between nodes; B: bytes per second of the link of a node; c: packing or unpacking a
word; s: one exchange within a node; M: bytes per second between the ranks of a node; m:
copying the vector in and out.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

WORD = 8
BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
MEASURED_BYTES = 5.02  # of a packed word of the bench `reduce`
PACKED_BYTES = 5.5  # of a gradient sum: 5.3 in the fourth epoch at batch 8192, logged by training

# Measured on one core, if no runs are given for a fit, and assumed for a
# GPU.
ENGINES = {
    # events/s of gradient; further seconds of a step (update, packing of weights)
    "CPU rank, 1 core": (243_300.0, 0.25e-3, 16),
    "GPU rank": (30e6, 0.10e-3, 4),
}
NETWORKS = {
    # bytes per second and node; seconds of an exchange
    "Ethernet 10 Gbit": (10e9 / 8 * 0.94, 25e-6),
    "Ethernet 25 Gbit": (25e9 / 8 * 0.94, 15e-6),
    "InfiniBand HDR 200 Gbit": (200e9 / 8 * 0.9, 2.5e-6),
}
JITTER = 0.005
READING_S = 40 / 0.3e9  # of a row, on one rank: gzip with shuffle
CHECKPOINT_S, CHECKPOINT_EVERY_S = 0.060, 300.0
RANKS = [8, 16, 32, 64, 128, 256, 512, 1024]
LARGEST_BATCH = 1 << 20


def bandwidth(rate):
    """Returns bytes per second of a rate of tc; None without a limit."""
    for unit, factor in BITS.items():
        if rate.endswith(unit):
            return float(rate[: -len(unit)]) * factor / 8
    return None


def terms(line):
    """Returns coefficients of the unknowns (a, 1/efficiency of the link, node + copies, c), and the time."""
    ranks, k, words = line["ranks"], line["local_ranks"], line["parameters"]
    nodes = ranks // k
    link = bandwidth(line["rate"])
    share = 2 * (nodes - 1) / nodes
    packed = line["way"] == "packed"
    exchanges = 2 * math.ceil(math.log2(nodes))
    if nodes & (nodes - 1) and packed:  # the surplus node sends its vector and receives the sum
        whole = 1 << (nodes.bit_length() - 1)
        share, exchanges = 2 + 2 * (whole - 1) / whole, exchanges + 0
    bytes_per_word = MEASURED_BYTES if packed else WORD
    return (
        [exchanges, share * bytes_per_word * words / link, words * WORD, words if packed else 0.0],
        line["exact_fastest_s"],
    )


def fastest(lines):
    """Returns the run of each case that other work disturbed the least."""
    best = {}
    for line in lines:
        key = tuple(line[name] for name in ("ranks", "local_ranks", "way", "parameters", "rate"))
        if key not in best or line["exact_fastest_s"] < best[key]["exact_fastest_s"]:
            best[key] = line
    return list(best.values())


def solve(rows):
    """Solves non-negative weighted least squares (relative errors), by dropping negative unknowns."""
    active = list(range(len(rows[0][0])))
    while active:
        n = len(active)
        matrix = [[0.0] * (n + 1) for _ in range(n)]
        for coefficients, time in rows:
            x = [coefficients[i] / time for i in active]
            for i in range(n):
                for j in range(n):
                    matrix[i][j] += x[i] * x[j]
                matrix[i][n] += x[i]
        for i in range(n):
            matrix[i][i] *= 1 + 1e-9
        for i in range(n):
            pivot = max(range(i, n), key=lambda r: abs(matrix[r][i]))
            matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
            if abs(matrix[i][i]) < 1e-300:
                break
            for r in range(n):
                if r != i:
                    f = matrix[r][i] / matrix[i][i]
                    matrix[r] = [a - f * b for a, b in zip(matrix[r], matrix[i])]
        found = [matrix[i][n] / matrix[i][i] if matrix[i][i] else 0.0 for i in range(n)]
        negative = [i for i, value in enumerate(found) if value < 0]
        if not negative:
            result = [0.0] * len(rows[0][0])
            for i, value in zip(active, found):
                result[i] = value
            return result
        del active[min(negative, key=lambda i: found[i])]
    return [0.0] * len(rows[0][0])


def predicted(fit, coefficients):
    return sum(f * c for f, c in zip(fit, coefficients))


def check(lines):
    """Fits without each bandwidth in turn; returns rows of (rate, shape, method, measured, predicted)."""
    limited = [line for line in lines if bandwidth(line["rate"]) and line["way"] in ("lanes", "packed")]
    rows = []
    for rate in sorted({line["rate"] for line in limited}, key=bandwidth):
        fit = solve([terms(line) for line in limited if line["rate"] != rate])
        for line in limited:
            if line["rate"] == rate:
                coefficients, measured = terms(line)
                rows.append((rate, line["ranks"], line["local_ranks"], line["way"], measured, predicted(fit, coefficients)))
    return solve([terms(line) for line in limited]), rows


RUN = ("start of one rank [s]", "start of two hosts [s]", "row read and prepared, on one rank [µs]", "event, gradient [µs]",
       "step without its events [ms]", "sum between two hosts without its bytes [ms]", "link: bytes sent per byte counted", "checkpoint [ms]")


def run_terms(line):
    """Returns coefficients of the unknowns of a whole run, in the order of RUN, and its time."""
    ranks, steps, link = line["ranks"], line["steps"], bandwidth(line["rate"])
    alone = ranks == 1
    volume = 0.0 if alone or not link else 2 * (ranks - 1) / ranks * PACKED_BYTES * line["parameters"] / link
    return (
        [float(alone), float(not alone), line["rows"] / ranks * 1e-6, line["events"] / ranks * 1e-6, steps * 1e-3,
         0.0 if alone else steps * 1e-3, steps * volume, line["checkpoints"] * 1e-3],
        line["seconds"],
    )


def medians(lines):
    """Returns the round of median time of each run."""
    rounds = {}
    for line in lines:
        rounds.setdefault(tuple(line[name] for name in ("ranks", "rate", "rows", "batch", "steps", "checkpoints")), []).append(line)
    return [sorted(of, key=lambda line: line["seconds"])[len(of) // 2] for of in rounds.values()]


def check_runs(lines):
    """Returns the fit of whole runs, and each bandwidth predicted without its runs."""
    rows = []
    for rate in sorted({line["rate"] for line in lines if bandwidth(line["rate"])}, key=bandwidth):
        fit = solve([run_terms(line) for line in lines if line["rate"] != rate])
        rows += [(line, predicted(fit, run_terms(line)[0])) for line in lines if line["rate"] == rate]
    return solve([run_terms(line) for line in lines]), rows


def table_runs(fit, rows):
    print("## Whole runs\n\nTrainings from their start to their end, two hosts of one rank.\n")
    print("| fitted | |\n|---|---|")
    for name, value in zip(RUN, fit):
        print(f"| {name} | {value:.3f} |")
    print("\nEach bandwidth predicted from the runs at the others.\n")
    print("| link | batch | steps | measured [s] | steps/s | predicted [s] | steps/s | off |\n|---|---|---|---|---|---|---|---|")
    for line, guess in rows:
        time, steps = line["seconds"], line["steps"]
        print(f"| {line['rate']} | {line['batch']} | {steps} | {time:.2f} | {steps / time:.1f} | {guess:.2f} | {steps / guess:.1f} | {100 * (guess / time - 1):+.0f} % |")
    print(f"\nLargest {100 * max(abs(guess / line['seconds'] - 1) for line, guess in rows):.0f} %.\n")


def table(rows):
    print("| link | hosts x ranks | method | measured [ms] | predicted [ms] | off |\n|---|---|---|---|---|---|")
    for rate, ranks, k, way, measured, guess in rows:
        print(f"| {rate} | {ranks // k} x {k} | {way} | {measured * 1e3:.2f} | {guess * 1e3:.2f} | {100 * (guess / measured - 1):+.0f} % |")


def sum_time(ranks, per_node, words, network, constants):
    """Returns seconds of a sum by lanes over nodes, with the faster of the two methods, and its parts."""
    speed, latency = network
    k, nodes = min(per_node, ranks), max(1, ranks // per_node)
    node = 2 * math.log2(k) * constants["s"] + 2 * (k - 1) / k * WORD * words / constants["M"] + constants["m"] * WORD * words
    if nodes == 1:
        return {"within nodes": node, "latency": 0.0, "bandwidth": 0.0}
    exchanges = 2 * math.ceil(math.log2(nodes)) * latency
    volume = 2 * (nodes - 1) / nodes * words / speed
    plain = {"within nodes": node, "latency": exchanges, "bandwidth": volume * WORD}
    small = {"within nodes": node + 4 * constants["c"] * words / k, "latency": exchanges, "bandwidth": volume * PACKED_BYTES}
    return min(plain, small, key=lambda parts: sum(parts.values()))


def efficiency(ranks, batch, engine, network, words, constants):
    """Returns throughput divided by ranks times that of one rank at the same events per rank."""
    rate, fixed, per_node = engine
    compute = batch / ranks / rate
    parts = sum_time(ranks, per_node, words, network, constants)
    cost = {**parts, "update": fixed, "slowest rank": compute * JITTER * math.sqrt(2 * math.log(ranks))}
    alone = compute + fixed
    kept = 1 - constants["checkpoint"] / CHECKPOINT_EVERY_S
    return kept * alone / (compute + sum(cost.values())), compute / (compute + sum(cost.values())), cost


def batch_for(wanted, ranks, engine, network, words, constants):
    """Returns the smallest power of two of events per step with that efficiency; None above 2^30."""
    for bits in range(8, 31):
        if efficiency(ranks, 1 << bits, engine, network, words, constants)[0] >= wanted:
            return 1 << bits
    return None


def spaced(number):
    return f"{number:,}".replace(",", " ")


def svg(curves, path):
    """Draws efficiency over ranks: one line per network and engine."""
    width, height, left, bottom = 760, 420, 60, 50
    x = lambda r: left + (math.log2(r) - 3) / 7 * (width - left - 230)
    y = lambda e: height - bottom - e * (height - bottom - 30)
    colours = ["#1b6ca8", "#2a9d8f", "#c0392b", "#8e44ad", "#b8860b", "#555555"]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for e in (0, 0.25, 0.5, 0.75, 0.85, 0.9, 1.0):
        out.append(f'<line x1="{left}" x2="{x(1024):.0f}" y1="{y(e):.1f}" y2="{y(e):.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 8}" y="{y(e) + 4:.1f}" text-anchor="end">{e:g}</text>')
    for r in RANKS:
        out.append(f'<text x="{x(r):.0f}" y="{height - bottom + 18}" text-anchor="middle">{r}</text>')
    out.append(f'<text x="{x(90):.0f}" y="{height - 8}" text-anchor="middle">ranks</text>'
               f'<text x="{left}" y="18">efficiency (weak) at 1 024 events per CPU rank, 65 536 per GPU rank and step</text>')
    for i, (name, points) in enumerate(curves):
        dash = ' stroke-dasharray="6 3"' if "GPU" in name else ""
        line = " ".join(f"{x(r):.1f},{y(e):.1f}" for r, e in points)
        out.append(f'<polyline fill="none" stroke="{colours[i % 6]}" stroke-width="2"{dash} points="{line}"/>'
                   f'<text x="{x(1024) + 8:.0f}" y="{40 + 18 * i}" fill="{colours[i % 6]}">{name}</text>')
    path.write_text("\n".join(out + ["</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("prediction.svg"))
    parser.add_argument("--cores", type=int, default=2, help="cores of the measured machine: more ranks than cores are not fitted")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.measurements.read_text().splitlines() if line.strip()]
    sums = fastest(line for line in lines if line["case"] == "reduce" and "exact_fastest_s" in line)
    fit, rows = check([line for line in sums if line["ranks"] <= options.cores])
    latency, link, copy, packing = fit
    print("## Fit\n")
    print("| | |\n|---|---|")
    print(f"| exchange between hosts (a) | {latency * 1e6:.0f} µs |")
    print(f"| link: bytes sent per byte counted | {link:.3f} |")
    print(f"| within a host, per byte of the vector (node) | {copy * 1e9:.3f} ns |")
    print(f"| packing and unpacking, per word of the vector | {packing * 1e9:.2f} ns |\n")
    print("## Omitted bandwidths\n\nEach bandwidth predicted from the others (fastest of the sums measured).\n")
    table(rows)
    off = [abs(guess / measured - 1) for *_, measured, guess in rows]
    if off:
        inner = [abs(g / m - 1) for rate, *_, m, g in rows if rate not in (rows[0][0], rows[-1][0])]
        between = f"; {100 * max(inner):.0f} % if the omitted one is between others" if inner else ""
        print(f"\nLargest {100 * max(off):.0f} %, median {100 * statistics.median(off):.0f} %{between}.\n")
    crowded = [line for line in sums if line["ranks"] > options.cores and bandwidth(line["rate"])]
    if crowded:
        print("## Flat and lanes\n\nTwo hosts of two ranks, more ranks than cores: not fitted, only compared.\n")
        print("| link | flat [ms] | lanes [ms] | packed [ms] | flat / best of lanes | 459 kB / bandwidth [ms] |\n|---|---|---|---|---|---|")
        for rate in sorted({line["rate"] for line in crowded}, key=bandwidth):
            of = {line["way"]: line["exact_fastest_s"] * 1e3 for line in crowded if line["rate"] == rate}
            if len(of) == 3:
                best = min(of["lanes"], of["packed"])
                ideal = WORD * 57_392 / bandwidth(rate) * 1e3
                print(f"| {rate} | {of['flat']:.2f} | {of['lanes']:.2f} | {of['packed']:.2f} | {of['flat'] / best:.2f} | {ideal:.2f} |")
        print()
    engines, checkpoint, reading = dict(ENGINES), CHECKPOINT_S, READING_S
    runs = medians(line for line in lines if line["case"] == "run")
    if runs:
        fitted, rows = check_runs(runs)
        table_runs(fitted, rows)
        engines["CPU rank, 1 core"] = (1e6 / fitted[3], fitted[4] * 1e-3, 16)
        reading, checkpoint = fitted[2] * 1e-6, fitted[7] * 1e-3
    # Within a node: measured per byte with two ranks; exchanges of ranks that share
    # memory take about a microsecond.
    constants = {"s": 1.5e-6, "M": 5e9, "m": 0.05e-9, "c": packing / 4 if packing else 0.5e-9, "checkpoint": checkpoint}
    words = 57_392
    print("## Predictions\n\nReference network (57 392 parameters). Efficiency against one rank with the same events per step (weak), and\nthe share of a step that is gradient; the largest cost other than the gradient; and the batch with an efficiency of 0.9.\n")
    print("| | ranks | batch | efficiency | share of gradient | largest cost | batch for 0.9 |\n|---|---|---|---|---|---|---|")
    curves = []
    for engine_name, engine in engines.items():
        each = 1024 if "CPU" in engine_name else 65_536
        for network_name, network in NETWORKS.items():
            points = []
            for ranks in RANKS:
                batch = min(each * ranks, LARGEST_BATCH) if "CPU" in engine_name else each * ranks
                value, share, cost = efficiency(ranks, batch, engine, network, words, constants)
                points.append((ranks, value))
                worst = max(cost, key=cost.get)
                needed = batch_for(0.9, ranks, engine, network, words, constants)
                batch_text = spaced(needed) if needed else "-"
                print(f"| {engine_name}, {network_name} | {ranks} | {spaced(batch)} | {value:.3f} | {share:.3f} | {worst}, {cost[worst] * 1e3:.2f} ms | {batch_text} |")
            curves.append((f"{engine_name.split(',')[0]}, {network_name}", points))
    svg(curves, options.plot)
    cost = efficiency(1024, LARGEST_BATCH, engines["CPU rank, 1 core"], NETWORKS["Ethernet 25 Gbit"], words, constants)
    print(f"\n1024 CPU ranks, 25 Gbit, batch 1 048 576: efficiency {cost[0]:.3f}; in addition to {1024 / engines['CPU rank, 1 core'][0] * 1e3:.2f} ms of gradient "
          + ", ".join(f"{name} {value * 1e3:.3f} ms" for name, value in cost[2].items()) + ".")
    rows = 1_000_000_000
    print("\nReading of 10⁹ rows at the start, the file system allowing: " + ", ".join(
        f"{rows * reading / ranks:.1f} s on {ranks} ranks" for ranks in (8, 64, 1024)) + ".")


if __name__ == "__main__":
    sys.exit(main())
