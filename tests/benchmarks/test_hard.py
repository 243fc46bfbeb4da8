"""What is left when BP at every layer and a first attack are done, and networks of many Relus."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.paths import MODELS
from tests.support.problems import on_mnist

HERE = Path(__file__).resolve()
PUBLISHED = Path(os.environ.get("QVERIFY_PUBLISHED", "")) / "published_normal_4x256.onnx"
HARD: dict[str, tuple[Path, Any, Any, list[int]]] = {
    "published": (
        PUBLISHED,
        "paper",
        "any",
        [
            *(0, 2, 3, 5, 10, 13, 14, 17, 19, 23, 29, 30, 31, 32, 34, 37, 40, 47, 50, 51, 52, 53, 56, 57, 67, 68, 71),
            *(72, 74, 76),
        ],
    ),
    "ours": (
        MODELS / "mnist_4x256_normal.onnx",
        "channel",
        "nearest",
        [
            *(18, 20, 61, 80, 158, 199, 233, 250, 268, 290, 339, 389, 412, 417, 444, 447, 464, 479, 543, 591, 628),
            *(645, 654, 655, 689, 716, 738, 874, 878, 944),
        ],
    ),
}
"""The first 30 MNIST images each that BP at every layer and the attack between (1) left open, at 10 bits."""


@pytest.mark.parametrize("name", HARD)
def test_hard_samples(name: str, benchmark: BenchmarkFixture, report: Any) -> None:
    """Each alone, with 10 s of one thread."""
    path, scheme, rounding, hard = HARD[name]
    network, samples, radii = on_mnist(path, 10, scheme, rounding)
    taken: list[tuple[float, bool]] = []

    def run() -> None:
        for i in hard:
            began = time.perf_counter()
            (verdict,) = verify(
                network, samples.x[i : i + 1], samples.y[i : i + 1], radii, Options(jobs=1, seconds=10.0)
            )
            taken.append((time.perf_counter() - began, verdict.status is not Status.UNKNOWN))

    benchmark.pedantic(run, rounds=1)  # type: ignore[no-untyped-call]
    decided = {limit: sum(done and seconds <= limit for seconds, done in taken) for limit in (1.0, 3.0, 10.5)}
    report(
        f"{path.stem}, 10 bits, {len(hard)} hard samples",
        f"{decided[10.5]} decided within 10 s",
        f"{decided[1.0]} within 1 s, {decided[3.0]} within 3 s",
    )


@pytest.mark.parametrize("name", ["residual-12k", "conv-45k"])
def test_large_networks(name: str, benchmark: BenchmarkFixture, report: Any) -> None:
    """Random weights, 16 bits: proved by BP at every layer. Time by the row, memory of all processes."""

    def run() -> str:
        options = ["--only", name, "--bits", "16", "--method", "auto", "--samples", "1", "--timeout", "60"]
        command = [sys.executable, str(HERE.with_name("limits.py")), *options, "--memory", "4G"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]

    words = benchmark.pedantic(run, rounds=1).split()  # type: ignore[no-untyped-call]
    report(f"{name}, {words[1]} Relus, 16 bits, a sample", f"{words[2]} s", " ".join(words[6:8]) + " at most")
