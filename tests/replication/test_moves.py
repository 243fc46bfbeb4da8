"""How far runtimes move a value, against their integer arithmetic written out."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qverify.choices import ROUNDINGS
from qverify.family.rules import point_error
from qverify.layers import Dense, Input, Rounding
from qverify.network import Network
from qverify.replication.moves import Move, moves
from tests.support.networks import NETWORKS
from tests.support.quantised import quantised

SUMS = 20000


def file(step_x: float, step_w: float, step_y: float) -> Network:
    """One dense layer with integer weights between two rounding points."""
    x = Input("x", (), (4,))
    entry = Rounding.on_grid("x.q", 0, (4,), step_x, (-128, 127), kernel=True)
    weight = np.arange(-2.0, 2.0)[None] * step_w
    dense = Dense("a", (1,), (1,), weight=weight, bias=np.zeros(1), grid=np.array([[step_w]]))
    return Network((x, entry, dense, Rounding.on_grid("a.q", 2, (1,), step_y, (-128, 127), kernel=True)))


def float32(sums: Any, steps: list[float]) -> Any:
    """ONNX Runtime: the multiplier made and multiplied in float32, then rounded, ties to even."""
    x, w, y = map(np.float32, steps)
    return np.rint(sums.astype(np.float32) * (x * w / y))


def fixed(sums: Any, steps: list[float], twice: bool) -> Any:
    """A multiplier of 31 bits and one rounding, or the two of gemmlowp: a doubling high product, then a shift."""
    real = steps[0] * steps[1] / steps[2]
    mantissa, exponent = np.frexp(real)
    multiplier = round(float(mantissa) * 2**31)
    found = []
    for total in sums.tolist():
        product = total * multiplier
        if not twice:
            shift = 31 - int(exponent)
            found.append((product + (1 << (shift - 1))) >> shift)
            continue
        nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
        high = int(Fraction(product + nudge, 1 << 31))  # toward zero, as C divides
        shift = -int(exponent)
        mask = (1 << shift) - 1
        threshold = (mask >> 1) + (high < 0)
        found.append((high >> shift) + ((high & mask) > threshold))
    return np.array(found)


@pytest.mark.parametrize("shift", [1, 2, 5, 9])
@pytest.mark.parametrize("rule", ["float32", "single", "double"])
def test_integer_arithmetic_stays_within_its_rule(rule: str, shift: int) -> None:
    """On sums drawn at random, and on those nearest to ties; the worst comes close to what is allowed."""
    rng = np.random.default_rng(shift)
    step_w = float(np.float32(0.7 * 2.0**-shift))
    steps = [float(np.float32(0.011)), step_w, float(np.float32(0.011))]
    network = file(*steps)
    move: Move = moves(network, rule)[3]
    real = steps[0] * steps[1] / steps[2]
    ties = (np.arange(-127, 127) + 0.5) / real
    sums = np.concatenate(
        [rng.integers(-int(128 / real), int(128 / real), SUMS), np.floor(ties), np.ceil(ties)]
    ).astype(int)
    given = float32(sums, steps) if rule == "float32" else fixed(sums, steps, rule == "double")
    error = np.array([abs(Fraction(int(y)) - Fraction(real) * int(s)) for y, s in zip(given, sums, strict=True)], float)
    allowed = (move.absolute[0] + move.relative * abs(sums * real * steps[2])) / steps[2]
    assert (error <= allowed + 1e-12).all()
    assert error.max() > 0.47


def test_double_rounding_needs_its_second_term() -> None:
    steps = [0.5, float(np.float32(0.7 * 2.0**-2)), 0.5]
    sums = np.arange(-700, 700)
    error = abs(fixed(sums, steps, True) - sums * steps[1])
    assert error.max() > 0.5 + 1e-3


@pytest.mark.parametrize("rule", ROUNDINGS)
def test_nothing_less_than_the_rule_of_the_family_at_the_ends(rule: str) -> None:
    network = NETWORKS["residual"](np.random.default_rng(0))
    network = quantised(network, np.random.default_rng(1).normal(size=(20, network.input_size)))
    for index, move in moves(network, rule).items():
        layer: Any = network.layers[index]
        largest = np.maximum(-layer.low, layer.high) + layer.step
        radius = point_error(network, index, rule) * layer.step
        assert (move.absolute + move.relative * largest >= radius * (1 - 1e-9)).all()
        assert (move.absolute >= 0.5 * layer.step).all()


def test_float_arithmetic_is_no_more_exact_near_0() -> None:
    """Behind operators in floating point the error of their sums counts, whatever the value."""
    network = file(0.5, 0.25, 0.5)
    point: Any = network.layers[3]
    floating = network.with_layers({3: replace(point, kernel=False)})
    for rule in ("float32", "single"):
        kernel, move = moves(network, rule)[3], moves(floating, rule)[3]
        assert kernel.relative > 0.0 == move.relative and (move.absolute > kernel.absolute).all()
