"""Trains the two small digits networks that ship with qverify: `digits.onnx` (robust), `digits_normal.onnx` (not).

The robust loss is `kappa CE(f(x), y) + (1 - kappa) CE(worst, y)`, where `worst_j = -min over the family of
y_label - y_j`, bounded from below by the very bounds that verify (`qverify.bounds.interval`: sound IBP with
the margins folded into the last layer). Radii: r / 2 for the input, r for weights, biases and activations; r grows
from 0 to 2^-(b-1), b = `--bits`, which need not be whole. `kappa` falls from 1.

Only the training split is trained on. The default `--bits` was settled on a quarter held out from it, but from a
range (5.5 to 7) whose test figures had been seen before; so the test figures are a demonstration, not a benchmark.
One thread and deterministic algorithms: a seed gives the same bytes again on the same machine. Another processor
rounds otherwise; there the clean accuracies were the same and the guaranteed ones moved by up to 0.4 points.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qverify
from qverify import datasets
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.model import Affine, BoundModel
from qverify.bounds.rounding import Rounding
from qverify.network import Dense, Input, Layer, Network, Relu, margins
from qverify.onnx_io import load, save
from qverify.quantisation import Family, Radii

Pairs = list[tuple[Tensor, Tensor]]
WIDTHS = (64, 40, 24, 10)
"""Unequal on purpose: a transposed weight matrix cannot go unnoticed."""


def as_network(parameters: Pairs) -> Network:
    """The trained `(weight (n_out, n_in), bias (n_out,))` pairs as an immutable network for (8, 8) images."""
    layers: list[Layer] = [Input("image", (), (8, 8))]
    for number, (weight, bias) in enumerate(parameters, start=1):
        shape = (len(bias),)
        values = (weight.detach().numpy(), bias.detach().numpy())
        layers.append(Dense(f"dense{number}", (len(layers) - 1,), shape, *values))
        if number < len(parameters):
            layers.append(Relu(f"relu{number}", (len(layers) - 1,), shape))
    return Network(tuple(layers), source="digits")


def bound_model(network: Network, parameters: Pairs, radius: float) -> BoundModel:
    """The family of radius `radius` around the live parameters, so that gradients reach them; no rounding allowance."""
    affine = {}
    for index, (weight, bias) in zip(network.weighted, parameters, strict=True):
        layer = network.layers[index]
        assert isinstance(layer, Dense)
        spread = torch.full_like(weight, radius), torch.full_like(bias, radius)
        affine[index] = Affine(layer, weight, spread[0], bias, spread[1])
    activation = {i: torch.full((network.layers[i].size,), radius) for i in network.relus}
    rounding = Rounding(torch.float32, enabled=False)
    return BoundModel(network, affine, {}, activation, {}, rounding, torch.device("cpu"), torch.float32)


def worst_loss(network: Network, parameters: Pairs, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Cross-entropy of the worst logits relative to the true one: an upper bound on that of every member."""
    model = bound_model(network, parameters, radius)
    bounds = interval_bounds(model, x - radius / 2, x + radius / 2)
    worst = interval_margins(model, bounds, y)
    return F.cross_entropy(torch.where(torch.isinf(worst), 0.0, -worst), y)


def forward(parameters: Pairs, x: Tensor) -> Tensor:
    """Plain logits (N, 10) of flat images (N, 64)."""
    for weight, bias in parameters[:-1]:
        x = F.relu(F.linear(x, weight, bias))
    return F.linear(x, *parameters[-1])


def train(options: argparse.Namespace, x: Tensor, y: Tensor, robust: bool) -> Pairs:
    """Adam with a falling step size; x (N, 64), y (N,). Returns the (weight, bias) pairs."""
    modules = [nn.Linear(a, b) for a, b in pairwise(WIDTHS)]
    parameters = [(m.weight, m.bias) for m in modules]
    network = as_network(parameters)
    optimiser = torch.optim.Adam([p for pair in parameters for p in pair], lr=options.rate)
    steps = options.epochs * -(-len(x) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=steps)
    radius_end, step = 2.0 ** -(options.bits - 1), 0
    for _ in range(options.epochs):
        for chosen in torch.randperm(len(x)).split(options.batch):
            # Nominal for the first tenth, then a ramp up to 60 %: large radii from the start kill every ReLU.
            ramp = min(1.0, max(0.0, (step / steps - 0.1) / 0.5))
            loss = F.cross_entropy(forward(parameters, x[chosen]), y[chosen])
            if robust and ramp > 0:
                worst = worst_loss(network, parameters, x[chosen], y[chosen], ramp * radius_end)
                kappa = 1 - (1 - options.kappa) * ramp
                loss = kappa * loss + (1 - kappa) * worst
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
    return parameters


def guaranteed(network: Network, bits: int, x: np.ndarray, y: np.ndarray) -> float:
    """Guaranteed accuracy by sound IBP alone: a lower bound on what `qverify verify` proves."""
    family = Family.of(network, Radii.from_bits(bits))
    model = BoundModel.of(family)
    lower, upper = (model.tensor(end) for end in family.box(x))
    bounds = interval_bounds(model, lower, upper)
    return float((interval_margins(model, bounds, torch.as_tensor(y)).amin(1) > 0).double().mean())


def record(path: Path, network: Network, how: dict[str, Any]) -> None:
    """Export `network` to `path` and write beside it how it was made and what it reaches on the test split."""
    save(network, path)
    network = load(path)  # what ships, compared with onnxruntime; the weights were float32 already
    x, y = datasets.fit(datasets.load("digits"), network)
    facts = {
        **how,
        "architecture": "-".join(map(str, WIDTHS)) + ", dense with ReLU, trained in float32",
        "data": "digits, training split; the figures below are of its test split",
        "clean_accuracy": round(float((margins(network.evaluate(x), y) > 0).mean()), 4),
        "guaranteed_by_ibp": {f"{b} bits": round(guaranteed(network, b, x, y), 4) for b in (6, 7, 8, 10)},
        "convention": "scheme paper: input radius 2^-b; weights, biases and activations 2^-(b-1)",
        "versions": {m.__name__: m.__version__ for m in (qverify, torch, np, onnx)}
        | {"python": platform.python_version()},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {facts['clean_accuracy']:.2%} clean, guaranteed by IBP {facts['guaranteed_by_ibp']}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=float, default=6.25, help="train for the radii of this many bits")
    parser.add_argument("--kappa", type=float, default=0.5, help="final weight of the nominal loss")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=5e-3, help="largest step size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder for the models")
    return parser.parse_args()


def main() -> None:
    """Train and export both networks."""
    options = parse()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    samples = datasets.load_train("digits")
    x, y = torch.tensor(samples.x.reshape(len(samples), -1), dtype=torch.float32), torch.tensor(samples.y)
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    for name, robust in (("digits.onnx", True), ("digits_normal.onnx", False)):
        torch.manual_seed(options.seed)
        start = time.perf_counter()
        network = as_network(train(options, x, y, robust))
        loss = "nominal and worst-case cross-entropy (sound IBP)" if robust else "nominal cross-entropy only"
        command = "python models/train_digits.py " + " ".join(f"--{k} {v}" for k, v in settings.items())
        seconds = round(time.perf_counter() - start, 1)
        record(
            options.out / name, network, {"command": command, "loss": loss, "seed": options.seed, "seconds": seconds}
        )


if __name__ == "__main__":
    main()
