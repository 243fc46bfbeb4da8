"""Gaps between networks and integer files: no runtime, drawn by an oracle, is farther off than what is proved."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from qverify.choices import ROUNDINGS
from qverify.errors import DataError, InternalError, ModelError
from qverify.layers import Add, Dense, Input, Rounding
from qverify.network import Network
from qverify.replication import gaps, relaxation, system
from qverify.replication.gaps import Gaps, runtimes
from qverify.replication.matching import match
from qverify.replication.moves import moves
from qverify.replication.regions import Region
from tests.support.networks import LATER, NETWORKS, RELU_NETWORKS, inputs, mlp
from tests.support.quantised import quantised, sample_runtimes

RUNTIMES = 200


def case(name: str, seed: int = 0, bits: int = 4, **more: Any) -> tuple[Network, Network, Any, np.random.Generator]:
    """A network, its integer file, and inputs (6, n_in)."""
    rng = np.random.default_rng(seed)
    network = NETWORKS[name](rng)
    return (
        network,
        quantised(network, rng.normal(size=(40, network.input_size)), bits, **more),
        inputs(network, rng),
        rng,
    )


def radii(file: Network, rule: str) -> dict[int, Any]:
    """How far every runtime may move a value at most, whatever the value, less a little for float64 in the oracle."""
    found = {}
    for i, move in moves(file, rule).items():
        found[i] = move.absolute * (1 - 1e-9)
    return found


@pytest.mark.parametrize("rule", ROUNDINGS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LATER else n for n in sorted(RELU_NETWORKS)]
)
def test_no_runtime_is_farther_off_than_what_is_proved(name: str, rule: str) -> None:
    network, file, x, rng = case(name, fused=rule != "single", channel=rule != "any")
    found = Gaps(match(network, file), rule)
    moved = radii(file, rule)
    for index, sample in enumerate(x):
        gap = found.at(index, sample)
        met = sample_runtimes(file, moved, np.repeat(sample[None], RUNTIMES, 0), rng)[-1] - network.evaluate(
            sample[None]
        )
        assert (met >= gap.lower - 1e-9).all() and (met <= gap.upper + 1e-9).all()
        assert gap.proved >= gap.attained - 1e-9
        assert (gap.attained_lower >= gap.lower - 1e-9).all() and (gap.attained_upper <= gap.upper + 1e-9).all()


@pytest.mark.parametrize("rule", ["float32", "any"])
@pytest.mark.parametrize("name", sorted(RELU_NETWORKS))
def test_no_input_of_a_box_is_farther_off_than_what_is_proved(name: str, rule: str) -> None:
    network, file, x, rng = case(name, 1, 6, fused=rule != "any")
    found = Gaps(match(network, file), rule, Region(radius=0.05))
    moved = radii(file, rule)
    for index, sample in enumerate(x[:3]):
        gap = found.at(index, sample)
        shift = 0.05 * rng.choice([-1.0, 1.0, 0.3], (RUNTIMES, len(sample)))
        values = sample_runtimes(file, moved, sample + shift, rng)[-1]
        met = values - network.evaluate(sample + shift)
        assert (met >= gap.lower - 1e-9).all() and (met <= gap.upper + 1e-9).all()


@pytest.mark.parametrize("rule", ["float32", "double"])
@pytest.mark.parametrize("name", sorted(RELU_NETWORKS))
def test_inputs_on_the_grid_of_the_file_are_closer(name: str, rule: str) -> None:
    network, file, x, rng = case(name, 2, 6)
    everywhere, on_grid = (Gaps(match(network, file), rule, Region(radius=0.3, exact=flag)) for flag in (False, True))
    point = next(file.layers[i] for i in file.roundings if file.layers[i].inputs == (0,))
    assert isinstance(point, Rounding)
    moved = radii(file, rule)
    smaller = []
    for index, sample in enumerate(np.clip(np.rint(x[:3] / point.step) * point.step, point.low, point.high)):
        gap = on_grid.at(index, sample)
        shift = rng.integers(-5, 6, (RUNTIMES, len(sample))) * point.step
        given = np.clip(sample + np.where(abs(shift) <= 0.3, shift, 0.0), point.low, point.high)
        given = given + rng.choice([-1.0, 0.0, 1.0], given.shape) * 2.0**-11 * point.step
        met = sample_runtimes(file, moved, given, rng)[-1] - network.evaluate(given)
        assert (met >= gap.lower - 1e-9).all() and (met <= gap.upper + 1e-9).all()
        smaller.append(gap.proved < everywhere.at(index, sample).proved)
        with pytest.raises(DataError, match="off the grid of the file's input"):
            on_grid.at(index, sample + 0.25 * point.step)
    assert any(smaller)


def test_a_file_that_does_not_round_its_input_has_no_grid() -> None:
    trained, file = tiny()
    with pytest.raises(ModelError, match="does not round its input first"):
        Gaps(match(trained, file), "nearest", Region(radius=0.1, exact=True))


@pytest.mark.parametrize("name", ["dense", "residual", "conv_conv"])
def test_bounds_hold_on_every_layer_and_for_any_slope(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, file, x, rng = case(name, 2)
    slopes = relaxation.Staircase.lines

    def other(self: Any, lower: Any, upper: Any, chosen: Any = None) -> Any:
        return slopes(
            self, lower, upper, (torch.as_tensor(rng.random(len(lower))), torch.as_tensor(rng.random(len(lower))))
        )

    monkeypatch.setattr(relaxation.Staircase, "lines", other)
    bounded = Gaps(match(network, file), "double")
    for sample in x[:3]:
        leaf = torch.as_tensor(sample)
        boxes = bounded.system.bounds([(leaf, leaf)]).boxes
        values = sample_runtimes(file, radii(file, "double"), np.repeat(sample[None], RUNTIMES, 0), rng)
        for (lower, upper), value in zip(boxes, values, strict=True):
            assert (value >= lower.numpy() - 1e-9).all() and (value <= upper.numpy() + 1e-9).all()


def tiny() -> tuple[Network, Network]:
    """Two inputs, one output; steps and weights are powers of 2, so that every sum is exact; x on a tie."""
    x = Input("x", (), (2,))
    weight, bias = np.array([[0.75, -0.5], [0.25, 1.0]]), np.array([0.125, -0.25])
    out, none = np.array([[1.0, -1.0]]), np.array([0.0])
    trained = Network(
        (x, Dense("a", (0,), (2,), weight=weight, bias=bias), Dense("b", (1,), (1,), weight=out, bias=none))
    )
    a = Dense("a", (0,), (2,), weight=weight, bias=bias, grid=np.array([[0.125]]))
    point = Rounding.on_grid("a.q", 1, (2,), 0.25, (-8, 7))
    return trained, Network((x, a, point, Dense("b", (2,), (1,), weight=out, bias=none, grid=np.array([[1.0]]))))


def test_a_tiny_file_by_exact_rationals() -> None:
    """All roundings that a rule allows, counted out: the ends that are proved are met."""
    trained, file = tiny()
    for x in ((0.5, 0.25), (1.0, 0.125), (0.375, 0.75), (4.0, -4.0)):
        hidden = [
            Fraction(3, 4) * Fraction(x[0]) - Fraction(x[1]) / 2 + Fraction(1, 8),
            Fraction(x[0]) / 4 + Fraction(x[1]) - Fraction(1, 4),
        ]
        choices = [
            {
                min(max(Fraction(k, 4), Fraction(-2)), Fraction(7, 4))
                for k in range(-40, 41)
                if abs(Fraction(k, 4) - v) <= Fraction(1, 8)
            }
            for v in hidden
        ]
        outputs = {a - b for a in choices[0] for b in choices[1]}
        exact = [float(end - (hidden[0] - hidden[1])) for end in (min(outputs), max(outputs))]
        gap = Gaps(match(trained, file), "nearest").at(0, np.array(x))
        assert [gap.lower[0], gap.upper[0]] == pytest.approx(exact, abs=1e-9)
        assert gap.lower[0] <= exact[0] and gap.upper[0] >= exact[1]


def test_rows_backward_are_tighter_than_intervals() -> None:
    rng = np.random.default_rng(3)
    network = mlp(rng, 6, 20, 20, 20, 4)
    x = rng.normal(size=(40, 6))
    found = Gaps(match(network, quantised(network, x)), "nearest")
    leaf = torch.as_tensor(x[0] - 0.2), torch.as_tensor(x[0] + 0.2)
    refined, plain = (found.system.bounds([leaf], flag).boxes[-1] for flag in (True, False))
    assert ((refined[0] >= plain[0]) & (refined[1] <= plain[1])).all()
    assert float((refined[1] - refined[0]).sum()) < 0.9 * float((plain[1] - plain[0]).sum())


def test_differences_are_tighter_than_two_intervals() -> None:
    network, file, x, _ = case("dense", 4, 8)
    gap = Gaps(match(network, file), "float32", Region(radius=0.3)).at(0, x[0])
    both = [Gaps(match(network, file), "float32").system, Gaps(match(network, file), "float32").trained]
    leaf = torch.as_tensor(x[0] - 0.3), torch.as_tensor(x[0] + 0.3)
    g, f = (one.bounds([leaf]).boxes[-1] for one in both)
    assert gap.proved < 0.2 * float(torch.maximum(g[1] - f[0], f[1] - g[0]).max())


def test_a_bound_that_a_runtime_breaks_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network, file, x, _ = case("dense")
    found = Gaps(match(network, file), "float32")
    monkeypatch.setattr(found, "_proved", lambda box: (np.full(3, 5.0), np.full(3, 6.0)))
    with pytest.raises(InternalError, match="Sample 7: a runtime of the file"):
        found.at(7, x[0])


def test_bounds_that_exclude_each_other_are_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network, file, x, _ = case("deep")
    monkeypatch.setattr(system.System, "least", lambda self, found, rows, last: torch.full((len(rows[last]),), 1e3))
    with pytest.raises(InternalError, match="exclude each other"):
        Gaps(match(network, file), "any").at(0, x[0])


def test_an_epsilon_decides() -> None:
    network, file, x, _ = case("dense")
    gap = Gaps(match(network, file), "any").at(0, x[0])
    assert gap.status is None and gap.attained < gap.proved
    for epsilon, status in ((gap.proved, "within"), (gap.attained * 0.999, "exceeds"), (gap.attained, "unknown")):
        assert Gaps(match(network, file), "any", Region(epsilon=epsilon)).at(0, x[0]).status == status


def test_runtimes_that_are_drawn_stay_within_the_rule() -> None:
    """And the first of them rounds to the nearest."""
    network, file, x, rng = case("conv_pool", 5)
    found = runtimes(file, moves(file, "any"), np.repeat(x[:1], 50, 0), rng)
    assert found[0] == pytest.approx(file.evaluate(x[:1])[0]) and len(np.unique(found, axis=0)) > 10
    gap = Gaps(match(network, file), "any").at(0, x[0])
    assert (found - network.evaluate(x[:1]) <= gap.upper + 1e-9).all()


def test_outputs_that_are_not_rounded_err_by_float32() -> None:
    """As real arithmetic has none of it, by the rule `nearest` neither."""
    network, file, x, rng = case("dense", 6, 8)
    floating = Network(file.layers[:-1], source="file")
    real, single = (Gaps(match(network, floating), rule).at(0, x[0]) for rule in ("nearest", "float32"))
    before = floating.evaluate_all(x[:1])[-2].astype(np.float32)
    last: Any = floating.layers[-1]
    for _ in range(50):
        order = rng.permutation(before.shape[1])
        total = last.bias.astype(np.float32)
        for i in order:
            total = total + last.weight[:, i].astype(np.float32) * before[0, i]
        met = total.astype(np.float64) - network.evaluate(x[:1])[0]
        assert (met >= single.lower).all() and (met <= single.upper).all()
    assert (single.upper - single.lower > real.upper - real.lower).all()
    weight = np.eye(2)
    first, side = (Dense(name, (0,), (2,), weight=weight, bias=np.zeros(2)) for name in ("a", "b"))
    layers = (Input("x", (), (2,)), first, side)
    network = Network((*layers, Add("sum", (1, 2), (2,))))
    point = Rounding.on_grid("a.q", 1, (2,), 0.25, (-8, 7), kernel=True)
    with pytest.raises(ModelError, match="state --rounding nearest"):
        Gaps(match(network, Network((*layers, point, Add("sum", (3, 2), (2,))))), "float32")


def test_what_is_no_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, file, x, _ = case("dense")
    with pytest.raises(ModelError, match="is not quantised"):
        Gaps(match(network, network), "float32")
    layers = list(file.layers)
    i = file.roundings[1]
    point: Any = layers[i]
    layers[i] = Rounding(
        point.name, point.inputs, point.shape, step=point.step, low=point.low, high=point.high, dead=point.step
    )
    with pytest.raises(ModelError, match="is none of a file"):
        Gaps(match(network, Network(tuple(layers))), "float32")
    monkeypatch.setattr(gaps, "file_kernel", lambda network: type("K", (), {"refused": ("sums may leave int32",)}))
    with pytest.raises(ModelError, match="sums may leave int32"):
        Gaps(match(network, file), "float32")
    with pytest.raises(DataError, match="--clip-input"):
        Region(radius=0.1, clip=(0.0, 1.0)).box(x[1])
