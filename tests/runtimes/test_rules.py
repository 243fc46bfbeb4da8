"""The arithmetic of runtimes: bit by bit against Python's integers, and sets of it against what libraries compute."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qverify.errors import UnsupportedModel
from qverify.network import Network
from qverify.runtimes.fixed_point import (
    Addition,
    Average,
    Multiplier,
    double_rounding,
    double_rounding_upwards,
    quantised_multiplier,
    single_rounding,
)
from qverify.runtimes.integers import IntegerNetwork, Kind, Stage
from qverify.runtimes.rules import Way, ways_of
from tests.support.integer_networks import Maker, double, double_upwards, halves_away, quantised, single

RULES = ("float32", "single", "double")
REALS = st.floats(2.0**-20, 0.999, allow_subnormal=False)
FUNCTIONS = [(single_rounding, single), (double_rounding, double), (double_rounding_upwards, double_upwards)]


@given(real=st.one_of(REALS, st.floats(1.0, 64.0), st.sampled_from([0.5, 1.0, 2.0**-31, 2.0**-40, 1 - 2.0**-40])))
@settings(max_examples=300, deadline=None)
def test_multipliers_are_those_of_the_specification(real: float) -> None:
    assert quantised_multiplier(real) == quantised(Fraction(real))
    assert quantised_multiplier(0.0) == (0, 0)


@pytest.mark.parametrize(("ours", "theirs"), FUNCTIONS, ids=lambda f: f.__name__)
@given(real=REALS, near=st.integers(-300, 300), more=st.integers(-2, 2), start=st.integers(-(2**24), 2**24))
@settings(max_examples=200, deadline=None)
def test_products_are_those_of_the_specification(
    ours: Any, theirs: Any, real: float, near: int, more: int, start: int
) -> None:
    """At any accumulator, and at those whose values are next to halves, where rules part."""
    by, (q, shift) = Multiplier.of(np.array([real])), quantised(Fraction(real))
    tie = round(Fraction(2 * near + 1, 2) / Fraction(real)) + more
    xs = [x for x in (start, tie, -tie) if abs(x) < 2**31]
    assert ours(torch.tensor([xs]), by)[0].tolist() == [theirs(x, q, shift) for x in xs]


@pytest.mark.parametrize(("ours", "theirs"), FUNCTIONS, ids=lambda f: f.__name__)
def test_products_above_one_and_at_exact_ties(ours: Any, theirs: Any) -> None:
    for real in (1.0, 1.5, 7.3, 0.5, 0.25, 2.0**-5, 2.0**-12, 0.75):
        by, (q, shift) = Multiplier.of(np.array([real])), quantised(Fraction(real))
        xs = list(range(-3000, 3000))
        assert ours(torch.tensor([xs]), by)[0].tolist() == [theirs(x, q, shift) for x in xs]


def test_the_rules_part() -> None:
    """-5.5: upwards -5, away from 0 -6; 21.4902 with a shift of 5 rounds twice."""
    eighth = Multiplier.of(np.array([0.125]))
    x = torch.tensor([-44])
    assert [int(f(x, eighth)) for f, _ in FUNCTIONS] == [-5, -6, -5]
    by, x = Multiplier.of(np.array([0.0234375])), torch.tensor([916])  # 21.46875: 686.99.. / 32
    values = {
        int(f(torch.tensor([k]), by)) - int(single_rounding(torch.tensor([k]), by))
        for f, _ in FUNCTIONS[1:]
        for k in range(2000)
    }
    assert values == {0, 1}


@given(steps=st.tuples(*[st.floats(2.0**-7, 0.5, width=32)] * 3), a=st.integers(-255, 255), b=st.integers(-255, 255))
@settings(max_examples=300, deadline=None)
def test_sums_are_those_of_the_specification(steps: tuple[float, float, float], a: int, b: int) -> None:
    first, second, output = map(Fraction, steps)
    twice = 2 * max(first, second)
    by = Addition.of(*steps)
    p, q, r = quantised(first / twice), quantised(second / twice), quantised(twice / (2**20 * output))
    for ours, theirs in FUNCTIONS:
        expected = theirs(theirs(a << 20, *p) + theirs(b << 20, *q), *r)
        assert int(by.sum(torch.tensor([a]), torch.tensor([b]), ours)) == expected


# --- sets ---


def stages(seed: int, **how: Any) -> dict[Kind, Stage]:
    """A stage of each kind, with steps as toolchains have them."""
    rng = np.random.default_rng(seed)
    made = Maker(rng, (2, 4, 4), reach=127)

    def step() -> float:
        return float(np.float32(rng.uniform(0.02, 0.3)))

    one = made.rounded(made.conv(1, 2, pads=(0, 0, 1, 1)), step(), -128, 127)
    total = made.rounded(made.add(1, one), step(), -128, 127)
    pooled = made.rounded(made.average(total, 4), step(), -128, 127)
    again = made.rounded(pooled, step(), -128, 127)
    made.rounded(made.dense(again, 3), step() * 20, -128, 127)
    return {stage.kind: stage for stage in IntegerNetwork.of(made.network()).stages}


def ways(stage: Stage, rules: tuple[str, ...] = RULES) -> tuple[Way, ...]:
    return ways_of(stage, rules, signed=True)


def drawn(stage: Stage, rng: np.random.Generator, count: int = 4000) -> tuple[torch.Tensor, ...]:
    """Accumulators (count, size) float64 whose values lie in the range; many are close to halves."""
    assert stage.step is not None
    if stage.kind is Kind.ADD:
        return tuple(torch.tensor(rng.integers(-128, 128, (count, stage.size)).astype(float)) for _ in range(2))
    real = stage.spread(stage.steps[0]) / stage.step / stage.window
    halves = (rng.integers(-130, 131, (count, stage.size)) + 0.5) / real
    near = np.rint(halves) + rng.integers(-1, 2, halves.shape)
    return (torch.tensor(np.clip(near, -stage.reach, stage.reach)),)


@pytest.mark.parametrize("kind", [Kind.WEIGHTS, Kind.ADD, Kind.POOL, Kind.COPY])  # for others see test_functions.py
@pytest.mark.parametrize("seed", range(3))
def test_all_ways_are_monotone(kind: Kind, seed: int) -> None:
    stage, rng = stages(seed)[kind], np.random.default_rng(seed)
    below = drawn(stage, rng)
    above = tuple(acc + torch.tensor(rng.integers(0, 3, acc.shape)) for acc in below)
    for way in ways(stage):
        assert (way.low(*below) <= way.low(*above)).all() and (way.high(*below) <= way.high(*above)).all()
        assert (way.low(*below) <= way.high(*below)).all()
        assert way.single == (kind is Kind.COPY or "double" in way.label or "single" in way.label) or not way.single


@pytest.mark.parametrize("kind", [Kind.WEIGHTS, Kind.COPY])
@pytest.mark.parametrize("seed", range(4))
def test_the_float32_set_holds_what_libraries_compute(kind: Kind, seed: int) -> None:
    """In NumPy's float32: multipliers in several orders, biases inside and outside the integer sum; and rule single."""
    stage, rng = stages(seed)[kind], np.random.default_rng(seed)
    (acc,), f = drawn(stage, rng), np.float32
    (way,) = ways(stage, ("float32", "single"))
    low, high = way.low(acc).numpy(), way.high(acc).numpy()
    whole, size = acc.numpy(), np.ones((1, stage.size), dtype=f)
    bias = stage.spread(np.zeros(1) if stage.layer is None else stage.layer.bias) * np.ones(stage.size)
    unit, s_y = size * stage.spread(stage.steps[0]).astype(f), f(stage.step)
    scaled = whole.astype(f)
    variants = [
        scaled * (unit / s_y),
        scaled * (unit * (f(1) / s_y)),
        (scaled * unit) / s_y,
        (scaled * unit) * (f(1) / s_y),
        (whole - bias).astype(f) * (unit / s_y) + bias.astype(f) * (unit / s_y),
        ((whole - bias).astype(f) * unit + bias.astype(f) * unit) / s_y,
    ]
    for made in variants:
        clipped = np.clip(np.rint(made), stage.low, stage.high)
        assert ((low <= clipped) & (clipped <= high)).all()
    for one in ways(stage, ("single",)):
        fixed = one.low(acc).numpy()
        assert ((low <= fixed) & (fixed <= high)).all()
    assert (low < high).mean() < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_the_float32_sets_hold_what_libraries_make_of_sums(seed: int) -> None:
    stage, rng = stages(seed)[Kind.ADD], np.random.default_rng(seed)
    accumulators, f = drawn(stage, rng), np.float32
    own = ways(stage, ("float32",))
    low = np.minimum.reduce([way.low(*accumulators).numpy() for way in own])
    high = np.maximum.reduce([way.high(*accumulators).numpy() for way in own])
    (s, t), s_y = (f(steps) for steps in stage.steps), f(stage.step)
    a, b = (acc.numpy().astype(f) for acc in accumulators)
    m, n = s / s_y, t / s_y
    zero = f(-37)
    variants = [
        a * m + b * n,
        (a * s + b * t) / s_y,
        (a * s + b * t) * (f(1) / s_y),
        (((a - zero) * s + zero * s) + ((b + zero) * t - zero * t)) * (f(1) / s_y),  # zero points apart
    ]
    for bits in (20, 21):  # XNNPACK, onnxruntime
        shift = bits - int(np.floor(np.log2(max(m, n))))
        p, q = (int(np.rint(float(ratio) * 2**shift)) for ratio in (m, n))
        exact = accumulators[0].numpy().astype(np.int64) * p + accumulators[1].numpy().astype(np.int64) * q
        variants.append(((exact + (1 << (shift - 1))) >> shift).astype(float))
    for made in variants:
        clipped = np.clip(np.rint(made), stage.low, stage.high)
        assert ((low <= clipped) & (clipped <= high)).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_float32_set_holds_what_libraries_make_of_averages(seed: int) -> None:
    stage, rng = stages(seed)[Kind.POOL], np.random.default_rng(seed)
    entries, f = rng.integers(-128, 128, (3000, stage.size, stage.window)), np.float32
    sums = torch.tensor(entries.sum(-1).astype(float))
    (way,) = ways(stage, ("float32",))
    low, high = way.low(sums).numpy(), way.high(sums).numpy()
    unit, s_y = f(stage.steps[0]), f(stage.step)
    one_by_one = (entries.astype(f) * unit).cumsum(-1, dtype=f)[..., -1]
    for made in (one_by_one / f(stage.window) / s_y, entries.sum(-1).astype(f) * (unit / s_y / f(stage.window))):
        clipped = np.clip(np.rint(made), stage.low, stage.high)
        assert ((low <= clipped) & (clipped <= high)).all()


@given(
    steps=st.tuples(*[st.floats(2.0**-7, 0.5, width=32)] * 2),
    count=st.integers(1, 200),
    total=st.integers(-40000, 40000),
)
@settings(max_examples=300, deadline=None)
def test_means_are_those_of_the_specification(steps: tuple[float, float], count: int, total: int) -> None:
    by = Average.of(count, *steps)
    q, shift = quantised(Fraction(steps[0]) / Fraction(steps[1]))
    more = min(count.bit_length() - 1, 32, 31 + shift)
    for ours, theirs in FUNCTIONS:
        assert int(by.at_once(torch.tensor(total), ours)) == theirs(total, (q << more) // count, shift - more)
        expected = halves_away(Fraction(theirs(total, q, shift), count))
        assert int(by.apart(torch.tensor(total), ours)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_errors_bound_what_ways_give_before_they_are_clipped(seed: int) -> None:
    stage, rng = stages(seed)[Kind.WEIGHTS], np.random.default_rng(seed)
    (acc,) = drawn(stage, rng)
    assert stage.step is not None
    value = acc.numpy() * stage.spread(stage.steps[0]) / stage.step
    inside = (value > stage.low + 1) & (value < stage.high - 1)
    for way in ways(stage):
        for made in (way.low(acc).numpy(), way.high(acc).numpy()):
            assert (abs(made - value)[inside] <= 0.5 + way.error + 1e-12).all()
    doubles = [way for way in ways(stage) if way.names == ("double",)]
    worst = max(float(abs(way.low(acc).numpy() - value)[inside].max()) for way in doubles)
    assert worst > 0.5 + 1e-6


def test_steps_of_one_tensor_may_be_multiplied_in_float32() -> None:
    """As TensorFlow Lite does for fully connected layers, before it makes 31 bits of them."""
    rng, parted = np.random.default_rng(0), 0
    for _ in range(8):
        s_x, s_w = rng.uniform(0.01, 0.1, 2).astype(np.float32)
        unit = float(s_x) * float(s_w)
        step = float(np.float32(unit * rng.uniform(2000, 4000)))
        stage = replace(stages(0)[Kind.WEIGHTS], steps=(np.array([unit]),), step=step, reach=2**21)
        real = Fraction(float(s_x * s_w) / step)
        near = [round((n + Fraction(1, 2)) / real) + k for n in range(-120, 120) for k in (-1, 0, 1)]
        xs = torch.tensor(near, dtype=torch.float64)[:, None].expand(-1, stage.size)
        for rule, theirs in (("single", single), ("double", double), ("double", double_upwards)):
            expected = np.clip([theirs(x, *quantised(real)) for x in near], stage.low, stage.high)
            assert any((way.low(xs)[:, 0].numpy() == expected).all() for way in ways(stage, (rule,)))
        one, other = (way.low(xs) for way in ways(stage, ("single",)))
        parted += int((one != other).any())
    assert parted


def test_the_float32_sets_hold_what_multipliers_of_few_bits_make_of_sums() -> None:
    """XNNPACK's and onnxruntime's, on all pairs of 8-bit numbers; sets as narrow as float32 alone do not hold them."""
    rng = np.random.default_rng(0)
    a, b = (x.reshape(1, -1) for x in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
    outside = 0
    for _ in range(20):
        s, t, step = rng.uniform(0.1, 0.2, 3).astype(np.float32) * np.array([0.06, 1, 0.5], np.float32)
        stage = replace(stages(0)[Kind.ADD], steps=(np.array(float(s)), np.array(float(t))), step=float(step))
        tensors = torch.tensor(a.astype(float)), torch.tensor(b.astype(float))
        own = ways(stage, ("float32",))
        ends = [(way.low(*tensors).numpy(), way.high(*tensors).numpy()) for way in own]
        for bits in (20, 21):
            m, n = s / step, t / step
            shift = bits - int(np.floor(np.log2(max(m, n))))
            p, q = (int(np.rint(float(ratio) * 2**shift)) for ratio in (m, n))
            made = np.clip((a * p + b * q + (1 << (shift - 1))) >> shift, stage.low, stage.high)
            assert any(((low <= made) & (made <= high)).all() for low, high in ends)
            outside += int(((made < ends[0][0]) | (made > ends[0][1])).sum())
    assert outside


def test_what_a_rule_would_overflow_is_refused() -> None:
    made = Maker(np.random.default_rng(0), (3,), reach=32767)
    made.rounded(made.dense(1, 3), 2.0**-20, -(2**15), 2**15 - 1)
    (stage,) = IntegerNetwork.of(made.network()).stages
    assert ways_of(stage, ("float32",), signed=True)
    for rule in ("single", "double"):
        with pytest.raises(UnsupportedModel, match=r"8 bits|overflow"):
            ways_of(stage, (rule,), signed=True)
    network: Network = Maker(np.random.default_rng(0), (3,), reach=100).network()
    assert len(network.layers) == 2
