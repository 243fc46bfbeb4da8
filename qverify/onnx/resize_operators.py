"""Resize and Upsample by the nearest number, to a whole multiple of each axis: an index along each axis."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

import numpy as np

from qverify.onnx.gathers import check_size
from qverify.onnx.graph import NetworkBuilder, Node, Refusal, Value
from qverify.onnx.moving_operators import resized

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.onnx.graph import Shape, Tensor

_HALF = Fraction(1, 2)
_COORDINATES: dict[str, Callable[[int, int, int], Fraction]] = {
    "half_pixel": lambda at, n, scale: (at + _HALF) / scale - _HALF,
    "half_pixel_symmetric": lambda at, n, scale: (at + _HALF) / scale - _HALF,  # the same for whole scales
    "pytorch_half_pixel": lambda at, n, scale: (at + _HALF) / scale - _HALF if n * scale > 1 else Fraction(0),
    "asymmetric": lambda at, n, scale: Fraction(at, scale),
    "align_corners": lambda at, n, scale: Fraction(at * (n - 1), n * scale - 1) if n * scale > 1 else Fraction(0),
    "tf_half_pixel_for_nn": lambda at, n, scale: (at + _HALF) / scale,
}
"""Where an index of the result lies in an axis of length n, which is `scale` times as long then."""
_NEAREST: dict[str, Callable[[Fraction], int]] = {
    "round_prefer_floor": lambda x: ceil(x - _HALF),
    "round_prefer_ceil": lambda x: floor(x + _HALF),
    "floor": floor,
    "ceil": ceil,
}


def upsample(node: Node, builder: NetworkBuilder) -> Value:
    """An Upsample, whose scales are an attribute before opset 9, or a Resize of opset 10: asymmetric, rounded down."""
    x = node.view(0)
    scales = tuple(node.numbers(1).reshape(-1)) if node.has(1) else tuple(node.attributes.get("scales", ()))
    return _nearest(node, builder, x, tuple(map(float, scales)), "asymmetric", "floor")


def resize(node: Node, builder: NetworkBuilder) -> Value:
    """A Resize by scales or to sizes."""
    if node.opset < 11:
        return upsample(node, builder)
    x = node.view(0)
    if node.attributes.get("antialias", 0):
        raise Refusal("antialias is not supported; export the model without")
    rank = len(x.shape)
    given = node.attributes.get("axes")
    axes = list(range(rank)) if given is None else [node.axis(axis, rank) for axis in given]
    if node.has(3):
        sizes = node.integers(3)
        if node.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
            raise Refusal("it keeps the aspect ratio; supported is keep_aspect_ratio_policy stretch")
        scales = [size / x.shape[axis] for axis, size in zip(axes, sizes, strict=False)]
    elif node.has(2):
        scales = [float(scale) for scale in node.numbers(2).reshape(-1)]
    else:
        raise Refusal("it has neither scales nor sizes")
    if len(scales) != len(axes):
        raise Refusal(f"it has {len(scales)} scales or sizes for {len(axes)} axes")
    whole = [1.0] * rank
    for axis, scale in zip(axes, scales, strict=True):
        whole[axis] = scale
    coordinates = node.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = node.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    return _nearest(node, builder, x, tuple(whole), coordinates, rounding)


def _nearest(
    node: Node, builder: NetworkBuilder, x: Tensor, scales: tuple[float, ...], coordinates: str, rounding: str
) -> Value:
    mode = node.attributes.get("mode", b"nearest").decode()
    if mode != "nearest":
        raise Refusal(f"its mode is {mode}; supported is nearest: write others as a ConvTranspose or a Conv")
    if coordinates not in _COORDINATES or rounding not in _NEAREST:
        raise Refusal(
            f"its coordinate_transformation_mode is {coordinates} and its nearest_mode {rounding}; supported are "
            f"{', '.join(_COORDINATES)}, and {', '.join(_NEAREST)}"
        )
    if len(scales) != len(x.shape) or not all(
        isfinite(scale) and scale >= 1 and scale == int(scale) for scale in scales
    ):
        shown = ", ".join(f"{scale:g}" for scale in scales)
        raise Refusal(f"it scales a tensor of shape {x.shape} by {shown}; supported are whole numbers from 1")
    check_size([n * int(scale) for n, scale in zip(x.shape, scales, strict=True)])
    maps, shape = [], []
    for n, scale in zip(x.shape, map(int, scales), strict=True):
        found = [_NEAREST[rounding](_COORDINATES[coordinates](at, n, scale)) for at in range(n * scale)]
        maps.append(np.clip(found, 0, n - 1) if scale > 1 else np.arange(n))
        shape.append(n * scale)
    return resized(node, builder, maps, _shape(shape))


def _shape(lengths: list[int]) -> Shape:
    return tuple(lengths)
