"""Programs in floating point: members evaluated in exact rationals satisfy every row, whatever was rounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import qverify
from qverify.activations.layer import Activation
from qverify.arrays import Array
from qverify.exact.bilinear import Bilinear
from qverify.exact.cuts import Switched
from qverify.exact.maps import Maps
from qverify.exact.program import Program
from qverify.exact.relational import Relational
from qverify.exact.scaling import Scaled
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.rounding import allowance, chord
from tests.support.marks import mostly_slow
from tests.support.networks import NETWORKS, inputs, known_layers, random_radii
from tests.support.programs import everything, sample_bounds
from tests.support.rationals import badly_scaled, corner_member, exact, random_signs, relative_radii

SIZES = st.floats(0.0, 1e300, allow_subnormal=True)


@given(SIZES, SIZES)
def test_the_chord_lies_above_the_magnitude(left: float, right: float) -> None:
    """Exactly, at both ends; |x| is convex, so between them too. It touches them up to rounding."""
    low, high = np.array([-left]), np.array([right])
    slope, intercept = (exact(part)[0] for part in chord(np, low, high))
    for x in (Fraction(-left), Fraction(right)):
        above = slope * x + intercept - abs(x)
        assert 0 <= above <= Fraction(1e-14) * Fraction(max(left, right)) + Fraction(1e-289)
    assert -1 <= slope <= 1


# --- exact points of programs -------------------------------------------------------------------------------


def rows_of(program: Program) -> list[tuple[Any, ...]]:
    """Per row its terms [(column, coefficient)], products [(first, second, coefficient)] and limits, all exact."""
    rows: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(program.row_count)]
    for row in range(program.row_count):
        part = slice(program.rows.indptr[row], program.rows.indptr[row + 1])
        columns, values = program.rows.indices[part].tolist(), program.rows.data[part]
        rows[row][0].extend(zip(columns, exact(values), strict=True))
    p = program.products
    for row, first, second, value in zip(p.row, p.first, p.second, exact(p.coefficient), strict=True):
        rows[row][1].append((int(first), int(second), value))
    return rows


def satisfied(
    program: Program, rows: list[tuple[Any, ...]], number: int, point: dict[Any, Any] | list[Fraction | None]
) -> bool:
    terms, products = rows[number]
    value = sum((a * point[j] for j, a in terms), Fraction(0))
    value += sum((a * point[i] * point[j] for i, j, a in products), Fraction(0))
    low, high = program.row_lower[number], program.row_upper[number]
    return (low == -np.inf or Fraction(low) <= value) and (high == np.inf or value <= Fraction(high))


def is_point(program: Program, point: list[Fraction | None]) -> bool:
    """Whether some choice of the binaries (None in `point`) makes an exact point of the program."""
    rows, binaries = rows_of(program), np.flatnonzero(program.integer)
    inside = all(
        v is None or Fraction(low) <= v <= Fraction(high)
        for v, low, high in zip(point, program.lower, program.upper, strict=True)
    )
    owner = {number: [j for j, _ in rows[number][0] if program.integer[j]] for number in range(program.row_count)}
    free = all(satisfied(program, rows, number, point) for number in owner if not owner[number])
    groups = {int(binary): {int(binary)} for binary in binaries}  # those that share a row: one, or those of a window
    for own in owner.values():
        joined = set().union(*(groups[j] for j in own))
        groups |= dict.fromkeys(joined, joined)

    def switched(group: set[int]) -> bool:
        own = [number for number in owner if group & set(owner[number])]
        choices = (dict(zip(group, choice, strict=True)) for choice in itertools.product((0, 1), repeat=len(group)))
        return any(all(satisfied(program, rows, n, enumerated | choice) for n in own) for choice in choices)

    enumerated: dict[Any, Any] = dict(enumerate(point))
    return inside and free and all(switched(group) for binary, group in groups.items() if binary == min(group))


def point_of(
    asked: Bilinear | Relational,
    values: list[list[Fraction]],
    weights: dict[tuple[str, int], list[Fraction]] | None = None,
) -> list[Fraction | None]:
    """The exact values of a member as a point; binaries are left open, magnitudes are |x|, activations max(z, 0)."""
    point: list[Any] = [None] * asked.program.variable_count
    for name, columns in asked.builder.blocks.items():
        kind, _, number = name.rpartition(" ")
        index = int(number)
        for k, column in enumerate(columns):
            if kind == "layer":
                point[column] = values[index][k]
            elif kind == "activation":
                point[column] = max(values[asked.network.layers[index].inputs[0]][k], Fraction(0))
            elif kind == "constants":  # of a Gather
                point[column] = Fraction(float(asked.program.lower[column]))
            elif kind in ("weight", "bias"):
                assert weights is not None
                point[column] = weights[kind, index][k]
    for i, magnitude in getattr(asked, "magnitudes", {}).items():
        for k in np.flatnonzero(magnitude.column >= 0).tolist():
            point[magnitude.column[k]] = abs(values[i][k])
    _part_values(asked, values, point)
    return point


def _part_values(asked: Bilinear | Relational, values: list[list[Fraction]], point: list[Any]) -> None:
    """The parts of what piecewise linear activations read, between breaks that are exact; in place."""
    rows = rows_of(asked.program)
    for name, block in asked.builder.blocks.items():
        if not name.endswith(" part 0"):
            continue
        _, index, count, *_ = name.split()
        layer: Any = asked.network.layers[int(index)]
        source, stem = layer.inputs[0], name.removesuffix(" 0")
        numbers = [exact(p) for p in layer.parameters]
        for j in range(len(block)):
            own = {asked.builder.blocks[f"{stem} {k}"][j] for k in range(int(count))}
            (z,) = (
                next(column for column, a in terms if a == 1)
                for terms, _ in rows
                if own == {column for column, a in terms if a == -1} and len(terms) == len(own) + 1
            )
            k = asked.columns[source].tolist().index(z)
            low, high = (exact(end[source])[k] for end in (asked.bounds.lower, asked.bounds.upper))
            table: dict[str, Callable[..., list[Fraction]]] = {
                "leaky_relu": lambda *_: [Fraction(0)],
                "abs": lambda *_: [Fraction(0)],
                "clip": lambda least, most: [least, most],
                "hard_sigmoid": lambda slope, shift: [-shift / slope, (1 - shift) / slope],
            }
            breaks = table[layer.function](*(one[k] for one in numbers))
            edges = [low, *(at for at in breaks if low < at < high), high]
            assert len(edges) == int(count) + 1
            for part, (start, end) in enumerate(itertools.pairwise(edges)):
                column = asked.builder.blocks[f"{stem} {part}"][j]
                point[column] = min(max(values[source][k] - start, Fraction(0)), end - start)


def member(
    family: Family, x: Array, signs: Callable[..., Any]
) -> tuple[list[list[Fraction]], dict[tuple[str, int], list[Fraction]]]:
    """Layer values of the corner member at `signs`, and its weights and biases, exactly."""
    chosen = {}

    def kept(kind: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
        chosen[kind, index] = np.ravel(signs(kind, index, shape))
        return chosen[kind, index]

    values, weights = corner_member(family, x, kept), {}
    for i in family.weight:
        layer = known_layers(family.network)[i]
        for kind, centre, radius in (("weight", layer.weight, family.weight[i]), ("bias", layer.bias, family.bias[i])):
            pairs = zip(exact(centre), exact(radius), chosen[kind, i], strict=True)
            weights[kind, i] = [c + int(s) * r for c, r, s in pairs]
    return values, weights


def cancelling(n: int, seed: int) -> tuple[Family, Array]:
    """Hidden sums of n terms that cancel a bias, coefficients W + R that are no float64, inputs of both signs."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([-1.0, 1.0], (3, n)) * (1.0 + rng.integers(0, 2, (3, n)) * 2.0**-52)
    radius = rng.choice([0.75, 1.25], (3, n)) * 2.0**-53
    radius[1, 0], weight[2] = 1.0, 0.0
    x = rng.choice([1.0, 1.0 / 3.0, 1.5], n)
    first = Dense("a", (0,), (3,), weight=weight, bias=-(weight @ x) - radius @ abs(x))
    last = Dense("b", (2,), (2,), weight=[[1.0 / 3.0, 1.0, -1.0], [1.0 + 2.0**-52, 1.0 / 7.0, 1.0]], bias=[0.1, 0.3])  # type: ignore[arg-type]
    network = Network((Input("x", (), (n,)), first, Relu("r", (1,), (3,)), last))
    entry = np.where(rng.random(n) < 0.5, 2.0 * abs(x), 0.0)
    layers: dict[str, Any] = {
        "a": {"weight": radius, "bias": 2.0**-60},
        "b": {"weight": 0.1},
        "r": {"activation": 1e-17},
    }
    return Family.of(network, Radii(input=entry, layers=layers)), x


def lost_lengths() -> tuple[Family, Array]:
    """Distances between the ends of bounds and the breaks of a Clip that float64 rounds."""
    numbers = np.array([1e-17, -1e-17, 2.0**-54, 1e-18]), np.array([1.0 + 2.0**-52, 3.0, 1.1, 2.0])
    x = Input("x", (), (4,))
    clip = Activation("c", (0,), (4,), "clip", numbers)
    last = Dense("d", (1,), (3,), weight=np.linspace(-1.0, 1.3, 12).reshape(3, 4), bias=np.zeros(3))
    return Family.of(Network((x, clip, last)), Radii(input=np.array([2.0, 4.0, 3.0, 5.0]) / 3.0)), np.full(4, 0.6)


def cases() -> Iterator[tuple[Family, Array]]:
    rng = np.random.default_rng(7)
    for n, seed in ((20, 0), (400, 1), (1500, 2)):
        yield cancelling(n, seed)
    for positive in (True, False):
        network, x = badly_scaled(rng, positive)
        yield Family.of(network, relative_radii(network, x, 1e-3)), x
    yield lost_lengths()
    for name in NETWORKS:
        network = NETWORKS[name](rng)
        yield Family.of(network, random_radii(network, rng)), inputs(network, rng)[4]


def extreme(family: Family, x: Array, push: int) -> Callable[..., Any]:
    """Signs that push every neuron to the same side, as far as it goes at inputs of the signs of x."""

    def signs(kind: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
        if kind == "weight" and index == 1 and len(shape) == 2:
            return np.broadcast_to(push * np.where(x < 0, -1, 1), shape)
        return np.full(shape, push) if kind != "input" else np.ones(shape, int)

    return signs


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.slow] * (n == 2)) for n in range(6 + len(NETWORKS))]
)
def test_members_are_exact_points_of_both_programs(number: int, rng: np.random.Generator) -> None:
    family, x = list(cases())[number]
    bounds, maps = sample_bounds(family, x), Maps(family)
    asked: list[Relational | Bilinear] = [Relational(maps, bounds), Relational(maps, bounds, everything(bounds))]
    if x.size < 100:
        asked += [Bilinear(maps, bounds), Bilinear(maps, bounds, cuts=False)]
    choices = [extreme(family, x, push) for push in (-1, 1)] + [random_signs(rng) for _ in range(3)]
    rows = [np.eye(family.network.output_size)[0], np.linspace(-1.0, 1.3, family.network.output_size) / 3.0]
    for signs in choices:
        values, weights = member(family, x, signs)
        for program in asked:
            point: Any = point_of(program, values, weights)
            assert is_point(program.program, point)
            scaled = Scaled.of(program.program)
            moved = [
                None if v is None else (v - Fraction(shift)) / Fraction(unit)
                for v, shift, unit in zip(point, scaled.shift, scaled.unit, strict=True)
            ]
            assert is_point(scaled.program, moved)
            for row in rows:
                asked_for = program.combination(row)
                costs = zip(exact(asked_for.cost), point, strict=True)
                value = sum((c * v for c, v in costs if c), Fraction(asked_for.offset))
                assert value <= sum((a * b for a, b in zip(exact(row), values[-1], strict=True)), Fraction(0))


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 6, 13])
def test_rows_of_convex_hulls_cut_no_member_off(number: int, rng: np.random.Generator) -> None:
    """Every row that a made-up point with half-open binaries asks for, each beside those it is made from."""
    family, x = list(cases())[number]
    asked = Relational(Maps(family), sample_bounds(family, x))
    program, found = asked.program, 0
    switched = Switched.of_program(program)
    for _ in range(6):
        made_up = program.lower + rng.random(program.variable_count) * (program.upper - program.lower)
        made_up[program.integer] = rng.uniform(0.05, 0.95, int(program.integer.sum()))
        made_up[switched.x] = program.upper[switched.x]
        rows, limits = switched.violated(made_up)
        found += len(limits)
        more = replace(
            program,
            rows=sparse.vstack([program.rows, rows], format="csr"),
            row_lower=np.concatenate([program.row_lower, limits]),
            row_upper=np.concatenate([program.row_upper, np.full(len(limits), np.inf)]),
        )
        for signs in (extreme(family, x, 1), extreme(family, x, -1), random_signs(rng)):
            assert is_point(more, point_of(asked, member(family, x, signs)[0]))
    assert found or not len(switched)


@pytest.mark.parametrize("n", mostly_slow([2000, 20000, 50]))
@pytest.mark.parametrize("share", [0.999, 0.97])
def test_nothing_is_verified_by_a_limit_that_was_rounded(n: int, share: float) -> None:
    """One hidden neuron is `sum of R |x| - 1`, n tiny terms that plain summation drops; a bias cancels it."""
    radius = np.full((1, n), 1.1e-16)
    radius[0, 0] = 1.0
    worst = sum(exact(radius), Fraction(-1))
    bias = float(worst * Fraction(share))
    assert Fraction(bias) <= worst  # so the member with all weights and inputs at +radius fails
    hidden = Dense("a", (0,), (1,), weight=np.zeros((1, n)), bias=[-1.0])  # type: ignore[arg-type]
    last = Dense("b", (2,), (2,), weight=[[0.0], [1.0]], bias=[bias, 0.0])  # type: ignore[arg-type]
    network = Network((Input("x", (), (n,)), hidden, Relu("r", (1,), (1,)), last))
    radii = Radii(input=1.0, layers={"a": {"weight": radius}})
    for method in ("auto", "exact"):
        (verdict,) = qverify.verify(network, np.zeros((1, n)), [0], radii, qverify.Options(method=method))
        assert verdict.status is not qverify.Status.VERIFIED
        assert verdict.margin_lower <= 0


def test_the_allowance_grows_with_what_was_added() -> None:
    assert allowance(1.0, 10) < allowance(1.0, 10_000) < allowance(2.0, 10_000) < 1e-8
    assert allowance(0.0, 10) > 0 and allowance(0.0, 10, reach=1e200) > allowance(0.0, 10)
