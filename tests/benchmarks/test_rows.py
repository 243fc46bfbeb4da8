"""What is left undecided of whole data sets and of queries, and in what time.

`QVERIFY_BENCH_SAMPLES` (300) and `QVERIFY_BENCH_QUERIES` (9, of 90) say how many: 10000 and 90 are hours.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from qverify import datasets
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options
from tests.support.paths import MODELS
from tests.support.problems import on_mnist

SAMPLES = int(os.environ.get("QVERIFY_BENCH_SAMPLES", "300"))
QUERIES = int(os.environ.get("QVERIFY_BENCH_QUERIES", "9"))
PUBLISHED = Path(os.environ.get("QVERIFY_PUBLISHED", ""))
ROWS: dict[str, tuple[Path, int, tuple[Any, Any], float]] = {
    "published-normal": (PUBLISHED / "published_normal_4x256.onnx", 10, ("paper", "any"), 10.0),
    "ours-normal": (MODELS / "mnist_4x256_normal.onnx", 10, ("channel", "nearest"), 10.0),
    "ours-conv": (MODELS / "mnist_conv_robust_8bit.onnx", 8, ("paper", "any"), 20.0),
    "ours-robust": (MODELS / "mnist_4x256_robust_8bit.onnx", 8, ("paper", "any"), 60.0),
    "published-robust": (PUBLISHED / "published_robust_4x256_8bit.onnx", 8, ("paper", "any"), 60.0),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, benchmark: BenchmarkFixture, report: Any) -> None:
    """The first samples of MNIST, two jobs, so many seconds each."""
    path, bits, given, seconds = ROWS[name]
    network, samples, radii = on_mnist(path, bits, *given)
    x, y = samples.x[:SAMPLES], samples.y[:SAMPLES]
    found: list[Any] = []

    def run() -> None:
        found[:] = verify(network, x, y, radii, Options(jobs=2, seconds=seconds))

    began = time.perf_counter()
    benchmark.pedantic(run, rounds=1)  # type: ignore[no-untyped-call]
    counts, stages = Counter(v.status.value for v in found), Counter(v.method for v in found)
    by = ", ".join(f"{stage} {count}" for stage, count in stages.items())
    what = f"{path.stem}, {bits} bits, {' '.join(given)}, {len(x)} samples at {seconds:g} s"
    report(what, f"{counts['unknown']} unknown in {time.perf_counter() - began:.0f} s", by)


def trained(depth: int, where: Path, x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """A normally trained network with so many hidden layers of 256, written to `where`."""
    torch.manual_seed(depth)
    sizes = [784, *[256] * depth]
    layers = [part for n, m in itertools.pairwise(sizes) for part in (nn.Linear(n, m), nn.ReLU())]
    net, epochs = nn.Sequential(*layers, nn.Linear(256, 10)), 8
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - epoch / epochs)
        for some in torch.randperm(len(x)).split(128):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[some]), y[some]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    torch.onnx.export(net, (torch.zeros(1, 784),), str(where), input_names=["x"], output_names=["y"], dynamo=False)
    return net


def query(x: np.ndarray[Any, Any], label: int, radius: float) -> str:
    """Whether some output is as large as the label's, in a box of this radius around x (784,) within [0, 1]."""
    ends = np.clip(x - radius, 0.0, 1.0), np.clip(x + radius, 0.0, 1.0)
    lines = [f"(declare-const X_{i} Real)" for i in range(784)] + [f"(declare-const Y_{k} Real)" for k in range(10)]
    for i, (low, high) in enumerate(zip(*ends, strict=True)):
        lines += [f"(assert (>= X_{i} {low:.8f}))", f"(assert (<= X_{i} {high:.8f}))"]
    rivals = " ".join(f"(and (>= Y_{k} Y_{label}))" for k in range(10) if k != label)
    return "\n".join([*lines, f"(assert (or {rivals}))"])


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_queries(depth: int, benchmark: BenchmarkFixture, report: Any, tmp_path: Path) -> None:
    """Of the form of VNN-COMP 2021's mnistfc: radii of inputs 0.03 and 0.05, 60 s each."""
    data = datasets.load_train("mnist")
    x, y = torch.tensor(data.x, dtype=torch.float32).reshape(-1, 784), torch.tensor(data.y)
    net = trained(depth, tmp_path / "net.onnx", x, y)
    test = datasets.load("mnist")
    flat = test.x.reshape(len(test.x), -1)
    with torch.no_grad():
        right = np.flatnonzero(net(torch.tensor(flat, dtype=torch.float32)).argmax(1).numpy() == test.y)
    asked = [(int(i), radius) for i in np.random.default_rng(0).permutation(right)[:15] for radius in (0.03, 0.05)]
    counts: Counter[str] = Counter()

    def run() -> None:
        for i, radius in asked[: max(1, QUERIES // 3)]:
            (tmp_path / "q.vnnlib").write_text(query(flat[i], int(test.y[i]), radius))
            given = ["vnnlib", "verify", tmp_path / "q.vnnlib", "--network", f"N={tmp_path / 'net.onnx'}"]
            command = [sys.executable, "-m", "qverify", *map(str, given), "--timeout", "60"]
            counts[subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]] += 1

    benchmark.pedantic(run, rounds=1)  # type: ignore[no-untyped-call]
    answers = ", ".join(f"{count} {answer}" for answer, count in counts.items())
    report(f"{depth} x 256 trained normally, {sum(counts.values())} queries at 60 s", answers, "")
