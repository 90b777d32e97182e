#!/usr/bin/env python3
"""Measures the scoring of an uneven archive, end to end, its parts, and a script.

    python bench/archive.py FOLDER --program BIN [--throughput BIN] [--rows N] [--files N]
        [--part-rows N]

Makes FOLDER/archive (toy hadrons, file sizes log-uniform, scaled to --rows) and a model of
the reference network if they are missing. Then alternates these cases, --rounds times:

  ours      `taiga-flow score`, scores-only columns at --positions, one rank of two threads
  ranks-1, ranks-2   the same on 1 and 2 MPI ranks of one thread
  io        h5py alone reads the needed columns and writes the same outputs
  engine    the scoring rate of `bench/throughput` in memory (with --throughput)
  whole     with --part-rows: `ours` once on the whole archive; all other cases then use
            files with this total number of rows
  peer      bench/archive_peer.py, eager and compiled, on files with --peer-rows rows in total

Prints one JSON object per line, ratios last. Files are in the page cache. Peak memory is
that of the largest rank, as the kernel counts it. `in_engine` is the share of the time of a
rank in which its engine computes; other work on the machine changes it less than the rates.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--program", type=Path, required=True)
parser.add_argument("--throughput", type=Path)
parser.add_argument("--rows", type=int, default=100_000_000)
parser.add_argument("--files", type=int, default=500)
parser.add_argument("--positions", type=int, default=6)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--part-rows", type=int, default=0)
parser.add_argument("--peer-rows", type=int, default=300_000)
parser.add_argument("--model", type=Path)
options = parser.parse_args()
folder = options.folder
folder.mkdir(parents=True, exist_ok=True)
archive = folder / "archive"
program = str(options.program.resolve())
WINDOW = 65_536
MOST_ROWS = 5_000_000
MPI = dict(
    os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_hwloc_base_binding_policy="none",
    OMPI_MCA_mpi_yield_when_idle="1",
)
NEEDED = ["size", "width", "length", "con2", "xc", "yc", "axis", "source_x", "source_y"]


def emit(**line):
    print(json.dumps(line), flush=True)


def run(command, **more):
    """Returns seconds of a command and the peak memory of its largest process [bytes]."""
    before = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, **more)
    peak = 0
    while child.poll() is None:
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "exe") == program:
                    status = (entry / "status").read_text()
                    peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) * 1024)
            except (OSError, IndexError):
                continue
        time.sleep(0.05)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}")
    return time.perf_counter() - before, peak


def make_archive():
    stream = np.random.default_rng(8)
    most = min(MOST_ROWS, options.rows)
    sizes = np.exp(stream.uniform(0, np.log(most), options.files))
    sizes = np.maximum(1, sizes * options.rows / sizes.sum()).astype(int)
    for i, rows in enumerate(sizes):
        path = archive / f"night-{i % 20}" / f"run-{i}.h5"
        if not path.exists():
            run([program, "-q", "simulate", "-o", path, "--class", "hadron", "--events", rows, "--seed", 1000 + i])


def make_model():
    path = folder / "run/model.safetensors"
    if options.model:
        return options.model
    if not path.exists():
        gamma = folder / "gamma.h5"
        if not gamma.exists():
            run([program, "-q", "simulate", "-o", gamma, "--class", "gamma", "--events", 20_000])
        root = Path(__file__).resolve().parent.parent
        sets = [f'data.gamma=["{gamma}"]', "model.hidden=[512]", "model.blocks=8", "train.epochs=1"]
        command = [program, "-q", "train", "-c", root / "configs/quickstart.toml", "-o", folder / "run"]
        run(command + [part for s in sets for part in ("--set", s)])
    return path


def score(model, output, ranks, threads):
    shutil.rmtree(output, ignore_errors=True)
    command = [program, "-v", "score", "-m", model, "-o", output, archive, "--threads", threads]
    for s in ['score.columns=["score"]', "score.keys=false", "score.status=false", f"score.positions={options.positions}"]:
        command += ["--set", s]
    log = folder / "log.txt"
    with open(log, "w") as messages:
        if ranks is None:
            seconds, peak = run(command, stderr=messages)
        else:
            seconds, peak = run(["mpirun", "-n", str(ranks)] + command, env=MPI, stderr=messages)
    # For each rank: total, scoring, engine [s].
    spent = re.findall(r"rows in ([0-9.]+) s, ([0-9.]+) s of it scoring, of that ([0-9.]+) s in the engine", log.read_text())
    share = sum(float(s[2]) for s in spent) / sum(float(s[0]) for s in spent)
    return seconds, peak, share


def io(output, copies):
    """Reads the needed columns of every input, and writes every output again."""
    shutil.rmtree(copies, ignore_errors=True)
    seconds = 0.0
    for path in sorted(output.rglob("*.h5")):
        with h5py.File(path) as file:
            values = file["scores/score"][:]
        source = archive / path.relative_to(output)
        target = copies / path.relative_to(output)
        target.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with h5py.File(source, rdcc_nbytes=1 << 20) as file:
            for first in range(0, len(values), WINDOW):
                for name in NEEDED:
                    file["events"][name][first : first + WINDOW]
        with h5py.File(target, "w") as file:
            dataset = file.create_dataset(
                "scores/score", values.shape, "f4", maxshape=(None, values.shape[1]),
                chunks=(WINDOW, 1), shuffle=True, compression="lzf", fletcher32=True,
            )
            for first in range(0, len(values), WINDOW):
                for k in range(values.shape[1]):
                    dataset[first : first + WINDOW, k] = np.ascontiguousarray(values[first : first + WINDOW, k])
        seconds += time.perf_counter() - started
    return seconds


def engine(threads):
    command = [options.throughput, "--case", "score", "--threads", threads, "--rounds", 3]
    text = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(text.splitlines()[0])["events_per_s"]


def peer(model):
    """Returns rows per second of the script and of the program, on a part of the archive."""
    part, taken = folder / "part", 0
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for path in sorted(archive.rglob("*.h5"), key=lambda p: (p.stat().st_size, str(p))):
        with h5py.File(path) as file:
            rows = file["events/size"].shape[0]
        if rows >= options.peer_rows / 100 and taken + rows <= options.peer_rows:
            os.symlink(path.resolve(), part / f"{path.parent.name}-{path.name}")
            taken += rows
    script = Path(__file__).resolve().parent / "archive_peer.py"
    rates = {}
    for name, more in [("peer-eager", []), ("peer-compiled", ["--compile"])]:
        command = [sys.executable, script, model, part, folder / "peer", "--positions", options.positions]
        try:
            text = subprocess.run([str(c) for c in command + more], check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(text)
            rates[name] = result["rows"] * result["positions"] / result["seconds"]
        except subprocess.CalledProcessError:
            print(f"{name} failed", file=sys.stderr)
    return rates


def rows_of(path):
    with h5py.File(path) as file:
        return file["events/size"].shape[0]


def take_part():
    """Returns every second file by size, the largest first, while they fit: also uneven."""
    part, taken = folder / "part-archive", 0
    shutil.rmtree(part, ignore_errors=True)
    for path in sorted(archive.rglob("*.h5"), key=lambda p: (-p.stat().st_size, str(p)))[1::2]:
        rows = rows_of(path)
        if taken + rows <= options.part_rows:
            target = part / path.relative_to(archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
            taken += rows
    return part


def measure(number, name, ranks, threads):
    before, load = os.times(), os.getloadavg()[0]
    seconds, peak, share = score(model, folder / "scores", ranks, threads)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    found.setdefault(name, []).append(events / seconds)
    emit(round=number, case=name, rows=rows, positions=options.positions, seconds=seconds,
         per_s=events / seconds, in_engine=share, cpu_s=cpu, peak_bytes=peak, load=load)


make_archive()
model = make_model()
found = {}
rows = sum(rows_of(path) for path in archive.rglob("*.h5"))
events = rows * options.positions
if options.part_rows:
    measure(0, "whole", None, 2)
    archive = take_part()
    rows = sum(rows_of(path) for path in archive.rglob("*.h5"))
    events = rows * options.positions
for number in range(options.rounds):
    for name, ranks, threads in [("ours", None, 2), ("ranks-1", 1, 1), ("ranks-2", 2, 1)]:
        measure(number, name, ranks, threads)
    seconds = io(folder / "scores", folder / "copies")
    found.setdefault("io", []).append(events / seconds)
    emit(round=number, case="io", seconds=seconds, per_s=events / seconds)
    if options.throughput:
        for threads in (1, 2):
            found.setdefault(f"engine-{threads}", []).append(engine(threads))
            emit(round=number, case=f"engine-{threads}", per_s=found[f"engine-{threads}"][-1])
    for name, rate in peer(model).items():
        found.setdefault(name, []).append(rate)
        emit(round=number, case=name, per_s=rate)
emit(rounds=options.rounds, **{name: statistics.median(rates) for name, rates in found.items()})


def ratio(name, top, below):
    """Prints medians of the ratios within a round."""
    lower = [min(values) for values in zip(*(found[b] for b in below if b in found))]
    if lower and top in found:
        ratios = [t / b for t, b in zip(found[top], lower)]
        emit(ratio=name, median=statistics.median(ratios), lowest=min(ratios), highest=max(ratios))


ratio("whole / the slower of io and engine", "whole", ["io", "engine-2"])
ratio("ours / the slower of io and engine", "ours", ["io", "engine-2"])
ratio("2 ranks / 1 rank", "ranks-2", ["ranks-1"])
ratio("ours / eager script", "ours", ["peer-eager"])
ratio("ours / compiled script", "ours", ["peer-compiled"])
