"""Damaged files and numbers, and the loader's comparison with onnxruntime, which must be able to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import forward_pass
from qverify.arrays import Array
from qverify.errors import ModelError, UnsupportedModel
from qverify.layers import Add, Conv, Dense, Relu, Scale
from qverify.onnx.reader import load
from tests.support.onnx_models import model, node, weights


def _numbers(*shape: int) -> Array:
    return weights(np.random.default_rng(5), *shape)


def _chain(
    *nodes: onnx.NodeProto, shape: list[int | str] | tuple[str, int] = ("N", 4), **constants: Any
) -> onnx.ModelProto:
    return model(nodes, constants, shape)


W = _numbers(4, 3)


def _refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and not isinstance(caught.value, UnsupportedModel)
    return message


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "does not exist; check the path" in _refused(tmp_path / "none.onnx")
    assert "is a directory; give the .onnx file in it" in _refused(tmp_path)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    assert "is empty; export or download the model again" in _refused(path)
    path.write_bytes(b"PK\x03\x04 a zip archive, for instance")
    assert "is truncated or not an ONNX file" in _refused(path)
    (tmp_path / "net.pt").write_bytes(path.read_bytes())
    assert "not an ONNX file; write one with torch.onnx.export" in _refused(tmp_path / "net.pt")
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "not" in _refused(path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    data = _chain(node("Gemm", "x w", "a"), node("Relu", "a", "y"), w=W).SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    load(path)
    for length in range(0, len(data) - 1, 5):
        path.write_bytes(data[:length])
        assert "again" in _refused(path)


def test_a_file_with_a_flipped_byte_loads_or_is_refused(tmp_path: Path) -> None:
    """No other exception, whatever the damage: it may hit text, lengths, types or numbers."""
    data = _chain(node("Gemm", "x w b", "a"), node("Relu", "a", "y"), w=W, b=_numbers(3)).SerializeToString()
    path, rng, outcomes = tmp_path / "net.onnx", np.random.default_rng(1), []
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        try:
            load(path)
            outcomes.append("read")
        except ModelError:
            outcomes.append("refused")
    assert outcomes.count("refused") > 100 and outcomes.count("read") > 50


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(_chain(node("Relu", "x", "y")).SerializeToString().replace(b"Relu", b"R\xfflu"))
    assert "is damaged (a name in it is not text); export or download it again" in _refused(path)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert "cannot be read (Permission denied); check its permissions" in _refused(path)


def test_missing_external_data(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(
        _chain(node("Gemm", "x w", "y"), w=W), path, save_as_external_data=True, location="net.data", size_threshold=0
    )
    (tmp_path / "net.data").unlink()
    assert "keeps weights in another file that is missing or damaged" in _refused(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["Gemm", "Add", "Conv"])
def test_weights_that_are_no_numbers(kind: str, bad: float) -> None:
    w = {"Gemm": _numbers(4, 3), "Add": _numbers(4), "Conv": _numbers(3, 2, 2, 2)}[kind]
    w.reshape(-1)[1] = bad
    built = _chain(node(kind, "x w", "y"), shape=["N", 2, 5, 4] if kind == "Conv" else ["N", 4], w=w)
    with pytest.raises(
        ModelError, match="of layer 'y_node' holds NaN or infinite numbers; retrain or repair the model"
    ):
        load(built)


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (_chain(node("Swish2", "x", "y")), "not a valid ONNX model .No Op registered for Swish2"),
        (_chain(node("Relu", "x", "y", slope=1)), "Unrecognized attribute: slope"),
        (_chain(node("Relu", "gone", "y")), "not a valid ONNX model .*export it again"),
        (_chain(node("Identity", "x", "y")), "a network needs an input and at least one layer"),
        (model([node("Relu", "x", "y")], {}, ["N", 4], 999), "onnxruntime cannot run the model"),
        (
            _chain(node("Mul", "x c", "y"), c=np.array(3e38)),
            "onnxruntime overflows on inputs up to .*scale its constants",
        ),
    ],
)
def test_models_that_are_not_valid(built: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(built)


# --- the comparison with onnxruntime ----------------------------------------------------------------------


def _every_layer() -> onnx.ModelProto:
    """One layer of each type, so that every forward function can be broken."""
    nodes = [
        node("Conv", "x w b", "c"),
        node("Relu", "c", "r"),
        node("Mul", "r s", "m"),
        node("Add", "m r", "a"),
        node("Flatten", "a", "f"),
        node("Gemm", "f v d", "y"),
    ]
    constants = {"w": _numbers(2, 1, 2, 2), "b": _numbers(2), "s": _numbers(2, 1, 1), "v": _numbers(12, 3)}
    return model(nodes, constants | {"d": _numbers(3)}, ["N", 1, 4, 3])


BROKEN = {
    "bias lost": (Dense, lambda layer, x: x[0] @ layer.weight.T),
    "weights off by 0.1 %": (Dense, lambda layer, x: 1.001 * x[0] @ layer.weight.T + layer.bias),
    "bias of the wrong channel": (
        Conv,
        lambda layer, x: layer.apply(layer.weight, x[0]) + np.tile(layer.bias, layer.positions),
    ),
    "kernel reversed": (
        Conv,
        lambda layer, x: (
            layer.apply(np.ascontiguousarray(layer.weight[:, :, ::-1]), x[0]) + np.repeat(layer.bias, layer.positions)
        ),
    ),
    "relu forgotten": (Relu, lambda layer, x: x[0]),
    "leaky relu": (Relu, lambda layer, x: np.maximum(x[0], 0.01 * x[0])),
    "scale inverted": (Scale, lambda layer, x: x[0] / layer.scale + layer.shift),
    "branch lost": (Add, lambda layer, x: x[0]),
    "not a number": (Relu, lambda layer, x: x[0] * np.nan),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_loader_refuses_what_onnxruntime_contradicts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = _every_layer()
    load(built)
    kind, broken = BROKEN[name]
    monkeypatch.setitem(forward_pass._FORWARD, kind, broken)
    with pytest.raises(ModelError, match=r"qverify and onnxruntime differ by .* where .* is allowed. .*please report"):
        load(built)


def test_a_bias_too_small_to_matter_elsewhere_is_seen_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample 0 shows nothing but biases, so even a bias of 1e-6 cannot get lost."""
    built = _chain(node("Gemm", "x w b", "y"), w=W, b=1e-6 * _numbers(3))
    load(built)
    monkeypatch.setitem(forward_pass._FORWARD, *BROKEN["bias lost"])
    with pytest.raises(ModelError, match="differ by"):
        load(built)


def test_another_number_of_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forward_pass._FORWARD, Relu, lambda layer, x: x[0][:, :-1])
    with pytest.raises(ModelError, match="onnxruntime gives 4 outputs, qverify 3"):
        load(_chain(node("Relu", "x", "y")))


def test_cancelling_outputs_do_not_trip_the_comparison() -> None:
    """Two large layers whose difference is small: what is left is float32 rounding of the large values."""
    w, rng = _numbers(64, 3), np.random.default_rng(2)
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Sub", "a b", "y")]
    network = load(_chain(*nodes, shape=["N", 64], w=1000 * w, v=1000 * w + 1e-3 * _numbers(64, 3)))
    assert np.abs(network.evaluate(rng.normal(size=(1, 64)))).max() < 1.0
