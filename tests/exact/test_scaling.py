"""Programs in other units: the same optimum; and verdicts that do not depend on how a network's layers are scaled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from qverify.bounds.refinement import tightened_bounds
from qverify.exact import solvers
from qverify.exact.bilinear import Bilinear
from qverify.exact.program import Objective
from qverify.exact.relational import Relational
from qverify.exact.scaling import Scaled
from qverify.exact.solvers.base import Ending, Limits, Outcome
from qverify.exact.solvers.duality import dual_value, feasible_duals
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.verification.cascade import verify
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status
from tests.support.marks import mostly_slow
from tests.support.networks import NETWORKS, inputs, mlp, random_radii


def hats(scale: float, margin: float) -> Network:
    """Two hat functions of width 0.05 in [-1, 1]^2: the margin is 1 + `margin` away from them and `margin` where both
    peak. The hidden layer is multiplied by `scale` and the output divided by it: the same function for every scale."""
    centres, width = (0.55, 0.62), 0.05
    rows, bias, out = [], [], []
    for axis, centre in enumerate(centres):
        for offset, factor in ((-width, 1), (0, -2), (width, 1)):
            rows.append(np.eye(2)[axis] * scale)
            bias.append(-(centre + offset) * scale)
            out.append(factor / width / 2 / scale)
    hidden = Dense("a", (0,), (6,), weight=np.array(rows), bias=np.array(bias))
    last = Dense("c", (2,), (2,), weight=np.array([np.zeros(6), out]), bias=np.array([1 + margin, 0.0]))
    return Network((Input("x", (), (2,)), hidden, Relu("r", (1,), (6,)), last))


@pytest.mark.parametrize("solver", mostly_slow(["highs", "gurobi", "scip"]))
@pytest.mark.parametrize("scale", mostly_slow([1e-13, 1e12, 1e-9, 1e-6, 1.0, 1e7], 2))
def test_the_scale_of_a_layer_changes_no_verdict(solver: str, scale: float) -> None:
    """With a hidden layer of 1e-12, solvers used to prove what a member refutes."""
    for margin, answer in ((-0.3, Status.FALSIFIED), (-0.01, Status.FALSIFIED), (0.01, Status.VERIFIED)):
        verdict = verify(hats(scale, margin), np.zeros((1, 2)), [0], Radii(input=1.0), Options(solver=solver))[0]
        assert (verdict.status, verdict.method) == (answer, "exact")
        assert verdict.margin_lower <= margin + 1e-9
        assert answer is Status.FALSIFIED or verdict.margin_upper == pytest.approx(margin)


def rescaled(network: Network, radii: Radii, rng: np.random.Generator) -> tuple[Network, Radii]:
    """Every hidden neuron times its own factor of 10^-8 to 10^8, undone in the next layer: the same family."""
    layers, own, before = list(network.layers), {}, np.ones(network.input_size)
    for i, layer in enumerate(layers):
        if isinstance(layer, Dense):
            last = i == len(layers) - 1
            factor = np.ones(layer.size) if last else 10.0 ** rng.uniform(-8, 8, layer.size)
            weight = layer.weight * factor[:, None] / before
            layers[i] = Dense(layer.name, layer.inputs, layer.shape, weight=weight, bias=layer.bias * factor)
            spread = np.full(layer.weight.shape, radii.weight) * factor[:, None] / before
            own[layer.name] = {"weight": spread, "bias": radii.bias * factor}
            before = factor
        elif isinstance(layer, Relu):
            own[layer.name] = {"activation": radii.activation * before}
    return Network(tuple(layers)), Radii(input=radii.input, layers=own)


@pytest.mark.slow
def test_the_scale_of_single_neurons_changes_no_verdict() -> None:
    seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = mlp(rng, 4, 9, 8, 3)
        x = rng.normal(size=(5, 4))
        labels = network.evaluate(x).argmax(1)
        radii = Radii(input=0.06, weight=0.03, bias=0.03, activation=0.04)
        before = verify(network, x, labels, radii, Options("exact"))
        scaled_network, scaled_radii = rescaled(network, radii, rng)
        after = verify(scaled_network, x, labels, scaled_radii, Options("exact"))
        assert [v.status for v in before] == [v.status for v in after]
        for first, second in zip(before, after, strict=True):
            if first.method == second.method == "exact":
                assert second.margin_lower <= first.margin_upper + 1e-9
        seen |= {(v.status, v.method) for v in before}
    assert (Status.VERIFIED, "exact") in seen


@pytest.mark.parametrize("name", ["dense", "signed_hidden", "conv_attributes", "residual", "add_last"])
def test_scaled_programs_have_the_same_optimum(name: str, rng: np.random.Generator) -> None:
    """Against scipy's own LP and MIP solves of the original rows; points come back in the original units."""
    from scipy.optimize import LinearConstraint, milp

    network = NETWORKS[name](rng)
    setup = Setup(network, random_radii(network, rng, 0.1), Options())
    bounds = tightened_bounds(setup.model, setup.intervals(inputs(network, rng)))
    for sample in range(3):
        program = Relational(setup.maps, bounds.sample(sample))
        row = rng.normal(size=network.output_size)
        objective = program.combination(row)
        cost, offset = objective.cost, objective.offset
        original, scaled = program.program, Scaled.of(program.program)
        rows = LinearConstraint(original.rows, original.row_lower, original.row_upper)
        limits = (original.lower, original.upper)
        for relax in (True, False):
            whole = np.zeros(len(cost)) if relax else original.integer.astype(int)
            truth = milp(cost, constraints=rows, bounds=limits, integrality=whole).fun + offset
            session = solvers.adapter("highs").open(scaled.program)
            outcome = scaled.minimise(session, objective, Limits(), relax)
            assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)
            assert outcome.incumbent == pytest.approx(truth, abs=1e-6)
            point = outcome.point
            assert point is not None
            assert ((point >= original.lower) & (point <= original.upper)).all()
            activity = original.rows @ point
            assert ((activity >= original.row_lower - 1e-6) & (activity <= original.row_upper + 1e-6)).all()


def test_scaled_ranges_are_near_one(rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 7, 5, 3)
    network, radii = rescaled(network, Radii(input=0.1, weight=0.02), rng)
    setup = Setup(network, radii, Options())
    bounds = setup.intervals(rng.normal(size=(1, 4))).sample(0)
    for program in (Relational(setup.maps, bounds).program, Bilinear(setup.maps, bounds).program):
        scaled = Scaled.of(program).program
        wide = np.maximum(abs(scaled.lower), abs(scaled.upper))[program.upper > program.lower]
        assert wide.max() <= 1.5 and (len(program.products) or wide.min() >= 0.7)
        largest = abs(scaled.rows).max(axis=1).toarray().ravel()
        assert largest.max() <= 1.5


def test_duals_of_a_scaled_relaxation_prove_the_same_bound(rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    setup = Setup(network, random_radii(network, rng, 0.1), Options())
    bounds = tightened_bounds(setup.model, setup.intervals(inputs(network, rng)))
    program = Relational(setup.maps, bounds.sample(0))
    objective = program.combination(np.array([1.0, -1.0, 0.0]))
    scaled = Scaled.of(program.program)
    session = solvers.adapter("highs").open(scaled.program)
    outcome = scaled.minimise(session, objective, Limits(), True)
    assert outcome.row_duals is not None
    for factor in (0.0, 0.5, 1.0, 1.5):  # any duals are valid, the optimal ones are best
        duals = feasible_duals(program.program, factor * outcome.row_duals)
        assert dual_value(program.program, objective, duals) <= outcome.dual_bound + 1e-9


def test_a_liars_dual_bound_of_a_relaxation_is_not_used(rng: np.random.Generator) -> None:
    """The bound of a linear program is computed from its duals, whatever number came with them."""
    network = NETWORKS["dense"](rng)
    setup = Setup(network, Radii(input=0.1), Options())
    program = Relational(setup.maps, setup.intervals(inputs(network, rng)).sample(0))

    class Liar:
        def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
            return Outcome(status=Ending.OPTIMAL, dual_bound=1e6, row_duals=np.zeros(program.program.row_count))

    objective = program.combination(np.array([1.0, -1, 0]))
    outcome = Scaled.of(program.program).minimise(Liar(), objective, Limits(), True)  # type: ignore[arg-type]
    assert outcome.dual_bound < 100


def test_scipy_agrees_with_the_relaxation(rng: np.random.Generator) -> None:
    """A third LP solver on the scaled rows."""
    network = NETWORKS["deep"](rng)
    setup = Setup(network, random_radii(network, rng, 0.05), Options())
    program = Relational(setup.maps, setup.intervals(inputs(network, rng)).sample(0))
    objective = program.combination(np.array([1.0, 0.0, -1.0, 0.0]))
    scaled = Scaled.of(program.program)
    rows = scaled.program.rows.toarray()
    up, down = np.isfinite(scaled.program.row_upper), np.isfinite(scaled.program.row_lower)
    matrix = np.vstack([rows[up], -rows[down]])
    right = np.concatenate([scaled.program.row_upper[up], -scaled.program.row_lower[down]])
    box = np.stack([scaled.program.lower, scaled.program.upper], 1)
    truth = linprog(objective.cost * scaled.unit, matrix, right, bounds=box).fun
    truth += objective.offset + objective.cost @ scaled.shift
    outcome = scaled.minimise(solvers.adapter("highs").open(scaled.program), objective, Limits(), True)
    assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)
