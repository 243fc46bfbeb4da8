"""Modules that move, cut, pad and join numbers, as layers, against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qverify.bounds.interval import interval_bounds
from qverify.errors import UnsupportedModel
from qverify.family.radii import Radii
from qverify.gather import Gather
from qverify.onnx import reader as onnx_io
from qverify.training.live_family import live_family
from qverify.training.live_network import LiveNetwork
from tests.support.onnx_models import run

MODULES: dict[str, Any] = {
    "upsample": nn.Upsample(scale_factor=2),
    "upsample by sizes": nn.Upsample(size=(8, 3), mode="nearest-exact"),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 1)),
    "constant pad": nn.ConstantPad2d(1, 0.5),
    "reflection": nn.ReflectionPad2d((1, 0, 2, 1)),
    "replication": nn.ReplicationPad2d(2),
    "circular": nn.CircularPad2d((1, 1, 0, 2)),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "channel shuffle": nn.ChannelShuffle(2),
}
CALLS: dict[str, Any] = {
    "cat": lambda x: torch.cat([x, x[:, :1], x], dim=1),
    "cat by rows": lambda x: torch.cat((x, x), -2),
    "stack": lambda x: torch.stack([x, x.flip(2)], 2),
    "chunk": lambda x: torch.cat([x.chunk(2, dim=1)[1], x.chunk(2, dim=1)[0]], 1),
    "split": lambda x: x.split([1, 2, 1], 1)[1],
    "unbind": lambda x: torch.stack([x.unbind(1)[3], x.unbind(1)[0]], 1),
    "slices": lambda x: x[:, 1:3, ::2, -2:],
    "one": lambda x: x[:, -1],
    "dots": lambda x: x[..., 1],
    "a list": lambda x: x[:, [2, 0, 0]],
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1).contiguous(),
    "flip": lambda x: torch.flip(x, [1, 3]),
    "roll": lambda x: torch.roll(x, 1, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "pad": lambda x: F.pad(x, (1, 0, 2, 1), value=-0.25),
    "pad and cut": lambda x: F.pad(x, (-1, 2)),
    "reflect": lambda x: F.pad(x, (1, 1, 2, 0), mode="reflect"),
    "interpolate": lambda x: F.interpolate(x, scale_factor=3, mode="nearest"),
    "narrow and select": lambda x: torch.select(x.narrow(1, 1, 2), 1, 1),
}


class Calls(nn.Module):
    """A convolution, what is called, and a Linear for it."""

    def __init__(self, call: Any):
        super().__init__()
        self.call, self.first = call, nn.Conv2d(2, 4, 1)
        size = call(torch.zeros(1, 4, 4, 2)).numel()
        self.last = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.call(self.first(x)).flatten(1))


class Whole(Calls):
    """The same around a module."""


def read(call: Any) -> tuple[Calls, LiveNetwork]:
    torch.manual_seed(0)
    module = (Whole if isinstance(call, nn.Module) else Calls)(call)
    return module, LiveNetwork.trace(module, (2, 4, 2))


@pytest.mark.parametrize("name", [*MODULES, *CALLS])
def test_numbers_that_are_moved_are_read_and_written(name: str, tmp_path: Path) -> None:
    """By the trace, by the values of all layers, and as ONNX."""
    module, live = read({**MODULES, **CALLS}[name])
    assert any(isinstance(layer, Gather) for layer in live.network.layers)
    x = torch.rand(5, 2, 4, 2)
    wanted = module(x).detach()
    values, ours = live.values(x), live.frozen().evaluate_all(x.double().numpy())
    assert all(np.allclose(a.detach().numpy(), b, atol=1e-5) for a, b in zip(values, ours, strict=True))
    onnx_io.save(live.frozen(), tmp_path / "m.onnx")
    np.testing.assert_allclose(run(onnx.load(tmp_path / "m.onnx"), x.numpy()), wanted, atol=1e-5)
    again = onnx_io.load(tmp_path / "m.onnx")
    np.testing.assert_allclose(again.evaluate(x.double().numpy()), wanted, atol=1e-5)


def test_what_moves_nothing_is_no_layer() -> None:
    for call in (lambda x: x[:, :], lambda x: x.unsqueeze(1).squeeze(1).contiguous(), lambda x: torch.cat([x], 1)):
        _, live = read(call)
        assert [type(layer).__name__ for layer in live.network.layers] == ["Input", "Conv", "Dense"]


def test_bounds_train_through_a_gather() -> None:
    """The gradient of a bound reaches the weights in front of it."""
    module, live = read(CALLS["chunk"])
    family = live_family(live, Radii(input=0.1, weight=0.01, bias=0.0, activation=0.0))
    x = torch.rand(3, 16)
    bounds = interval_bounds(family.model(1.0), *family.box(1.0, x))
    (bounds.upper[-1] - bounds.lower[-1]).sum().backward()  # type: ignore[no-untyped-call]
    assert module.first.weight.grad is not None and bool((module.first.weight.grad != 0).any())


def test_what_is_more_than_a_move_is_refused() -> None:
    for call, says in (
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "operation 'interpolate'"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "layer 'call' (Upsample)"),
        (lambda x: torch.cat([x, x], 0)[:1], "which moves numbers along the batch axis"),
        (lambda x: x.flip(0), "which moves numbers along the batch axis"),
        (lambda x: x[:, : x.size(1) - 1], "of numbers that are computed"),
    ):
        with pytest.raises(UnsupportedModel) as caught:
            read(call)
        assert says in str(caught.value)
