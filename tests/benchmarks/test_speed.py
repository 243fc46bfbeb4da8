"""What qverify costs: relational against bilinear, the exact step an image, IBP and BP, memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qverify import datasets
from qverify.bounds.refinement import tightened_bounds
from qverify.exact import solvers
from qverify.exact.bilinear import Bilinear
from qverify.exact.branching import Tree
from qverify.exact.relational import Relational
from qverify.exact.scaling import Scaled
from qverify.exact.size import count_products
from qverify.exact.solvers.base import Ending, Limits
from qverify.family.radii import Radii
from qverify.onnx import reader as onnx_io
from qverify.verification.cascade import verify
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status
from tests.support.networks import mlp
from tests.support.paths import MODELS

HERE = Path(__file__).resolve()
REFERENCE = Path(os.environ.get("QVERIFY_PUBLISHED", "")) / "published_robust_4x256_8bit.onnx"
BILINEAR_LIMIT = 60.0


@pytest.mark.parametrize("width", [3, 5, 8, 12, 16, 24])
def test_relational_against_bilinear(width: Any, benchmark: BenchmarkFixture, report: Any) -> None:
    """The minimum of one margin, to optimality, on a network width-width-width-3 with inputs in [0, 1]."""
    network = mlp(np.random.default_rng(width), width, width, width, 3)
    x = np.random.default_rng(0).uniform(0.2, 0.8, (1, width))
    setup = Setup(network, Radii(input=0.05, weight=0.05, bias=0.05, activation=0.05), Options())
    bounds = tightened_bounds(setup.model, setup.intervals(x)).sample(0)
    row = np.array([1.0, -1.0, 0.0])

    def solve(program: Any, solver: Any) -> Any:
        session = (
            Tree(Scaled.of(program.program)) if solver == "highs" else solvers.adapter(solver).open(program.program)
        )
        began = time.perf_counter()
        outcome = session.minimise(program.combination(row), Limits(seconds=BILINEAR_LIMIT))
        session.close()
        return outcome, time.perf_counter() - began

    fast, seconds = benchmark.pedantic(lambda: solve(Relational(setup.maps, bounds), "highs"), rounds=3)  # type: ignore[no-untyped-call]
    slow, slow_seconds = solve(Bilinear(setup.maps, bounds), "scip")
    cut = slow.status is not Ending.OPTIMAL
    if not cut:
        assert abs(fast.dual_bound - slow.dual_bound) < 1e-5
    report(
        f"relational (HiGHS) against bilinear (SCIP), {width}-{width}-{width}-3",
        f"{seconds:.3f} s against {'over ' if cut else ''}{slow_seconds:.2f} s",
        f"{count_products(setup.family)} products; {slow_seconds / seconds:.0f}x" + (" or more" if cut else ""),
    )


def exact_figures(path: Path, data: str, bits: int, count: int, report: Any) -> None:
    network, samples = onnx_io.load(path), datasets.load(data)
    began = time.perf_counter()
    verdicts = verify(network, samples.x[:count], samples.y[:count], Radii.from_bits(bits), Options())
    seconds = time.perf_counter() - began
    exact = [v.seconds for v in verdicts if v.method == "exact"]
    unknown = sum(v.status is Status.UNKNOWN for v in verdicts)
    median, longest = (f(exact) if exact else 0.0 for f in (statistics.median, max))
    report(
        f"{path.stem}, {bits} bits, {count} samples, everything",
        f"{seconds:.1f} s",
        f"{len(exact)} by the exact step, {median:.2f} s each (median), at most {longest:.1f} s; {unknown} unknown",
    )


def test_exact_step_on_digits(benchmark: BenchmarkFixture, report: Any) -> None:
    benchmark.pedantic(lambda: exact_figures(MODELS / "digits_normal.onnx", "digits", 9, 200, report), rounds=1)  # type: ignore[no-untyped-call]


def test_exact_step_on_mnist(benchmark: BenchmarkFixture, report: Any) -> None:
    if not REFERENCE.exists():
        pytest.skip("the published 4x256 network is not at hand")
    benchmark.pedantic(lambda: exact_figures(REFERENCE, "mnist", 8, 100, report), rounds=1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("method", ["ibp", "bp"])
def test_batched_bounds(method: Any, benchmark: BenchmarkFixture, report: Any) -> None:
    """10,000 samples of a 784-256-256-256-10 network, margins included."""

    def run() -> Any:
        command = [sys.executable, str(HERE.with_name("batched_bounds.py")), method, "10000"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    found = benchmark.pedantic(run, rounds=1)  # type: ignore[no-untyped-call]
    report(
        f"{method.upper()}, 784-256-256-256-10, {found['samples']} samples",
        f"{found['seconds']:.2f} s",
        f"{found['samples'] / found['seconds']:,.0f} samples a second; peak memory {found['peak']:.0f} MiB",
    )
