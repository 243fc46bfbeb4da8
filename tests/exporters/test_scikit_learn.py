"""scikit-learn's networks through skl2onnx: each loads, and its scores say what the model's labels say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.datasets import load as samples
from qverify.onnx.reader import load

pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: E402


def _classifier(**more: Any) -> Any:
    return MLPClassifier(hidden_layer_sizes=(16,), max_iter=8, random_state=0, **more)


MODELS: dict[str, Callable[[], Any]] = {
    "classifier": _classifier,
    "tanh": lambda: _classifier(activation="tanh"),
    "logistic": lambda: _classifier(activation="logistic"),
    "binary": _classifier,
    "standard": lambda: make_pipeline(StandardScaler(), _classifier()),
    "minmax": lambda: make_pipeline(MinMaxScaler(), _classifier()),
    "regressor": lambda: MLPRegressor(hidden_layer_sizes=(16,), max_iter=8, random_state=0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, zipped: bool) -> None:
    digits = samples("digits")
    x = digits.x.reshape(len(digits.x), -1).astype(np.float32)
    y = {"binary": digits.y > 4, "regressor": digits.y.astype(np.float32)}.get(name, digits.y)
    trained = MODELS[name]().fit(x[:300], y[:300])
    model = skl2onnx.to_onnx(trained, x[:1], options=None if name == "regressor" else {"zipmap": zipped})
    network = load(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run([session.get_outputs()[0].name], {"X": x[:100]})[0]).ravel()
    found = network.evaluate(x[:100].astype(np.float64))
    if name == "regressor":
        assert found.ravel() == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    else:
        assert (trained.classes_[found.argmax(1)] == wanted).all()
