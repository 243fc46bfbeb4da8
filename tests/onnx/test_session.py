"""Sessions of onnxruntime, and the exceptions that they raise."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.onnx.session import errors, open_session
from tests.support.onnx_models import Rng, model, node


def test_a_session_computes_in_one_thread_and_says_nothing(rng: Rng, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_session(model([node("Abs", "x", "y")], {}, [1, 3]).SerializeToString())
    options = session.get_session_options()
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    x = rng.normal(size=(1, 3)).astype(np.float32)
    assert session.run(None, {"x": x})[0].tolist() == np.abs(x).tolist()
    assert capfd.readouterr() == ("", "")


def test_all_that_it_raises_is_listed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors()):
        open_session(b"no model")
    with pytest.raises(errors()):  # an operator that nobody has
        open_session(model([node("Nothing", "x", "y")], {}, [1, 3]).SerializeToString())
    reshaped = model([node("Reshape", "x s", "y")], {"s": np.array([2, 2])}, ["n", 3])
    with pytest.raises(errors()):  # while it runs
        open_session(reshaped.SerializeToString()).run(None, {"x": np.zeros((1, 3), dtype=np.float32)})
    assert capfd.readouterr() == ("", "")
