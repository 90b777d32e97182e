"""Measures the cost of reliability: checkpoints in a training, checks of the input in a scoring.

    python3 bench/reliability.py FOLDER --program target/release/taiga-flow [--rounds 5]

Checkpoints: a training of the reference network with one every ten seconds, whose log gives
their share of its time; at the default of one in 300 s it is a thirtieth of that.

Checks of the input: a scoring with finished outputs does them all (schema, headers, columns,
blake3 of the content, manifest, ledger) and reads no row, so its time is an upper bound; in
addition `check --quick`, which reads the storage of every column. Both without the start of
the program (`--version`), relative to the time of the scoring. One JSON object per line on
stdout.
"""

import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import time

FEATURES = """
[features]
columns = [
  { name = "size", transform = "log10" },
  { name = "width", transform = "ln", offset = 0.01 },
  { name = "length", transform = "ln", offset = 0.01 },
  { name = "con2", transform = "logit" },
  { name = "dist" },
  { name = "alpha", transform = "signed" },
]
[model]
blocks = 8
hidden = [512]
"""


def run(*command):
    since = time.monotonic()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return time.monotonic() - since, done.stderr


def load():
    return float(pathlib.Path("/proc/loadavg").read_text().split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--prepare", action="store_true", help="only make the inputs")
    parser.add_argument("--only", choices=["checkpoints", "checks"])
    options = parser.parse_args()
    folder, program = options.folder, options.program
    folder.mkdir(parents=True, exist_ok=True)
    gamma, events = folder / "gamma.h5", folder / "events.h5"
    for path, rows in [(gamma, 200_000), (events, options.rows)]:
        if not path.exists():
            run(program, "simulate", "-o", path, "--class", "gamma", "--events", rows)
    configuration, short = folder / "reliability.toml", folder / "short"
    configuration.write_text(f'[data]\ngamma = ["{gamma}"]\n{FEATURES}\n[train]\nbatch = 8192\npatience = 0\n')
    train = [program, "train", "-c", configuration, "--engine", "cpu", "--overwrite"]
    if not (short / "model.safetensors").exists():
        run(*train, "-o", short, "--set", "train.epochs=1")
    if options.prepare:
        return
    if options.only != "checks":
        two, _ = run(*train, "-o", folder / "two", "--set", "train.epochs=2")
        one, _ = run(*train, "-o", folder / "one", "--set", "train.epochs=1")
        epochs = max(2, round(options.seconds / max(two - one, 0.05)))
        every = ["--set", "run.checkpoint_seconds=10", "--set", f"train.epochs={epochs}"]
        _, log = run(*train, "-v", "-o", folder / "run", *every)
        count, share, seconds = re.search(r"(\d+) checkpoint\(s\) took ([\d.]+) % of ([\d.]+) s", log).groups()
        each = float(share) / 100 * float(seconds) / max(int(count), 1)
        print(json.dumps({
            "case": "checkpoints", "parameters": 57392, "epochs": epochs, "checkpoints": int(count), "every_s": 10,
            "seconds": float(seconds), "share_percent": float(share), "one_s": round(each, 4),
            "share_at_300_s_percent": round(100 * each / 300, 4), "load": load(),
        }), flush=True)
    if options.only != "checkpoints":
        scores = folder / "scores"
        score = [program, "score", "-m", short / "model.safetensors", "-o", scores, events, "--engine", "cpu"]
        times = {"score": [], "again": [], "quick": [], "start": []}
        for _ in range(options.rounds):
            shutil.rmtree(scores, ignore_errors=True)
            times["score"].append(run(*score)[0])
            times["again"].append(run(*score)[0])
            times["quick"].append(run(program, "check", "--quick", events)[0])
            times["start"].append(run(program, "--version")[0])
        shares = [100 * (a + q - 2 * n) / s for s, a, q, n in zip(*times.values())]
        print(json.dumps({
            "case": "checks of the input", "rows": options.rows, "rounds": options.rounds,
            **{f"{name}_s": round(statistics.median(values), 4) for name, values in times.items()},
            "share_percent": round(statistics.median(shares), 2), "lowest": round(min(shares), 2),
            "highest": round(max(shares), 2), "load": load(),
        }), flush=True)


if __name__ == "__main__":
    main()
