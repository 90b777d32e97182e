"""Measures time and memory to catalogue many files: metadata alone, no rows.

    /tmp/reading/bin/python bench/scale.py --program target/release/taiga-flow FOLDER

Makes 1000 event files of 10⁵ rows each in FOLDER (their values compress well), runs
`taiga-flow check --quick` on the folder, and prints one JSON object: rows, seconds, and the
peak of resident memory.
"""

import argparse
import json
import os
import resource
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--program", required=True)
parser.add_argument("--files", type=int, default=1000)
parser.add_argument("--rows", type=int, default=100_000)
options = parser.parse_args()

ramp = (np.arange(options.rows, dtype="f4") % 64) / 64 + 0.25
how = {"chunks": (65_536,), "compression": "gzip", "shuffle": True, "fletcher32": True}
options.folder.mkdir(parents=True, exist_ok=True)
for number in range(options.files):
    path = options.folder / f"run-{number:05}.h5"
    if path.exists():
        continue
    with h5py.File(path.with_suffix(".part"), "w") as file:
        file.attrs["format"] = np.bytes_("taiga-flow-events")
        file.attrs["version"] = 1
        for name in ["size", "length", "width", "dist", "alpha", "con2"]:
            file.create_dataset(f"events/{name}", data=ramp, **how)
        file.create_dataset("events/run_id", data=np.full(options.rows, number, "i8"), **how)
        file.create_dataset("events/event_id", data=np.arange(options.rows, dtype="i8"), **how)
    os.replace(path.with_suffix(".part"), path)

started = time.perf_counter()
command = [options.program, "check", "--quick", "--json", str(options.folder)]
report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({
    "files": len(report["files"]), "rows": report["rows"], "bytes": report["bytes"],
    "seconds": seconds, "peak_bytes": peak, "load": os.getloadavg()[0],
}))
