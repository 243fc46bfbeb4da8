"""`qverify.verify` in all its forms against the command line, which has the same words, and against its plain form."""

from __future__ import annotations

import inspect
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import qverify
from qverify import datasets
from qverify.errors import DataError, ModelError, QVerifyError, RadiiError, UsageError
from qverify.library.words import Words
from qverify.runs.given import Given
from tests.support import commands
from tests.support.paths import DIGITS
from tests.support.quantised import onnxruntime_file

SAMPLES = datasets.load("digits")
X, Y = SAMPLES.x[:25], SAMPLES.y[:25]
RADII = qverify.Radii.from_bits(6)


def answers(result: Any) -> list[tuple[int, str, str]]:
    return [(verdict.index, verdict.status.value, verdict.method) for verdict in result]


PLAIN = answers(qverify.verify(qverify.load(DIGITS), X, Y, RADII))
"""As it always was: a network, arrays, radii."""


@pytest.mark.parametrize("radii", [6, "W6A6", RADII, "mine.toml", Path("mine.toml")], ids=str)
@pytest.mark.parametrize("model", ["path", "Path", "proto", "network"])
def test_models_and_radii_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, radii: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("input = 0.015625\nweight = 0.03125\nbias = 0.03125\nactivation = 0.03125\n")
    form: Any = {"path": DIGITS, "Path": Path(DIGITS), "proto": onnx.load(DIGITS), "network": qverify.load(DIGITS)}
    assert answers(qverify.verify(form[model], X, Y, radii)) == PLAIN


def test_samples_in_any_form(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=X, y=Y)
    for x, y in ((X.reshape(25, 64), Y), (X.tolist(), Y.tolist()), (torch.as_tensor(X), torch.as_tensor(Y)[:, None])):
        assert answers(qverify.verify(DIGITS, x, y, 6)) == PLAIN
    for samples in (datasets.Samples("mine", X, Y, "", "memory"), str(tmp_path / "mine.npz"), tmp_path / "mine.npz"):
        assert answers(qverify.verify(DIGITS, samples, radii=6)) == PLAIN
    for data in ("digits", str(tmp_path / "mine.npz")):
        assert answers(qverify.verify(DIGITS, data=data, samples=25, bits=6)) == PLAIN


def test_indices_are_those_of_the_data() -> None:
    told: list[int] = []
    result = qverify.verify(DIGITS, "digits", radii=6, samples="5:25", on_verdict=lambda one: told.append(one.index))
    assert answers(result) == PLAIN[5:] and sorted(told) == list(range(5, 25)) and result.about.asked == range(5, 25)
    assert answers(qverify.verify(DIGITS, X, Y, 6, samples="5:25")) == PLAIN[5:]


@pytest.mark.parametrize(
    "words",
    [
        {"bits": 6, "method": "bp"},
        {"bits": 8, "scheme": "channel", "rounding": "nearest", "points": "onnxruntime", "method": "bp"},
        {"bits": "W4A8", "scheme": "tensor", "calibration": "digits[0:50]", "kernel": "any", "method": "ibp"},
        {"bits": 5, "clip_input": (0.0, 1.0), "method": "ibp", "rounding": "nearest"},
        {"bits": 6, "input_scale": 0.5, "method": "ibp", "timeout": None},
    ],
    ids=lambda words: " ".join(map(str, words.values())),
)
def test_words_mean_what_options_mean(tmp_path: Path, words: dict[str, Any]) -> None:
    options: list[Any] = []
    for name, value in words.items():
        options += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else [value])]
    options = ["inf" if value is None else value for value in options]
    given = ("verify", DIGITS, "--data", "digits", "--samples", "10:40", *options, "--out", tmp_path)
    assert commands.qverify(*given).exit_code == 0
    rows = {row["index"]: row for row in commands.read_rows(tmp_path)}
    result = qverify.verify(DIGITS, data="digits", samples="10:40", **words)
    assert [(one.index, one.status.value, one.method) for one in result] == [
        (index, row["status"], row["method"]) for index, row in sorted(rows.items())
    ]
    ends = [(one.row().margin_lower, one.row().margin_upper) for one in result]
    assert ends == [(row["margin_lower"], row["margin_upper"]) for _, row in sorted(rows.items())]


def test_every_option_of_the_question_is_a_keyword() -> None:
    assert set(Words.__annotations__) == {one.name for one in fields(Given)} - {"model", "radii"} | {"progress"}
    assert list(inspect.signature(qverify.verify).parameters)[:7] == [
        *("network", "x", "y", "radii", "options", "on_verdict", "stop"),
    ]


def test_options_go_on_working() -> None:
    options = qverify.Options(method="ibp", attack=False, clip=(0.0, 1.0))
    plain = qverify.verify(qverify.load(DIGITS), X, Y, RADII, options)
    assert answers(qverify.verify(DIGITS, X, Y, 6, options)) == answers(plain)
    assert {one.method for one in plain} <= {"ibp", "forward"}


def test_a_run_that_is_stopped_is_a_result() -> None:
    stop = threading.Event()
    stop.set()
    result = qverify.verify(DIGITS, X, Y, 6, None, None, stop)
    assert len(result) < 25 and result.asked == 25 and "not decided" in result.summary()


def test_warnings_are_where_the_command_line_has_notes() -> None:
    note = commands.qverify("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", 3).stderr
    with pytest.warns(qverify.QVerifyWarning, match="weights reach 2") as said:
        qverify.verify(DIGITS, X[:3], Y[:3], 6)
    assert all(str(one.message) in note for one in said) and all(one.filename == __file__ for one in said)


def test_progress_is_told_when_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qverify.library import verify

    monkeypatch.setattr(verify, "_EVERY", 0.0)
    qverify.verify(DIGITS, X, Y, 6)
    assert capsys.readouterr() == ("", "")
    qverify.verify(DIGITS, X, Y, 6, progress=True)
    out, err = capsys.readouterr()
    assert not out and "25 of 25: " in err


# --- torch modules ---


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).eval()


def test_a_module_is_the_network_that_it_exports_to(tmp_path: Path) -> None:
    live = module()
    network = qverify.load(live, (8, 8))
    with torch.no_grad():
        wanted = live.double()(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(network.evaluate(X.reshape(25, 64)), wanted, rtol=1e-9, atol=1e-9)
    labels = wanted.argmax(1)
    qverify.save(network, tmp_path / "net.onnx")
    result = qverify.verify(module(), X, labels, 10)
    assert answers(result) == answers(qverify.verify(tmp_path / "net.onnx", X, labels, 10))
    assert {"verified", "falsified"} <= {one.status.value for one in result}
    before = network.evaluate(X.reshape(25, 64))
    nn.init.zeros_(next(iter(live.parameters())))  # it goes on training; the network does not
    np.testing.assert_array_equal(network.evaluate(X.reshape(25, 64)), before)


def test_shapes_of_modules() -> None:
    with pytest.raises(UsageError, match=r"give input_shape, that of one sample, as in qverify.load\(module, \(1, 28"):
        qverify.load(module())
    with pytest.raises(UsageError, match="input_shape is for torch modules"):
        qverify.load(DIGITS, (8, 8))
    for shape in (3, (8, "8"), (5,)):
        with pytest.raises(QVerifyError):
            qverify.load(module(), shape)  # type: ignore[arg-type]


# --- refusals ---


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"schem": "tensor"}, UsageError, "qverify.verify has no argument 'schem'; the nearest is 'scheme'."),
        ({"time-out": 3}, UsageError, "has no argument 'time-out'; the nearest is 'timeout'."),
        ({"methods": "bp"}, UsageError, "the nearest is 'method'."),
        ({"method": "fast"}, UsageError, "There is no method 'fast'"),
        ({"timeout": "3"}, UsageError, "timeout is the str '3'; give seconds, or None"),
        ({"timeout": -1}, UsageError, "The time limit is -1 seconds"),
        ({"progress": 1}, UsageError, "progress is the int 1; give True or False."),
        ({"radii": None}, UsageError, "The radii are missing; give bits N, or radii FILE.toml."),
        ({"bits": 8}, UsageError, "radii and bits exclude each other"),
        ({"radii": None, "scheme": "tensor"}, UsageError, "scheme says what bits means; give bits too."),
        ({"kernel": "any"}, UsageError, "kernel says what scheme tensor and channel mean"),
        ({"radii": True}, RadiiError, "radii is True; give Radii"),
        ({"radii": 99}, RadiiError, "99"),
        ({"radii": "nowhere.toml"}, RadiiError, "the radii file nowhere.toml: No such file"),
        ({"options": qverify.Options(), "method": "bp"}, UsageError, "options and method both say how to verify"),
        ({"data": "digits"}, UsageError, "x and data exclude each other"),
        ({"x": "digits"}, UsageError, "y goes with an array x"),
        ({"y": None}, UsageError, "The samples are missing; give x and y, or data"),
        ({"y": [1, [2]]}, DataError, "The labels are"),
        ({"y": Y[:3]}, DataError, "The labels have shape (3,)"),
        ({"x": np.full((25, 64), np.nan)}, DataError, "finite"),
        ({"network": "nowhere.onnx"}, ModelError, "nowhere.onnx does not exist"),
        ({"network": 3}, ModelError, "int 3"),
        ({"samples": "9:5"}, UsageError, "9:5"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_one_sentence(words: dict[str, Any], error: type[Exception], said: str) -> None:
    given: dict[str, Any] = {"network": DIGITS, "x": X, "y": Y, "radii": 6}
    with pytest.raises(error) as found:
        qverify.verify(**given | words)
    text = str(found.value)
    assert said in text and text.endswith(".") and "\n" not in text and "--" not in text


def test_a_quantised_model_needs_no_radii(tmp_path: Path) -> None:
    onnxruntime_file(DIGITS, SAMPLES.x[:200], tmp_path / "int8.onnx")
    result = qverify.verify(tmp_path / "int8.onnx", X, Y)
    given = ("verify", tmp_path / "int8.onnx", "--data", "digits", "--samples", 25, "--out", tmp_path / "run")
    assert commands.qverify(*given).exit_code == 0
    rows = sorted((row["index"], row["status"], row["method"]) for row in commands.read_rows(tmp_path / "run"))
    assert answers(result) == rows
    with pytest.raises(UsageError, match="is quantised already, so bits has nothing to say"):
        qverify.verify(tmp_path / "int8.onnx", X, Y, 8)
