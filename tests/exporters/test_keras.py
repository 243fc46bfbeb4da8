"""Models of Keras 3, exported on its torch backend with channels last: each loads, and equals onnxruntime."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.onnx.reader import load

os.environ.setdefault("KERAS_BACKEND", "torch")


def _residual(L: Any) -> Any:
    x = L.Input((8, 8, 1))
    first = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    both = L.ReLU()(L.Add()([first, L.Conv2D(4, 3, padding="same")(first)]))
    return x, L.Dense(10)(L.GlobalAveragePooling2D()(both))


MODELS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda L: [L.Flatten(), L.Dense(16, activation="relu"), L.Dense(10)],
    "softmax": lambda L: [L.Flatten(), L.Dense(16, activation="relu"), L.Dense(10, activation="softmax")],
    "sigmoid": lambda L: [L.Flatten(), L.Dense(16, activation="sigmoid"), L.Dense(10)],
    "leaky": lambda L: [L.Flatten(), L.Dense(16), L.LeakyReLU(), L.Dense(10)],
    "rescaling": lambda L: [L.Rescaling(1 / 255.0), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(10)],
    "max_pool": lambda L: [L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2), L.Flatten(), L.Dense(10)],
    "norm": lambda L: [
        L.Conv2D(4, 3, padding="same", strides=2), L.BatchNormalization(), L.ReLU(), L.AveragePooling2D(2), L.Flatten(),
        L.Dense(10),
    ],
    "depthwise": lambda L: [
        L.DepthwiseConv2D(3, padding="same"), L.ReLU(6.0), L.Conv2D(4, 1), L.GlobalAveragePooling2D(), L.Dense(10)
    ],
    "padding": lambda L: [L.ZeroPadding2D(1), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(10)],
    "residual": _residual,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")  # takes seconds, so not before it is needed
    keras.utils.set_random_seed(0)
    made, path = MODELS[name](keras.layers), tmp_path / "model.onnx"
    model = keras.Model(*made) if isinstance(made, tuple) else keras.Sequential([keras.Input((8, 8, 1)), *made])
    model(np.zeros((1, 8, 8, 1), dtype=np.float32))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model.export(str(path), format="onnx", verbose=False)
    network = load(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
    wanted = np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0]).ravel()
    found = network.evaluate(x.astype(np.float64)).ravel()
    if name == "softmax":  # dropped: the outputs are its logits
        found = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())
