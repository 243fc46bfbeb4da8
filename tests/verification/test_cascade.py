"""Verdicts against oracles that share no code with them: sampled members, onnxruntime, other solvers, eps = 0."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.arrays import Array
from qverify.bounds import interval
from qverify.choices import BOUNDS
from qverify.errors import DataError, RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.members import Witness, membership
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense, Input
from qverify.network import Network, margins
from qverify.onnx.reader import to_onnx
from qverify.verification.cascade import Cascade, verify
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status, Verdict
from tests.support.marks import mostly_slow
from tests.support.networks import (
    EVERY,
    NETWORKS,
    dense,
    known_layers,
    mlp,
    random_points,
    random_radii,
    relu,
    sample_members,
    samples,
    unit_inputs,
)

PROVING = ("auto", "ibp", "bp", "bp-branched", "exact")


def replay(witness: Witness) -> np.ndarray:
    """The witness's outputs by onnxruntime, from the ONNX file its member is exported to."""
    model = to_onnx(witness.network, "float64").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    shape = (1, *witness.network.input_shape)
    return np.asarray(session.run(None, {"input": witness.input.reshape(shape)})[0])


def check_verdict(verdict: Verdict, family: Family, x: Array, label: int, rng: np.random.Generator) -> None:
    """What each status claims, against members drawn at random and against the witness replayed."""
    assert verdict.margin_lower <= verdict.margin_upper + 1e-9
    for corner in (True, False):
        values = sample_members(family, x, rng, 300, corner)[-1]
        worst = margins(values, np.full(len(values), label)).min()
        assert worst >= verdict.margin_lower - 1e-9
        if verdict.status is Status.VERIFIED:
            assert worst > 0
    if verdict.status is Status.FALSIFIED:
        witness = verdict.witness()
        assert witness is not None
        assert membership(family, witness.network, x, witness.input) == []
        output = replay(witness)
        assert margins(output, np.array([label]))[0] <= 1e-12
        assert abs(margins(output, np.array([label]))[0] - verdict.margin_upper) < 1e-9
    elif verdict.status is Status.VERIFIED:
        assert verdict.margin_lower > 0


@pytest.mark.parametrize("method", mostly_slow(PROVING))
@pytest.mark.parametrize("name", EVERY)
def test_verdicts_hold(name: str, method: str, rng: np.random.Generator) -> None:
    """Every kind of network, radii from harmless to hopeless, so that every status occurs."""
    network = NETWORKS[name](rng)
    x, labels = samples(network, rng)
    for size in (0.01, 0.1):
        radii = random_radii(network, rng, size)
        verdicts = verify(network, x, labels, radii, Options(method=method, jobs=2))
        assert [v.index for v in verdicts] == list(range(len(x)))
        assert verdicts[-1].status is Status.MISCLASSIFIED
        family = Family.of(network, radii)
        for verdict in verdicts[:-1]:
            check_verdict(verdict, family, x[verdict.index], labels[verdict.index], rng)
            if not network.shares_weights and method in ("auto", "exact"):
                assert verdict.status is not Status.UNKNOWN, verdict


def tiny_dense(rng: np.random.Generator) -> Network:
    sizes = [int(rng.integers(2, 4)) for _ in range(int(rng.integers(2, 4)))]
    return mlp(rng, *sizes, int(rng.integers(2, 4)))


def test_all_solvers_and_formulations_agree() -> None:
    """HiGHS, Gurobi and SCIP, relational and bilinear, on tiny dense networks with signed inputs."""
    ways = [("highs", "relational"), ("gurobi", "relational"), ("gurobi", "bilinear"), ("scip", "bilinear")]
    seen = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        network = tiny_dense(rng)
        x = 0.5 * rng.normal(size=(3, network.input_size))
        labels = network.evaluate(x).argmax(1)
        radii = random_radii(network, rng, rng.uniform(0.05, 0.5))
        found = []
        for solver, formulation in ways:
            options = Options("auto", formulation, solver)
            found.append([v.status for v in verify(network, x, labels, radii, options)])
        assert all(f == found[0] for f in found), (seed, found)
        seen.update(found[0])
    assert seen == {Status.VERIFIED, Status.FALSIFIED}


@pytest.mark.parametrize(("solver", "formulation"), [("highs", "relational"), ("scip", "bilinear")])
def test_exact_margin_is_attained(solver: str, formulation: str, rng: np.random.Generator) -> None:
    """Method exact: the proved and the attained worst margin meet, and enumeration of corners finds nothing below."""
    network = Network(
        (
            Input("x", (), (2,)),
            dense(rng, "fc", 0, 2, 2),
            relu("r", 1, dense(rng, "fc", 0, 2, 2)),
            dense(rng, "out", 2, 2, 2),
        )
    )
    radii = Radii(
        input=0.2,
        layers={
            "fc": {"weight": [[0.1], [0.3]], "bias": 0.05},
            "r": {"activation": [0.1, 0.02]},
            "out": {"weight": 0.15, "bias": [0.0, 0.1]},
        },
    )
    x = np.array([[0.7, -0.1], [0.05, 1.2]])
    labels = network.evaluate(x).argmax(1)
    for verdict in verify(network, x, labels, radii, Options("exact", formulation, solver)):
        if verdict.method == "attack":
            continue
        assert verdict.margin_upper - verdict.margin_lower < 1e-4
        worst = enumerate_corners(Family.of(network, radii), x[verdict.index], int(labels[verdict.index]))
        assert verdict.margin_lower - 1e-9 <= worst <= verdict.margin_upper + 0.05
        assert verdict.margin_upper <= worst + 1e-6


def enumerate_corners(family: Family, x: Array, label: int) -> float:
    """The smallest margin over all corners of weights, biases, offsets and input of a 2-2-2 network."""
    first, _, last = known_layers(family.network)[1:]
    worst = np.inf
    for corner in product(*([v - family.input[i], v + family.input[i], 0.0] for i, v in enumerate(x))):
        point = np.array(corner)
        if (np.abs(point - x) > family.input).any():
            continue
        reach = family.weight[1] @ np.abs(point) + family.bias[1]
        for position in product((-1.0, 1.0), repeat=2):
            z = first.weight @ point + first.bias + np.array(position) * reach
            for offset in product((-1.0, 1.0), repeat=2):
                a = np.maximum(np.maximum(z, 0) + np.array(offset) * family.activation[2], 0)
                spread = family.weight[3] @ a + family.bias[3]
                low, high = last.weight @ a + last.bias - spread, last.weight @ a + last.bias + spread
                worst = min(worst, low[label] - np.delete(high, label).max())
    return worst


@pytest.mark.slow
def test_no_radius_is_the_forward_pass(rng: np.random.Generator) -> None:
    for build in NETWORKS.values():
        network = build(rng)
        x, labels = samples(network, rng)
        outputs = network.evaluate(x)
        for method in PROVING:
            for verdict in verify(network, x, labels, Radii(), Options(method=method)):
                margin = margins(outputs, labels)[verdict.index]
                assert verdict.status is (Status.VERIFIED if margin > 0 else Status.MISCLASSIFIED)
                assert verdict.margin_upper == pytest.approx(margin, rel=1e-12)
                if margin > 0:
                    assert verdict.margin_lower == pytest.approx(margin, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["input", "weight", "bias", "activation", "all"])
def test_widening_never_verifies_more(kind: str, rng: np.random.Generator) -> None:
    """The guarantee never grows with a radius, by interval bounds and exactly."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = mlp(rng, 4, 6, 5, 3)
        x = rng.normal(size=(12, 4))
        labels = network.evaluate(x).argmax(1)
        base = dict.fromkeys(("input", "weight", "bias", "activation"), 0.02)
        for method in ("ibp", "auto"):
            before = np.ones(len(x), dtype=bool)
            for factor in (1.0, 1.5, 3.0, 6.0):
                radii = {k: r * (factor if kind in (k, "all") else 1.0) for k, r in base.items()}
                verdicts = verify(network, x, labels, Radii(**radii), Options(method=method))  # type: ignore[arg-type]
                held = np.array([v.status is Status.VERIFIED for v in verdicts])
                assert not (held & ~before).any()
                before = held
            assert kind != "all" or not before.all()


def test_ranges_that_clip(rng: np.random.Generator) -> None:
    """Schemes with calibrated ranges: values above are clipped to their ends, by bounds, programs and members."""
    network = mlp(rng, 4, 7, 5, 3)
    x = unit_inputs(network, rng)
    labels = network.evaluate(x).argmax(1)
    radii = Radii.from_bits(5, "channel", "nearest", network, 0.5 * x)
    family = Family.of(network, radii, (0.0, 1.0))
    low, high = family.box(x)
    model = Setup(network, radii, Options(clip=(0.0, 1.0))).model
    bounds = interval.interval_bounds(model, model.tensor(low), model.tensor(high))
    statuses = set()
    for verdict in verify(network, x, labels, radii, Options(clip=(0.0, 1.0))):
        own = family.with_activation({i: r[verdict.index].numpy() for i, r in bounds.activation.items()})
        check_verdict(verdict, own, x[verdict.index], labels[verdict.index], rng)
        statuses.add(verdict.status)
    assert Status.UNKNOWN not in statuses
    assert any((bounds.upper[i].numpy() == point.high[1]).any() for i, point in family.points.items())


@pytest.mark.slow
@pytest.mark.parametrize("grid", [False, True], ids=["any", "grid"])
@pytest.mark.parametrize("method", ["auto", "bp"])
@pytest.mark.parametrize(
    "name",
    [
        "dense",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("deep", "scaled_input", "residual", "conv_pool", "add_last")
        ),
    ],
)
def test_verdicts_hold_with_points_everywhere(name: str, method: str, grid: bool, rng: np.random.Generator) -> None:
    """Rounding points at the input and behind every layer: members drawn and replayed, by every stage."""
    network = NETWORKS[name](rng)
    x, labels = samples(network, rng)
    for size in (0.01, 0.05):
        points = random_points(network, rng, grid)
        points = {n: replace(p, step=0.0) if p.entry else p for n, p in points.items()}
        radii = replace(random_radii(network, rng, size), points=points)
        family = Family.of(network, radii)
        for verdict in verify(network, x, labels, radii, Options(method=method, seconds=5.0))[:-1]:
            check_verdict(verdict, family, x[verdict.index], labels[verdict.index], rng)


def test_jobs_chunks_and_callbacks_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(rng, 5, 9, 8, 4)
    x = rng.normal(size=(30, 5))
    labels = network.evaluate(x).argmax(1)
    radii = random_radii(network, rng, 0.05)
    alone = [verify(network, x[i : i + 1], labels[i : i + 1], radii, Options(jobs=1))[0] for i in range(len(x))]
    monkeypatch.setattr("qverify.verification.setup._CHUNK", 7)
    heard: list[Any] = []
    together = verify(network, x, labels, radii, Options(jobs=4), on_verdict=heard.append)
    assert [v.status for v in together] == [v.status for v in alone]
    assert [v.method for v in together] == [v.method for v in alone]
    assert sorted(v.index for v in heard) == list(range(30))
    assert len({v.method for v in together}) > 2


def test_stop_keeps_what_is_decided(rng: np.random.Generator) -> None:
    network = mlp(rng, 5, 9, 8, 4)
    x = rng.normal(size=(30, 5))
    labels = network.evaluate(x).argmax(1)
    stop = threading.Event()
    heard = []

    def hear(verdict: Verdict) -> None:
        heard.append(verdict)
        stop.set()

    found = verify(network, x, labels, random_radii(network, rng, 0.05), Options(method="exact"), hear, stop)
    assert 1 <= len(found) < 30
    assert [v.index for v in found] == sorted(v.index for v in heard)
    assert verify(network, x, labels, Radii(), stop=stop) == []


def test_an_interrupt_passes_through(rng: np.random.Generator) -> None:
    network = mlp(rng, 5, 9, 8, 4)
    x = rng.normal(size=(10, 5))
    labels = network.evaluate(x).argmax(1)

    def interrupt(verdict: Verdict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(network, x, labels, random_radii(network, rng, 0.05), Options(method="exact"), interrupt)


def test_time_limit_leaves_unknown_with_bounds() -> None:
    rng = np.random.default_rng(3)
    network = mlp(rng, 6, 40, 40, 40, 5)
    x = rng.normal(size=(6, 6))
    labels = network.evaluate(x).argmax(1)
    radii = Radii(input=0.05, weight=0.01, bias=0.01, activation=0.02)
    # Without an attack, which may break all of them in time.
    verdicts = verify(network, x, labels, radii, Options(method="exact", seconds=1e-3, attack=False))
    unknown = [v for v in verdicts if v.status is Status.UNKNOWN]
    assert unknown and all(v.detail.startswith("time limit") and v.limit == 1e-3 for v in unknown)
    assert all(v.margin_lower <= v.margin_upper for v in unknown)
    assert all(np.isfinite(v.margin_lower) for v in unknown if "not even" not in v.detail)


def test_a_sample_whose_time_is_up_before_it_begins(rng: np.random.Generator) -> None:
    """As in a batch, where another task took it; with and without the exact step."""
    network = mlp(rng, 3, 4, 2)
    x = rng.normal(size=(3, 3))
    labels = network.evaluate(x).argmax(1)
    for method in ("auto", "exact", "bp", "ibp"):
        cascade = Cascade(network, random_radii(network, rng, 0.05), Options(method=method, seconds=1.0))
        found: list[Any] = []
        batch = cascade.cheap_stages(0, x, labels, found.append, spent=2.0)
        assert not len(batch.open) and len(found) == 3
        assert all(v.status is Status.UNKNOWN and v.limit == 1.0 and "time limit" in v.detail for v in found)


def test_rows_are_plain_json(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    x, labels = samples(network, rng)
    for verdict in verify(network, x, labels, Radii(weight=0.1)):
        row = verdict.row().to_json()
        assert list(row)[:7] == ["index", "label", "predicted", "status", "margin_lower", "margin_upper", "method"]
        assert {type(v) for v in row.values()} <= {int, float, str, type(None)}


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (np.zeros((2, 4)), np.zeros(2, int), "shape"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "NaN"),
        (np.zeros((2, 3)), np.zeros(3, int), "labels"),
        (np.zeros((2, 3)), np.array([0, 2]), "label"),
        (np.zeros((2, 3)), np.array([0, -1]), "labels"),
        (np.zeros((2, 3)), np.array([0.5, 1]), "labels"),
        (np.zeros((2, 3)), np.array([0, 2**63], dtype=np.uint64), "labels"),
        (np.zeros((2, 3), complex), np.zeros(2, int), "rectangular"),
        (np.zeros((0, 3)), np.zeros(0, int), "at least one"),
        ([[1.0], [1.0, 2.0]], np.zeros(2, int), "rectangular"),
    ],
)
def test_bad_data(x: np.ndarray | list[list[float]], y: np.ndarray, sentence: str, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match=sentence):
        verify(mlp(rng, 3, 4, 2), x, y, Radii())


@pytest.mark.parametrize(
    "wrong",
    [{"method": "x"}, {"solver": "x"}, {"formulation": "x"}, {"seconds": 0.0}, {"seconds": -1.0},
     {"seconds": float("nan")}, {"seconds": "3"}, {"seconds": True}, {"jobs": -1}, {"jobs": 1.5},
     {"device": "nowhere"}, {"device": "meta"},
     {"clip": (0.0,)}, {"clip": (0.0, "1")}],
)  # fmt: skip
def test_bad_options(wrong: dict[str, Any], rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    with pytest.raises(UsageError, match=r"choose|give|use"):
        verify(network, np.zeros((1, 3)), np.zeros(1, int), Radii(), Options(**wrong))


@pytest.mark.parametrize("method", PROVING)
def test_without_an_attack_the_same_is_proved(method: str, rng: np.random.Generator) -> None:
    """What is left out is the descent: `ibp` and `bp` then falsify nothing, the exact step still does."""
    network = mlp(rng, 5, 8, 6, 3)
    x, labels = samples(network, rng, 30)
    radii = Radii(0.02, 0.02, 0.02, 0.02)
    found = {
        attack: verify(network, x, labels, radii, Options(method=method, attack=attack, jobs=2))
        for attack in (True, False)
    }
    verified = [[v.index for v in verdicts if v.status is Status.VERIFIED] for verdicts in found.values()]
    assert verified[0] == verified[1] and 0 < len(verified[0]) < 25
    falsified = {a: sum(v.status is Status.FALSIFIED for v in verdicts) for a, verdicts in found.items()}
    assert falsified[True] > 0 and not any(v.method == "attack" for v in found[False])
    if method in BOUNDS:
        left = [v for v in found[False] if v.status is Status.UNKNOWN]
        assert falsified[False] == 0 and "no failing member was looked for" in left[0].detail
    else:
        assert falsified[False] == falsified[True]


def test_each_method_decides_what_those_before_it_do(rng: np.random.Generator) -> None:
    """A named stage is the last: none behind it decides, and what it leaves open names it. It verifies what `auto` has
    verified by then; most stages prove something here that those before them do not."""
    network = mlp(rng, 8, 16, 16, 16, 3)
    x, labels = samples(network, rng, 60)
    counts = dict.fromkeys(BOUNDS, 0)
    for size in (0.003, 0.005, 0.008):
        radii, before = Radii(size, size, size, size), set[int]()
        auto = verify(network, x, labels, radii, Options(seconds=None))
        for number, method in enumerate(BOUNDS):
            stages = BOUNDS[: number + 1]
            found = verify(network, x, labels, radii, Options(method=method, seconds=None))
            verified = {v.index for v in found if v.status is Status.VERIFIED}
            assert {v.method for v in found} <= {"forward", "attack", *stages}
            assert {v.method for v in found if v.status is Status.UNKNOWN} <= {method}
            assert {v.index for v in auto if v.method in stages} | before <= verified
            counts[method] += len(verified - before)
            before = verified
    assert sum(map(bool, counts.values())) >= 4, counts


def affine(name: str, source: int, weight: list[list[float]], bias: list[float]) -> Dense:
    return Dense(name, (source,), (len(weight),), weight=np.array(weight), bias=np.array(bias))


@pytest.mark.parametrize("method", PROVING)
def test_nothing_is_verified_by_products_that_underflow(method: str) -> None:
    """In the backward pass, as in the duals of the program, -a meets a: their product is 0 in float64, and times an
    input of 1 / a it is -a. With it the margin is a relu(2 - a x) - 1.25 a, at worst -0.25 a; without, 0.75 a."""
    a = 2.0**-600
    layers = [Input("x", (), (1,)), affine("grow", 0, [[1 / a]], [0.0])]
    layers += [relu("r", 1, layers[1]), affine("d", 2, [[-a]], [2.0])]
    layers += [relu("s", 3, layers[3]), affine("out", 4, [[a], [0.0]], [-1.25 * a, 0.0])]
    network = Network(tuple(layers))
    assert margins(network.evaluate(np.array([[1.0]])), np.array([0]))[0] == -0.25 * a
    (verdict,) = verify(network, np.array([[0.5]]), np.array([0]), Radii(input=0.5), Options(method=method))
    assert verdict.status is not Status.VERIFIED and verdict.margin_lower <= -0.25 * a


@pytest.mark.parametrize("method", PROVING)
def test_nothing_is_verified_by_sums_that_overflow(method: str) -> None:
    """The ends of a layer are finite, but upper - lower is not: a chord of slope upper / inf = 0 would say that the
    Relu is never above 0. With it the margin is 0.5; the network answers [0.5, 1.3] at the upper end."""
    big = 2.0**1022
    layers = [Input("x", (), (1,)), affine("a", 0, [[2.0 * big]], [0.0])]
    layers += [relu("r", 1, layers[1]), affine("b", 2, [[2.0**-500]], [0.0])]
    layers += [relu("s", 3, layers[3]), affine("out", 4, [[0.0], [2.0**-523]], [0.5, 0.0])]
    network = Network(tuple(layers))
    with pytest.raises(RadiiError, match="'a' overflow"):
        verify(network, np.zeros((1, 1)), np.array([0]), Radii(input=1.3), Options(method=method, attack=False))


@pytest.mark.parametrize("method", PROVING)
def test_nothing_is_verified_by_positions_whose_sum_overflows(method: str) -> None:
    """BP sums a convolution's positions before it multiplies by the kernel; here that sum is beyond 1e308, while what
    the network computes is not. The worst kernel makes the margin negative."""
    x, w, a = 2.0**600, 2.0**-600, 2.0**500
    kernel = np.full((1, 1, 1, 1), w)
    first = Conv("c", (0,), (1, 1, 2), weight=kernel, bias=np.zeros(1), in_shape=(1, 1, 2))
    last = affine("out", 2, [[a, a], [0.0, 0.0]], [0.0, a])
    network = Network((Input("x", (), (1, 1, 2)), first, relu("r", 1, first), last))
    radii = Radii(input=0.5 * x, layers={"c": {"weight": 0.6 * w}})
    (verdict,) = verify(network, np.full((1, 2), x), np.array([0]), radii, Options(method=method, attack=False))
    assert verdict.status is not Status.VERIFIED and verdict.margin_lower <= -0.5 * a
