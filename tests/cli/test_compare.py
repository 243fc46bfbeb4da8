"""`qverify compare`: what it prints and writes, on files that onnxruntime made and on MLPerf Tiny's autoencoder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import datasets
from qverify.loading import load
from qverify.replication.gaps import Gaps
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS
from tests.support.quantised import onnxruntime_file

TINY = Path(os.environ.get("QVERIFY_DATA", "")) / "mlperf_tiny"
needs_tiny = pytest.mark.skipif(not (TINY / "ad01_int8.tflite").exists(), reason="MLPerf Tiny's files are not there")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compare") / "digits_int8.onnx"
    onnxruntime_file(DIGITS, datasets.load("digits").x[:200], path)
    return str(path)


def test_what_is_compared_is_what_both_models_give(file: str, tmp_path: Path) -> None:
    out = tmp_path / "evidence.json"
    given = ("compare", DIGITS, file, "--data", "digits", "--samples", "5:15")
    found = answer(*given, "--epsilon", 0.2, "--out", out)
    written = json.loads(out.read_text())
    assert written.keys() == found.keys() and written["rows"] == found["rows"]
    network, integers, samples = load(DIGITS), load(file), datasets.load("digits")
    x = samples.x[5:15].reshape(10, -1)
    gap = integers.evaluate(x) - network.evaluate(x)
    assert found["largest_proved"] >= found["largest_attained"] >= abs(gap).max() - 1e-12
    assert (np.array(found["lower"]) <= gap.min(0)).all() and (np.array(found["upper"]) >= gap.max(0)).all()
    assert [row["index"] for row in found["rows"]] == list(range(5, 15)) and found["sample_range"] == [5, 15]
    classes = network.evaluate(x).argmax(1), integers.evaluate(x).argmax(1)
    assert found["same_class"] == (classes[0] == classes[1]).sum()
    assert [found["float_right"], found["file_right"]] == [int((c == samples.y[5:15]).sum()) for c in classes]
    for part, path in (("float", DIGITS), ("file", file)):
        assert found[part]["model_sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert found["data_sha256"] == samples.sha256 and "ED-324" in found["purpose"]
    assert found["within"] + found["exceeds"] + found["unknown"] == 10 and found["exceeds"] == sum(
        abs(gap).max(1) > 0.2
    )
    again = qverify(*given, "--out", out)
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_tables_and_exit_status(file: str) -> None:
    given = ("compare", DIGITS, file, "--data", "digits", "--samples", "5")
    shown = qverify(*given)
    assert shown.exit_code == 0 and "SNR, dB" in shown.stdout and "same class, 5 of 5" in shown.stdout
    assert "on every runtime that rounds by rule float32, over 5 samples" in shown.stdout
    assert hashlib.sha256(Path(file).read_bytes()).hexdigest() in shown.stdout
    for epsilon, status in (("100", 0), ("1e-6", 1)):
        found = qverify(*given, "--epsilon", epsilon, "--fail-on", "exceeds,unknown")
        assert found.exit_code == status, found.stdout
        said = [line for line in found.stderr.splitlines() if "--fail-on" in line]
        assert len(said) == status and all("of 5 samples 5 exceeds (0, 1, 2, 3, 4)." in line for line in said)
    box = answer(*given, "--input-radius", 0.02, "--clip-input", 0, 1)
    assert box["largest_proved"] > answer(*given)["largest_proved"] and box["clip_input"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--epsilon", "-1"), "--epsilon is -1; give a number that is not negative"),
        (("--input-radius", "nan"), "--input-radius is nan"),
        (("--clip-input", "0", "1"), "give --input-radius too"),
        (("--fail-on", "exceeds"), "give --epsilon too"),
        (("--input", "exact"), "--input exact is about inputs around the samples; give --input-radius too"),
        (("--input", "exact", "--input-radius", "1", "--rounding", "any"), "which rule any does not say"),
        (("--epsilon", "1", "--fail-on", "within"), "none of exceeds, unknown"),
    ],
)
def test_senseless_options(file: str, more: tuple[str, ...], why: str) -> None:
    found = qverify("compare", DIGITS, file, "--data", "digits", *more)
    assert found.exit_code == 2 and why in found.stderr and not found.stdout


def test_models_that_are_no_pair(file: str, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    model = onnx.load(str(Path(DIGITS).with_name("mnist_3x64_normal.onnx")))
    onnx.save(model, str(other))
    for models, why in (
        ((file, file), "is quantised; give the float network first"),
        ((DIGITS, DIGITS), "is not quantised; give the integer file that was made of"),
        ((other, file), r"it reads (8, 8) and the network (28, 28)"),
    ):
        data = "mnist" if models[0] == other else "digits"
        found = qverify("compare", *models, "--data", data, "--samples", "2")
        missing = data == "mnist" and "mnist" in found.stderr and "it reads" not in found.stderr
        assert found.exit_code == 2 and (why in found.stderr or missing), found.stderr


def test_an_interrupted_comparison_keeps_its_rows(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Gaps.at

    def interrupted(self: Gaps, index: int, x: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return at(self, index, x)

    monkeypatch.setattr(Gaps, "at", interrupted)
    found = qverify("compare", DIGITS, file, "--data", "digits", "--samples", "7:12", "--json")
    assert found.exit_code == 130 and "interrupted: 1 of 5 samples are done" in found.stderr
    assert json.loads(found.stdout)["interrupted"] is True and len(json.loads(found.stdout)["rows"]) == 1


@needs_tiny
@pytest.mark.slow
def test_the_autoencoder_of_mlperf_tiny_is_within_50() -> None:
    models = [TINY / name for name in ("ad01_fp32.onnx", "ad01_int8.tflite")]
    found = answer("compare", *models, "--data", TINY / "ad_196.npz", "--epsilon", 50)
    assert found["within"] == 196 and 5.3 < found["largest_attained"] <= found["largest_proved"] < 10
    assert found["same_class"] is None  # an autoencoder has no classes
