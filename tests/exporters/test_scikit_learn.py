"""scikit-learn's networks through skl2onnx: each loads, and its scores say what the model's labels say."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.datasets import load as samples
from qverify.onnx.reader import load

NAMES = ("classifier", "tanh", "logistic", "binary", "standard", "minmax", "regressor")


def untrained(name: str) -> Any:
    """The model of that name; scikit-learn takes a second to import, so not before it is needed."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    if name == "regressor":
        return MLPRegressor(hidden_layer_sizes=(16,), max_iter=8, random_state=0)
    activation = name if name in ("tanh", "logistic") else "relu"
    model = MLPClassifier(hidden_layer_sizes=(16,), max_iter=8, random_state=0, activation=activation)
    scaler = {"standard": StandardScaler, "minmax": MinMaxScaler}.get(name)
    return model if scaler is None else make_pipeline(scaler(), model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_model(name: str, zipped: bool) -> None:
    pytest.importorskip("sklearn")
    skl2onnx = pytest.importorskip("skl2onnx")
    digits = samples("digits")
    x = digits.x.reshape(len(digits.x), -1).astype(np.float32)
    y = {"binary": digits.y > 4, "regressor": digits.y.astype(np.float32)}.get(name, digits.y)
    trained = untrained(name).fit(x[:300], y[:300])
    model = skl2onnx.to_onnx(trained, x[:1], options=None if name == "regressor" else {"zipmap": zipped})
    network = load(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run([session.get_outputs()[0].name], {"X": x[:100]})[0]).ravel()
    found = network.evaluate(x[:100].astype(np.float64))
    if name == "regressor":
        assert found.ravel() == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    else:
        assert (trained.classes_[found.argmax(1)] == wanted).all()
