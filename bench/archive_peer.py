#!/usr/bin/env python3
"""The same scoring by a script: h5py reads and writes, PyTorch computes.

    python bench/archive_peer.py MODEL ARCHIVE OUTPUT --positions 6 --threads 2

Processes windows of 65 536 rows per file: alpha and dist at every position from centroid,
axis and source (NumPy), coordinates and scaler of the model card, log p of a one-class model
by PyTorch in inference mode. Scores are written as (rows, positions) with the filters of the
program. Prints one JSON object. The script checks nothing, keeps no keys and cannot resume.
"""

import argparse
import json
import math
import struct
import time
from pathlib import Path

import h5py
import numpy as np
import torch

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("archive", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--positions", type=int, default=6)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=8192)
parser.add_argument("--compile", action="store_true", help="torch.compile")
options = parser.parse_args()
WINDOW = 65_536
torch.set_num_threads(options.threads)


def load(path):
    """Returns card and tensors of a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    card = json.loads(header.pop("__metadata__")["taiga-flow"])
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = torch.frombuffer(bytearray(raw[start:end]), dtype=torch.float32)
        tensors[name] = tensors[name].reshape(entry["shape"])
    return card, tensors


card, tensors = load(options.model)
(name, flow), = card["flows"].items()
clamp = flow["spec"]["scale_clamp"]
blocks = []
for b, split in enumerate(flow["splits"]):
    networks = []
    for network in ("scale", "shift"):
        key = f"{name}.blocks.{b}.{network}"
        networks.append([(tensors[f"{key}.{layer}.weight"], tensors[f"{key}.{layer}.bias"]) for layer in (0, 1)])
    blocks.append((split["conditioner"], split["transformed"], networks))
constant = -len(card["features"]) * 0.5 * math.log(2 * math.pi) - sum(math.log(f["std"]) for f in card["features"])


def log_prob(x):
    log_det = torch.zeros(len(x))
    columns = list(x.unbind(1))
    for conditioner, transformed, (scale, shift) in blocks:
        a = torch.stack([columns[d] for d in conditioner], 1)
        out = []
        for (w0, b0), (w1, b1) in (scale, shift):
            out.append(torch.addmm(b1, torch.relu(torch.addmm(b0, a, w0.T)), w1.T))
        s = clamp * torch.tanh(out[0] / clamp)
        for i, d in enumerate(transformed):
            columns[d] = columns[d] * torch.exp(s[:, i]) + out[1][:, i]
        log_det = log_det + s.sum(1)
    return log_det - 0.5 * sum(z * z for z in columns) + constant


if options.compile:
    log_prob = torch.compile(log_prob, dynamic=False)


def coordinate(feature, x):
    kind = feature.get("transform", "none")
    if kind == "log10":
        return np.log10(x)
    if kind == "ln":
        return np.log(x + feature.get("offset", 0.0))
    if kind == "logit":
        return np.log(x / (1 - x))
    return x


if options.compile:  # before the timing starts
    log_prob(torch.zeros(options.batch, len(card["features"])))
turns = [2 * math.pi * k / options.positions for k in range(options.positions)]
names = ["xc", "yc", "axis", "source_x", "source_y"]
names += [f["name"] for f in card["features"] if f["name"] not in ("dist", "alpha")]
started = time.perf_counter()
rows = 0
with torch.inference_mode(), np.errstate(all="ignore"):
    for path in sorted(options.archive.rglob("*.h5")):
        target = options.output / path.relative_to(options.archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path) as source, h5py.File(target, "w") as out:
            events = source["events"]
            n = events["xc"].shape[0]
            scores = out.create_dataset(
                "scores/score", (n, options.positions), "f4", chunks=(min(WINDOW, max(n, 1)), 1),
                shuffle=True, compression="lzf", fletcher32=True,
            )
            for first in range(0, n, WINDOW):
                c = {name: events[name][first : first + WINDOW].astype("f8") for name in names}
                psi = np.radians(c["axis"])
                cos, sin = np.cos(psi), np.sin(psi)
                for k, turn in enumerate(turns):
                    x = c["xc"] - (math.cos(turn) * c["source_x"] - math.sin(turn) * c["source_y"])
                    y = c["yc"] - (math.sin(turn) * c["source_x"] + math.cos(turn) * c["source_y"])
                    c["dist"] = np.sqrt(x * x + y * y)
                    c["alpha"] = np.degrees(np.arcsin(np.minimum(np.abs(x * sin - y * cos) / c["dist"], 1)))
                    z = [(coordinate(f, c[f["name"]]) - f["mean"]) / f["std"] for f in card["features"]]
                    z = torch.from_numpy(np.stack(z, 1).astype("f4"))
                    # Batches have one length, because each new length would be compiled.
                    rest = -len(z) % options.batch
                    z = torch.nn.functional.pad(z, (0, 0, 0, rest)) if options.compile else z
                    parts = [log_prob(part) for part in z.split(options.batch)]
                    scores[first : first + WINDOW, k] = torch.cat(parts)[: len(c["xc"])].numpy()
            rows += n
print(json.dumps({"rows": rows, "positions": options.positions, "seconds": time.perf_counter() - started}))
