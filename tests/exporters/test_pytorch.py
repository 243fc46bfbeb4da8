"""Both of PyTorch's exporters on networks of the kinds that users bring: each file loads, and equals onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from qverify.onnx.reader import load
from tests.support.architectures import ARCHITECTURES

EXPORTERS = ["torchscript", "dynamo", "dynamo_open_batch"]
QUICK = {
    "torchscript": ["relu", "residual", "concat", "relu6", "squeeze_excite_hard", "conv_transpose"],
    "dynamo": ["keyword"],
    "dynamo_open_batch": ["residual"],
}


def exported(module: nn.Module, exporter: str) -> onnx.ModelProto:
    """The ONNX model of a module for inference."""
    x = torch.rand(1, 1, 8, 8)
    file: Any = io.BytesIO()
    module = module.eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
            return onnx.load_from_string(file.getvalue())
        pytest.importorskip("onnxscript")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        shapes = ({0: torch.export.Dim.DYNAMIC},) if exporter == "dynamo_open_batch" else None
        program = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
        assert program is not None
        return program.model_proto


def _check(name: str, exporter: str) -> None:
    torch.manual_seed(0)
    module = ARCHITECTURES[name]()
    for each in module.modules():
        if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(each.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(each.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    model = exported(module, exporter)
    network = load(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for x in (rng.random((1, 1, 8, 8)), rng.normal(size=(1, 1, 8, 8))):
        given = x.astype(np.float32)
        wanted = np.asarray(session.run(None, {session.get_inputs()[0].name: given})[0]).ravel()
        found = network.evaluate(given.astype(np.float64)).ravel()
        assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize(("exporter", "name"), [(exporter, name) for exporter in QUICK for name in QUICK[exporter]])
def test_some_files(exporter: str, name: str) -> None:
    _check(name, exporter)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_file(exporter: str, name: str) -> None:
    _check(name, exporter)
