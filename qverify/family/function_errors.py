"""What integer kernels get wrong in functions and products of a quantised file, in steps of the output, beyond what
their rounding of the result is off by (rules.py); mathematics.md, section 16 has the rules.

A function that is no Relu is a table of float32 in onnxruntime and in most kernels of LiteRT (float_errors.py). These
compute it otherwise, with s the step of what is read and t that of the output:

    leaky relu   XNNPACK multiplies by whole 256ths of s / t: off by 1/512 of every step read (`float32`). Others have
                 one multiplier a side, each of two roundings (`double`)
    hard swish   16 bits, `s / (128 t) = m 2^-k`: five units of 2^-k, of which LiteRT's kernels were seen to take 0.8
    others       fixed point of 31 bits (gemmlowp): 1/16 of a step at 8 bits (`single`, `double`)

A product of two tensors is one integer times one multiplier, `s s' / t`, and one of a tensor and constants likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Product, Rounding, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.activations.layer import Activation
    from qverify.arrays import Array

_TABLE = 1.0 / 16.0
"""Steps of 8 bits that a function in fixed point may be off by."""
_UNITS = 5.0
"""Units of its last shift that a hard swish of 16 bits may be off by."""
_MOST_SECOND = 0.25
"""What the second of two roundings adds at most, behind a shift of one place."""
_WIDEST = 256.0
"""Steps that kernels with multipliers of 8 bits can read."""


def kernel_error(
    read: Activation | Product | Scale, steps: Sequence[float | None], point: Rounding, rule: str
) -> Array:
    """The error (size,) that integer kernels add at a rounding point behind layer `read`, in steps of the point.

    `steps`: those of the grids that `read` reads, None where they lie on no single one.
    """
    if isinstance(read, Scale):  # the step of its constants is not kept
        return np.where((rule == "double") & (read.scale != 1.0), _MOST_SECOND, 0.0)
    if isinstance(read, Product):
        known = [step for step in steps if step is not None]
        whole = np.prod(known) if len(known) == len(steps) else np.inf
        return _second_rounding(whole / point.step) if rule == "double" else np.zeros(point.size)
    (step,) = steps
    ratio = np.full(point.size, np.inf) if step is None else step / point.step
    if read.function == "hard_swish":
        return np.where(point.kernel, _UNITS * _unit(ratio / 128.0), 0.0) if step is not None else np.zeros(point.size)
    if read.function == "leaky_relu":
        if rule == "float32":
            return np.full(point.size, _WIDEST / 512.0 if point.kernel else 0.0)
        slope = np.abs(read.parameters[0])
        two = np.maximum(_second_rounding(ratio), _second_rounding(slope * ratio))
        return two if rule == "double" else np.zeros(point.size)
    return np.full(point.size, _TABLE if rule in ("single", "double") else 0.0)


def _unit(multiplier: Array) -> Array:
    """2^-k of `multiplier = m 2^-k`, m in [1/2, 1)."""
    _, exponent = np.frexp(multiplier)
    return np.asarray(np.ldexp(1.0, exponent))


def _second_rounding(multiplier: Any) -> Array:
    """2^-(k+1) for a multiplier `m 2^-k`: what the second of two roundings adds; 1/4 where it is not known."""
    safe = np.where(np.isfinite(multiplier), multiplier, 1.0)
    unit = _unit(safe)
    return np.where(np.isfinite(multiplier), np.where(unit < 1.0, 0.5 * unit, 0.0), _MOST_SECOND)


def layer_reach(layer: Activation, reach: float) -> float:
    """The largest absolute value that a layer gives for inputs of at most this size."""
    limits = np.max([np.abs(end).max() for end in layer.curve.function.ends(np, *layer.curve.parameters)])
    if not np.isfinite(reach):
        return float(limits)
    span = layer.curve.span(*(np.full(layer.size, end) for end in (-reach, reach)))
    return float(min(limits, np.max(np.abs(span)) * (1.0 + 1e-9) + 1e-9))
