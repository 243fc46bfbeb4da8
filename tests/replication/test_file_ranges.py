"""Ranges of an integer file: a family calibrated by a file has its grids, and covers it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qverify
from qverify import datasets
from qverify.errors import ModelError, RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.layers import Rounding
from qverify.replication.file_ranges import ranges_of_file
from tests.support.commands import qverify as command
from tests.support.networks import NETWORKS
from tests.support.paths import DIGITS
from tests.support.quantised import onnxruntime_file

EIGHT = Quantiser(8, "tensor", "nearest", points="onnxruntime")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnxruntime_file(str(DIGITS), datasets.load("digits").x[:40], path)
    return path


def test_a_family_has_the_grids_of_the_file(file: Path) -> None:
    network, quantised = qverify.load(DIGITS), qverify.load(file)
    family = Family.of(network, Radii.of(EIGHT, network, ranges_of_file(network, quantised, EIGHT)))
    points = [layer for layer in quantised.layers if isinstance(layer, Rounding)]
    assert family.entry is not None and len(points) == 1 + len(family.points)
    for layer, point in zip(points, [family.entry, *family.points.values()], strict=True):
        assert point.radius == pytest.approx(layer.step / 2, rel=1e-3)
        assert point.low[0].min() == pytest.approx(layer.low.min(), rel=1e-5)
        assert point.high[1].max() == pytest.approx(layer.high.max(), rel=1e-5)


def test_it_covers_the_file_that_it_is_of(file: Path) -> None:
    words = ["--bits", 8, "--scheme", "tensor", "--rounding", "nearest", "--points", "onnxruntime"]
    result = command("covers", DIGITS, file, *words, "--calibration", file)
    assert result.exit_code == 0, result.stdout + result.stderr
    few = command("covers", DIGITS, file, *words, "--data", "digits")
    assert few.exit_code == 1  # all samples have other ranges than the first 40


def test_what_gives_no_ranges(file: Path, rng: np.random.Generator) -> None:
    network, quantised = qverify.load(DIGITS), qverify.load(file)
    with pytest.raises(RadiiError, match=r"has 256 values at .*, the quantiser 16; state the bits of the file"):
        ranges_of_file(network, quantised, Quantiser(4, "channel"))
    with pytest.raises(ModelError, match="is no integer file of"):
        ranges_of_file(NETWORKS["dense"](rng), quantised, EIGHT)
