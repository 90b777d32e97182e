"""Measures the time until a training and a scoring of many small files begin, on one and two ranks.

    python bench/catalog.py --program target/release/taiga-flow FOLDER [--files 100000] [--ranks 1,2]

Makes event files of 20 rows in FOLDER with different numbers, and prints a JSON object per
run with seconds and the largest memory of a rank: `dry-run` (files listed, opened and
hashed), `train` (also checked for duplicate events, and read, for one step), `score` (of the
first 10 000 in full: each has an output that is synced to disk).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROWS = 20
FEATURES = {"size": (100, 1000), "length": (0.1, 0.4), "width": (0.05, 0.2), "dist": (0.5, 2), "alpha": (0, 30), "con2": (0.3, 0.8)}

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--program", required=True)
parser.add_argument("--files", type=int, default=100_000)
parser.add_argument("--ranks", default="1,2")
parser.add_argument("--what", default="dry-run,train,score", help="cases to run; make: only make the files")
options = parser.parse_args()


def template(path):
    """Returns a file, and the offsets of the numbers of each column."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = np.bytes_("taiga-flow-events")
        file.attrs["version"] = 1
        for name in FEATURES:
            file.create_dataset(f"events/{name}", data=np.zeros(ROWS, "f4"))
        for name in ["run_id", "event_id"]:
            file.create_dataset(f"events/{name}", data=np.arange(ROWS, dtype="i8"))
    with h5py.File(path) as file:
        places = {name: file[f"events/{name}"].id.get_offset() for name in [*FEATURES, "run_id"]}
    return bytearray(path.read_bytes()), places


def make(folder):
    """Makes the missing files."""
    content, places = template(folder / "template")
    random = np.random.default_rng(1)
    for number in range(options.files):
        path = folder / "archive" / f"{number // 1000:03}" / f"{number:06}.h5"
        values = {name: random.uniform(*limits, ROWS).astype("f4") for name, limits in FEATURES.items()}
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, column in values.items():
            content[places[name] : places[name] + 4 * ROWS] = column.tobytes()
        content[places["run_id"] : places["run_id"] + 8 * ROWS] = np.full(ROWS, number, "i8").tobytes()
        path.write_bytes(content)


def measured(ranks, command, folder):
    """Returns seconds and the largest resident memory of a rank [bytes]."""
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    note = Path(folder) / "memory"
    note.unlink(missing_ok=True)
    each = [sys.executable, "-c", "import os, resource, subprocess, sys\n"
            "code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode\n"
            "with open(sys.argv[1], 'a') as file: print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)\n"
            "sys.exit(code)", str(note)]
    launch = ["mpirun", "-n", str(ranks), "--bind-to", "core"] if ranks > 1 else []
    started = time.perf_counter()
    subprocess.run([*launch, *each, options.program, *command], check=True, env=environment)
    return time.perf_counter() - started, max(int(line) for line in note.read_text().split()) * 1024


options.folder.mkdir(parents=True, exist_ok=True)
make(options.folder)
if options.what == "make":
    sys.exit()
archive = options.folder / "archive"
with tempfile.TemporaryDirectory(dir=options.folder) as work:
    study = Path(work) / "study.toml"
    study.write_text(f"""
[data]
gamma = ["{archive}"]
[features]
columns = [{{ name = "size", transform = "log10" }}, {{ name = "width", transform = "ln" }}, {{ name = "dist" }}]
[split]
train = 0.8
validation = 0.2
test = 0.0
[model]
blocks = 2
hidden = [8]
[train]
epochs = 1
batch = {options.files * ROWS}
shards = 8
""")
    train = ["-q", "train", "-c", str(study), "--threads", "1", "-o", f"{work}/run"]
    commands = {"dry-run": [*train, "--dry-run"], "train": [*train, "--overwrite"]}
    if "score" in options.what:
        measured(1, [*train[:-1], f"{work}/model", "--set", f'data.gamma=["{archive}/000"]'], work)
        commands["score"] = ["-q", "score", "-m", f"{work}/model/model.safetensors", "-o", f"{work}/scores",
                             "--threads", "1", "--overwrite", f"{archive}/00?"]
    for what in options.what.split(","):
        for ranks in map(int, options.ranks.split(",")):
            seconds, peak = measured(ranks, commands[what], work)
            files = min(options.files, 10_000) if what == "score" else options.files
            print(json.dumps({"case": "catalog", "what": what, "files": files, "ranks": ranks,
                              "seconds": round(seconds, 2), "peak_bytes": peak, "load": os.getloadavg()[0]}), flush=True)
