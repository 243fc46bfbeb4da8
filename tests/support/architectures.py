"""Small networks of the kinds that users bring, as torch modules: (1, 8, 8) images in, ten outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


class Function(nn.Module):
    """Layers by name, and what is done with them: `forward(module, x)`."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _residual(m: Any, x: Tensor) -> Any:
    x = F.relu(m.norm(m.first(x)))
    x = F.relu(x + m.other(m.second(x)))
    return m.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _excited(m: Any, x: Tensor) -> Any:
    x = F.relu(m.conv(x))
    factor = m.gate(m.excite(F.relu(m.squeeze(x.mean((2, 3))))))
    return m.last((x * factor[:, :, None, None]).mean((2, 3)))


def _sliced(m: Any, x: Tensor) -> Any:
    y = F.relu(m.a(x))
    return m.c((y[:, :2] + y[:, 2:]).flatten(1))


def _chunked(m: Any, x: Tensor) -> Any:
    first, second = m.a(x.flatten(1)).chunk(2, 1)
    return m.c(F.relu(first) + torch.tanh(second))


def _conv() -> nn.Module:
    return nn.Conv2d(1, 4, 3, padding=1)


def residual() -> nn.Module:
    """A residual block with BatchNormalization, and adaptive pooling."""
    layers = {"first": _conv(), "norm": nn.BatchNorm2d(4), "second": nn.Conv2d(4, 4, 3, padding=1)}
    return Function(_residual, **layers, other=nn.BatchNorm2d(4), last=nn.Linear(4, CLASSES))


def squeeze_excite(gate: nn.Module) -> nn.Module:
    """Channels scaled by a gate of their means."""
    layers = {"conv": nn.Conv2d(1, 8, 3, padding=1), "squeeze": nn.Linear(8, 4), "excite": nn.Linear(4, 8)}
    return Function(_excited, **layers, gate=gate, last=nn.Linear(8, CLASSES))


def mobile(activation: Callable[[], nn.Module]) -> nn.Module:
    """A block of MobileNet: depthwise and pointwise convolutions, and a mean over positions."""
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), activation(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), activation(),
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8),
    )  # fmt: skip
    return Function(lambda m, x: m.last(m.body(x).mean((2, 3))), body=body, last=nn.Linear(8, CLASSES))


def keyword() -> nn.Module:
    """MLPerf Tiny's keyword network in small."""
    return nn.Sequential(
        nn.Conv2d(1, 8, (4, 2), stride=2, padding=(1, 0)), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    """An autoencoder with BatchNormalization, as MLPerf Tiny's."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 64)
    )


def perceptron(activation: Callable[[], nn.Module]) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), activation(), nn.Linear(16, CLASSES))


def convolutional(size: int, *between: nn.Module) -> nn.Module:
    """A convolution to four channels, and what gives `size` numbers from it."""
    return nn.Sequential(_conv(), *between, nn.Flatten(), nn.Linear(size, CLASSES))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "prelu": nn.PReLU,
}


def _perceptrons() -> dict[str, Callable[[], nn.Module]]:
    def of(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        return lambda: perceptron(activation)

    return {name: of(activation) for name, activation in ACTIVATIONS.items()}


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    **_perceptrons(),
    "dropout": lambda: perceptron(lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.5))),
    "cnn": lambda: convolutional(256, nn.ReLU()),
    "cnn_norm_max_pool": lambda: convolutional(64, nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
    "cnn_average_pool": lambda: convolutional(64, nn.ReLU(), nn.AvgPool2d(2)),
    "cnn_adaptive_max_pool": lambda: convolutional(4, nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
    "conv1d": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(128, CLASSES)
    ),
    "residual": residual,
    "mobile_relu6": lambda: mobile(nn.ReLU6),
    "mobile_hardswish": lambda: mobile(nn.Hardswish),
    "squeeze_excite": lambda: squeeze_excite(nn.Sigmoid()),
    "squeeze_excite_hard": lambda: squeeze_excite(nn.Hardsigmoid()),
    "keyword": keyword,
    "autoencoder": autoencoder,
    "concat": lambda: Function(
        lambda m, x: m.c(torch.cat([F.relu(m.a(x)), F.relu(m.b(x))], 1).flatten(1)),
        a=_conv(), b=nn.Conv2d(1, 4, 1), c=nn.Linear(512, CLASSES),
    ),
    "slice": lambda: Function(_sliced, a=_conv(), c=nn.Linear(128, CLASSES)),
    "chunk": lambda: Function(_chunked, a=nn.Linear(64, 32), c=nn.Linear(16, CLASSES)),
    "upsample": lambda: Function(
        lambda m, x: m.c(m.b(F.interpolate(F.relu(m.a(x)), scale_factor=2, mode="nearest")).flatten(1)),
        a=nn.Conv2d(1, 4, 3, stride=2, padding=1), b=nn.Conv2d(4, 2, 3, padding=1), c=nn.Linear(128, CLASSES),
    ),
    "permute": lambda: Function(
        lambda m, x: m.c(F.relu(m.a(x)).permute(0, 2, 3, 1).flatten(1)), a=_conv(), c=nn.Linear(256, CLASSES)
    ),
    "pad": lambda: Function(
        lambda m, x: m.c(F.relu(m.a(F.pad(x, (1, 1, 1, 1), value=0.5))).flatten(1)),
        a=nn.Conv2d(1, 4, 3), c=nn.Linear(256, CLASSES),
    ),
    "conv_transpose": lambda: Function(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x.flatten(1))).view(-1, 4, 2, 2))).flatten(1)),
        a=nn.Linear(64, 16), b=nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1), c=nn.Linear(32, CLASSES),
    ),
    "layer_norm": lambda: Function(
        lambda m, x: m.c(F.relu(m.b(m.a(x.flatten(1))))),
        a=nn.Linear(64, 32), b=nn.LayerNorm(32), c=nn.Linear(32, CLASSES),
    ),
    "group_norm": lambda: Function(
        lambda m, x: m.c(F.relu(m.b(m.a(x))).flatten(1)),
        a=nn.Conv2d(1, 4, 3), b=nn.GroupNorm(2, 4), c=nn.Linear(144, CLASSES),
    ),
    "instance_norm": lambda: Function(
        lambda m, x: m.c(F.relu(m.b(m.a(x))).flatten(1)),
        a=nn.Conv2d(1, 4, 3), b=nn.InstanceNorm2d(4, affine=True), c=nn.Linear(144, CLASSES),
    ),
    "volume": lambda: Function(
        lambda m, x: m.d(F.avg_pool3d(F.max_pool3d(F.relu(m.b(m.a(x.view(-1, 1, 4, 4, 4)))), 2, 1), 2, 1).flatten(1)),
        a=nn.Conv3d(1, 4, 3, padding=1), b=nn.BatchNorm3d(4), d=nn.Linear(32, CLASSES),
    ),
}  # fmt: skip
