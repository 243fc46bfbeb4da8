"""`qverify covers`: files of onnxruntime inside and outside families, and those of runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qverify import datasets
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS
from tests.support.quantised import onnxruntime_file

FAMILY = ("--scheme", "tensor", "--rounding", "float32", "--points", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An integer file, one that is computed in floating point, and the samples they were calibrated on."""
    path = tmp_path_factory.mktemp("covers")
    samples = datasets.load("digits")
    x = samples.x[:200].astype(np.float32)
    np.savez(path / "calibration.npz", x_test=x, y_test=samples.y[:200])
    onnxruntime_file(DIGITS, x, path / "int8.onnx")
    onnxruntime_file(DIGITS, x, path / "qdq.onnx", qdq=True)
    return path


def test_a_file_is_covered_by_the_bits_it_has(folder: Path) -> None:
    given = ("covers", DIGITS, folder / "int8.onnx", "--data", folder / "calibration.npz", *FAMILY)
    found = answer(*given, "--bits", 8)
    assert found["covered"] and found["rule"] == "float32" and len(found["parts"]) == 10
    assert all(part["covered"] and 0.5 < part["share"] <= 1 for part in found["parts"])
    shown = qverify(*given, "--bits", 8)
    assert shown.exit_code == 0 and "is covered: what was verified" in shown.stdout
    more = qverify(*given, "--bits", 9)
    assert more.exit_code == 1 and "NOT covered" in more.stdout and "times the radius" in more.stdout
    assert re.search(r"^qverify: \S*int8.onnx is not covered: \d+ of 10 parts are outside \(.+\)\.$", more.stderr, re.M)
    assert "parts are outside" not in shown.stderr
    fewer = qverify(*given[:-2], "--bits", 8)
    assert fewer.exit_code == 1 and "the family has no rounding point there" in fewer.stdout


def test_a_file_in_floating_point_errs_by_more(folder: Path) -> None:
    given = ("covers", DIGITS, folder / "qdq.onnx", "--data", folder / "calibration.npz", *FAMILY, "--bits", 8)
    found = qverify(*given)
    assert (
        found.exit_code == 1 and "an integer kernel that a runtime fuses the operators into is covered" in found.stdout
    )
    assert qverify(*given, "--rule", "nearest").exit_code == 0


def test_the_family_of_a_run(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    verified = ("verify", DIGITS, "--data", folder / "calibration.npz", *FAMILY, "--bits", 8, "--samples", 2)
    assert qverify(*verified, "--method", "ibp", "--out", run).exit_code == 0
    given = ("covers", DIGITS, folder / "int8.onnx")
    assert answer(*given, "--run", run)["covered"]
    for more, why in (
        (("--run", run, "--bits", 8), "leave --bits and --radii out"),
        (("--run", folder), "holds neither"),
        ((), "The radii are missing"),
    ):
        found = qverify(*given, *more)
        assert found.exit_code == 2 and why in found.stderr
    other = qverify("covers", Path(DIGITS).with_name("digits_normal.onnx"), folder / "int8.onnx", "--run", run)
    assert other.exit_code == 2 and "about another network" in other.stderr


def test_models_that_are_no_pair(folder: Path) -> None:
    file = folder / "int8.onnx"
    mnist = Path(DIGITS).with_name("mnist_3x64_normal.onnx")
    for models, why in (
        ((file, file), "is quantised; give the float network first"),
        ((DIGITS, DIGITS), "is not quantised"),
        ((mnist, file), "is no integer file of mnist_3x64_normal.onnx: it reads (8, 8)"),
    ):
        found = qverify("covers", *models, "--bits", 8)
        assert found.exit_code == 2 and why in found.stderr and not found.stdout
