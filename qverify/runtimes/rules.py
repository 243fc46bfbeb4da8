"""The rules by which runtimes requantise: what each makes of exact accumulators (mathematics.md, section 18).

A `Way` is one of them for one stage: the least and the largest integer that it may give. `single` and `double` are
functions, so both are the same. `float32` is not one function: multipliers are rounded to float32 in some order, and
sums of tensors are computed in other ways by every library. So it is the set of all integers that one of them may give,
entry by entry. All ends are monotone in the accumulators: those of an interval bound the whole interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from qverify.errors import UnsupportedModel
from qverify.layers import Conv
from qverify.runtimes.fixed_point import (
    Addition,
    Average,
    Multiplier,
    double_rounding,
    double_rounding_upwards,
    single_rounding,
)
from qverify.runtimes.integers import Kind
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qverify.arrays import Array
    from qverify.runtimes.integers import Stage

    Multiply = Callable[[Tensor, Multiplier], Tensor]

RUNTIMES = {
    "float32": "ONNX Runtime, XNNPACK (LiteRT's default on CPUs), TensorRT, PyTorch",
    "single": "CMSIS-NN and TensorFlow Lite with their switch for single rounding, ExecuTorch's TOSA",
    "double": "TensorFlow Lite's reference kernels, TensorFlow Lite Micro, CMSIS-NN by default, "
    "ruy (LiteRT without XNNPACK)",
}
"""Who requantises by which rule."""

_UNIT = 2.0**-24
_SAFE = 1.0 + 2.0**-20
"""Covers that slack and value are themselves computed in float64."""
_SCALED = 6
"""Roundings between an accumulator and its scaled value (`_scaled`)."""
_RAW = 256.0
"""The largest zero point of 8 bits: some kernels round its product with the step, and subtract that."""
_BITS_8 = 256
"""Tensors of 8 bits stay below it."""


@dataclass(frozen=True)
class _Product:
    """A product in fixed point: the rule it belongs to, how people call it, and the function."""

    name: str
    label: str
    multiply: Multiply


_FIXED = (
    _Product("single", "single", single_rounding),
    _Product("double", "double", double_rounding),
    _Product("double", "double, ties upwards", double_rounding_upwards),
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Way(Brief):
    """How rules `names` compute one stage. `low` and `high` give (N, size) float64, clipped, from accumulators.

    `label` says it for people: the rule, and which of its variants.

    Both take the accumulators as float64 (N, size), two tensors for a sum of tensors. `single`: they are the same.
    `error`: how far, in steps beyond 1/2, the integer before it is clipped is at most from the real value.
    """

    names: tuple[str, ...]
    label: str
    low: Callable[..., Tensor]
    high: Callable[..., Tensor]
    single: bool
    error: float


def ways_of(stage: Stage, rules: tuple[str, ...], signed: bool) -> tuple[Way, ...]:
    """The ways of a stage under the rules named, each once; those that another one always contains are left out.

    `signed`: what it reads may be negative. Raises UnsupportedModel where a rule would overflow 32 bits.
    """
    if stage.step is None:
        return (Way(names=rules, label="exact", low=_plain, high=_plain, single=True, error=0.0),)
    if stage.kind is Kind.LARGEST:
        return (_exactly(stage, rules, "exact", lambda acc: acc),)
    if stage.kind in (Kind.FUNCTION, Kind.PRODUCT):
        return (_computed(stage, rules),)
    if stage.kind is Kind.ADD:
        return _sums(stage, rules)
    if stage.kind is Kind.POOL:
        return _pools(stage, rules, signed)
    return _scaled(stage, rules)


def nearest(stage: Stage, *accumulators: Tensor) -> Tensor:
    """The tensor rounded to nearest, ties to even, in float64: what the file says in real arithmetic."""
    if stage.step is None:
        return accumulators[0]
    terms = (
        acc * _tensor(stage, steps / stage.step / stage.window)
        for acc, steps in zip(accumulators, stage.steps, strict=True)
    )
    return sum(terms, torch.tensor(0.0)).round().clamp(stage.low, stage.high)


def _plain(total: Tensor) -> Tensor:
    return total


def _tensor(stage: Stage, values: object) -> Tensor:
    return torch.tensor(stage.spread(np.asarray(values)))


def _within(
    stage: Stage,
    names: tuple[str, ...],
    value: Callable[..., tuple[Tensor, Tensor]],
    largest: float,
    label: str = "float32",
) -> Way:
    """All integers that some real number within the slack of a value rounds to, a tie going either way.

    `value` gives a real value and its slack, in steps of the output; `largest`: a bound on all slacks.
    """

    def low(*accumulators: Tensor) -> Tensor:
        v, slack = value(*accumulators)
        return (v - (slack * _SAFE + 0.5)).ceil_().clamp_(stage.low, stage.high)

    def high(*accumulators: Tensor) -> Tensor:
        v, slack = value(*accumulators)
        return (v + (slack * _SAFE + 0.5)).floor_().clamp_(stage.low, stage.high)

    return Way(names=names, label=label, low=low, high=high, single=False, error=largest * _SAFE)


def _exactly(
    stage: Stage, names: tuple[str, ...], label: str, function: Callable[..., Tensor], error: float = 0.0
) -> Way:
    def ends(*accumulators: Tensor) -> Tensor:
        whole = (acc.long() for acc in accumulators)
        return function(*whole).clamp_(stage.low, stage.high).double()

    return Way(names=names, label=label, low=ends, high=ends, single=True, error=error)


def _computed(stage: Stage, rules: tuple[str, ...]) -> Way:
    """Functions and products: what lies within the largest slack of the rules."""
    assert stage.step is not None
    (steps,) = stage.steps
    scale, slack = float(steps) / stage.step, max(stage.slack[rule] for rule in rules)
    none = torch.tensor(slack, dtype=torch.float64)
    return _within(stage, rules, lambda acc: (acc * scale, none), slack, stage.kind.value)


def _scaled(stage: Stage, rules: tuple[str, ...]) -> tuple[Way, ...]:
    """Weighted sums, and tensors that are only rescaled.

    `float32`: with `acc = products + bias`, the value is `acc * M` up to `_SCALED` roundings, each of at most 2^-24 of
    `(|products| + |bias|) M`: `s_x s_w`, its quotient by `s_y` or the product with the rounded `1 / s_y` (2), the
    conversion of an accumulator above 2^24, the product, and the sum with a bias that was scaled apart, as by TensorRT.
    `single` is within it: 31 bits of the multiplier, one rounding. Weights of one step have two multipliers of 31
    bits: TensorFlow Lite multiplies `s_x s_w` in float32 for fully connected layers, in double for convolutions.
    """
    (steps,) = stage.steps
    assert stage.step is not None
    real = np.atleast_1d(steps) / stage.step
    if stage.kind is Kind.COPY and (real == 1.0).all():
        return (_exactly(stage, rules, "exact", lambda acc: acc),)
    found, largest = [], stage.reach * float(real.max()) * _UNIT
    if "float32" in rules:
        multiplier, bias = _tensor(stage, real), _tensor(stage, 0.0 if stage.layer is None else stage.layer.bias)
        per_product, constant = multiplier * (_SCALED * _UNIT), abs(bias) * multiplier * (_SCALED * _UNIT)

        def value(acc: Tensor) -> tuple[Tensor, Tensor]:
            return acc * multiplier, (acc - bias).abs_().mul_(per_product).add_(constant)

        covered = tuple(rule for rule in ("float32", "single") if rule in rules)
        found.append(_within(stage, covered, value, _SCALED * largest))
        rules = tuple(rule for rule in rules if rule != "single")
    reals = {"": real}
    if not stage.mixed and stage.kind is Kind.WEIGHTS:
        reals[", steps multiplied in float32"] = np.asarray(steps, dtype=np.float32).astype(np.float64) / stage.step
        if (reals[", steps multiplied in float32"] == real).all():
            reals = {"": real}
    for product in _FIXED:
        if product.name in rules and (stage.low < 0 or product.multiply is not double_rounding_upwards):
            found += [_fixed(stage, product, label, each) for label, each in reals.items()]
    return tuple(found)


def _fixed(stage: Stage, product: _Product, label: str, real: Array) -> Way:
    """A rule in fixed point for a stage of one product; `real`: its multipliers."""
    by = Multiplier.of(stage.spread(real))
    if stage.kind is Kind.WEIGHTS and stage.read >= _BITS_8:
        raise UnsupportedModel(stage.name, [f"inputs of more than 8 bits, which rule {product.name!r} does not cover"])
    if stage.reach << by.largest_shift >= 2**31:
        raise UnsupportedModel(
            stage.name, [f"multipliers up to {real.max():g}, with which rule {product.name!r} may overflow 32 bits"]
        )
    right = (-by.shift).clamp(min=0)
    twice = float((2.0 ** -(right + 1.0)).where(right > 0, 0.0).max()) if product.name == "double" else 0.0
    error = 2 * _UNIT * stage.reach * float(real.max()) + twice
    return _exactly(stage, (product.name,), product.label + label, lambda acc: product.multiply(acc, by), error)


def _sums(stage: Stage, rules: tuple[str, ...]) -> tuple[Way, ...]:
    """Sums of two tensors, `a s_a / s_y + b s_b / s_y`.

    `float32`: XNNPACK and onnxruntime multiply by integers of 21 or of 22 bits and round their sum once; others compute
    in float32, with at most `_SCALED` roundings, some after the products of steps and zero points are rounded too
    (PyTorch). `single` and `double` are TensorFlow Lite's: each input is shifted by 20 bits and scaled, and their sum
    scaled again, every product rounded as the rule says.
    """
    first, second = (float(steps) for steps in stage.steps)
    assert stage.step is not None
    m, n = first / stage.step, second / stage.step
    found = []
    if "float32" in rules:
        raw = (_RAW if stage.read < _BITS_8 else 2.0 * stage.read) * (m + n) * _UNIT

        def value(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return a * m + b * n, (a.abs() * m + b.abs() * n).mul_(_SCALED * _UNIT).add_(raw)

        largest = 2 * stage.reach * max(m, n)
        found.append(_within(stage, ("float32",), value, largest * _SCALED * _UNIT + raw))
        found += [_short(stage, bits, largest) for bits in (20, 21)]
    by = Addition.of(first, second, stage.step)
    for product in _FIXED:
        if product.name in rules:
            if stage.read >= _BITS_8:
                raise UnsupportedModel(
                    stage.name, [f"inputs of more than 8 bits, which rule {product.name!r} does not cover"]
                )
            added = partial(by.sum, multiply=product.multiply)
            found.append(_exactly(stage, (product.name,), product.label, added, 2.0))
    return tuple(found)


def _short(stage: Stage, bits: int, largest: float) -> Way:
    """The sum of two tensors by multipliers of `bits + 1` bits, the larger of them at least 2^bits; a tie either way.

    The ratios of the steps are rounded to float32 before.
    """
    first, second = (np.float32(steps) / np.float32(stage.step) for steps in stage.steps)
    shift = bits + 1 - math.frexp(max(first, second))[1]
    m, n = (float(np.rint(float(ratio) * 2.0**shift)) / 2.0**shift for ratio in (first, second))
    none = torch.tensor(0.0)
    label = f"float32, multipliers of {bits + 1} bits"
    return _within(stage, ("float32",), lambda a, b: (a * m + b * n, none), largest * 2.0**-bits, label)


def _pools(stage: Stage, rules: tuple[str, ...], signed: bool) -> tuple[Way, ...]:
    """Averages over a window of n entries.

    Integer kernels of poolings, whose steps are the same before and after, divide the sum with ties away from 0 of the
    raw numbers, which may be either way. In float32 (onnxruntime) n numbers are added up, with n + 6 roundings in all,
    of at most 2^-24 of the sum of their absolute values, which is the sum itself where none is negative. TensorFlow
    Lite's MEAN, which is over all positions, scales in fixed point, and divides in the multiplier or behind.
    """
    assert stage.step is not None and isinstance(stage.layer, Conv)
    step = float(stage.steps[0])
    real, same = step / stage.step / stage.window, step == stage.step
    found, whole = [], stage.layer.positions == 1
    if same or "float32" in rules or not whole:
        relative = 0.0 if same and "float32" not in rules else (stage.window + _SCALED) * _UNIT
        largest = relative * stage.reach * real
        constant = largest if signed else 0.0

        def value(total: Tensor) -> tuple[Tensor, Tensor]:
            v = total * real
            return v, (v * 0.0 if signed else v * relative) + constant

        found.append(_within(stage, rules if same or not whole else ("float32",), value, largest, "average"))
    by = Average.of(stage.window, step, stage.step)
    for product in _FIXED if whole else ():
        if product.name in rules:
            largest_shift = max(by.scale.largest_shift, by.folded.largest_shift)
            if stage.reach << largest_shift >= 2**31:
                raise UnsupportedModel(stage.name, [f"averages with which rule {product.name!r} may overflow 32 bits"])
            for label, mean in (("", by.at_once), (", divided behind", by.apart)):
                divided = partial(mean, multiply=product.multiply)
                found.append(_exactly(stage, (product.name,), f"{product.label}{label}", divided, 2.0))
    return tuple(found)
