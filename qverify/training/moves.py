"""What torch operations that only move numbers read: found by running them on the places of the numbers."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.arrays import Array
    from qverify.gather import IntArray

_FUNCTIONS: tuple[Any, ...] = (
    *(torch.cat, torch.concat, torch.stack, torch.chunk, torch.split, torch.unbind, torch.permute, torch.transpose),
    *(torch.flip, torch.roll, torch.tile, torch.narrow, torch.select, torch.squeeze, torch.unsqueeze),
    *(F.pad, F.interpolate, F.pixel_shuffle, F.pixel_unshuffle, operator.getitem),
)
_METHODS = """
    chunk contiguous expand flip narrow permute repeat roll select split squeeze tile transpose unbind unsqueeze
"""
_MODULES = (
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
)
_NAMES = frozenset(_METHODS.split())
_NEAREST = ("nearest", "nearest-exact")
_FAR = 2.0**40
"""More than there are numbers."""


def moves(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node, of this module if it calls one, only moves, repeats, leaves out or pads numbers."""
    if module is not None:
        plain = not isinstance(module, nn.Upsample) or module.mode in _NEAREST
        return type(module) in _MODULES and plain
    if node.target is F.interpolate:
        return (node.args[3] if len(node.args) > 3 else node.kwargs.get("mode", "nearest")) in _NEAREST
    return node.target in (_NAMES if node.op == "call_method" else _FUNCTIONS)


def ran(node: fx.Node, module: nn.Module | None, given: dict[str, Tensor]) -> Any:
    """What the node makes of these values of the nodes that it reads, by name."""
    args: Any = fx.node.map_arg(node.args, lambda read: given[read.name])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda read: given[read.name])
    if module is not None:
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    call: Callable[..., Any] = node.target  # type: ignore[assignment]
    return call(*args, **kwargs)


def places(sizes: Sequence[tuple[int, ...]]) -> list[list[Tensor]]:
    """For two samples of tensors of these shapes: the places of all their numbers, one tensor behind the other, twice,
    the second time moved far away."""
    total = sum(int(np.prod(shape)) for shape in sizes)
    found, first = [], 0
    for shape in sizes:
        size = int(np.prod(shape))
        one = torch.arange(first, first + size, dtype=torch.float64)
        found.append(torch.stack([one, one + total]).reshape(2, *shape))
        first += size
    return [found, [tensor + _FAR for tensor in found]]


def index_of(near: Tensor, far: Tensor, total: int) -> tuple[IntArray, Array] | None:
    """Index and constants (size,) of one sample, from what became of both `places`; None if samples are mixed."""
    if near.ndim < 1 or near.shape[0] != 2:
        return None
    one, other = (tensor.reshape(2, -1).numpy() for tensor in (near, far))
    read = other - one == _FAR
    index = np.where(read, one, -1.0)
    apart = np.where(read[0], index[0] + total, -1.0)
    if (read[0] != read[1]).any() or (index[1] != apart).any() or (index[0] >= total).any():
        return None
    return index[0].astype(np.int64), np.where(read[0], 0.0, one[0])
