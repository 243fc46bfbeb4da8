"""The relational program: corners enumerated, sampled members, forward passes, solvers against each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qverify.exact import solvers
from qverify.exact.maps import Maps
from qverify.exact.overstated import SIGN, Exactly
from qverify.exact.program import Objective, Program
from qverify.exact.relational import Relational
from qverify.exact.solvers.base import Ending, Limits
from qverify.family.family import Family
from qverify.family.radii import Radii
from tests.support.bounds import with_saturations
from tests.support.networks import inputs, known_layers, mlp, random_radii, sample_members
from tests.support.programs import (
    ALL,
    bilinear,
    corner_minimum,
    difference,
    everything,
    optimum,
    relational,
    sample_bounds,
    tiny,
    violation,
)

pytest.importorskip("pyscipopt")
pytest.importorskip("gurobipy")


# --- the two programs have one optimum ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_every_solver_finds_the_same(seed: int) -> None:
    family, x = tiny(seed)
    program, row = relational(family, x), difference(family.network)
    truth = optimum(program, row)
    assert optimum(program, row, "gurobi") == pytest.approx(truth, abs=1e-6)
    assert optimum(program, row, "scip") == pytest.approx(truth, abs=1e-6)


# --- oracles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_corners_at_a_fixed_input(seed: int) -> None:
    """One hidden layer and no input radius: the minimum is at a corner, so enumeration finds it exactly."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, 2 + seed % 2, 2, 2 + seed // 2 % 2)
    radii = dataclasses.replace(random_radii(network, rng, 0.3), input=0.0)
    family, x = Family.of(network, radii), inputs(network, rng)[seed % 6]
    row = difference(network)
    truth = corner_minimum(network, family, x[None], row)
    assert optimum(relational(family, x), row) == pytest.approx(truth, abs=1e-7)
    assert optimum(bilinear(family, x, cuts=False), row, "scip") == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_corners_and_a_grid_of_inputs(seed: int) -> None:
    """One hidden layer, two inputs: a grid that is refined around its best point comes close from above."""
    rng = np.random.default_rng(100 + seed)
    network = mlp(rng, 2, 2 + seed % 2, 2)
    family, x = Family.of(network, random_radii(network, rng, 0.2)), inputs(network, rng)[seed % 6]
    row = difference(network)
    low, high = x - family.input, x + family.input
    found, zoom_low, zoom_high = np.inf, low, high
    for _ in range(12):
        axes = [np.unique(np.append(np.linspace(a, b, 7), 0.0)) for a, b in zip(zoom_low, zoom_high, strict=True)]
        points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        points = points[((points >= low) & (points <= high)).all(1)]
        values = np.array([corner_minimum(network, family, p[None], row) for p in points])
        found, best, width = min(found, values.min()), points[values.argmin()], (zoom_high - zoom_low) / 4
        zoom_low, zoom_high = np.maximum(low, best - width), np.minimum(high, best + width)
    truth = optimum(relational(family, x), row)
    assert truth <= found + 1e-9
    assert found - truth < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_corners_of_deeper_networks(seed: int) -> None:
    """Two hidden layers: a corner is a member, so it is never below the minimum."""
    rng = np.random.default_rng(200 + seed)
    network = mlp(rng, 1, 2, 2, 2)
    family, x = Family.of(network, random_radii(network, rng, 0.2)), inputs(network, rng)[seed]
    row = difference(network)
    ends = np.array([x - family.input, x, x + family.input])
    found, truth = corner_minimum(network, family, ends, row), optimum(relational(family, x), row)
    assert truth <= found + 1e-9
    assert found - truth < 0.2


@pytest.mark.parametrize("name", list(ALL))
def test_no_radii_is_the_forward_pass(name: str, rng: np.random.Generator) -> None:
    network = ALL[name](rng)
    family = Family.of(network, Radii())
    for x in inputs(network, rng)[[0, 3]]:
        output = network.evaluate(x[None])[0]
        for tight in (False, True):
            row = difference(network)
            assert optimum(relational(family, x, tight), row) == pytest.approx(output[0] - output[1], abs=1e-7)
            row = difference(network, 1, 0)
            found = optimum(bilinear(family, x, tight), row, "scip")
            assert found == pytest.approx(output[1] - output[0], abs=1e-6)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("tight", [False, True])
def test_members_are_points_of_the_relational_program(name: str, tight: bool, rng: np.random.Generator) -> None:
    """No row cuts a member off, and none has a margin below the minimum."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    for x in inputs(network, rng)[[0, 4, 5]]:
        members = [sample_members(family, x, rng, 6, corner) for corner in (True, False)]
        for chord in (True, False):
            program = relational(family, x, tight, chord)
            least = optimum(program, difference(network))
            for values in members:
                margin = values[-1][:, 0] - values[-1][:, 1]
                assert (margin >= least - 1e-7).all()
                for k in range(len(margin)):
                    assert violation(program, [v[k] for v in values]) < 1e-12


def holds(asked: Relational, values: list[np.ndarray]) -> bool:
    """Whether the program has a point with these layer values, up to 1e-7 (a hundred times the solver's tolerance)."""
    program = asked.program
    lower, upper = program.lower.copy(), program.upper.copy()
    for i, columns in asked.columns.items():
        if (values[i] < lower[columns] - 1e-9).any() or (values[i] > upper[columns] + 1e-9).any():
            return False
        lower[columns], upper[columns] = values[i] - 1e-7, values[i] + 1e-7
    fixed: Program = dataclasses.replace(program, lower=lower, upper=upper)
    session = solvers.adapter("highs").open(fixed)
    outcome = session.minimise(Objective(np.zeros(fixed.variable_count)), Limits())
    session.close()
    return outcome.status is Ending.OPTIMAL


def test_points_that_no_member_has_are_refused(rng: np.random.Generator) -> None:
    """The other direction, on one neuron by hand: x in [1, 2], w in [-1, 3], b in [0, 1], r_a = 0.5."""
    network = mlp(rng, 1, 1, 2)
    first = dataclasses.replace(known_layers(network)[1], weight=[[1.0]], bias=[0.5])
    network = network.with_layers({1: first})
    radii = {"fc0": {"weight": 2.0, "bias": 0.5}, "relu0": {"activation": 0.5}}
    family = Family.of(network, Radii(input=0.5, layers=radii))
    program = relational(family, np.array([1.5]))

    def reachable(x: float, h: float) -> bool:
        return holds(program, [np.array([x]), np.zeros(1), np.array([h])])

    assert reachable(1.0, 0.0) and reachable(1.0, 4.5) and reachable(2.0, 7.5)
    assert not reachable(1.0, 4.501) and not reachable(1.5, 6.001)
    # with w in [2, 4] the neuron is always active and cannot fall below 2 x - 0.5
    firm = network.with_layers({1: dataclasses.replace(first, weight=[[3.0]])})
    radii["fc0"]["weight"] = 1.0
    program = relational(Family.of(firm, Radii(input=0.5, layers=radii)), np.array([1.5]))
    assert reachable(1.0, 1.5) and not reachable(1.0, 1.499) and reachable(1.5, 2.5) and not reachable(1.5, 2.499)
    assert reachable(1.0, 5.5) and not reachable(1.0, 5.501)


# --- properties -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "deep", "signed_hidden", "residual", "dense_read_twice", "conv_conv"])
def test_tighter_bounds_change_nothing(name: str, rng: np.random.Generator) -> None:
    """No big-M constant cuts a member off, and none is needed to keep others out."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    for x in inputs(network, rng)[[0, 2, 4]]:
        row = difference(network, 2, 0)
        loose, tight = optimum(relational(family, x), row), optimum(relational(family, x, True), row)
        if name == "conv_conv":  # bounds that know of the sharing cut points off that independent positions reach
            assert loose <= tight + 1e-7
            loose, tight = (optimum(bilinear(family, x, t), row, "scip") for t in (False, True))
        assert tight == pytest.approx(loose, abs=1e-6)


@pytest.mark.parametrize("name", ["signed_hidden", "relu_on_input", "input_twice", "narrow"])
def test_relaxations_are_below(name: str, rng: np.random.Generator) -> None:
    """LP below MILP, chords below signs; signs for the coordinates called `relaxed` are enough."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng, 0.3))
    below = 0
    for x in inputs(network, rng):
        row, bounds = difference(network), sample_bounds(family, x)
        chord, exact = Relational(Maps(family), bounds), Relational(Maps(family), bounds, everything(bounds))
        truth, relaxed = optimum(exact, row), optimum(chord, row)
        assert optimum(exact, row, relax=True) <= truth + 1e-9
        assert optimum(chord, row, relax=True) <= relaxed + 1e-9 and relaxed <= truth + 1e-9
        below += relaxed < truth - 1e-6
        assert not any(len(v) for v in exact.relaxed.values())
        signs = Exactly()
        for i, places in chord.relaxed.items():
            signs.add(SIGN, i, np.isin(np.arange(network.layers[i].size), places))
        enough = Relational(Maps(family), bounds, signs)
        assert optimum(enough, row) == pytest.approx(truth, abs=1e-8)
        assert enough.program.integer.sum() <= exact.program.integer.sum()
    assert below or name != "signed_hidden"


@pytest.mark.parametrize("name", ["dense", "residual", "signed_hidden", "scale_last", "conv_pool", "conv_last"])
def test_wider_radii_never_help(name: str, rng: np.random.Generator) -> None:
    network = ALL[name](rng)
    radii = random_radii(network, rng)
    x = inputs(network, rng)[2]
    base = optimum(relational(Family.of(network, radii), x), difference(network))
    for kind in ("input", "weight", "bias", "activation"):
        layers = {n: {k: v + 0.05 * (k == kind) for k, v in kinds.items()} for n, kinds in radii.layers.items()}
        more = 0.05 if kind == "input" else 0.0
        wider = Family.of(network, Radii(input=np.asarray(radii.input) + more, layers=layers))
        assert optimum(relational(wider, x), difference(network)) <= base + 1e-9


@pytest.mark.parametrize("kind", ["input", "weight", "bias", "activation"])
def test_each_radius_by_hand(kind: str) -> None:
    """y = (2 h, 0), h = relu(3 x + 1) at x = 1: 8, less what one radius of 0.1 takes."""
    rng = np.random.default_rng(0)
    network = mlp(rng, 1, 1, 2)
    first = dataclasses.replace(known_layers(network)[1], weight=[[3.0]], bias=[1.0])
    last = dataclasses.replace(known_layers(network)[3], weight=[[2.0], [0.0]], bias=[0.0, 0.0])
    family = Family.of(network.with_layers({1: first, 3: last}), Radii(**{kind: 0.1}))  # type: ignore[arg-type]
    # input: 2 * 0.3; weight: (2 - 0.1) (2.9 + 1) - 0.1 * 3.9; bias: 2 * 0.1 + 2 * 0.1; activation: 2 * 0.1
    expected = {"input": 7.4, "weight": 1.8 * 3.9, "bias": 7.6, "activation": 7.8}[kind]
    for program, solver in ((relational, "highs"), (bilinear, "gurobi")):
        found = optimum(program(family, np.array([1.0])), np.array([1.0, -1.0]), solver)
        assert found == pytest.approx(expected, abs=1e-7)


def test_single_outputs(rng: np.random.Generator) -> None:
    """Rows other than differences, as the worst-case discrepancy asks them: each output, up and down."""
    for name in ("dense", "add_last", "conv_last"):
        network = ALL[name](rng)
        family, x = Family.of(network, random_radii(network, rng)), inputs(network, rng)[0]
        program, values = relational(family, x), sample_members(family, x, rng, 300, True)[-1]
        for k, sign in ((0, 1.0), (1, -1.0)):
            row = sign * np.eye(network.output_size)[k]
            least = optimum(program, row)
            assert least <= (values @ row).min() + 1e-9
            if not family.network.shares_weights:
                assert optimum(bilinear(family, x), row, "scip") == pytest.approx(least, abs=1e-6)


def test_radii_of_the_sample_where_the_scheme_clips(rng: np.random.Generator) -> None:
    """What is cut off widens the radius of that sample: the programs use it, the family's own is too small."""
    network = ALL["dense"](rng)
    x = inputs(network, rng)[2]
    radii = with_saturations(network, Radii(input=0.02, weight=0.02, activation=0.01))
    family = Family.of(network, radii)
    bounds = sample_bounds(family, x)
    assert any((bounds.activation[i] > 0.011).any() for i in network.relus)
    row = difference(network)
    least = optimum(relational(family, x), row)
    values = sample_members(family, x, rng, 400, True, bounds.activation)[-1]
    assert least <= (values @ row).min() + 1e-9
    assert least < optimum(relational(Family.of(network, dataclasses.replace(radii, saturations={})), x), row) - 1e-3
    assert optimum(bilinear(family, x), row, "scip") == pytest.approx(least, abs=1e-6)


# --- convolutions ---------------------------------------------------------------------------------------
