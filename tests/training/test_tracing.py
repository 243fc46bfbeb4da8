"""Traces read node by node; what they compute is compared with the module in test_live_network.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qverify.errors import ModelError, UnsupportedModel
from qverify.layers import Add, Conv, Dense, Input, Relu
from qverify.training.traces import float64, traced
from qverify.training.tracing import TraceReader
from tests.support.networks import known_layers


def read(module: nn.Module, shape: tuple[int, ...]) -> TraceReader:
    graph = traced(module, shape, "the module")
    reader = TraceReader(graph)
    for node in graph.graph.nodes:
        reader.read(node)
    return reader


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6, bias=False)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        found: torch.Tensor = self.last(x + self.second(x))
        return found


def test_layers_are_those_of_the_module_and_views_are_none() -> None:
    reader = read(Branches(), (2, 2))
    assert [type(layer) for layer in reader.layers] == [Input, Dense, Relu, Dense, Add, Dense]
    assert [layer.inputs for layer in reader.layers] == [(), (0,), (1,), (2,), (2, 3), (4,)]
    assert reader.output == 5 and not reader.refusals
    assert set(reader.own.values()) == set(range(6)), "every layer is the own output of one node"
    assert set(reader.own) < set(reader.position), "views give a layer's output too"
    assert [layer.has_bias for layer in reader.layers if isinstance(layer, Dense)] == [True, False, True]


def test_parameters_are_the_module_s_own() -> None:
    module = Branches()
    reader = read(module, (2, 2))
    assert reader.parameters.keys() == {1, 3, 5}
    assert reader.parameters[1] == (module.first.weight, module.first.bias)
    assert reader.parameters[3] == (module.second.weight, None)
    np.testing.assert_array_equal(known_layers(reader)[5].weight, float64(module.last.weight))


def test_a_convolution_has_the_geometry_of_its_module() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, (2, 1), (1, 0), groups=2, dilation=1), nn.AvgPool2d(2), nn.Flatten())
    conv, pool = read(module, (2, 6, 6)).layers[1:]
    assert isinstance(conv, Conv) and isinstance(pool, Conv)
    assert (conv.strides, conv.pads, conv.groups, conv.in_shape) == ((2, 1), (1, 0, 1, 0), 2, (2, 6, 6))
    assert not pool.quantised and not pool.has_bias and (pool.weight == 0.25).all() and pool.groups == 4


class MyLinear(nn.Linear):
    """May compute anything."""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Flatten(), MyLinear(4, 3)), "operation 'linear'"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), "leave it out, radii are absolute or follow the weights"),
        (nn.Sequential(nn.Linear(2, 3)), "flatten before it"),
        (nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 2, 1, padding="same")), "padding must be zeros"),
        (nn.Sequential(nn.Flatten(), nn.Mish(), nn.Tanhshrink()), "Mish"),
    ],
)
def test_what_is_not_supported_is_refused_and_reading_goes_on(module: nn.Sequential, said: str) -> None:
    reader = read(module, (2, 2))
    sentences = " ".join(reader.refusals.sentences)
    assert said in sentences
    assert reader.layers[0].size == 4


def test_a_trace_leaves_the_module_in_its_mode_and_keeps_the_shapes() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3))
    graph = traced(module, (2, 2), "the module")
    assert module.training and graph.training
    shapes = [tuple(node.meta["tensor_meta"].shape) for node in graph.graph.nodes if node.op != "output"]
    assert shapes == [(2, 2, 2), (2, 4), (2, 4), (2, 3)]


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "error", "said"),
    [
        (TwoInputs(), UnsupportedModel, "a second input 'y'"),
        (Untraceable(), UnsupportedModel, "its forward cannot be traced"),
        (nn.Linear(5, 2), ModelError, "does not run on inputs of shape"),
    ],
)
def test_what_cannot_be_traced(module: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        traced(module, (4,), "the module")


def test_numbers_are_a_copy() -> None:
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = float64(weight)
    with torch.no_grad():
        weight += 1.0
    assert found.dtype == np.float64 and found.tolist() == [1.0, 1.0, 1.0]
