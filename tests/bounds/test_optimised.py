"""Optimised BP: sound for any choice of lines and multipliers, under an assumption too, and never below BP.

Oracles: members by the independent forward pass, in exact rationals where networks are tiny, and the exact step.
"""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import torch

from qverify.arrays import Array
from qverify.bounds import pairs
from qverify.bounds.backward import backward_bound
from qverify.bounds.interval import interval_bounds
from qverify.bounds.optimised import Assumption, Choice, Effort, Quantities, bound_with, searched
from qverify.bounds.refinement import backward_margins, tightened_bounds
from qverify.bounds.shrinking import empty, shrunk, shrunk_under
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.budget import Deadline
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.bounds import TOLERANCE, assert_contained, assert_margins_hold, box_ends, members, setting
from tests.support.networks import inputs, mlp
from tests.support.optimised import ALL, EFFORT, SIZES, any_setting, upper_ends
from tests.support.rationals import corner_member, exact


def assert_high_contained(family: Family, bounds: Bounds, row: int, values: list[Array]) -> None:
    for index, least in bounds.least_high.items():
        ends = upper_ends(family, values, index)
        assert (ends >= least[row].numpy() - TOLERANCE).all()
        assert (ends <= bounds.upper[index][row].numpy() + TOLERANCE).all()


# --- soundness ------------------------------------------------------------------------------------------------


@SIZES
@ALL
def test_every_member_lies_inside(name: str, size: float) -> None:
    family, model, x, bounds, rng = any_setting(name, 61, size)
    tight = shrunk(model, bounds, EFFORT)
    labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
    lower = backward_margins(model, bounds, labels)
    margin = pairs.optimised_margins(model, tight, labels, lower)
    assumed = pairs.assumed_margins(model, tight, labels, lower)
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            assert_contained(tight, row, values)
            assert_high_contained(family, tight, row, values)
            assert_margins_hold(margin[row], values[-1], int(labels[row]))
            assert_margins_hold(assumed[row], values[-1], int(labels[row]))


@SIZES
@ALL
def test_members_that_meet_an_assumption_lie_inside(name: str, size: float) -> None:
    """The limit is such that a few of the sampled members meet it; intervals that shrink must hold these."""
    family, model, x, bounds, rng = any_setting(name, 67, size)
    tight, last = tightened_bounds(model, bounds), len(family.network.layers) - 1
    row_over = np.zeros((len(x), family.network.output_size))
    row_over[:, 0], row_over[:, 1] = 1.0, -1.0
    drawn = [members(family, bounds, x, row, rng) for row in range(len(x))]
    limits = [np.quantile(np.concatenate([v[last] @ row_over[0] for v in own]), 0.02) for own in drawn]
    assumed = Assumption(rows=model.tensor(row_over), limit=model.tensor(np.array(limits)))
    once = shrunk_under(model, tight, assumed, EFFORT)
    twice = shrunk_under(model, once, assumed, EFFORT)
    assert not empty(twice).any()
    narrower = 0
    for row, own in enumerate(drawn):
        for values in own:
            meets = values[last] @ row_over[0] <= limits[row]
            chosen = [v[meets] for v in values]
            assert_contained(twice, row, chosen)
            assert_high_contained(family, twice, row, chosen)
        narrower += sum(int((twice.upper[i][row] < tight.upper[i][row]).sum()) for i in range(last))
    if name in ("dense", "deep", "rounded"):
        assert narrower, "nothing shrank, so nothing was tested"


@SIZES
@ALL
def test_wrong_choices_are_sound_too(name: str, size: float) -> None:
    """Lines and multipliers at random, out of range as well, for rows at several layers at once."""
    family, model, x, bounds, rng = any_setting(name, 71, size)
    tight, layers = shrunk(model, bounds, EFFORT), family.network.layers
    last = len(layers) - 1

    def draw(*shape: int) -> torch.Tensor:
        return torch.as_tensor(rng.normal(size=shape))

    shares = {i: draw(len(x), 3, layers[i].size) for i in (*family.network.relus, *model.points) if i}
    shares |= {i: draw(len(x), 3, affine.entries) for i, affine in model.affine.items() if affine.entries}
    rows = {i: draw(len(x), 3, layers[i].size) for i in range(1, last + 1) if i not in model.fused}
    high = {i: draw(len(x), 3, layers[i].size) for i in model.fused}
    over = np.zeros((len(x), family.network.output_size))
    over[:, 0], over[:, -1] = 1.0, -1.0
    limit = model.tensor(rng.normal(size=len(x)))
    asked = Quantities(rows=rows, high=high, assumed=Assumption(rows=model.tensor(over), limit=limit))
    found = bound_with(model, tight, asked, Choice(shares=shares, weight=draw(len(x), 3)))
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            meets = values[last] @ over[0] <= float(limit[row])
            total = sum(values[i] @ r[row].numpy().T for i, r in rows.items())
            total = total + sum(upper_ends(family, values, i) @ h[row].numpy().T for i, h in high.items())
            assert (total[meets] >= found[row].numpy() - TOLERANCE).all()


def test_shares_out_of_range_are_clipped() -> None:
    """`relu(z) - 10 z` for z in [-1, 1] is -9 at 1; a line of slope 5 would make it -5."""
    one, none = np.ones((1, 1)), np.zeros(1)
    layers = (Input("x", (), (1,)), Dense("z", (0,), (1,), weight=one, bias=none), Relu("y", (1,), (1,)))
    network = Network((*layers, Dense("out", (2,), (1,), weight=one, bias=none)))
    family = Family.of(network, Radii(input=1.0))
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(np.zeros((1, 1)))))
    rows = {1: torch.full((1, 1, 1), -10.0, dtype=torch.float64), 2: torch.ones(1, 1, 1, dtype=torch.float64)}
    for share in (-3.0, 0.5, 5.0):
        choice = Choice(shares={2: torch.full((1, 1, 1), share, dtype=torch.float64)})
        assert float(bound_with(model, bounds, Quantities(rows=rows), choice)) <= -9.0


def test_bounds_hold_in_exact_rationals(rng: np.random.Generator) -> None:
    """No tolerance: corner members of tiny networks."""
    for _ in range(6):
        network = mlp(rng, 2, 3, 3, 2)
        family = Family.of(network, Radii(input=0.1, weight=0.05, bias=0.1, activation=0.05))
        model, x = BoundModel.of(family), rng.random((1, 2))
        bounds = interval_bounds(model, *box_ends(model, family.box(x)))
        tight, labels = shrunk(model, bounds, EFFORT), torch.zeros(1, dtype=torch.long)
        lower = torch.full((1, 2), -1e3, dtype=torch.float64)
        margin = pairs.optimised_margins(model, tight, labels, lower)
        for _ in range(40):
            values = corner_member(family, x[0], lambda kind, index, shape: rng.integers(-1, 2, shape))
            for low, high, value in zip(tight.lower, tight.upper, values, strict=True):
                assert all(a <= v <= b for a, v, b in zip(exact(low), value, exact(high), strict=True))
            assert values[-1][0] - values[-1][1] >= Fraction(float(margin[0, 1]))


def test_a_stable_network_is_bounded_in_exact_rationals_up_to_rounding_alone() -> None:
    """One path, always active: every line is exact, so that nothing but the allowance separates bound and member."""
    network = mlp(np.random.default_rng(3), 1, 1, 1)
    family = Family.of(network, Radii(weight=0.01, bias=0.01))
    model, x = BoundModel.of(family), np.array([[0.7]])
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    last = len(network.layers) - 1
    for sign in (1.0, -1.0):
        rows = torch.full((1, 1, 1), sign, dtype=torch.float64)
        found, _ = searched(model, shrunk(model, bounds, EFFORT), Quantities(rows={last: rows}), EFFORT)
        worst = min(
            int(sign) * corner_member(family, x[0], lambda kind, index, shape, s=s: np.full(shape, s[index]))[-1][0]
            for s in np.array(np.meshgrid(*[[-1, 1]] * (last + 1))).reshape(last + 1, -1).T
        )
        assert Fraction(float(found)) <= worst


# --- never below BP ---------------------------------------------------------------------------------------------


@SIZES
@ALL
def test_it_is_nested_in_bp_and_begins_with_it(name: str, size: float) -> None:
    _, model, x, bounds, rng = any_setting(name, 73, size)
    tight = tightened_bounds(model, bounds)
    better = shrunk(model, tight, EFFORT)
    for low, high, new_low, new_high in zip(tight.lower, tight.upper, better.lower, better.upper, strict=True):
        assert (new_low >= low).all() and (new_high <= high).all()
    labels = torch.as_tensor(rng.integers(0, model.network.output_size, len(x)))
    lower = backward_margins(model, tight, labels)
    assert (pairs.optimised_margins(model, tight, labels, lower) >= lower).all()
    assert (pairs.assumed_margins(model, tight, labels, lower) >= lower).all()
    last = len(model.network.layers) - 1
    rows = torch.as_tensor(rng.normal(size=(len(x), 3, model.network.output_size)))
    usual, _ = searched(model, tight, Quantities(rows={last: rows}), Effort(steps=0, length=0.0, decay=1.0))
    # Which of two bounds on a shared kernel is the better one, float32 may see otherwise where they nearly agree.
    ties = any(affine.entries for affine in model.affine.values())
    assert torch.allclose(usual, backward_bound(model, tight, last, rows), atol=1e-2 if ties else 1e-6)
    found, _ = searched(model, tight, Quantities(rows={last: rows}), Effort(steps=10, length=0.25, decay=0.9))
    assert (found >= usual - 0.05 * usual.abs()).all()


def test_a_deadline_that_passed_leaves_what_there_was() -> None:
    _, model, x, bounds, _ = setting("deep", 79)
    labels = torch.zeros(len(x), dtype=torch.long)
    lower, over = backward_margins(model, bounds, labels), Deadline.after(0.0, threading.Event())
    assert (pairs.optimised_margins(model, bounds, labels, lower, over) == lower).all()
    assert (pairs.assumed_margins(model, bounds, labels, lower, over) == lower).all()
    after = shrunk(model, bounds, EFFORT, over)
    for low, high, old_low, old_high in zip(after.lower, after.upper, bounds.lower, bounds.upper, strict=True):
        assert (low >= old_low).all() and (high <= old_high).all()


# --- the exact step agrees --------------------------------------------------------------------------------------


def test_the_exact_step_agrees() -> None:
    """Oracle: the minimum by the exact step. What is proved is below it, and more is decided than by BP."""
    gained = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = mlp(rng, 6, 12, 12, 12, 3)
        x = inputs(network, rng)
        y = network.evaluate(x.reshape(len(x), -1)).argmax(1)
        radii = Radii(input=0.02, weight=0.03, bias=0.02, activation=0.01)
        family = Family.of(network, radii)
        model, labels = BoundModel.of(family), torch.as_tensor(y)
        bounds = tightened_bounds(model, interval_bounds(model, *box_ends(model, family.box(x))))
        before = backward_margins(model, bounds, labels)
        tight = shrunk(model, bounds, EFFORT)
        found = pairs.assumed_margins(model, tight, labels, pairs.optimised_margins(model, tight, labels, before))
        gained += int(((found > 0).all(1) & (before <= 0).any(1)).sum())
        for verdict in verify(network, x, y, radii, Options(method="exact", jobs=1, isolated=False)):
            assert float(found[verdict.index].min()) <= verdict.margin_upper + TOLERANCE
            if verdict.status is Status.FALSIFIED:
                assert (found[verdict.index] <= 0).any()
    assert gained, "no sample is decided that BP left open, so nothing was tested"
