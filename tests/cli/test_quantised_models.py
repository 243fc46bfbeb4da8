"""Commands on models that are quantised already: files that onnxruntime writes of the digits' network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import datasets
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS, MODELS
from tests.support.toolchain import Form, outputs, quantised

FORMS = {"QDQ": Form(), "QOperator": Form("QOperator", False, "QInt8", "QUInt8")}


def int8(source: str | Path, form: Form, path: Path) -> Path:
    """A network of the digits in int8; its input is called `x`, as the quantiser's reader has it."""
    model = onnx.load(source)
    old = model.graph.input[0].name
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        node.input[:] = ["x" if name == old else name for name in node.input]
    onnx.save(quantised(model, datasets.load("digits").x[:100], form), str(path))
    return path


@pytest.fixture(scope="module", params=list(FORMS))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network in int8."""
    return int8(DIGITS, FORMS[request.param], tmp_path_factory.mktemp("int8") / f"{request.param}.onnx")


def test_it_is_verified_around_its_own_integers(file: Path, tmp_path: Path) -> None:
    found = answer("verify", file, "--data", "digits", "--samples", "0:150", "--out", tmp_path / "run")
    assert found["radii"]["rounding"] == "float32" and "bits" not in found["radii"]
    rows, digits = read_rows(tmp_path / "run"), datasets.load("digits")
    verified = [row["index"] for row in rows if row["status"] == "verified"]
    assert len(verified) > 120
    for optimised in (True, False):
        said = outputs(onnx.load(str(file)), digits.x[verified], optimised)
        assert (said.argmax(1) == digits.y[verified]).all()
    assert all(row["grid"] == "on" for row in rows if row["status"] == "falsified")
    again = qverify("verify", file, "--data", "digits", "--samples", "0:150", "--out", tmp_path / "run", "--resume")
    assert again.exit_code == 0 and "150 samples are decided already" in again.stderr
    page = qverify("report", tmp_path / "run", "--format", "html", "--out", tmp_path / "page.html")
    assert page.exit_code == 0, page.stderr
    assert "rule float32" in (tmp_path / "page.html").read_text()


def test_rules_that_round_more_verify_less(file: Path) -> None:
    counts = [
        answer("verify", file, "--data", "digits", "--samples", "0:60", "--rounding", rule)["verified"]
        for rule in ("nearest", "float32", "any")
    ]
    assert counts[0] >= counts[1] >= counts[2]


def test_open_samples_come_with_the_command_that_may_decide_them(tmp_path: Path) -> None:
    file = int8(MODELS / "digits_normal.onnx", FORMS["QOperator"], tmp_path / "normal.onnx")
    asked = ("verify", file, "--data", "digits", "--method", "ibp", "--rounding")
    decided, opened = qverify(*asked, "any"), qverify(*asked, "double")
    assert decided.exit_code == opened.exit_code == 0
    (way,) = (line for line in opened.stdout.splitlines() if "qverify runtimes" in line)
    assert "qverify runtimes" not in decided.stdout
    again = qverify(*way.split(": qverify ")[1].split())
    assert again.exit_code == 0, again.stderr


def test_runtimes_agree_on_what_is_the_same(file: Path, tmp_path: Path) -> None:
    """Also of a QDQ file, whose biases have steps of their own that are next to the product of the others."""
    found = answer(
        "runtimes", file, "--data", "digits", "--samples", "0:40", "--rules", "float32", "--out", tmp_path / "r"
    )
    rows = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    same = [row for row in rows if row["status"] == "same"]
    assert len(same) == found["same"] >= 36
    said = outputs(onnx.load(str(file)), datasets.load("digits").x[[row["index"] for row in same]])
    assert [row["predicted"] for row in same] == said.argmax(1).tolist()


def test_radii_around_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("input = 0.02\n")
    alone = answer("verify", file, "--data", "digits", "--samples", "0:60")
    around = answer("verify", file, "--data", "digits", "--samples", "0:60", "--radii", tmp_path / "r.toml")
    assert around["verified"] <= alone["verified"] and "radii file" in around["convention"]
    assert "rule float32" in around["convention"]


def test_inspect_names_its_rounding_points(file: Path) -> None:
    found = answer("inspect", file)
    points = [layer for layer in found["layers"] if layer["kind"] == "Rounding"]
    assert len(points) >= 3 and all(layer["point"]["step"] > 0 for layer in points)
    assert all(layer["point"]["low"] <= 0 <= layer["point"]["high"] for layer in points)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bits", 8], "is quantised already, so --bits has nothing to say; leave it out"),
        (["--bits", 8, "--scheme", "channel"], "is quantised already"),
        (["--scheme", "channel"], "--scheme says what --bits means"),
        (["--rounding", "up"], "is not one of"),
    ],
)
def test_what_makes_no_sense_for_it(file: Path, arguments: list[Any], said: str) -> None:
    result = qverify("verify", file, "--data", "digits", *arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_a_float_model_has_no_runtimes() -> None:
    result = qverify("verify", DIGITS, "--data", "digits", "--rounding", "single")
    assert result.exit_code == 2 and "--rounding says what --bits means; give --bits too" in result.stderr


def test_radii_of_a_quantiser_are_written_and_read(tmp_path: Path) -> None:
    words = ["--bits", "W8A8", "--scheme", "channel", "--rounding", "nearest", "--points", "onnxruntime"]
    result = qverify("radii", DIGITS, "--data", "digits", *words, "--out", tmp_path / "r.toml")
    assert result.exit_code == 0 and "4 rounding points" in result.stdout
    some = ("--data", "digits", "--samples", "0:80")
    stated, written = (
        answer("verify", DIGITS, *some, *words),
        answer("verify", DIGITS, *some, "--radii", tmp_path / "r.toml"),
    )
    for key in ("verified", "falsified", "unknown", "misclassified"):
        assert stated[key] == written[key]


@pytest.mark.slow
def test_a_plan_of_mixed_widths(tmp_path: Path) -> None:
    plan = {"models": str(DIGITS), "data": "digits", "bits": ["W4A8", 8], "schemes": "channel", "roundings": "nearest"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plan.items()]
    (tmp_path / "plan.toml").write_text("\n".join([*lines, 'points = "tflite"', 'samples = "0:20"', 'out = "out"']))
    found = answer("batch", tmp_path / "plan.toml", "--jobs", 1)
    counts = [case["verified"] for case in found["cases"].values()]
    assert len(counts) == 2 and counts[0] < counts[1]


def test_ranges_are_taken_on_other_samples(tmp_path: Path) -> None:
    digits = datasets.load("digits")
    np.savez(tmp_path / "few.npz", x=digits.x[:5], y=digits.y[:5])
    words = ["--bits", 8, "--scheme", "channel", "--rounding", "nearest", "--samples", "0:40"]
    found = answer("verify", DIGITS, "--data", "digits", *words, "--calibration", f"{tmp_path / 'few.npz'}[0:3]")
    assert found["radii"]["calibration"].endswith("few.npz[0:3]")
    every = answer("verify", DIGITS, "--data", "digits", *words)
    assert found["radii"]["largest"]["activation"] < every["radii"]["largest"]["activation"]
