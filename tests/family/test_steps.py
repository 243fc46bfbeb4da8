"""Steps and radii of quantisers in exact fractions, and what becomes of ranges that have no step."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from qverify.choices import PER_CHANNEL, RANGED, SCHEMES, Rounding
from qverify.errors import InternalError
from qverify.family.steps import FLOAT32_SLACK, Quantiser

TINY = 2.0**-140


@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("rounding", ["nearest", "any"])
def test_radii_are_a_share_of_a_step_and_of_the_range(bits: int, rounding: Rounding) -> None:
    quantiser, share = Quantiser(bits, "channel", rounding), Fraction(1, 2) if rounding == "nearest" else Fraction(1)
    low, high, top, bias = -0.75, 3.0, 1.5, -2.0
    step = Fraction(high - low) / (2**bits - 1)
    assert quantiser.activation_step(low, high) == pytest.approx(float(step), rel=1e-15)
    slack = Fraction(FLOAT32_SLACK)
    radius = step * (share + (2**bits - 1) * slack)
    assert quantiser.activation_radius(float(step)) == pytest.approx(float(radius), rel=1e-14)
    weight_step = Fraction(top) / (2 ** (bits - 1) - 1)
    weight, spread = quantiser.weight_radii(np, np.array([top]), np.array([bias]), 0.25)
    assert weight[0] == pytest.approx(float(weight_step * share + Fraction(top) * slack), rel=1e-14)
    assert spread[0] == pytest.approx(float(weight_step / 4 * share + abs(Fraction(bias)) * slack), rel=1e-14)
    assert not quantiser.degenerate(low, high)
    zero = round(Fraction(3, 4) / step)
    if abs(Fraction(3, 4) / step % 1 - Fraction(1, 2)) > (2**bits - 1) * slack:  # a zero point that is no tie
        for found, end in zip(quantiser.ends(low, high), (-zero * step, (2**bits - 1 - zero) * step), strict=True):
            room = 2 * (high - low) * FLOAT32_SLACK
            assert found[0] <= end <= found[1] and found[1] - found[0] <= room
    assert quantiser.ends(0.0, high) == ((0.0, 0.0), quantiser.ends(0.0, high)[1])
    assert quantiser.ends(low, 0.0)[1] == (0.0, 0.0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 509.0), (-509.0, 1.0), (-37.5, 217.5), (-0.25, 254.75)])
def test_a_zero_point_next_to_a_tie_may_be_either(low: float, high: float) -> None:
    """Toolchains divide in float32 and round ties as they please: half a step below 0 is 0 or 1 step, 0 within."""
    found, step = Quantiser(8, "tensor").ends(low, high), Fraction(high - low) / 255
    share = Fraction(-low) / step
    wholes = {int(share // 1), int(-(-share // 1))} if share % 1 == Fraction(1, 2) else {round(share)}
    for zero in wholes:
        for ends, end in zip(found, (-zero * step, (255 - zero) * step), strict=True):
            assert Fraction(ends[0]) <= end <= Fraction(ends[1])
    assert found[0][1] <= 0.0 <= found[1][0]
    Quantiser(8, "tensor").point(low, high).resolved((3,), "x")


def test_numpy_and_torch_agree_and_torch_differentiates(rng: np.random.Generator) -> None:
    quantiser = Quantiser(8, "channel")
    top, bias = rng.random(6), rng.normal(size=6)
    top[:2] = 0.0, TINY
    tensor = torch.tensor(top, requires_grad=True)
    radius, spread = quantiser.weight_radii(torch, tensor, torch.as_tensor(bias), 0.1)
    expected = quantiser.weight_radii(np, top, bias, 0.1)
    np.testing.assert_array_equal(radius.detach(), expected[0])
    np.testing.assert_array_equal(spread.detach(), expected[1])
    (gradient,) = torch.autograd.grad(radius.sum(), tensor)
    assert gradient[2:].numpy() == pytest.approx(1 / 127 + FLOAT32_SLACK)


def test_a_range_without_a_step_has_the_step_1() -> None:
    for bits in (2, 8, 16):
        quantiser = Quantiser(bits, "tensor")
        for low, high in ((0.0, 0.0), (-TINY, TINY)):
            assert quantiser.degenerate(low, high) and quantiser.activation_step(low, high) == 1.0
            # of either signedness: integers from 0 or from -2^(b-1), with the zero point 0 or at the end
            half = 2 ** (bits - 1)
            assert quantiser.ends(low, high) == ((-half, 0.0), (half - 1, 2 * half - 1))


@pytest.mark.parametrize(("rounding", "lost"), [("nearest", TINY), ("any", 1.0)])
def test_vanishing_weights_are_lost_and_zeros_stay(rounding: Rounding, lost: float) -> None:
    """Rounded to nearest in steps of 1 they become 0; by other roundings up to 1."""
    radius, spread = Quantiser(8, "channel", rounding).weight_radii(
        np, np.array([TINY, 0.0]), np.array([3.0, 3.0]), 0.5
    )
    assert radius[0] >= lost and radius[0] == pytest.approx(lost, rel=1e-3) and radius[1] == 0.0
    share = 0.5 if rounding == "nearest" else 1.0
    assert (spread >= 0.5 * share).all()  # a bias in steps of 1 times the step of the input


def test_a_bias_whose_step_underflows_may_be_lost_as_a_whole() -> None:
    _, spread = Quantiser(8, "channel").weight_radii(np, np.array([1e-20]), np.array([7.0]), 1e-20)
    assert spread[0] >= 7.0


def test_every_scheme_is_known_to_have_steps_from_ranges_or_none() -> None:
    """A scheme that is new has to be entered: it is never taken for another one."""
    assert {"paper", *PER_CHANNEL} == set(SCHEMES)
    assert [Quantiser(8, scheme).per_channel for scheme in RANGED] == [False, True]
    for scheme in ("paper", "group"):
        with pytest.raises(InternalError, match="takes no steps from ranges"):
            _ = Quantiser(8, scheme).per_channel
