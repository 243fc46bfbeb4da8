"""Exports of networks that torch trained with fake quantisation: float weights, quantised by the graph, and Clips."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.onnx.reader import load
from tests.support.onnx_models import kinds

torch = pytest.importorskip("torch")
quantization = pytest.importorskip("torch.ao.quantization")


def _prepared() -> Any:
    """A small network after a few steps of training, its observers switched off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            quantization.QuantStub(),
            torch.nn.Conv2d(2, 4, 3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(64, 3),
        )
        network.train()
        network.qconfig = quantization.QConfig(
            activation=quantization.FakeQuantize.with_args(
                observer=quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=127
            ),
            weight=quantization.FakeQuantize.with_args(
                observer=quantization.MovingAveragePerChannelMinMaxObserver,
                quant_min=-128,
                quant_max=127,
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
            ),
        )
        quantization.prepare_qat(network, inplace=True)
        optimiser = torch.optim.SGD(network.parameters(), 0.01)
        for _ in range(10):
            optimiser.zero_grad()
            network(torch.randn(16, 2, 6, 6)).pow(2).mean().backward()
            optimiser.step()
        return network.eval().apply(quantization.disable_observer)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_an_export_of_torch_computes_what_torch_does(opset: int, tmp_path: Path) -> None:
    module, path = _prepared(), tmp_path / "trained.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
        torch.onnx.export(module, torch.zeros(1, 2, 6, 6), path, dynamo=False, opset_version=opset, **names)
    network = load(path)
    assert kinds(network) == "Rounding Conv Rounding Relu Dense Rounding"
    for index in network.weighted:
        layer: Any = network.layers[index]
        assert layer.grid is not None and np.abs(layer.weight / layer.grid).max() <= 128 * (1 + 1e-12)
    for index in network.roundings:
        point: Any = network.layers[index]
        np.testing.assert_allclose((point.high - point.low) / point.step, 127)
    x = torch.randn(200, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    theirs = module(x).detach().numpy()
    off = np.abs(network.evaluate(x.numpy()) - theirs) / network.layers[-1].step.max()  # type: ignore[attr-defined]
    assert off.max() <= 1.01 and (off > 0.01).mean() < 0.01
