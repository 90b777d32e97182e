"""Compares the held-out NLL with RealNVP of zuko and nflows: same coordinates, scaler, data,
network sizes and schedule.

    python3 bench/compare_nll.py FOLDER [FOLD…]

PROGRAMS selects some of them. FOLDER is that of bench/magic_folds.sh. The program (TAIGA_FLOW)
is trained again with configs/magic/one-class.toml: separate networks of 128 rectified units
for scale and shift. The peers have one network for both, with 179 units: about as many
parameters (14 368 and 14 384). All have eight affine couplings with alternating masks, Adam,
the same warm-up and cosine, batch, epochs, gradient clipping and running mean of the weights.
Signs of alpha are drawn in every epoch, and the best epoch is chosen on a held-out 12 % of the
training gammas; each program draws its own 12 %. The result is the mean NLL of the gammas of
the test fold per event, in nats, in the same measure (with the Jacobian of the scaler). One
JSON line per fold and program.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

EPOCHS, BATCH, RATE, WARM_UP, FINAL, CLIP, EMA = 100, 256, 2e-3, 0.05, 0.01, 5.0, 0.999
BLOCKS, HIDDEN, PEER_HIDDEN, FEATURES = 8, 128, 179, 6
ROOT = Path(__file__).resolve().parent.parent


def coordinates(path):
    with h5py.File(path) as file:
        group = file["events"]
        gamma = group["class"][:] == 1
        q = {name: group[name][:].astype(np.float64)[gamma] for name in group}
    return np.stack(
        [
            np.log10(q["size"]),
            np.log(q["width"] + 0.01),
            np.log(q["length"] + 0.01),
            np.log(q["con2"] / (1 - q["con2"])),
            q["dist"],
            q["alpha"],
        ],
        1,
    )


def zuko_flow():
    import zuko

    flow = zuko.flows.RealNVP(FEATURES, transforms=BLOCKS, hidden_features=(PEER_HIDDEN,))
    return flow, lambda x: flow().log_prob(x)


def nflows_flow():
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    class Net(MLP):
        def forward(self, inputs, context=None):  # couplings give a context, MLPs take none
            return super().forward(inputs)

    class Coupling(AffineCouplingTransform):
        # The default scale is sigmoid(x + 2) + 0.001, which cannot widen a distribution: 5.713 nats on
        # fold 0. This is the alternative form in its source.
        def _scale_and_shift(self, parameters):
            shift, scale = parameters.split(self.num_transform_features, dim=1)
            return (torch.nn.functional.softplus(scale) + 1e-3).clamp(0, 3), shift

    def block(b):
        mask = [1 if (i < FEATURES // 2) == (b % 2 == 0) else -1 for i in range(FEATURES)]
        return Coupling(
            torch.tensor(mask), lambda i, o: Net([i], [o], [PEER_HIDDEN], torch.nn.functional.relu)
        )

    flow = Flow(CompositeTransform([block(b) for b in range(BLOCKS)]), StandardNormal([FEATURES]))
    return flow, flow.log_prob


def rate(step, steps):
    warm_up = math.ceil(WARM_UP * steps)
    if step + 1 <= warm_up:
        return (step + 1) / warm_up
    progress = (step + 1 - warm_up) / max(steps - warm_up, 1)
    return FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * progress))


def peer(make, train, test):
    torch.manual_seed(1)
    generator = np.random.default_rng(1)
    order = generator.permutation(len(train))
    held, kept = train[order[: int(0.12 * len(train))]], train[order[int(0.12 * len(train)) :]]
    mean, std = kept.mean(0), kept.std(0)
    mean[5], std[5] = 0.0, math.sqrt((kept[:, 5] ** 2).mean())
    scale = lambda x: torch.tensor((x - mean) / std, dtype=torch.float32)
    x, validation, test = scale(kept), scale(held), scale(test)
    flow, log_prob = make()
    parameters = list(flow.parameters())
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.Adam(parameters, RATE)
    per_epoch = math.ceil(len(x) / BATCH)
    steps, step, best = EPOCHS * per_epoch, 0, (math.inf, None)
    for _ in range(EPOCHS):
        shuffled = x[torch.randperm(len(x))].clone()
        shuffled[:, 5] *= torch.randint(0, 2, (len(x),)) * 2 - 1
        for events in shuffled.tensor_split(per_epoch):
            optimiser.param_groups[0]["lr"] = RATE * rate(step, steps)
            optimiser.zero_grad()
            (-log_prob(events).mean()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            step += 1
            decay = min(EMA, (1 + step) / (10 + step))
            with torch.no_grad():
                for a, p in zip(average, parameters):
                    a += (1 - decay) * (p - a)
        with torch.no_grad():
            own = [p.clone() for p in parameters]
            for p, a in zip(parameters, average):
                p.copy_(a)
            nll = -log_prob(validation).mean().item()
            if nll < best[0]:
                best = (nll, -log_prob(test).double().mean().item())
            for p, o in zip(parameters, own):
                p.copy_(o)
    return best[1] + np.log(std).sum(), sum(p.numel() for p in parameters)


def ours(train, test):
    program = os.environ.get("TAIGA_FLOW", str(ROOT / "target/release/taiga-flow"))
    with tempfile.TemporaryDirectory() as folder:
        config, run = ROOT / "configs/magic/one-class.toml", f"{folder}/run"
        command = [program, "-q", "train", "-c", str(config), "-o", run]
        # Alternating halves, as in the peers.
        command += ["--set", f'data.mixed=["{train}"]', "--set", 'model.permutation="alternate"']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        outcome = subprocess.run(
            [program, "-q", "--json", "evaluate", "-m", f"{run}/model.safetensors", test]
            + ["-o", f"{folder}/evaluation"],
            check=True,
            stdout=subprocess.PIPE,
        )
    parameters = BLOCKS * 2 * (3 * HIDDEN + HIDDEN + HIDDEN * 3 + 3)
    return json.loads(outcome.stdout)["normal_nll"]["mean"], parameters


def main(folder, *folds):
    torch.set_num_threads(1)  # batches are small: more threads wait for each other
    for fold in folds or range(5):
        files = [str(Path(folder, f"fold-{fold}", name)) for name in ("train.h5", "test.h5")]
        train, test = (coordinates(f) for f in files)
        programs = {
            "taiga-flow": lambda: ours(*files),
            "zuko": lambda: peer(zuko_flow, train, test),
            "nflows": lambda: peer(nflows_flow, train, test),
        }
        for name in os.environ.get("PROGRAMS", "taiga-flow zuko nflows").split():
            nll, parameters = programs[name]()
            line = {"fold": int(fold), "program": name, "nll": nll, "parameters": parameters}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
