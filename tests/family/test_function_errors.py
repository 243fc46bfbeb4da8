"""What kernels make of functions and products of integers, all of them, against the radii of their rules.

The oracles are formulas in float64, LiteRT's kernels, and the fixed point of gemmlowp written here in whole numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qverify.activations.layer import Activation
from qverify.family.float_errors import float_errors
from qverify.family.rules import file_points, point_error
from qverify.layers import Input, Product, Rounding, Scale
from qverify.network import Network
from tests.support.tflite_functions import FUNCTIONS, TRUTH, Made, made, outputs

Rng = np.random.Generator


def file(name: str, case: Made) -> Network:
    """The network of a file with this one function, kernels of integers behind it."""
    size = case.high - case.low + 1
    ends = (case.low - case.zero, case.high - case.zero)
    out = (case.low - case.out_zero, case.high - case.out_zero)
    parameters = (np.full(size, case.alpha),) if name == "leaky_relu" else ()
    return Network(
        (
            Input("x", (), (size,)),
            Rounding.on_grid("x/rounded", 0, (size,), case.step, ends),
            Activation("f", (1,), (size,), function=name, parameters=parameters),
            Rounding.on_grid("y", 2, (size,), case.out_step, out, kernel=True),
        ),
        "file",
    )


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_litert_is_within_the_rules(name: str, kind: str, rng: Rng) -> None:
    """The kernels that it takes by itself (XNNPACK's among them), its own optimised ones, and the reference."""
    worst = dict.fromkeys(("float32", "double"), 0.0)
    for _ in range(25):
        case = made(name, kind, rng)
        network = file(name, case)
        exact = np.clip(TRUTH[name](case.numbers, case.alpha), network.layers[3].low, network.layers[3].high)  # type: ignore[attr-defined]
        for resolver, rule in (("AUTO", "float32"), ("BUILTIN_REF", "double"), ("AUTO", "any"), ("BUILTIN_REF", "any")):
            found = (outputs(name, case, resolver) - case.out_zero) * case.out_step
            radius = np.ravel(file_points(network, rule)["y"].radius)
            assert (abs(found - exact) <= radius).all(), rule
            if rule != "any":
                worst[rule] = max(worst[rule], float((abs(found - exact) / case.out_step).max()))
    assert min(worst.values()) > 0.49
    if name == "leaky_relu":  # so half a step would not do
        assert worst["double"] > 0.6 and (kind != "INT8" or worst["float32"] > 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_litert_is_within_the_rules_of_many(name: str, rng: Rng) -> None:
    for _ in range(20):
        test_litert_is_within_the_rules(name, "INT8", rng)


# --- gemmlowp's fixed point, as TensorFlow Lite Micro has it ---


def high_mul(a: int, b: int) -> int:
    product = a * b
    total = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return total >> 31 if total >= 0 else -((-total) >> 31)


def by_power(value: int, exponent: int) -> int:
    remainder, threshold = value & ((1 << exponent) - 1), (((1 << exponent) - 1) >> 1) + (value < 0)
    return (value >> exponent) + (remainder > threshold)


ONE = (1 << 31) - 1
EXPONENTS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}


def exp_of_negative(raw: int, integer_bits: int) -> int:
    """exp of a number of so many integer bits, at most 0, in 31 fractional bits."""
    if raw == 0:
        return ONE
    quarter = 1 << (31 - integer_bits - 2)
    rest = (raw & (quarter - 1)) - quarter
    x = (rest << integer_bits) + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    tail = by_power(high_mul(by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high_mul(1895147668, x + tail)
    for exponent, factor in EXPONENTS.items():
        if integer_bits > exponent and (rest - raw) & (1 << (31 - integer_bits + exponent)):
            result = high_mul(result, factor)
    return result


def reciprocal(a: int) -> int:
    """2 / (1 + a) in 29 fractional bits, a in 31."""
    half = (a + ONE + 1) >> 1
    x = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        x += high_mul(x, (1 << 29) - high_mul(half, x)) << 2
    return x


def by_fixed_point(name: str, case: Made) -> Any:
    """The kernel of 8 bits: the input in 27 fractional bits, the function in 31, rounded to 8 or 7."""
    fraction, exponent = np.frexp(case.step * 2.0**27)
    fixed, shift = round(float(fraction) * (1 << 31)), int(exponent)
    found = []
    for d in range(case.low - case.zero, case.high - case.zero + 1):
        raw = high_mul(d << shift, fixed)
        size = abs(raw)
        if size >= 1 << 31:
            y = ONE
        elif name == "sigmoid":
            y = min(reciprocal(exp_of_negative(-size, 4)) << 1, ONE)
        else:
            y = min((reciprocal(exp_of_negative(-size, 5)) - (1 << 29)) << 2, ONE)
        if d < 0:
            y = ONE - y if name == "sigmoid" else -y
        found.append(by_power(y, 23 if name == "sigmoid" else 24))
    low, high = case.low - case.out_zero, case.high - case.out_zero
    return np.clip(found, low, high) * case.out_step


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_fixed_point_is_within_its_rules(name: str, rng: Rng) -> None:
    worst = 0.0
    for _ in range(40):
        case = made(name, "INT8", rng, reach=15.0)
        network = file(name, case)
        exact = np.clip(TRUTH[name](case.numbers, 0.0), network.layers[3].low, network.layers[3].high)  # type: ignore[attr-defined]
        off = abs(by_fixed_point(name, case) - exact)
        for rule in ("single", "double", "any"):
            assert (off <= np.ravel(file_points(network, rule)["y"].radius)).all()
        worst = max(worst, float(off.max() / case.out_step))
    assert 0.49 < worst < 0.51


# --- products, and float32 ---


def test_products_have_a_second_rounding(rng: Rng) -> None:
    a, b, out = 0.02, 0.03, 0.004  # multiplier 0.15, so k = 2
    network = Network(
        (
            Input("x", (), (1,)),
            Rounding.on_grid("p", 0, (1,), a, (-128, 127)),
            Rounding.on_grid("q", 0, (1,), b, (-128, 127)),
            Product("xy", (1, 2), (1,)),
            Rounding.on_grid("y", 3, (1,), out, (-128, 127), kernel=True),
        ),
        "file",
    )
    fixed = round(a * b / out * 4 * (1 << 31))
    errors = [abs(by_power(high_mul(p, fixed), 2) - p * a * b / out) for p in range(-800, 800)]
    double, single = (float(point_error(network, 4, rule)[0]) for rule in ("double", "single"))
    assert single < 0.505 < max(errors) <= double < 0.63
    scaled = Network(
        (*network.layers[:2], Scale("k", (1,), (1,), scale=np.array([0.3]), shift=np.zeros(1)),
         Rounding.on_grid("y", 2, (1,), out, (-128, 127), kernel=True)),
        "file",
    )  # fmt: skip
    assert point_error(scaled, 3, "double")[0] > 0.75 > 0.51 > point_error(scaled, 3, "float32")[0]


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "hard_sigmoid", "elu", "leaky_relu", "exp", "silu"])
def test_functions_of_float32_are_within_their_errors(name: str, rng: Rng) -> None:
    """A sum in float32 and numpy's own functions of it."""
    parameters = {"hard_sigmoid": (0.2, 0.5), "elu": (0.7,), "leaky_relu": (0.1,)}.get(name, ())
    size, step = 400, float(np.float32(0.037))
    arrays = tuple(np.full(size, float(np.float32(p))) for p in parameters)
    scale = rng.normal(size=size)
    network = Network(
        (
            Input("x", (), (size,)),
            Rounding.on_grid("p", 0, (size,), step, (-128, 127)),
            Scale("s", (1,), (size,), scale=scale, shift=0.0 * scale),
            Activation("f", (2,), (size,), function=name, parameters=arrays),
            Rounding.on_grid("y", 3, (size,), 0.01, (-128, 127)),
        ),
        "file",
    )
    allowed, f = float_errors(network)[3], np.float32
    assert (np.ravel(file_points(network, "float32")["y"].radius) >= 0.005 + allowed).all()
    count = rng.integers(-128, 128, size)
    z = (count.astype(f) * f(step)) * scale.astype(f)
    formulas: dict[str, Any] = {
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "tanh": np.tanh,
        "hard_sigmoid": lambda v: np.clip(f(0.2) * v + f(0.5), f(0), f(1)),
        "elu": lambda v: np.where(v > 0, v, f(0.7) * np.expm1(v)),
        "leaky_relu": lambda v: np.where(v > 0, v, f(0.1) * v),
        "exp": np.exp,
        "silu": lambda v: v / (1 + np.exp(-v)),
    }
    exact = network.layers[3].curve.value(count * step * scale)  # type: ignore[attr-defined]
    off = abs(formulas[name](z).astype(float) - exact)
    assert (off <= allowed).all()
    assert (off / allowed).max() > 1e-3
    assert math.isfinite(allowed.max())


def test_a_function_of_the_input_itself_has_no_bound() -> None:
    network = Network(
        (
            Input("x", (), (1,)),
            Activation("f", (0,), (1,), function="tanh"),
            Rounding.on_grid("y", 1, (1,), 0.01, (-9, 9)),
        ),
        "file",
    )
    assert np.isinf(float_errors(network)[1]).all()
    assert file_points(network, "nearest")
