"""Live networks: what is read from a module is what the module computes, and its weights stay live."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qverify.errors import ModelError, UnsupportedModel
from qverify.layers import Add, Conv, Dense, Input, Relu
from qverify.onnx import reader as onnx_io
from qverify.training.live_network import LiveNetwork
from tests.support.modules import MODULES, SHAPES, Forward, batch, filled, live_of
from tests.support.networks import known_layers


def runtime(path: Path, x: torch.Tensor) -> np.ndarray:
    """Oracle: the exported file under onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return np.asarray(output)


@pytest.mark.parametrize("name", MODULES)
def test_frozen_and_values_are_what_the_module_computes(name: str, tmp_path: Path) -> None:
    """Oracles: the module itself in float64, and onnxruntime on the exported file."""
    live, x = live_of(name), batch(name)
    network = live.frozen()
    double = copy.deepcopy(live.module).double()
    np.testing.assert_allclose(network.evaluate(x), double(x.double()).detach().numpy(), atol=1e-12)
    torch.testing.assert_close(live.values(x)[-1], live.module(x), rtol=0, atol=0)
    onnx_io.save(network, tmp_path / "model.onnx")
    np.testing.assert_allclose(runtime(tmp_path / "model.onnx", x), live.module(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_values_of_every_layer(name: str) -> None:
    """Oracle: the frozen network, whose forward pass is numpy; tested against loops in test_network."""
    live, x = live_of(name), batch(name)
    wanted = live.frozen().evaluate_all(x)
    for layer, value, expected in zip(live.network.layers, live.values(x), wanted, strict=True):
        assert value.shape == (len(x), layer.size)
        np.testing.assert_allclose(value.detach().numpy(), expected, atol=1e-5, err_msg=layer.name)


def test_values_by_hand() -> None:
    """y = relu(W x + b), each value written out."""
    module: Any = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        module[0].bias.copy_(torch.tensor([0.25, -1.0]))
    x, z, y = LiveNetwork.trace(module, (2,)).values(torch.tensor([[1.0, 2.0], [4.0, 1.0]]))
    assert x.tolist() == [[1, 2], [4, 1]]
    assert z.tolist() == [[-2.75, 5.5], [2.25, 4.0]] and y.tolist() == [[0, 5.5], [2.25, 4.0]]


def test_layers_and_names() -> None:
    live = live_of("conv")
    kinds = [(type(layer), layer.name, layer.inputs, layer.shape) for layer in live.network.layers]
    assert kinds == [
        (Input, "input", (), (2, 7, 6)),
        (Conv, "0", (0,), (4, 7, 4)),
        (Relu, "1", (1,), (4, 7, 4)),
        (Conv, "2", (2,), (4, 2, 2)),
        (Conv, "3", (3,), (3, 1, 2)),
        (Relu, "4", (4,), (3, 1, 2)),
        (Dense, "6", (5,), (5,)),
        (Relu, "7", (6,), (5,)),
        (Dense, "8", (7,), (3,)),
    ]
    first, pool, second = (live.network.layers[i] for i in (1, 3, 4))
    assert isinstance(first, Conv) and isinstance(pool, Conv) and isinstance(second, Conv)
    assert (first.strides, first.pads, first.dilations, first.groups) == ((1, 2), (1, 2, 1, 2), (2, 1), 2)
    assert pool.quantised is False and first.quantised and first.has_bias and not second.has_bias
    assert sorted(live.parameters) == [1, 4, 6, 8] and live.parameters[4][1] is None
    module: Any = live.module
    assert live.parameters[6][0] is module[6].weight and live.parameters[6][1] is module[6].bias


def test_a_residual_sum_has_both_producers() -> None:
    live = live_of("residual")
    names = {layer.name: layer.inputs for layer in live.network.layers}
    assert names == {
        "input": (),
        "stem": (0,),
        "relu": (1,),
        "left": (2,),
        "relu_1": (3,),
        "right": (4,),
        "add": (2, 5),
        "relu_2": (6,),
        "out": (7,),
    }
    assert isinstance(live.network.layers[6], Add)


def test_padded_pooling_counts_its_padding(tmp_path: Path) -> None:
    module = filled(nn.Sequential(nn.AvgPool2d(3, stride=2, padding=1), nn.Flatten(), nn.Linear(12, 4)))
    live, x = LiveNetwork.trace(module, (1, 7, 5)), torch.rand(3, 1, 7, 5)
    onnx_io.save(live.frozen(), tmp_path / "pool.onnx")
    np.testing.assert_allclose(runtime(tmp_path / "pool.onnx", x), module(x).detach().numpy(), atol=1e-5)


def test_max_pooling_leaves_padding_out(tmp_path: Path) -> None:
    module = filled(nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten()))
    live, x = LiveNetwork.trace(module, (1, 7, 5)), torch.randn(3, 1, 7, 5)
    onnx_io.save(live.frozen(), tmp_path / "pool.onnx")
    np.testing.assert_allclose(runtime(tmp_path / "pool.onnx", x), module(x).detach().numpy(), atol=1e-5)


VIEWS = {
    "flatten": lambda m, x: m.fc(torch.flatten(x, 1)),
    "method": lambda m, x: m.fc(x.flatten(1)),
    "view": lambda m, x: m.fc(x.view(-1, 6)),
    "size": lambda m, x: m.fc(x.view(x.size(0), -1)),
    "shape": lambda m, x: m.fc(x.reshape(x.shape[0], 6)),
    "there and back": lambda m, x: m.fc(x.flatten(1).reshape(-1, 6, 1).flatten(1)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_leave_no_trace(name: str) -> None:
    live = LiveNetwork.trace(filled(Forward(VIEWS[name], fc=nn.Linear(6, 4))), (2, 3))
    assert [layer.name for layer in live.network.layers] == ["input", "fc"]
    assert live.network.input_shape == (2, 3)
    x = torch.rand(5, 2, 3)
    np.testing.assert_allclose(live.values(x)[-1].detach(), live.frozen().evaluate(x), atol=1e-6)


def test_dropout_is_for_training_only() -> None:
    module = filled(nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.ReLU(), nn.Linear(30, 3)))
    live, x = LiveNetwork.trace(module, (4,)), batch("mlp")
    assert module.training and [layer.name for layer in live.network.layers] == ["input", "0", "2", "3"]
    assert (live.values(x)[2] == 0).sum() > 1.4 * (live.frozen().evaluate_all(x)[2] == 0).sum()
    module.eval()
    np.testing.assert_allclose(live.values(x)[-1].detach(), live.frozen().evaluate(x), atol=1e-5)


def test_weights_are_live() -> None:
    live, x = live_of("mlp"), batch("mlp")
    before = live.frozen()
    kept = before.evaluate(x)
    module: Any = live.module
    with torch.no_grad():
        module[2].weight[3, 1] += 0.75
        module[4].bias[2] -= 0.5
    after = live.frozen()
    assert known_layers(after)[3].weight[3, 1] - known_layers(before)[3].weight[3, 1] == pytest.approx(0.75)
    assert known_layers(after)[5].bias[2] - known_layers(before)[5].bias[2] == pytest.approx(-0.5)
    np.testing.assert_allclose(after.evaluate(x), live.module.double()(x.double()).detach(), atol=1e-12)
    np.testing.assert_array_equal(before.evaluate(x), kept)  # immutable: a copy, no view


def test_tracing_leaves_the_module_and_the_random_numbers_alone() -> None:
    module = MODULES["conv"]().train()
    weights, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    LiveNetwork.trace(module, SHAPES["conv"])
    assert module.training and all(layer.training for layer in module.modules())
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights[name]) and value.dtype == torch.float32


def test_a_module_called_twice_is_two_layers() -> None:
    """One ReLU for all, as many people write it; one Linear for two uses, which are two tensors of the family."""
    forward = Forward(lambda m, x: m.out(m.relu(m.fc(m.relu(m.fc(x))))), fc=nn.Linear(4, 4), relu=nn.ReLU())
    forward.add_module("out", nn.Linear(4, 3))
    live, x = LiveNetwork.trace(filled(forward), (4,)), batch("mlp")
    assert [layer.name for layer in live.network.layers] == ["input", "fc", "relu", "fc_1", "relu_1", "out"]
    np.testing.assert_allclose(live.frozen().evaluate(x), live.module(x).detach(), atol=1e-6)


@pytest.mark.parametrize("function", [None, lambda x: F.relu(x, inplace=True)], ids=["module", "function"])
def test_relu_in_place_overwrites_no_value(function: Callable[..., Any] | None) -> None:
    relu = Forward(lambda m, x: m.b(function(m.a(x)) if function else m.relu(m.a(x))), relu=nn.ReLU(inplace=True))
    relu.add_module("a", nn.Linear(4, 6))
    relu.add_module("b", nn.Linear(6, 3))
    live, x = LiveNetwork.trace(filled(relu), (4,)), batch("mlp")
    values = live.values(x)
    np.testing.assert_allclose(values[1].detach(), live.frozen().evaluate_all(x)[1], atol=1e-6)
    assert (values[1] < 0).any() and (values[2] >= 0).all()


def test_what_the_output_does_not_need_is_left_out() -> None:
    live = LiveNetwork.trace(
        filled(Forward(lambda m, x: (m.a(x), m.b(x))[0], a=nn.Linear(4, 3), b=nn.Linear(4, 2))), (4,)
    )
    assert [layer.name for layer in live.network.layers] == ["input", "a"] and list(live.parameters) == [1]


# --- refusals ---


def second_input() -> nn.Module:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return x + other

    return Two()


LINEAR = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
REFUSED = {
    "norm": (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (4,), "layer '1' (BatchNorm1d); leave it out"),
    "max": (nn.Sequential(nn.MaxPool2d(4, ceil_mode=True)), (1, 6, 6), "layer '0': ceil_mode, return_indices"),
    "max without channels": (nn.Sequential(nn.MaxPool2d(2)), (6, 6), "images without channels"),
    "mish": (nn.Sequential(nn.Linear(4, 3), nn.Mish()), (4,), "layer '1' (Mish)"),
    "function": (Forward(lambda m, x: torch.sin(m.a(x)), **LINEAR), (4,), "operation 'sin'"),
    "batch": (Forward(lambda m, x: m.a(x.view(-1, 4)), **LINEAR), (2, 4), "'view', which reshapes the batch axis"),
    "number": (Forward(lambda m, x: m.a(x) + 1.0, **LINEAR), (4,), "operation 'add'"),
    "alpha": (Forward(lambda m, x: torch.add(m.a(x), m.b(x), alpha=2), **LINEAR), (4,), "operation 'add'"),
    "two inputs": (second_input(), (4,), "a second input 'other'"),
    "two outputs": (Forward(lambda m, x: (m.a(x), m.b(x)), **LINEAR), (4,), "an output that is not one tensor"),
    "last axis": (Forward(lambda m, x: m.a(x).flatten(1), **LINEAR), (2, 4), "layer 'a', a Linear over one of several"),
    "mode": (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 6, 6), "padding must be zeros"),
    "same": (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same")), (1, 6, 6), "layer '0': padding must be zeros"),
    "ceil": (nn.Sequential(nn.AvgPool2d(4, ceil_mode=True)), (1, 6, 6), "layer '0': ceil_mode"),
    "uncounted": (nn.Sequential(nn.AvgPool2d(4, padding=1, count_include_pad=False)), (1, 6, 6), "count_include_pad"),
    "no channels": (nn.Sequential(nn.AvgPool2d(2)), (6, 6), "images without channels"),
    "branch": (Forward(lambda m, x: m.a(x) if x.sum() > 0 else x, **LINEAR), (4,), "cannot be traced"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(name: str) -> None:
    module, shape, wording = REFUSED[name]
    if isinstance(module, nn.Conv2d):
        module = nn.Sequential(module)
    with pytest.raises(UnsupportedModel) as caught:
        LiveNetwork.trace(module, shape, "my net")
    assert str(caught.value).startswith("my net uses what qverify does not support: ")
    assert len(caught.value.problems) == 1 and wording in caught.value.problems[0]


def test_all_problems_at_once() -> None:
    layers = (
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.LPPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(8, 3),
        nn.Mish(),
    )
    with pytest.raises(UnsupportedModel) as caught:
        LiveNetwork.trace(nn.Sequential(*layers), (1, 6, 6))
    assert [problem.split("(")[1].split(")")[0] for problem in caught.value.problems] == [
        "BatchNorm2d",
        "LPPool2d",
        "Mish",
    ]


def test_problems_of_one_kind_are_one_sentence() -> None:
    layers = [layer for _ in range(30) for layer in (nn.Linear(4, 4), nn.BatchNorm1d(4))]
    with pytest.raises(UnsupportedModel) as caught:
        LiveNetwork.trace(nn.Sequential(*layers), (4,), "net")
    wording = "layer '1' (BatchNorm1d) and 29 more; leave it out, radii are absolute or follow the weights anyway"
    assert caught.value.problems == (wording,) and str(caught.value).endswith(f"support: {wording}")


def test_a_wrong_input_shape_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"^net does not run on inputs of shape \(5,\) \(mat1 .*\)\.$") as caught:
        LiveNetwork.trace(nn.Sequential(nn.Linear(4, 3)), (5,), "net")
    assert not isinstance(caught.value, UnsupportedModel) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (lambda m, x: m.a(x.mT.flatten(1)), (2, 2)),  # a view that permutes
        (lambda m, x: m.a(x.view(2, -1)), (4,)),  # right for batches of two only
    ],
    ids=["permuted", "batch of two"],
)
def test_what_only_looks_supported_is_found_out(forward: Callable[..., Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"^net computes something else than its layers suggest; .*\.$"):
        LiveNetwork.trace(filled(Forward(forward, a=nn.Linear(4, 3))), shape, "net")


def test_a_gate_is_a_product_of_its_branches() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.c(torch.relu(self.a(x)) * self.b(x))
            return found

    module = filled(Gate())
    live, x = LiveNetwork.trace(module, (4,)), torch.randn(7, 4)
    assert [type(layer).__name__ for layer in live.network.layers] == [
        "Input",
        "Dense",
        "Relu",
        "Dense",
        "Product",
        "Dense",
    ]
    np.testing.assert_allclose(live.frozen().evaluate(x.numpy()), module(x).detach().numpy(), atol=1e-5)
