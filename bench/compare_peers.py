#!/usr/bin/env python3
"""Compares events per second of the engine with PyTorch, JAX, zuko, nflows and normflows.

All engines are measured in turn, round by round, on the same cores. A ratio is ours / peer
within one round; medians over rounds are printed. Each peer runs in its own process, which is
idle while another one is measured. See bench/README.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# The reference network: a RealNVP, s = CLAMP·tanh(σ/CLAMP), separate scale and shift
# networks of one hidden layer of ReLU units; the first half of the features conditions
# the even blocks, the second half the odd ones.
FEATURES, BLOCKS, HIDDEN, CLAMP = 6, 8, 512, 2.0
HALF = FEATURES // 2
LN_SQRT_2PI = 0.9189385332046727
PARAMETERS = 57_392
RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8

EXACT = ["torch-eager", "torch-compile", "jax"]
LIBRARIES = ["zuko", "nflows", "normflows"]
# The network of a library gives scale and shift from one hidden layer: 3·512 + 512·6 products
# per block instead of 2·(3·512 + 512·3), three quarters of those of the reference network.
SHARED = "one network of 512 hidden units gives both scale and shift (3/4 of the products); "
DIFFERS = {
    "zuko": SHARED + "scale clamped softly at 1e-3; features split by alternate columns",
    "nflows": SHARED + "scale is sigmoid(σ + 2) + 1e-3",
    "normflows": SHARED + "scale is exp(σ), not clamped; halves swapped by a permutation",
}


# --- The network in f64, and checks of the peers ------------------------------------


def random_params(np):
    """Returns a flat vector of parameters: block by block, scale then shift network, layer by
    layer, the weights (outputs, inputs) and then the bias."""
    draw = np.random.default_rng(1)
    parts = []
    for inputs, outputs in BLOCKS * 2 * [(HALF, HIDDEN), (HIDDEN, HALF)]:
        bound = inputs**-0.5
        parts.append(draw.uniform(-bound, bound, outputs * inputs + outputs))
    return np.concatenate(parts).astype(np.float32)


def unflatten(params):
    """Returns per block, per network, per layer: (weight (outputs, inputs), bias)."""
    blocks, start = [], 0
    for _ in range(BLOCKS):
        networks = []
        for _ in range(2):
            layers = []
            for inputs, outputs in [(HALF, HIDDEN), (HIDDEN, HALF)]:
                end = start + inputs * outputs
                weight = params[start:end].reshape(outputs, inputs)
                layers.append((weight, params[end : end + outputs]))
                start = end + outputs
            networks.append(layers)
        blocks.append(networks)
    return blocks


def reference_log_prob(np, params, events):
    """Returns log p of each event in f64: the definition with which the peers are checked."""
    a, b = (np.array(half, dtype=np.float64) for half in np.split(events, 2, axis=1))
    log_prob = np.zeros(len(events))
    for networks in unflatten(np.asarray(params, dtype=np.float64)):
        out = []
        for (w1, b1), (w2, b2) in networks:
            out.append(np.maximum(a @ w1.T + b1, 0.0) @ w2.T + b2)
        s = CLAMP * np.tanh(out[0] / CLAMP)
        b = b * np.exp(s) + out[1]
        log_prob += s.sum(1)
        a, b = b, a
    return log_prob - 0.5 * (a**2 + b**2).sum(1) - FEATURES * LN_SQRT_2PI


def check_exact(np, peer):
    """Checks number of parameters, log p, gradient and update of a hand-written peer; returns
    the largest errors of log p. Call before any other step."""
    before = peer.params()
    events = np.random.default_rng(2).standard_normal((1000, FEATURES)).astype(np.float32)
    if before.size != PARAMETERS:
        raise AssertionError(f"{before.size} parameters, expected {PARAMETERS}")
    # A few events have log p near −1000 with these weights, where one step of f32 is
    # 1.2e-4: the limit is relative for |log p| above 1.
    exact = reference_log_prob(np, before, events)
    error = np.abs(peer.log_prob(events) - exact)
    relative = error / np.maximum(1.0, np.abs(exact))
    if not relative.max() < 1e-5:
        raise AssertionError(f"log p differs from the f64 evaluation by {relative.max()} of it")

    gradient = peer.first_gradient(events).astype(np.float64)
    along = gradient / np.linalg.norm(gradient)

    def loss(step):
        return -reference_log_prob(np, before + step * along, events).mean()

    difference = (loss(1e-5) - loss(-1e-5)) / 2e-5
    slope = np.linalg.norm(gradient)
    if not abs(difference / slope - 1.0) < 1e-3:
        raise AssertionError(f"gradient {slope}, by differences {difference}")
    # The first update of Adam is −rate · g/(|g| + ε); the rounding of the weights is 6e-8.
    wrong = np.abs(peer.params() - (before - RATE * gradient / (np.abs(gradient) + EPSILON)))
    if not wrong.max() < 1e-6:
        raise AssertionError(f"first update of Adam wrong by {wrong.max()}")
    return {"log_prob_error": float(error.max()), "relative": float(relative.max())}


# --- Peers: run(case, batch) prepares, and returns a function that does one batch ----


class Torch:
    """RealNVP in PyTorch: the reference network by hand, or that of a library."""

    def __init__(self, engine, threads, device):
        import numpy as np
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.np, self.torch, self.device = np, torch, torch.device(device)
        self.version = f"torch {torch.__version__}"
        build = {"zuko": self.zuko, "nflows": self.nflows, "normflows": self.normflows}
        self.flow, log_prob = build.get(engine, self.by_hand)()
        self.flow.to(self.device)
        self.compiled = engine == "torch-compile"
        mode = "reduce-overhead" if device == "cuda" else None
        if self.compiled:
            # Every batch size has its own code.
            torch._dynamo.config.cache_size_limit = 64
            log_prob = torch.compile(log_prob, dynamic=False, mode=mode)
        self.forward = log_prob
        self.adam = torch.optim.Adam(
            self.flow.parameters(), lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, fused=True
        )
        self.check = {}
        if engine in EXACT:
            self.check = check_exact(np, self)
        self.parameters = sum(p.numel() for p in self.flow.parameters())

    def by_hand(self):
        nn, torch = self.torch.nn, self.torch

        def network():
            return nn.Sequential(nn.Linear(HALF, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HALF))

        # In the order of the flat vector.
        flow = nn.ModuleList(nn.ModuleList([network(), network()]) for _ in range(BLOCKS))
        start = self.torch.from_numpy(random_params(self.np))
        nn.utils.vector_to_parameters(start, flow.parameters())

        def log_prob(events):
            a, b = events[:, :HALF], events[:, HALF:]
            log_det = 0.0
            for scale, shift in flow:
                s = CLAMP * torch.tanh(scale(a) / CLAMP)
                b = b * torch.exp(s) + shift(a)
                log_det = log_det + s.sum(1)
                a, b = b, a
            return log_det - 0.5 * (a * a + b * b).sum(1) - FEATURES * LN_SQRT_2PI

        return flow, log_prob

    def zuko(self):
        import zuko

        self.version += f", zuko {zuko.__version__}"
        # zuko.flows.NICE is affine by default, and called RealNVP in newer versions.
        flow = zuko.flows.NICE(FEATURES, transforms=BLOCKS, hidden_features=(HIDDEN,))
        return flow, lambda events: flow().log_prob(events)

    def nflows(self):
        from importlib.metadata import version

        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.nn.nets import MLP
        from nflows.transforms import AffineCouplingTransform, CompositeTransform

        class Network(MLP):
            def forward(self, inputs, context=None):  # a coupling also passes a context
                return super().forward(inputs)

        self.version += f", nflows {version('nflows')}"
        steps = []
        for block in range(BLOCKS):
            # Positive where transformed: the second half in the even blocks.
            mask = [(-1) ** (block + (i >= HALF) + 1) for i in range(FEATURES)]
            steps.append(AffineCouplingTransform(mask, lambda i, o: Network([i], [o], [HIDDEN])))
        flow = Flow(CompositeTransform(steps), StandardNormal([FEATURES]))
        return flow, flow.log_prob

    def normflows(self):
        from importlib.metadata import version

        import normflows as nf

        self.version += f", normflows {version('normflows')}"
        steps = []
        for _ in range(BLOCKS):
            network = nf.nets.MLP([HALF, HIDDEN, FEATURES])
            steps.append(nf.flows.AffineCouplingBlock(network))
            steps.append(nf.flows.Permute(FEATURES, mode="swap"))
        flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES, trainable=False), steps)
        return flow, flow.log_prob

    def step(self, events):
        self.adam.zero_grad(set_to_none=True)
        loss = -self.forward(events).mean()
        loss.backward()
        self.adam.step()

    def run(self, case, batch):
        torch = self.torch
        events = torch.randn(batch, FEATURES, device=self.device)
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None

        def score():
            with torch.inference_mode():
                if self.compiled and self.device.type == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()
                self.forward(events)

        def train():
            if self.compiled and self.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            self.step(events)

        return (score if case == "score" else train), wait

    def params(self):
        flat = self.torch.nn.utils.parameters_to_vector(self.flow.parameters())
        return flat.detach().cpu().numpy().copy()

    def log_prob(self, events):
        with self.torch.inference_mode():
            return self.forward(self.torch.from_numpy(events).to(self.device)).cpu().numpy()

    def first_gradient(self, events):
        self.step(self.torch.from_numpy(events).to(self.device))
        parts = [p.grad.flatten() for p in self.flow.parameters()]
        return self.torch.cat(parts).cpu().numpy()


class Jax:
    """The reference network in JAX, jit."""

    def __init__(self, _engine, _threads, _device):
        import jax
        import jax.numpy as jnp
        import numpy as np

        self.np, self.jax, self.jnp = np, jax, jnp
        self.version = f"jax {jax.__version__}"

        def network(layers, x):
            (w1, b1), (w2, b2) = layers
            return jnp.maximum(x @ w1.T + b1, 0.0) @ w2.T + b2

        def log_prob(blocks, events):
            a, b = events[:, :HALF], events[:, HALF:]
            log_det = 0.0
            for scale, shift in blocks:
                s = CLAMP * jnp.tanh(network(scale, a) / CLAMP)
                b = b * jnp.exp(s) + network(shift, a)
                log_det = log_det + s.sum(1)
                a, b = b, a
            return log_det - 0.5 * (a * a + b * b).sum(1) - FEATURES * LN_SQRT_2PI

        def loss(blocks, events):
            return -log_prob(blocks, events).mean()

        def step(state, events):
            blocks, first, second, count = state
            gradient = jax.grad(loss)(blocks, events)
            count = count + 1
            each = jax.tree_util.tree_map
            first = each(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradient)
            second = each(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradient)
            root = jnp.sqrt(1 - BETA2**count)
            rate = RATE * root / (1 - BETA1**count)
            blocks = each(
                lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON * root),
                blocks,
                first,
                second,
            )
            return blocks, first, second, count

        self.forward = jax.jit(log_prob)
        self.step = jax.jit(step, donate_argnums=0)
        blocks = jax.tree_util.tree_map(jnp.asarray, unflatten(random_params(np)))
        zeros = jax.tree_util.tree_map(jnp.zeros_like, blocks)
        again = jax.tree_util.tree_map(jnp.zeros_like, blocks)
        self.state = (blocks, zeros, again, jnp.float32(0.0))
        self.check = check_exact(np, self)
        self.parameters = self.params().size

    def run(self, case, batch):
        events = self.jnp.asarray(
            self.np.random.default_rng(3).standard_normal((batch, FEATURES)), self.jnp.float32
        )

        def score():
            self.forward(self.state[0], events).block_until_ready()

        def train():
            self.state = self.step(self.state, events)
            self.jax.block_until_ready(self.state)

        return (score if case == "score" else train), lambda: None

    def flat(self, tree):
        leaves = self.jax.tree_util.tree_leaves(tree)
        return self.np.concatenate([self.np.array(leaf).ravel() for leaf in leaves])

    def params(self):
        return self.flat(self.state[0])

    def log_prob(self, events):
        return self.np.asarray(self.forward(self.state[0], events))

    def first_gradient(self, events):
        self.state = self.step(self.state, self.jnp.asarray(events))
        return self.flat(self.state[1]) / (1 - BETA1)  # the first moment after one step


def serve(engine, threads, device):
    """Runs a peer: requests on stdin, one JSON answer per line on the old stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    try:
        peer = (Jax if engine == "jax" else Torch)(engine, threads, device)
    except ImportError as error:
        return answer(skip=f"not importable: {error}")
    except AssertionError as error:
        return answer(fail=f"{engine}: {error}")
    except Exception as error:  # a peer that cannot run here must not stop the others
        return answer(skip=f"{type(error).__name__}: {error}")
    answer(parameters=peer.parameters, version=peer.version, check=peer.check)
    ready = {}
    for line in sys.stdin:
        request = json.loads(line)
        case, batch, seconds = request["case"], request["batch"], request["seconds"]
        try:
            if (case, batch) not in ready:
                ready[case, batch] = peer.run(case, batch)
                for _ in range(2):
                    ready[case, batch][0]()  # compiles
                ready[case, batch][1]()
            if seconds == 0.0:
                answer()
                continue
            once, wait = ready[case, batch]
            once()
            wait()
            done, start = 0, time.perf_counter()
            while done < 2 or time.perf_counter() - start < seconds:
                once()
                wait()
                done += 1
            answer(events_per_s=done * batch / (time.perf_counter() - start))
        except Exception as error:
            answer(skip=f"{type(error).__name__}: {error}")


# --- The comparison -----------------------------------------------------------------


class Process:
    """A peer in its own process."""

    def __init__(self, engine, options):
        self.engine = engine
        n = str(options.threads)
        # JAX has no call to set its threads; it reads NPROC.
        environment = os.environ | dict.fromkeys(
            ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC"], n
        )
        if engine == "jax":
            environment["JAX_PLATFORMS"] = "cpu"
        command = [sys.executable, __file__, "--serve", engine]
        command += ["--threads", n, "--device", options.device]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            return {"skip": f"ended with exit code {self.process.wait()}"}
        return json.loads(line)

    def measure(self, case, batch, seconds):
        request = {"case": case, "batch": batch, "seconds": seconds}
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        return self.read()

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def build_ours():
    """Builds our benchmark and returns its path."""
    command = ["cargo", "bench", "--bench", "throughput", "--no-run", "--message-format=json"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "throughput" and message.get("executable"):
            return message["executable"]
    sys.exit("cargo bench built no executable named throughput")


def measure_ours(binary, case, options):
    if options.device == "cuda":
        # The benchmark of the crate `gpu`; a training step has the batch of the peers.
        command = [binary, "cuda", "--case", case, "--rounds", "1"]
        batch = options.train_batches[0] if case == "train" else max(options.score_batches)
        command += ["--batch", str(batch)]
    else:
        command = [binary, "--case", case, "--threads", str(options.threads), "--rounds", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        shape = (line["features"], line["blocks"], line["hidden"])
        threads = line.get("threads", options.threads)
        if shape != (FEATURES, BLOCKS, [HIDDEN]) or threads != options.threads:
            sys.exit(f"our benchmark measured a different case than requested: {line}")
    return max(lines, key=lambda line: line["events_per_s"])


def note(text):
    print(text, file=sys.stderr, flush=True)


def show(line):
    print(json.dumps(line), flush=True)


def start_peers(options):
    """Returns the peers that can be measured, started and checked one after the other."""
    peers = []
    for engine in options.peers:
        if options.device == "cuda" and engine == "jax":
            note("jax: skipped: only PyTorch is measured on cuda")
            continue
        peer = Process(engine, options)
        hello = peer.read()
        if "fail" in hello:
            sys.exit(hello["fail"])
        if "skip" in hello:
            note(f"{engine}: skipped: {hello['skip']}")
            peer.close()
            continue
        peer.about = {"parameters": hello["parameters"], "version": hello["version"]}
        if hello["check"]:
            peer.about["against_f64"] = hello["check"]
        if engine in DIFFERS:
            peer.about["differs"] = DIFFERS[engine]
        note(f"{engine}: {hello['version']}, ready")
        peers.append(peer)
    return peers


def compare(options):
    batches = {"score": options.score_batches, "train": options.train_batches}
    ours = options.taiga
    if ours is None and options.device == "cpu":
        ours = build_ours()
    if ours is None:
        note("ours: skipped: on cuda give the benchmark to run by --taiga")
    peers = start_peers(options)

    lines, rates = {}, {}  # by (case, engine, batch); rates one per round

    def record(number, key, line):
        lines[key] = line
        rates.setdefault(key, []).append(line["events_per_s"])
        show({"round": number} | line)

    def common(engine, case, batch):
        shape = {"features": FEATURES, "blocks": BLOCKS, "hidden": [HIDDEN], "batch": batch}
        return {"engine": engine, "case": case} | shape | {"threads": options.threads}

    # Compilation, allocation and caches come before any measurement.
    for peer in list(peers):
        for case in options.cases:
            for batch in batches[case]:
                done = peer.measure(case, batch, 0.0)
                if "skip" in done and peer in peers:
                    note(f"{peer.engine}: skipped: {case}, batch {batch}: {done['skip']}")
                    peers.remove(peer)
    for number in range(options.rounds):
        for case in options.cases:
            if ours is not None:
                line = measure_ours(ours, case, options)
                record(number, (case, "ours", line["batch"]), line)
            for peer in peers:
                for batch in batches[case]:
                    done = peer.measure(case, batch, options.seconds)
                    if "skip" in done:
                        sys.exit(f"{peer.engine}: {case}, batch {batch}: {done['skip']}")
                    line = common(peer.engine, case, batch) | {"device": options.device}
                    line["events_per_s"] = round(done["events_per_s"])
                    record(number, (case, peer.engine, batch), line)
    for peer in peers:
        peer.close()

    for key, line in lines.items():
        median = {"events_per_s": statistics.median(rates[key]), "rounds": options.rounds}
        about = next((p.about for p in peers if p.engine == key[1]), {})
        show({k: v for k, v in line.items() if k != "gfma_per_s"} | median | about)
    if ours is not None:
        for case in options.cases:
            ratios(case, rates, [p.engine for p in peers])


def ratios(case, rates, engines):
    """Returns ours / peer within each round, with the best batch of the peer."""
    mine = next(r for (c, engine, _), r in rates.items() if c == case and engine == "ours")
    best = {}
    for engine in engines:
        of_engine = [(b, r) for (c, e, b), r in rates.items() if (c, e) == (case, engine)]
        best[engine] = max(of_engine, key=lambda item: statistics.median(item[1]))
    for engine, (batch, rate) in best.items():
        show({"case": case, "ratio_to": engine, "batch": batch} | spread(mine, rate))
    exact = [engine for engine in engines if engine in EXACT]
    if len(exact) > 1:
        rate = [max(turn) for turn in zip(*(best[engine][1] for engine in exact))]
        name = "best of " + ", ".join(exact)
        show({"case": case, "ratio_to": name} | spread(mine, rate))


def spread(mine, peer):
    each = [a / b for a, b in zip(mine, peer)]
    each = {"ratio": statistics.median(each), "lowest": min(each), "highest": max(each)}
    return {key: round(value, 3) for key, value in each.items()}


def main():
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(cores), help="default: all cores")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peers",
        type=lambda text: text.split(","),
        default=EXACT + LIBRARIES,
        help=f"some of {','.join(EXACT + LIBRARIES)} (default all)",
    )
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["score", "train"])
    parser.add_argument("--taiga", metavar="BIN", help="our built benchmark (default: cargo builds it)")
    numbers = {"type": lambda text: [int(n) for n in text.split(",")], "metavar": "N,N"}
    parser.add_argument("--score-batches", default=[512, 2048, 8192, 65_536], **numbers)
    parser.add_argument("--train-batches", default=[8192], **numbers)
    parser.add_argument("--seconds", type=float, default=0.5, help="shortest time of a measurement")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 1 <= options.threads <= len(cores):
        parser.error(f"--threads: expected 1 to {len(cores)} (cores), found {options.threads}")
    if options.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    for engine in options.peers:
        if engine not in EXACT + LIBRARIES:
            parser.error(f"--peers: expected some of {EXACT + LIBRARIES}, found {engine}")
    for case in options.cases:
        if case not in ["score", "train"]:
            parser.error(f"--cases: expected score, train, found {case}")
    # All compared programs stay on the same cores.
    os.sched_setaffinity(0, cores[: options.threads])
    if options.serve:
        serve(options.serve, options.threads, options.device)
    else:
        compare(options)


if __name__ == "__main__":
    main()
