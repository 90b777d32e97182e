"""Compares reading tables and converting text with h5py and h5dump in the same run.

    python -m venv /tmp/reading && /tmp/reading/bin/pip install h5py tables
    /tmp/reading/bin/python bench/compare_reading.py [--rows N] [--rounds N] FOLDER

Makes missing files in FOLDER, reads six columns of each in turn with `cargo bench --bench
reading`, with h5py (the same columns, windows of 65 536 rows) and, for the first layout, with
h5dump in binary. Prints one JSON object per line, medians last. A ratio is theirs / ours in
seconds of the same round: 1 is equally fast, more is faster. Our time includes the work of
the schema and the check of the storage.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import tables

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--rows", type=int, default=4_000_000)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--ours", help="built benchmark `reading` (default: cargo builds it)")
options = parser.parse_args()
root = Path(__file__).resolve().parent.parent
SIX = ["size", "length", "width", "dist", "alpha", "con2"]
WINDOW = 65_536


def ours():
    if options.ours:
        return options.ours
    text = subprocess.run(
        ["cargo", "bench", "--bench", "reading", "--no-run", "--message-format=json"],
        cwd=root, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    messages = [json.loads(line) for line in text.splitlines()]
    return [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "reading"][-1]


def events(rows):
    stream = np.random.default_rng(1)
    size = np.exp(stream.normal(6, 1, rows)).astype("f4")
    length = stream.uniform(0.1, 0.6, rows).astype("f4")
    return {
        "size": size, "length": length, "width": length * stream.uniform(0.1, 0.9, rows).astype("f4"),
        "dist": stream.uniform(0, 3, rows).astype("f4"), "alpha": stream.uniform(0, 90, rows).astype("f4"),
        "con2": stream.uniform(0.05, 0.9, rows).astype("f4"),
    }


def make(path, how):
    values = events(options.rows)
    part = path.with_suffix(".part")
    if how == "compound":
        with tables.open_file(part, "w") as file:
            record = np.dtype([("event_id", "i8"), *[(name, "f4") for name in SIX], ("time", "f8"), ("tag", "S8")])
            data = np.zeros(options.rows, record)
            for name in SIX:
                data[name] = values[name]
            filters = tables.Filters(complevel=5, complib="blosc:zstd", fletcher32=True)
            file.create_table("/", "hillas", data, filters=filters, chunkshape=(16_384,))
    else:
        with h5py.File(part, "w") as file:
            file.attrs["format"] = np.bytes_("taiga-flow-events")
            file.attrs["version"] = 1
            for name in SIX:
                file.create_dataset(f"events/{name}", data=values[name], **how)
    os.replace(part, path)


LAYOUTS = {
    "contiguous": {},
    "lzf": {"chunks": (WINDOW,), "compression": "lzf", "shuffle": True, "fletcher32": True},
    "gzip": {"chunks": (WINDOW,), "compression": "gzip", "compression_opts": 4, "shuffle": True},
    "compound": "compound",
}


def text_table(path):
    """Repeats the small Monte Carlo table of TAIGA of the tests."""
    lines = (root / "tests/data/taiga-mc.csv").read_bytes().splitlines(keepends=True)
    body = b"".join(lines[1:])
    with open(path.with_suffix(".part"), "wb") as file:
        file.write(lines[0])
        for _ in range(max(1, 200_000_000 // len(body))):
            file.write(body)
    os.replace(path.with_suffix(".part"), path)


def read_h5py(path, how):
    started = time.perf_counter()
    with h5py.File(path) as file:
        if how == "compound":
            dataset = file["hillas"]
            view = dataset.fields(SIX)
            for first in range(0, len(dataset), WINDOW):
                view[first : first + WINDOW]
        else:
            columns = [file["events"][name] for name in SIX]
            for first in range(0, len(columns[0]), WINDOW):
                for column in columns:
                    column[first : first + WINDOW]
    return time.perf_counter() - started


def read_h5dump(path):
    started = time.perf_counter()
    for name in SIX:
        subprocess.run(
            ["h5dump", "-d", f"/events/{name}", "-b", "NATIVE", "-o", "/dev/null", path],
            check=True, stdout=subprocess.DEVNULL,
        )
    return time.perf_counter() - started


def run_ours(*arguments):
    done = subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["seconds"]


program = ours()
options.folder.mkdir(parents=True, exist_ok=True)
paths = {}
for name, how in LAYOUTS.items():
    paths[name] = options.folder / f"{name}-{options.rows}.h5"
    if not paths[name].exists():
        make(paths[name], how)
table = options.folder / "taiga-mc.csv"
if not table.exists():
    text_table(table)
seconds = {}
for turn in range(options.rounds + 1):
    load = os.getloadavg()[0]
    for name, how in LAYOUTS.items():
        measured = {"ours": run_ours(paths[name], *SIX), "h5py": read_h5py(paths[name], how)}
        if name == "contiguous" and shutil.which("h5dump"):
            measured["h5dump"] = read_h5dump(paths[name])
        if turn:  # the first fills the caches
            seconds.setdefault(name, []).append(measured)
            print(json.dumps({"round": turn, "layout": name, "load": load, "seconds": measured}), flush=True)
    took = run_ours("--convert", table)
    if turn:
        seconds.setdefault("convert", []).append({"ours": took})
        print(json.dumps({"round": turn, "convert": took, "load": load}), flush=True)
for name, rounds in seconds.items():
    megabytes = table.stat().st_size / 1e6 if name == "convert" else options.rows * 24 / 1e6
    line = {"layout": name, "rounds": len(rounds), "megabytes": megabytes}
    line["mb_per_s"] = {who: megabytes / statistics.median(r[who] for r in rounds) for who in rounds[0]}
    for who in rounds[0]:
        if who != "ours":
            ratios = [r[who] / r["ours"] for r in rounds]
            line[f"ratio_to_{who}"] = statistics.median(ratios)
            line[f"range_to_{who}"] = [min(ratios), max(ratios)]
    print(json.dumps(line))
