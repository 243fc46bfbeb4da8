"""Data in wrong units, with other axes or other classes are pointed out with the cause, and --input-scale mends units.

Oracles: data sets spoilt here in known ways, and linear classifiers whose labels are computed by numpy.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.datasets import Samples, units
from qverify.layers import Conv, Dense, Input
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS

RIGHT = datasets.load("digits")
X, Y = RIGHT.x, RIGHT.y
RANDOM = np.random.default_rng(0).integers(0, 10, len(Y))
FLIPPED = X.transpose(0, 2, 1)
ORDER = r"axes of the inputs in another order: x\.reshape\(-1, 8, 8\)\.transpose\(0, 2, 1\)\.$"
TIMES_255 = r"better than chance with 10 classes, but on 2\d\d with the inputs multiplied by 255; --input-scale 255"
SPOILT: dict[str, tuple[Any, Any, str]] = {
    "twice": (X / 255, Y, TIMES_255),
    "sixteen": (X * 16, Y, r"inputs go from 0 to 16, .*divided by 16, the largest; --input-scale 1/16 does that\.$"),
    "pixels": (np.rint(X * 255), Y, r"inputs go from 0 to 255, .*divided by 255; --input-scale 1/255 does that\.$"),
    "normalised": (X * 6 - 3, Y, r"inputs go from -3 to 3, .*brought from \[-3, 3\] to \[0, 1\]; store them without"),
    "transposed": (FLIPPED, Y, ORDER),
    "transposed and flat": (FLIPPED.reshape(-1, 64), Y, ORDER),
    "negative": (1 - X, Y, r"turned from black to white: 1 - x\.$"),
    "classes": (X, (Y + 3) % 10, r"classes in another order: label 0 is output 7, 1 is output 8, 2 is"),
    "other labels": (
        X,
        RANDOM,
        r"than chance with 10 classes; are these its data, in its units, axes and classes",
    ),
}


def stored(folder: Path, x: Any, y: Any, name: str = "mine") -> str:
    np.savez(folder / f"{name}.npz", x=x, y=y)
    return str(folder / f"{name}.npz")


def notes(stderr: str) -> list[str]:
    """Those about the data."""
    return [line for line in stderr.splitlines() if "the network is right on" in line]


@pytest.mark.parametrize("kind", SPOILT)
def test_the_cause_is_named(kind: str, tmp_path: Path) -> None:
    x, y, sentence = SPOILT[kind]
    given = ("--data", stored(tmp_path, x, y), "--bits", 8, "--samples", 2, "--method", "ibp")
    (line,) = notes(qverify("verify", DIGITS, *given).stderr)
    assert line.startswith("qverify: note: ") and re.search(sentence, line), line
    right = int(re.search(r"is right on (\d+) of 300 samples spread over mine", line)[1])  # type: ignore[index]
    some = np.linspace(0, 598, 300).astype(int)
    answers = onnx_io.load(DIGITS).evaluate(x[some].reshape(300, -1)).argmax(1)
    assert right == (answers == y[some]).sum()


@pytest.mark.parametrize("model", sorted(Path(DIGITS).parent.glob("digits*.onnx")), ids=lambda path: path.stem)
def test_data_that_are_right_are_taken_without_a_word(model: Path) -> None:
    network = onnx_io.load(model)
    assert units.doubts(network, RIGHT) == []
    for count in (1, 29, 30, 100):
        assert units.doubts(network, datasets.select(RIGHT, str(count))[0]) == []


def linear(rng: Any, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> tuple[Network, Samples]:
    """A classifier into 5 classes, and 200 samples that it gets right, scale * [0, 1] + shift."""
    weight, bias = rng.normal(size=(5, int(np.prod(shape)))), rng.normal(size=5)
    x = rng.random((200, *shape)) * scale + shift
    flat = x.reshape(200, -1)
    weight /= scale
    bias -= weight @ flat.mean(0)
    y = (flat @ weight.T + bias).argmax(1)
    network = Network((Input("x", (), shape), Dense("d", (0,), (5,), weight, bias)), "linear")
    return network, Samples("mine", x, y, "", "")


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (255, 0), (6, -3), (1 / 255, 0), (16, 0), (1e-3, 5)])
def test_other_units_are_right_where_the_network_reads_them(rng: np.random.Generator, scale: float, shift: int) -> None:
    """Most of the labels: a tenth are others."""
    network, samples = linear(rng, (4, 4), scale, shift)
    samples.y[::10] = (samples.y[::10] + 1) % 5
    assert units.doubts(network, samples) == []


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_colours_that_come_last_and_other_orders(rng: np.random.Generator, order: tuple[int, ...], known: bool) -> None:
    """The recipe in the remark brings the axes back, also where neither the file nor the network has any."""
    network, samples = linear(rng, (3, 5, 5))
    wrong = samples.x.transpose(order).reshape(200, -1)
    if not known:
        network = Network((Input("x", (), (75,)), network.layers[1]), "linear")
    (said,) = units.doubts(network, Samples("mine", wrong, samples.y, "", ""))
    recipe = re.search(r"another order: x(\.reshape\([-\d, ]+\)\.transpose\([\d, ]+\))\.$", said)
    assert recipe is not None, said
    mended = eval(f"wrong{recipe[1]}", {"wrong": wrong})
    np.testing.assert_array_equal(mended, samples.x)


def test_labels_that_start_at_1(rng: np.random.Generator) -> None:
    network, samples = linear(rng, (6,))
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    more = np.vstack([layer.weight, np.zeros(6)]), np.append(layer.bias, -1e3)  # an output that nothing is
    network = Network((network.layers[0], Dense("d", (0,), (6,), *more)), "linear")
    (said,) = units.doubts(network, Samples("mine", samples.x, samples.y + 1, "", ""))
    assert "with the labels less 1; number the classes from 0." in said


def test_nothing_is_said_that_few_samples_cannot_tell(rng: np.random.Generator) -> None:
    network, samples = linear(rng, (6,))
    wrong = Samples("mine", samples.x[:29], (samples.y[:29] + 1) % 5, "", "")
    assert units.doubts(network, wrong) == []
    wrong = Samples("mine", samples.x[:30], (samples.y[:30] + 1) % 5, "", "")
    assert "is right on 0 of 30 samples, which is not clearly" in units.doubts(network, wrong)[0]


def test_the_same_answer_for_all_is_no_better_than_chance(rng: np.random.Generator) -> None:
    """Though it is right on most."""
    network, samples = linear(rng, (6,))
    stuck = Network((network.layers[0], Dense("d", (0,), (5,), np.zeros((5, 6)), np.arange(5.0))), "stuck")
    mostly = Samples("mine", samples.x, np.where(np.arange(200) % 10, 4, 1), "", "")
    assert "is right on 180 of 200 samples, which is not clearly better than chance" in units.doubts(stuck, mostly)[0]
    one = Samples("mine", samples.x, np.full(200, 4), "", "")
    assert units.doubts(stuck, one) == []


def test_what_labels_do_not_fit_is_left_alone_and_large_networks_are_asked_little(rng: np.random.Generator) -> None:
    network, samples = linear(rng, (6,))
    assert units.doubts(network, Samples("mine", samples.x, samples.y + 7, "", "")) == []
    for side, most in ((8, 300), (64, units.LEAST), (256, 0)):
        shape = (64, side, side)
        layer = Conv("c", (0,), shape, np.ones((64, 64, 3, 3)), np.ones(64), shape, pads=(1, 1, 1, 1))
        assert units._affordable(Network((Input("x", (), shape), layer), "large")) == most


# --- the commands ---


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Digits divided by 256, which no rounding hides; by 255 they would be others in the last digit."""
    return stored(tmp_path, X / 256, Y)


COMMANDS: dict[str, tuple[Any, ...]] = {
    "verify": ("verify", DIGITS, "--bits", 8, "--method", "ibp"),
    "sweep": ("sweep", DIGITS, "--bits", 8, "--parts", "all", "--method", "ibp"),
    "radius": ("radius", DIGITS, "--bits", 8, "--method", "ibp"),
    "discrepancy": ("discrepancy", DIGITS, "--bits", 8, "--method", "ibp"),
    "inspect": ("inspect", DIGITS, "--bits", 8, "--method", "ibp"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_it_once_and_reads_the_inputs_scaled(command: str, small: str) -> None:
    given = (*COMMANDS[command], "--samples", "0:4", "--json")
    doubtful = qverify(*given, "--data", small)
    assert doubtful.exit_code == 0 and len(notes(doubtful.stderr)) == 1
    assert "not clearly better than chance" in doubtful.stderr
    mended = qverify(*given, "--data", small, "--input-scale", 256)
    assert mended.exit_code == 0 and notes(mended.stderr) == []
    right = qverify(*given, "--data", "digits")
    found, wanted, wrong = (json.loads(result.stdout) for result in (mended, right, doubtful))
    assert reduced(found) == reduced(wanted) != reduced(wrong)


def reduced(found: dict[str, Any]) -> str:
    """Without what differs between two runs on the same inputs."""
    other = ("seconds", "data", "data_source", "data_sha256", "input_scale", "runs", "started", "stages")
    if isinstance(found, dict):
        return str({key: reduced(value) for key, value in found.items() if key not in other})
    return str([reduced(one) for one in found]) if isinstance(found, list) else str(found)


@pytest.mark.slow
def test_a_batch_says_it_once_a_model_and_data_set(tmp_path: Path, small: str) -> None:
    text = f'models = ["{DIGITS}"]\ndata = ["{small}", "digits"]\nbits = [7, 8]\nmethods = ["ibp", "bp"]\n'
    text += "samples = 4\n"
    (tmp_path / "plan.toml").write_text(text)
    result = qverify("batch", tmp_path / "plan.toml", "--out", tmp_path / "out", "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    (line,) = notes(result.stderr)
    assert line.startswith(f"qverify: note: digits.onnx on {small}: inputs go from 0 to 0.00391")
    text = text.replace(', "digits"', "") + "input-scale = 256\n"
    (tmp_path / "plan.toml").write_text(text)
    scaled = qverify("batch", tmp_path / "plan.toml", "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert scaled.exit_code == 0 and notes(scaled.stderr) == []
    assert "16 samples are decided already; 0 are left" in scaled.stderr  # those of digits, which are the same inputs
    for case in json.loads(scaled.stdout)["cases"].values():
        assert case["clean_accuracy"] == (onnx_io.load(DIGITS).evaluate(X[:4]).argmax(1) == Y[:4]).mean()


SENSELESS = {
    **dict.fromkeys(("0", "-1", "nan", "inf", "1/0", "1/2/3"), "above 0"),
    "x": "not a valid",
    "": "not a valid",
    "1e308": "overflow",
}


@pytest.mark.parametrize(("value", "message"), SENSELESS.items())
def test_senseless_factors(value: str, message: str, tmp_path: Path) -> None:
    given = ("--data", stored(tmp_path, X * 100, Y), "--bits", 8, "--input-scale", value)
    result = qverify("verify", DIGITS, *given)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_a_factor_belongs_to_data() -> None:
    result = qverify("inspect", DIGITS, "--input-scale", 2)
    assert result.exit_code == 2 and "give --data too" in result.stderr


def test_a_run_goes_on_with_the_same_factor_only(tmp_path: Path, small: str) -> None:
    given = ("verify", DIGITS, "--data", small, "--bits", 8, "--method", "ibp", "--out", tmp_path / "run")
    answer(*given, "--samples", "0:4", "--input-scale", "256/1")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["input_scale"] == 256.0
    for other in ([], ["--input-scale", 255]):
        result = qverify(*given, "--samples", "0:8", "--resume", *other)
        assert result.exit_code == 2 and "input_scale was 256.0 and is" in result.stderr
    assert answer(*given, "--samples", "0:8", "--resume", "--input-scale", 256)["samples"] == 8
    assert len(read_rows(tmp_path / "run")) == 8
    assert (
        "mine.npz times 256, samples 0:8: 8 samples"
        in qverify(*given, "--samples", "0:8", "--resume", "--input-scale", 256).stdout
    )


def test_a_report_reads_the_inputs_scaled_too(tmp_path: Path, small: str) -> None:
    """The attack finds the members that it shows again, so the inputs must be those of the run."""
    pages = {}
    for name, given in {"scaled": (small, "--input-scale", 256), "right": ("digits",)}.items():
        run = tmp_path / name
        answer("verify", DIGITS, "--data", *given, "--bits", 6, "--samples", "0:30", "--out", run)
        assert qverify("report", run, "--format", "html", "--out", tmp_path / f"{name}.html").exit_code == 0
        pages[name] = re.findall(r'<img[^>]*alt="sample [^>]*>', (tmp_path / f"{name}.html").read_text())
    assert pages["scaled"] and pages["scaled"] == pages["right"]


def test_training_scales_both_splits_and_points_out_units_that_no_network_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = datasets.load_train("digits")
    for name, factor in (("right", 1.0), ("twice", 1 / 256), ("pixels", 64.0)):
        arrays = {"x_train": train.x * factor, "y_train": train.y, "x_test": X * factor, "y_test": Y}
        np.savez(tmp_path / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    given = ("train", "--arch", "mlp:8", "--epochs", 1, "--threads", 1, "--data")
    doubtful = [
        qverify(*given, tmp_path / f"{name}.npz", "--out", tmp_path / f"{name}.onnx") for name in ("twice", "pixels")
    ]
    assert "as pixels divided by 255 twice do; --input-scale 255" in doubtful[0].stderr
    assert (
        "inputs go from 0 to 64, as pixels do; networks learn better in [0, 1]; --input-scale 1/255"
        in doubtful[1].stderr
    )
    right = qverify(*given, tmp_path / "right.npz", "--out", tmp_path / "right.onnx")
    assert "inputs go" not in right.stderr
    facts = answer(*given, tmp_path / "twice.npz", "--input-scale", 256, "--out", tmp_path / "mended.onnx")
    assert (tmp_path / "mended.onnx").read_bytes() == (tmp_path / "right.onnx").read_bytes()
    assert facts["input_scale"] == 256.0 and "--input-scale 256.0 " in facts["command"]
