"""A model with several inputs through the commands: samples by the names of inputs, or joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.support.commands import answer, qverify, read_rows
from tests.support.several_inputs import answers, samples, two_branches

SHAPES = {"a": (3,), "b": (1, 4, 4)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(two_branches(np.random.default_rng(3)), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def given(model: Path) -> dict[str, Any]:
    """Twelve samples, labelled as onnxruntime answers, in a.npz by names and in x.npz joined."""
    found: dict[str, Any] = samples(np.random.default_rng(4), 12, SHAPES)
    y = answers(onnx.load(str(model)), found).argmax(1)
    np.savez(model.parent / "a.npz", **found, y=y)
    np.savez(model.parent / "x.npz", x=np.concatenate([found["a"], found["b"].reshape(12, 16)], axis=1), y=y)
    return found | {"y": y}


def test_samples_by_names_are_those_joined(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    rows = {}
    for data in ("a", "x"):
        result = qverify("verify", model, "--data", tmp_path / f"{data}.npz", "--bits", 8, "--out", tmp_path / data)
        assert result.exit_code in (0, 1), result.stderr
        rows[data] = read_rows(tmp_path / data)
    keys = ("index", "label", "predicted", "status", "margin_lower")
    assert [[row[key] for key in keys] for row in rows["a"]] == [[row[key] for key in keys] for row in rows["x"]]
    assert {row["status"] for row in rows["a"]} >= {"verified"}
    assert all(row["predicted"] == row["label"] for row in rows["a"])


def test_a_witness_has_one_input_and_answers_in_onnxruntime(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    done = qverify("verify", model, "--data", tmp_path / "a.npz", "--bits", 3, "--out", tmp_path / "run", "--witnesses")
    assert done.exit_code in (0, 1), done.stderr
    failed = [row["index"] for row in read_rows(tmp_path / "run") if row["status"] == "falsified"]
    kept = np.load(tmp_path / "run" / "witnesses" / f"{failed[0]}.npz")
    session = onnxruntime.InferenceSession(str(tmp_path / "run" / "witnesses" / f"{failed[0]}.onnx"))
    (entry,) = session.get_inputs()
    assert entry.name == "input" and kept["x"].shape == (19,)
    assert np.array_equal(kept["x"], np.concatenate([given[n][failed[0]].ravel() for n in SHAPES]))
    (found,) = session.run(None, {"input": kept["input"][None]})
    assert found.argmax() != given["y"][failed[0]]
    page = qverify("report", tmp_path / "run", "--format", "html", "--out", tmp_path / "page.html")
    assert page.exit_code == 0 and (tmp_path / "page.html").is_file()


@pytest.mark.slow
def test_a_batch_reads_one_file_for_each_model(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(two_branches(np.random.default_rng(5)), tmp_path / "n.onnx")
    text = 'models = ["m.onnx", "n.onnx"]\ndata = "a.npz"\nbits = 8\nmethods = "ibp"\n'
    (tmp_path / "plan.toml").write_text(text)
    done = qverify("batch", tmp_path / "plan.toml", "--out", tmp_path / "batch")
    assert done.exit_code in (0, 1), done.stderr
    assert len(read_rows(tmp_path / "batch")) == 24
    assert qverify("report", tmp_path / "batch").exit_code == 0


def test_inspect_lists_the_inputs(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    found = answer("inspect", model, "--data", tmp_path / "a.npz", "--bits", 8)
    assert [(layer["name"], layer["kind"]) for layer in found["layers"][:3]] == [
        ("inputs", "Input"),
        ("a", "Gather"),
        ("b", "Gather"),
    ]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": (12, 3)}, "must hold a, b and y_test or a, b and y or x_test and y_test or x and y, but holds a, y"),
        ({"a": (12, 3), "b": (11, 1, 4, 4)}, "12 of 'a', 11 of 'b'; every input needs as many"),
        ({"a": (12, 3), "b": (12, 4, 5)}, "Input 'b' has shape (12, 4, 5), but the model reads (1, 4, 4)"),
        ({"x": (12, 3)}, "but the network reads (19,); give one array for each of its inputs, 'a', 'b'"),
    ],
)
def test_data_that_do_not_fit(arrays: dict[str, Any], words: str, model: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {name: np.zeros(shape) for name, shape in arrays.items()}
    np.savez(tmp_path / "d.npz", **given, y=np.zeros(12, int))
    result = qverify("verify", model, "--data", tmp_path / "d.npz", "--bits", 8)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_integers_and_columns(tmp_path: Path) -> None:
    """Integer pixels are divided by 255 in each; one number a sample may be (N,), and an input may be called y."""
    from qverify.datasets import load
    from qverify.parts import Part

    parts = (Part("y", (2,)), Part("b", (1,)))
    arrays: dict[str, Any] = {"y": np.array([[0, 255], [51, 0], [0, 0]], np.uint8), "b": np.array([0.5, 1.5, 2.5])}
    np.savez(tmp_path / "d.npz", **arrays, y_test=np.array([0, 1, 1]))
    found = load(tmp_path / "d.npz", parts)
    assert np.array_equal(found.x, [[0.0, 1.0, 0.5], [0.2, 0.0, 1.5], [0.0, 0.0, 2.5]])
    assert found.y.tolist() == [0, 1, 1]
    again = load(tmp_path / "d.npz", parts[::-1])
    assert np.array_equal(again.x, found.x[:, [2, 0, 1]]) and again.arrays_sha256 != found.arrays_sha256


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_files_of_onnxruntime_are_covered(form: str, model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    """Each input has a range, and so a grid, of its own: `a` is ten times as large as `b` here."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    wide = {"a": 10.0 * given["a"], "b": given["b"]}
    fed = iter([{n: wide[n][k : k + 1].astype(np.float32) for n in wide} for k in range(12)])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(fed, None)})()
    quantization.quantize_static(
        str(model),
        str(tmp_path / "q.onnx"),
        reader,
        quant_format=quantization.QuantFormat[form],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    np.savez(tmp_path / "wide.npz", **wide, y=given["y"])
    words = ["--bits", 8, "--scheme", "channel", "--rounding", "nearest", "--points", "onnxruntime"]
    found = answer("covers", model, tmp_path / "q.onnx", "--data", tmp_path / "wide.npz", *words)
    points = {part["float"]: part["covered"] for part in found["parts"] if part["kind"] == "point"}
    assert points["a"] and points["b"] and found["covered"], found
    at = answer("radii", model, "--out", tmp_path / "r.toml", "--calibration", tmp_path / "q.onnx", *words)
    assert at["points"] == len(points)
    again = answer("covers", model, tmp_path / "q.onnx", "--radii", tmp_path / "r.toml", "--rule", "nearest")
    assert again["covered"], again
    checked = qverify("compare", model, tmp_path / "q.onnx", "--data", tmp_path / "wide.npz")
    assert checked.exit_code == 0, checked.stderr
    refused = qverify("runtimes", tmp_path / "q.onnx", "--data", tmp_path / "wide.npz")
    assert refused.exit_code == 2 and "it has several inputs; supported is one" in refused.stderr


def test_families_with_ranges_hold_a_quantiser(model: Path, given: dict[str, Any], tmp_path: Path) -> None:
    """Each input is rounded to a grid of its own range: what is verified, a quantiser of that kind gets right."""
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(float) for t in onnx.load(str(model)).graph.initializer}
    joined = {"a": given["a"], "b": 0.1 * given["b"]}
    y = answers(onnx.load(str(model)), joined).argmax(1)
    np.savez(tmp_path / "own.npz", **joined, y=y)
    seen = set()
    for bits in (8, 6, 5, 4):
        words = ["--bits", bits, "--scheme", "channel", "--rounding", "nearest"]
        qverify("verify", model, "--data", tmp_path / "own.npz", *words, "--out", tmp_path / str(bits))
        steps = {n: (max(0.0, v.max()) - min(0.0, v.min())) / (2**bits - 1) for n, v in joined.items()}
        rounded = {n: np.rint(v / steps[n]) * steps[n] for n, v in joined.items()}
        changed = onnx.load(str(model))
        for tensor in changed.graph.initializer:
            value = weights[tensor.name]
            if value.ndim > 1:  # a step a channel; biases and Relus as they are
                step = abs(value).reshape(len(value), -1).max(1) / (2 ** (bits - 1) - 1)
                step = step.reshape(-1, *[1] * (value.ndim - 1))
                value = np.rint(value / step) * step
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
        predicted = answers(changed, rounded).argmax(1)
        for row in read_rows(tmp_path / str(bits)):
            seen.add(row["status"])
            assert row["status"] != "verified" or predicted[row["index"]] == row["label"]
    assert {"verified", "falsified"} <= seen
