"""What benchmarks ask about: a network on MNIST, quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qverify import datasets
from qverify.datasets import Samples
from qverify.family.radii import Radii
from qverify.network import Network
from qverify.onnx import reader as onnx_io


def on_mnist(path: Path, bits: int, scheme: Any, rounding: Any) -> tuple[Network, Samples, Radii]:
    """The network, the test images and the radii; skips the benchmark where the network is not at hand."""
    if not path.exists():
        pytest.skip("the published networks are not at hand")
    network, samples = onnx_io.load(path), datasets.load("mnist")
    return network, samples, Radii.from_bits(bits, scheme, rounding, network, samples.x)
