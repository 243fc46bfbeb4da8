"""Run in a process of its own, so that its peak memory is that of the bounds: prints seconds and MiB as JSON.

Arguments: ibp or bp, and the number of samples. Network: 784-256-256-256-10 with random weights, for speed does
not depend on them; samples: MNIST's test images if at hand, else random pixels.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from qverify import datasets
from qverify.bounds.interval import interval_margins
from qverify.bounds.refinement import backward_margins
from qverify.errors import DataError
from qverify.family.radii import Radii
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options
from tests.support.networks import mlp


def main(method: str, count: int) -> None:
    network = mlp(np.random.default_rng(0), 784, 256, 256, 256, 10)
    try:
        x = datasets.load("mnist").x[:count].reshape(-1, 784)
    except DataError:
        x = np.random.default_rng(1).random((count, 784))
    labels = network.evaluate(x).argmax(1)
    setup = Setup(network, Radii.from_bits(8), Options())
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        for start in range(0, len(x), setup.chunk):
            part = slice(start, start + setup.chunk)
            bounds = setup.intervals(x[part])
            margins = interval_margins if method == "ibp" else backward_margins
            margins(setup.model, bounds, torch.as_tensor(labels[part]))
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": sorted(seconds)[1], "peak": peak, "samples": len(x)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
