"""Architectures by name: a small grammar for the networks that `qverify train` makes.

    mlp:256,256,256                 dense layers of these widths, ReLU after each
    conv:8k4s2p1,16k4s2p1/100       convolutions (channels, k kernel, s stride, p padding), then dense layers

Defaults: k3, s1, and p half the kernel rounded down. Dense widths after the slash may be left out. The last layer,
one output a class, is added to both. Layers are called dense1, relu1, conv1, ..., as `qverify inspect` shows them.

Initialisation: weights normal with variance 2 / fan_in (He et al., ICCV 2015), biases 0. Bounds by intervals explode
with any of them at the radii wanted in the end; the ramp of the radii deals with that (loop.py).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from math import prod

import torch
from torch import nn

from qverify.errors import UsageError
from qverify.kinds import described, expected, is_whole, whole_numbers

_CONV = re.compile(r"(\d{1,12})(?:k(\d{1,12}))?(?:s(\d{1,12}))?(?:p(\d{1,12}))?", re.ASCII)
EXAMPLES = "mlp:256,256,256 or conv:8k4s2p1,16k4s2p1/100"
_LARGEST = 10**8
"""Parameters of one layer beyond which a width is taken for a slip of the keyboard."""


def build(text: str, input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Sequential:
    """The module for samples of `input_shape`, initialised from `generator` (on the CPU).

    Raises UsageError if `text` is not of the grammar above, or does not fit the samples.
    """
    expected(text, str, "The architecture", f"text such as {EXAMPLES}")
    whole_numbers(input_shape, "The shape of a sample")
    if not is_whole(classes):
        raise UsageError(f"The number of classes is {described(classes)}; give a whole number.")
    expected(generator, torch.Generator, "The generator", "a torch.Generator")
    kind, _, rest = text.strip().partition(":")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "mlp":
        size, dense = prod(input_shape), _widths(text, rest)
    elif kind == "conv":
        convolutions, _, tail = rest.partition("/")
        size = _convolutions(text, convolutions, input_shape, layers)
        dense = _widths(text, tail) if tail or "/" in rest else []
    else:
        raise UsageError(f"There is no architecture {text!r}; write for example {EXAMPLES}.")
    layers["flatten"] = nn.Flatten()
    relus = sum(isinstance(layer, nn.ReLU) for layer in layers.values())
    for number, width in enumerate([*dense, classes], start=1):
        layers[f"dense{number}"] = _linear(text, size, width)
        if number <= len(dense):
            layers[f"relu{relus + number}"] = nn.ReLU()
        size = width
    module = nn.Sequential(layers)
    initialise(module, generator)
    return module


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the weights of Linear and Conv2d layers anew, as the module docstring says."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            fan_in = prod(layer.weight.shape[1:])
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2.0 / fan_in))
                if layer.bias is not None:
                    layer.bias.zero_()


def _widths(text: str, part: str) -> list[int]:
    words = [word.strip() for word in part.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,6}", word, re.ASCII) for word in words):
        raise UsageError(f"The architecture {text!r} is not understood at {part!r}; write for example {EXAMPLES}.")
    return [int(word) for word in words]


def _linear(text: str, size: int, width: int) -> nn.Linear:
    _refuse_large(text, size * width)
    return nn.Linear(size, width)


def _refuse_large(text: str, weights: int) -> None:
    if weights > _LARGEST:
        raise UsageError(f"The architecture {text!r} has a layer of {float(weights):.1e} weights; make it smaller.")


def _convolutions(text: str, part: str, input_shape: tuple[int, ...], layers: OrderedDict[str, nn.Module]) -> int:
    """Append the convolutions; returns the number of values they end in."""
    if len(input_shape) not in (2, 3):
        raise UsageError(f"The samples have shape {input_shape}, no image; use an mlp: architecture.")
    channels, height, width = (1, *input_shape) if len(input_shape) == 2 else input_shape
    if len(input_shape) == 2:
        layers["channel"] = nn.Unflatten(1, (1, height))
    for number, word in enumerate(part.split(","), start=1):
        match = _CONV.fullmatch(word.strip())
        if match is None or not all(int(n) for n in match.groups()[:3] if n is not None):
            raise UsageError(f"The architecture {text!r} is not understood at {word!r}; write for example {EXAMPLES}.")
        out, kernel, stride = int(match[1]), int(match[2] or 3), int(match[3] or 1)
        _refuse_large(text, channels * out * kernel**2)
        pad = kernel // 2 if match[4] is None else int(match[4])
        height, width = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        if min(height, width) < 1:
            raise UsageError(f"The architecture {text!r} has no pixels left after {word!r}; use smaller kernels.")
        layers[f"conv{number}"] = nn.Conv2d(channels, out, kernel, stride, pad)
        layers[f"relu{number}"] = nn.ReLU()
        channels = out
    return channels * height * width
