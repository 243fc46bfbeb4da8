"""Splits and branch and bound: sound for any multipliers, wherever members lie, and as decisive as the exact step.

Oracles: members by the independent forward pass, each on its side of every split, and the exact step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.bounds.branched import Branching
from qverify.bounds.interval import interval_bounds
from qverify.bounds.optimised import Choice, Quantities, bound_with
from qverify.bounds.pairs import Rounds
from qverify.bounds.refinement import backward_margins, tightened_bounds
from qverify.bounds.shrinking import shrunk
from qverify.bounds.splits import Splits, narrowed, read_layers, split_places, targets
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.bounds import TOLERANCE, assert_contained, members
from tests.support.marks import mostly_slow
from tests.support.networks import inputs, mlp, sample_members
from tests.support.optimised import ALL, EFFORT, SIZES, any_setting, upper_ends
from tests.support.pairs import KINDS, lowest, problem


def values_read(family: Family, model: BoundModel, values: list[Array]) -> Array:
    """What splits are about (M, T): the upper ends of fused layers, the outputs of others."""
    return np.concatenate(
        [upper_ends(family, values, i) if i in model.fused else values[i] for i in read_layers(model)], axis=1
    )


def drawn_splits(rng: np.random.Generator, model: BoundModel, bounds: Any, count: int) -> Splits:
    """So many splits of each sample: at kinks where there are some, else anywhere in the interval; 0 now and then."""
    where = read_layers(model)
    least = torch.cat([bounds.least_high.get(i, bounds.lower[i]) for i in where], 1)
    upper = torch.cat([bounds.upper[i] for i in where], 1)
    at = least + torch.as_tensor(rng.random(least.shape)) * (upper - least)
    for index, source in targets(model).items():
        place, helps = split_places(model, bounds, index)
        at[:, where[source]] = torch.where(helps, place, at[:, where[source]])
    place = torch.as_tensor(rng.integers(0, at.shape[1], (len(at), count)))
    side = torch.as_tensor(rng.choice([-1.0, 1.0, 0.0], size=place.shape, p=[0.4, 0.4, 0.2]))
    unit = torch.as_tensor(rng.exponential(size=place.shape))
    return Splits(place=place, side=side, at=at.gather(1, place), unit=unit)


@SIZES
@ALL
def test_any_multipliers_bound_the_members_of_a_subproblem(name: str, size: float) -> None:
    """Shares and multipliers at random, out of range as well; the members that are on the right side of every split."""
    family, model, x, bounds, rng = any_setting(name, 83, size)
    if not read_layers(model):
        pytest.skip("nothing to split")
    tight, last = shrunk(model, bounds, EFFORT), len(family.network.layers) - 1
    classes, layers = family.network.output_size, family.network.layers
    own = [members(family, bounds, x, row, rng) for row in range(len(x))]
    met = 0
    for count in (1, 3):
        splits = drawn_splits(rng, model, tight, count)
        inside = narrowed(model, tight, splits)
        rows = {last: torch.as_tensor(rng.normal(size=(len(x), 2, classes)))}
        shares = {
            i: torch.as_tensor(rng.normal(0.5, 1.0, (len(x), 2, layers[i].size)))
            for i in (*family.network.relus, *model.points, *model.curves)
            if i
        }
        kernels = {i: affine.entries for i, affine in model.affine.items() if affine.entries}
        shares |= {i: torch.as_tensor(rng.normal(0.5, 1.0, (len(x), 2, size))) for i, size in kernels.items()}
        multipliers = torch.as_tensor(rng.normal(0.5, 1.0, (len(x), 2, count)))
        asked = Quantities(rows=rows, splits=splits)
        proved = bound_with(model, inside, asked, Choice(shares=shares, multipliers=multipliers))
        for row, drawn in enumerate(own):
            for values in drawn:
                apart = values_read(family, model, values)[:, splits.place[row].numpy()] - splits.at[row].numpy()
                meets = (splits.side[row].numpy() * apart >= 0).all(1)
                chosen = [v[meets] for v in values]
                met += int(meets.sum())
                assert_contained(inside, row, chosen)
                assert (chosen[last] @ rows[last][row].numpy().T >= proved[row].numpy() - TOLERANCE).all()
    assert met > 100


def begun(family: Family, x: Array, labels: Array) -> Branching | None:
    """The tree of the lowest margin of each open sample."""
    model, waiting = lowest(family, x, labels)
    if waiting is None:
        return None
    return Branching(model, waiting, torch.full((len(waiting),), torch.inf, dtype=torch.float64))


@pytest.mark.parametrize("kind", mostly_slow(KINDS))
def test_what_is_closed_holds_for_every_member(kind: str) -> None:
    """Against drawn members and the worst that an attack finds; and most that holds is closed."""
    closed = holding = 0
    for seed in range(2 if kind == "tanh" else 10):
        rng, network, x, labels, radii = problem(kind, seed)
        family = Family.of(network, radii)
        tree = begun(family, x, labels)
        if tree is None:
            continue
        for _ in range(40):
            if len(tree.nodes) and len(tree.nodes) < 1000:  # else hopeless
                tree.step()
        found = verify(network, x, labels, radii, Options(jobs=1, isolated=False, seconds=1.0))
        for k, (sample, rival) in enumerate(zip(tree.pairs.samples.tolist(), tree.pairs.rivals.tolist(), strict=True)):
            label = int(labels[sample])
            outputs = sample_members(family, x[sample], rng, 1000, corner=True)[-1]
            if (verdict := found[sample]).status is Status.FALSIFIED:
                witness: Any = verdict.witness()
                outputs = np.concatenate([outputs, witness.network.evaluate(witness.input[None])])
            least = float((outputs[:, label] - outputs[:, rival]).min())
            assert not tree.closed[k] or least > 0
            assert float(tree.bound()[k]) <= max(least, float(tree.pairs.limit[k])) or tree.closed[k]
            holding += verdict.status is Status.VERIFIED
            closed += bool(tree.closed[k])
    assert closed >= 0.8 * holding > 2, (closed, holding)


def test_a_tree_that_has_had_its_time_is_given_up(rng: np.random.Generator) -> None:
    """Its nodes go, and the bound of those that were open stays."""
    network = mlp(rng, 4, 8, 7, 3)
    x, radii = inputs(network, rng), Radii(0.1, 0.1, 0.1, 0.1)
    labels = torch.as_tensor(network.evaluate(x).argmax(1))
    family = Family.of(network, radii)
    model = BoundModel.of(family)
    low, high = family.box(x)
    bounds = tightened_bounds(model, interval_bounds(model, model.tensor(low), model.tensor(high)))
    lower = backward_margins(model, bounds, labels)
    rounds = Rounds(model, bounds, labels, lower)
    rounds.begin(torch.nonzero((lower <= 0).any(1)).squeeze(1))
    rounds.run()
    stuck = rounds.take_stuck()
    assert stuck is not None
    tree = Branching(model, stuck, torch.zeros(len(stuck), dtype=torch.float64))
    tree.step()
    assert not len(tree.nodes) and not tree.left.any()
    open_ = ~tree.closed
    assert (tree.bound()[open_] >= stuck.margin[open_]).all() and bool(tree.bound()[open_].isfinite().all())
