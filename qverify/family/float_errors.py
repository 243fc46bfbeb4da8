"""Errors of float32 arithmetic in a quantised file, where floating point makes what is rounded: a QDQ file that a
runtime does not fuse into integer kernels. Sound for any order of summation (rounding.py has the model).

Between two rounding points numbers that are dequantised, multiplied and summed in float32 are off by

    e_z <= |W| e_x + g (|W| |x| + |b|),      g = (n + 8) u / (1 - (n + 8) u),      u = 2^-24

for a sum of n products, the roundings of dequantised inputs, weights and biases included. `|x|` is bounded by the
ranges of the rounding points before it. A function f of x is off by `max |f'| e_x`, and by what libraries get wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.network import Network

SINGLE = 2.0**-24
"""What float32 rounds, relatively."""
AROUND = 8
"""Roundings around a sum."""
_LINEAR, _SMOOTH = 2.0**-22, 2.0**-20
"""What float32 may get wrong in a function, in parts of its largest number and its scale: the products and sums of
piecewise linear ones; tables and polynomials of others, measured up to 2^-22.5 in onnxruntime's kernels."""
_Pair = tuple[Any, Any]


def float_errors(network: Network) -> list[Array]:
    """Bounds (size,) on what float32 can get wrong at each layer of a quantised file; infinite where no rounding point
    bounds the numbers, and behind the root of a normalisation. Raises KeyError for a layer of a type that has no entry
    in `FLOAT_ERRORS`."""
    found: list[_Pair] = []
    for layer in network.layers:
        found.append(FLOAT_ERRORS[type(layer)](layer, [found[i] for i in layer.inputs]))
    return [np.asarray(error) for _, error in found]


def _relative(terms: int) -> float:
    chain = (terms + AROUND) * SINGLE
    return chain / (1.0 - chain) if chain < 0.5 else np.inf


def _affine(layer: Any, read: list[_Pair]) -> _Pair:
    (reach, error), relative = read[0], _relative(layer.fan_in)
    if not np.isfinite(reach).all():
        return np.full(layer.size, np.inf), np.full(layer.size, np.inf)

    def apply(x: Array) -> Array:
        size = abs(layer.weight)
        return np.asarray(size @ x if isinstance(layer, Dense) else layer.apply(size, x[None])[0])

    bias = abs(layer.bias) if isinstance(layer, Dense) else np.repeat(abs(layer.bias), layer.positions)
    mass = apply(reach) + bias
    return mass, (apply(error) + relative * mass) * (1.0 + 2.0**-30)


def _scale(layer: Any, read: list[_Pair]) -> _Pair:
    reach, error = read[0]
    mass = abs(layer.scale) * reach + abs(layer.shift)
    return mass, abs(layer.scale) * error + _relative(1) * mass


def _add(layer: Any, read: list[_Pair]) -> _Pair:
    mass = read[0][0] + read[1][0]
    return mass, read[0][1] + read[1][1] + _relative(1) * mass


def _product(layer: Any, read: list[_Pair]) -> _Pair:
    (x, e), (y, f) = read
    mass = x * y
    if not np.isfinite(mass + e + f).all():
        return np.full(layer.size, np.inf), np.full(layer.size, np.inf)
    return mass, (x * f + y * e + e * f + _relative(1) * mass) * (1.0 + 2.0**-30)


def _gather(layer: Any, read: list[_Pair]) -> _Pair:
    """Numbers as they are; constants may be rounded to float32."""
    reach, error = (np.concatenate(each)[layer.index] for each in zip(*read, strict=True))
    fill = abs(layer.fill)
    return np.where(layer.constant, fill, reach), np.where(layer.constant, SINGLE * fill, error)


def _rounding(layer: Any, read: list[_Pair]) -> _Pair:
    return np.maximum(-layer.low, layer.high), np.zeros(layer.size)


def _dynamic(layer: Any, read: list[_Pair]) -> _Pair:
    """Unbounded: what a tensor holds is known only for each sample (bounds/dynamic.py)."""
    return np.full(layer.size, np.inf), np.zeros(layer.size)


def _activation(layer: Any, read: list[_Pair]) -> _Pair:
    """What it reads is off by, times the steepest slope, and what float32 makes of the function itself."""
    reach, error = read[0]
    curve, function = layer.curve, layer.curve.function
    limits = [np.broadcast_to(np.abs(end), layer.size) for end in function.ends(np, *curve.parameters)]
    # A root stands for a node that normalises, of which runtimes compute the variance in several ways: as mean of
    # squares less square of the mean it may be off by any share of itself.
    if function.arithmetic or not np.isfinite(reach + error).all():
        return np.max(limits, axis=0), np.full(layer.size, np.inf)
    around = reach + error
    least, most = curve.steepness(-around, around)
    size = np.max(np.abs(curve.span(-around, around)), axis=0)
    own = (_LINEAR if curve.linear else _SMOOTH) * (size + function.scale(np, *curve.parameters) + 1.0)
    moved = np.maximum(np.abs(least), np.abs(most)) * (error + 2.0 * SINGLE * reach)
    found = (moved + own) * (1.0 + 2.0**-30)
    return np.minimum(size, np.max(limits, axis=0)), np.where(np.isfinite(found), found, np.inf)


FLOAT_ERRORS: dict[type[Layer], Callable[[Any, list[_Pair]], _Pair]] = {
    Input: lambda layer, read: (np.full(layer.size, np.inf), np.zeros(layer.size)),
    Dense: _affine,
    Conv: _affine,
    Scale: _scale,
    Relu: lambda layer, read: read[0],
    Activation: _activation,
    Rounding: _rounding,
    MaxPool: lambda layer, read: tuple(each[layer.windows].max(axis=1) for each in read[0]),
    DynamicRounding: _dynamic,
    Add: _add,
    Product: _product,
    Gather: _gather,
}
