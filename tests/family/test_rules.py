"""Rules of runtimes against the arithmetic that they stand for, written here in integers of Python and in float32."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qverify.activations.layer import Activation
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.float_errors import float_errors
from qverify.family.radii import Radii
from qverify.family.rules import file_kernel, file_points, input_step, point_error
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu, Rounding
from qverify.network import Network
from tests.support.networks import dense

STEPS = (0.037, 0.0021, 0.052)
"""Of input, weights and output."""


def single(value: float) -> float:
    return float(np.float32(value))


def integer_network(
    rng: np.random.Generator,
    steps: tuple[float, float, float] = STEPS,
    n_in: int = 12,
    bits: int = 8,
    kernel: bool = True,
) -> Network:
    """Input, rounded; a dense layer of integers; its rounding point."""
    s_x, s_w, s_y = map(single, steps)
    half = 2 ** (bits - 1)
    weight: Any = rng.integers(-127, 128, size=(5, n_in)) * s_w
    bias: Any = rng.integers(-300, 300, size=5) * (s_x * s_w)
    return Network(
        (
            Input("x", (), (n_in,)),
            Rounding.on_grid("x/rounded", 0, (n_in,), s_x, (-half, half - 1)),
            Dense("fc", (1,), (5,), weight=weight, bias=bias, grid=np.full((1, 1), s_w)),
            Rounding.on_grid("y", 2, (5,), s_y, (-half, half - 1), kernel=kernel),
        ),
        "file",
    )


def high_mul(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul of gemmlowp."""
    product = a * b
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    total = product + nudge
    return total >> 31 if total >= 0 else -((-total) >> 31)


def divide_by_power(value: int, exponent: int) -> int:
    """RoundingDivideByPOT of gemmlowp: half away from zero."""
    mask = (1 << exponent) - 1
    remainder = value & mask
    threshold = (mask >> 1) + (1 if value < 0 else 0)
    return (value >> exponent) + (1 if remainder > threshold else 0)


def multiplier(real: float) -> tuple[int, int]:
    """31-bit multiplier and shift to the left, as QuantizeMultiplier makes them."""
    fraction, shift = np.frexp(real)
    fixed = round(float(fraction) * (1 << 31))
    return (fixed // 2, int(shift) + 1) if fixed == 1 << 31 else (int(fixed), int(shift))


def rounded(rule: str, accumulator: int, steps: tuple[float, float, float], rng: np.random.Generator) -> int:
    s_x, s_w, s_y = map(single, steps)
    if rule == "float32":
        f = np.float32
        scale = [f(f(s_x) * f(s_w)) / f(s_y), f(s_x) * (f(s_w) / f(s_y)), f(s_w) * (f(s_x) / f(s_y))]
        return int(np.rint(f(accumulator) * f(scale[rng.integers(3)])))
    fixed, shift = multiplier(s_x * s_w / s_y)
    if rule == "double":
        return divide_by_power(high_mul(accumulator << max(shift, 0), fixed), max(-shift, 0))
    total = 31 - shift
    if rule == "single":
        return (accumulator * fixed + (1 << (total - 1))) >> total
    assert rule == "truncate"
    value = Fraction(accumulator * fixed, 1 << total)
    return int(value)


@pytest.mark.parametrize("rule", ["float32", "single", "double", "truncate"])
@pytest.mark.parametrize("steps", [STEPS, (0.5, 0.004, 0.0041), (0.01, 0.003, 0.002), (0.02, 0.0001, 0.9)])
def test_no_rule_errs_by_more_than_its_radius(rule: str, steps: Any, rng: np.random.Generator) -> None:
    network = integer_network(rng, steps)
    s_x, s_w, s_y = (Fraction(single(one)) for one in steps)
    allowed = point_error(network, 3, rule)[0]
    worst, most = Fraction(0), int(128 * s_y / (s_x * s_w))
    for _ in range(3000):
        accumulator = int(rng.integers(-most, most + 1))
        exact = accumulator * s_x * s_w / s_y
        worst = max(worst, abs(rounded(rule, accumulator, steps, rng) - exact))
    assert worst <= Fraction(float(allowed))
    assert float(worst) > 0.45 or most < 100  # else the rule is not tried


def test_double_rounding_goes_beyond_a_single_one(rng: np.random.Generator) -> None:
    steps = (0.5, 0.004, 0.016)  # k = 4 or so
    network = integer_network(rng, steps)
    s_x, s_w, s_y = (Fraction(single(one)) for one in steps)
    errors = [abs(rounded("double", a, steps, rng) - a * s_x * s_w / s_y) for a in range(-1000, 1000)]
    assert max(errors) > Fraction(float(point_error(network, 3, "single")[0]))
    assert max(errors) <= Fraction(float(point_error(network, 3, "double")[0]))


@pytest.mark.parametrize("n_in", [3, 40])
def test_float32_sums_in_any_order_are_within_their_errors(n_in: int, rng: np.random.Generator) -> None:
    network = integer_network(rng, n_in=n_in, kernel=False)
    (layer,) = [one for one in network.layers if isinstance(one, Dense)]
    assert layer.grid is not None
    (errors,) = [float_errors(network)[2]]
    s_x = single(STEPS[0])
    worst = 0.0
    for _ in range(300):
        x = rng.integers(-128, 128, size=n_in)
        order = rng.permutation(n_in)
        for row in range(5):
            total = np.float32(layer.bias[row]) if rng.random() < 0.5 else np.float32(0)
            start = total
            for j in order:
                total = np.float32(total + np.float32(np.float32(x[j] * s_x) * np.float32(layer.weight[row, j])))
            if start == 0:
                total = np.float32(total + np.float32(layer.bias[row]))
            exact = sum(Fraction(int(x[j])) * Fraction(s_x) * Fraction(layer.weight[row, j]) for j in range(n_in))
            off = abs(Fraction(float(total)) - exact - Fraction(layer.bias[row]))
            assert off <= Fraction(float(errors[row]))
            worst = max(worst, float(off) / errors[row])
    assert worst > 0.003  # of the right size


def test_errors_add_up_through_layers_without_rounding(rng: np.random.Generator) -> None:
    network = integer_network(rng)
    layers: list[Layer] = [*network.layers[:3]]
    layers += [Relu("r", (2,), (5,)), dense(rng, "fc2", 3, 4, 5), dense(rng, "fc3", 3, 4, 5), Add("sum", (4, 5), (4,))]
    errors = float_errors(Network(tuple(layers)))
    assert (errors[1] == 0).all() and (errors[3] == errors[2]).all() and (errors[2] > 0).all()
    fc2: Any = layers[4]
    assert (errors[4] >= abs(fc2.weight) @ errors[3]).all() and (errors[6] >= errors[4] + errors[5]).all()


def test_what_nothing_bounds_has_no_error(rng: np.random.Generator) -> None:
    layers = integer_network(rng).layers
    weights: Any = layers[2]
    free = Network(
        (
            layers[0],
            Dense("fc", (0,), (5,), weight=weights.weight, bias=weights.bias, grid=weights.grid),
            Rounding.on_grid("y", 1, (5,), 0.1, (-128, 127)),
        ),
        "file",
    )
    with pytest.raises(RadiiError, match="has no bound that is known: the input is not rounded before"):
        file_points(free)
    assert file_points(free, "nearest")["y"].radius.max() == pytest.approx(0.05)


def test_words_and_networks_that_have_no_rules(rng: np.random.Generator) -> None:
    with pytest.raises(RadiiError, match="Unknown rounding 'up'"):
        file_points(integer_network(rng), "up")
    plain = Network((Input("x", (), (3,)), dense(rng, "fc", 0, 2, 3)), "plain")
    with pytest.raises(RadiiError, match="plain is not quantised; state radii or bits"):
        Radii.of_file(plain)


def test_sums_that_may_leave_int32_are_named(rng: np.random.Generator) -> None:
    assert file_kernel(integer_network(rng)).refused == ()
    n_in = 70_000
    s_x, s_w, s_y = map(single, STEPS)
    wide = Network(
        (
            Input("x", (), (n_in,)),
            Rounding.on_grid("x/rounded", 0, (n_in,), s_x, (0, 255)),
            Dense(
                "wide", (1,), (1,), weight=np.full((1, n_in), 127 * s_w), bias=np.zeros(1), grid=np.full((1, 1), s_w)
            ),
            Rounding.on_grid("y", 2, (1,), s_y, (-128, 127), kernel=True),
        ),
        "file",
    )
    (reason,) = file_kernel(wide).refused
    assert "'wide' may leave int32" in reason


def test_the_step_that_a_layer_reads(rng: np.random.Generator) -> None:
    network = integer_network(rng)
    assert input_step(network, 2) == single(STEPS[0]) and input_step(network, 3) is None


def test_integers_of_a_file_stay_unless_radii_are_stated(rng: np.random.Generator) -> None:
    network = integer_network(rng)
    family = Family.of(network, Radii.of_file(network))
    assert not family.weight and not family.shares_weights and set(family.points) == {1, 3}
    wider = Family.of(network, Radii(weight=0.01).at_points(Radii.of_file(network)))
    assert set(wider.weight) == {2} and set(wider.points) == {1, 3}


def test_sixteen_bit_kernels_keep_fifteen_bits_of_a_multiplier(rng: np.random.Generator) -> None:
    network = integer_network(rng, bits=16)
    s_x, s_w, s_y = (Fraction(single(one)) for one in STEPS)
    fixed, shift = multiplier(float(s_x * s_w / s_y))
    reduced = (fixed + (1 << 15)) >> 16
    total, allowed = 15 - shift, Fraction(float(point_error(network, 3, "single")[0]))
    most = int(32768 * s_y / (s_x * s_w))
    worst = Fraction(0)
    for _ in range(2000):
        accumulator = int(rng.integers(-most, most + 1))
        value = (accumulator * reduced + (1 << (total - 1))) >> total
        worst = max(worst, abs(value - accumulator * s_x * s_w / s_y))
    assert Fraction(1, 2) < worst <= allowed


def test_an_average_and_a_sum_have_room_for_fixed_point(rng: np.random.Generator) -> None:
    s = single(0.05)
    ones = np.full((2, 1, 2, 2), 0.25)
    network = Network(
        (
            Input("x", (), (2, 2, 2)),
            Rounding.on_grid("a", 0, (2, 2, 2), s, (-128, 127)),
            Conv("pool", (1,), (2, 1, 1), weight=ones, bias=np.zeros(2), in_shape=(2, 2, 2), groups=2, quantised=False),
            Rounding.on_grid("b", 2, (2, 1, 1), s, (-128, 127), kernel=True),
            Add("sum", (3, 3), (2, 1, 1)),
            Rounding.on_grid("c", 4, (2, 1, 1), s, (-128, 127), kernel=True),
        ),
        "file",
    )
    for index in (3, 5):
        assert point_error(network, index, "single").min() > 0.5 + 129 * 2.0**-18
        assert point_error(network, index, "nearest").max() < 0.5 + 1e-9
    assert point_error(network, 5, "float32").min() > point_error(network, 3, "float32").max()


def test_a_normalisation_in_a_file_is_followed_in_real_arithmetic_alone() -> None:
    """Runtimes compute a variance in several ways, one of which cancels: no error of float32 is known there."""
    layers = (
        Input("x", (), (3,)),
        Rounding.on_grid("q", 0, (3,), 0.125, (-32, 31)),
        Activation("root", (1,), (3,), function="rsqrt", parameters=(np.full(3, 5.0),)),
        Rounding.on_grid("r", 2, (3,), 0.125, (-32, 31)),
    )
    network = Network(layers)
    with pytest.raises(RadiiError, match="or a normalisation is there; state --rounding nearest"):
        file_points(network, "float32")
    assert set(file_points(network, "nearest")) == {"q", "r"}
