#!/usr/bin/env python3
"""Recomputes log p of a taiga-flow model with only numpy and safetensors.

    read_model.py MODEL.safetensors EVENTS.h5 SCORES.h5

The script uses only the model file and the raw columns, and no code of taiga-flow. It is therefore
also the shortest description of the format. log p is computed in f64 and compared with the scores:
|difference| <= max(1e-5 * max(1, |log p|), 3 * error), where error is that of the same computation
in f32 (strongly curved networks amplify any rounding). Exit code 0 if all rows agree, 1 if not.
"""

import json
import sys

import h5py
import numpy as np
from safetensors import safe_open

NOT_FINITE, OUT_OF_DOMAIN = 1, 2  # bits of `status` of rows without a likelihood


def read_model(path):
    with safe_open(path, framework="numpy") as file:
        card = json.loads(file.metadata()["taiga-flow"])
        return card, {name: file.get_tensor(name) for name in file.keys()}


def coordinate(feature, x):
    offset = feature.get("offset", 0.0)
    return {
        "none": lambda: x,
        "signed": lambda: x,  # training draws both signs; otherwise unchanged
        "log10": lambda: np.log10(x),
        "ln": lambda: np.log(x + offset),
        "logit": lambda: np.log(x / (1 - x)),
    }[feature["transform"]]()


def scaled(card, events):
    """Returns (rows, features); values are not finite in rows without a likelihood."""
    columns = []
    for feature in card["features"]:
        x = events[feature["name"]][:].astype(np.float64)
        columns.append((coordinate(feature, x) - feature["mean"]) / feature["std"])
    return np.stack(columns, axis=1)


def network(weights, name, x):
    layers = sum(key.startswith(f"{name}.") for key in weights) // 2
    for layer in range(layers):
        weight, bias = (weights[f"{name}.{layer}.{part}"].astype(x.dtype) for part in ("weight", "bias"))
        x = x @ weight.T + bias
        if layer + 1 < layers:
            x = np.maximum(x, 0)
    return x


def log_density(card, weights, x):
    """Returns log p of scaled events in the precision of x, as a density of the coordinates."""
    (name, flow), = card["flows"].items()
    clamp = x.dtype.type(flow["spec"]["scale_clamp"])
    log_det = np.zeros(len(x), x.dtype)
    z = x.copy()
    for b, split in enumerate(flow["splits"]):
        conditioner, transformed = split["conditioner"], split["transformed"]
        block = f"{name}.blocks.{b}"
        if flow["spec"]["coupling"] == "affine":
            s = clamp * np.tanh(network(weights, f"{block}.scale", z[:, conditioner]) / clamp)
            z[:, transformed] *= np.exp(s)
            log_det += s.sum(axis=1)
        z[:, transformed] += network(weights, f"{block}.shift", z[:, conditioner])
    log_normal = -0.5 * (z * z).sum(axis=1) - x.dtype.type(0.5 * np.log(2 * np.pi) * x.shape[1])
    scaler = -sum(np.log(feature["std"]) for feature in card["features"])
    return (log_det + log_normal).astype(np.float64) + scaler


def main(model, events, scores):
    card, weights = read_model(model)
    with h5py.File(events) as file, np.errstate(all="ignore"):
        x = scaled(card, file["events"])
    with h5py.File(scores) as file:
        status, log_prob, score = (file["scores"][c][:] for c in ("status", "log_prob", "score"))
    usable = np.isfinite(x).all(axis=1)
    expected = log_density(card, weights, x[usable])
    plain = log_density(card, weights, x[usable].astype(np.float32))
    bar = np.maximum(1e-5 * np.maximum(1, np.abs(expected)), 3 * np.abs(plain - expected))
    difference = np.abs(log_prob[usable] - expected)
    sign = -1 if card["normal"] == "hadron" else 1
    agree = {
        "rows": len(status) == len(x),
        "unusable rows": np.array_equal(status & (NOT_FINITE | OUT_OF_DOMAIN) == 0, usable),
        "unusable rows are NaN": np.isnan(log_prob[~usable]).all(),
        "log p": (difference <= bar).all(),
        "score": np.array_equal(score[usable], sign * log_prob[usable]),
    }
    print(f"{usable.sum()} of {len(x)} rows, largest difference {difference.max():.2e}, "
          f"largest relative to its bar {(difference / bar).max():.2f}")
    for name, equal in agree.items():
        if not equal:
            print(f"disagree: {name}")
    return 0 if all(agree.values()) else 1


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
