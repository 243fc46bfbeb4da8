"""Modules of torch that the tests of training share: non-zero biases, mixed signs, another size on every axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qverify.training.live_network import LiveNetwork


class Forward(nn.Module):
    """Layers by name, and a forward that is handed in: `Forward(lambda m, x: m.fc(x), fc=nn.Linear(4, 3))`."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def filled(module: nn.Module, seed: int = 0, double: bool = False) -> nn.Module:
    """The module with all parameters drawn anew, biases too; gain about one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 9
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return module.double() if double else module


def small_mlp(**more: Any) -> nn.Module:
    """4 -> 6 -> 5 -> 3, the second layer without bias."""
    layers = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    return filled(nn.Sequential(*layers), **more)


def small_conv(**more: Any) -> nn.Module:
    """Images (2, 7, 6): two convolutions with every attribute, pooling between them, two dense layers."""
    first = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(1, 2), dilation=(2, 1), groups=2)
    second = nn.Conv2d(4, 3, (2, 1), bias=False)
    layers = (first, nn.ReLU(), nn.AvgPool2d((3, 2)), second, nn.ReLU(), nn.Flatten(), nn.Linear(6, 5), nn.ReLU())
    return filled(nn.Sequential(*layers, nn.Linear(5, 3)), **more)


def residual(**more: Any) -> nn.Module:
    """5 -> 6 -> 6 with a skip -> 3, the activations as functions."""

    def forward(m: Any, x: Tensor) -> Any:
        h = torch.relu(m.stem(x))
        return m.out((h + m.right(m.left(h).relu())).relu())

    layers = {"stem": nn.Linear(5, 6), "left": nn.Linear(6, 4), "right": nn.Linear(4, 6), "out": nn.Linear(6, 3)}
    return filled(Forward(forward, **layers), **more)


SHAPES = {"mlp": (4,), "conv": (2, 7, 6), "residual": (5,)}
MODULES: dict[str, Callable[..., nn.Module]] = {"mlp": small_mlp, "conv": small_conv, "residual": residual}


def live_of(name: str, **more: Any) -> LiveNetwork:
    """One of `MODULES`, traced."""
    return LiveNetwork.trace(MODULES[name](**more), SHAPES[name])


def batch(name: str, count: int = 7, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Samples for one of `MODULES`, in [0, 1], a third of their values exactly 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((count, *SHAPES[name]), generator=generator, dtype=dtype)
    return (1.5 * x - 0.25).clamp(0, 1)
