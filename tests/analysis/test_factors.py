"""Brackets of factors against closed forms, against `verify` at single factors, and against properties they have."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.analysis import factors as radius
from qverify.analysis.factors import FactorSearch, largest_factors
from qverify.analysis.grid import Bracket, Grid
from qverify.errors import DataError, InternalError, RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status, Verdict
from tests.support import networks
from tests.support.networks import Array
from tests.support.paths import MODELS

COARSE = Grid(8.0, 0.05)
IBP, BP = Options(method="ibp", attack=False), Options(method="bp", attack=False)
AUTO = Options(jobs=2)


def question(network: Network, rng: np.random.Generator, count: int = 20) -> tuple[Array, Array]:
    """Inputs of mixed signs, and labels of which all but two are what the network says."""
    x = rng.normal(size=(count, network.input_size))
    labels = network.evaluate(x).argmax(1)
    labels[-2:] = (labels[-2:] + 1) % network.output_size
    return x, labels


def places(grid: Grid, brackets: list[Bracket]) -> list[int]:
    """Where on the grid the lower ends are."""
    return [-1 if b.lower is None else grid.factors.index(b.lower) for b in brackets]


# --- closed forms ---


def one_layer(rng: np.random.Generator) -> Network:
    weight, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    return Network((Input("x", (), (6,)), Dense("fc", (0,), (4,), weight=weight, bias=bias)))


def test_one_layer_has_a_closed_form(rng: np.random.Generator) -> None:
    """Weights and biases: margin_j - c ((R_t + R_j) . |x| + r_t + r_j) is 0 at the c looked for, by rival."""
    network = one_layer(rng)
    x, labels = question(network, rng, 20)
    weight, bias = 0.1 * rng.random((4, 6)), 0.1 * rng.random(4)
    weight[:, 2], bias[1] = 0.0, 0.0
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    outputs, spread = x @ layer.weight.T + layer.bias, np.abs(x) @ weight.T + bias
    expected = []
    for i, t in enumerate(labels):
        rivals = [j for j in range(4) if j != t]
        expected.append(min((outputs[i, t] - outputs[i, j]) / (spread[i, t] + spread[i, j]) for j in rivals))
    grid = Grid(12, 0.02)
    for options in (IBP, BP, AUTO):
        found = largest_factors(
            network, x, labels, Radii(layers={"fc": {"weight": weight, "bias": bias}}), grid, options
        )
        assert [b.index for b in found] == list(range(20)) and [b.label for b in found] == labels.tolist()
        for bracket, factor in zip(found, expected, strict=True):
            if factor <= 0:
                assert bracket.misclassified and bracket.lower is None and bracket.upper == 0.0
                assert bracket.factor == 0.0
                continue
            assert bracket.lower is not None and bracket.lower <= factor * (1 + 1e-9)
            assert bracket.lower == 12 or bracket.lower >= factor / 1.02001
            if options.attack:
                assert bracket.upper is None or bracket.upper >= factor * (1 - 1e-9)
                assert (bracket.upper is None) == (bracket.lower == 12)
                assert bracket.upper is None or bracket.upper <= bracket.lower * 1.02001
            else:
                assert bracket.upper is None
    assert sum(f > 0 for f in expected) == 18 and max(expected) > 12 and min(f for f in expected if f > 0) < 1


def test_one_layer_with_its_input_quantised_too(rng: np.random.Generator) -> None:
    """The worst margin by rival: every x_i at an end of its interval, every weight at the end that sign(x_i) says."""
    network, own = one_layer(rng), np.array([0.05, 0.0, 0.1, 0.02, 0.2, 0.01])
    x, labels = question(network, rng, 12)
    layer = network.layers[1]
    assert isinstance(layer, Dense)

    def worst(i: int, c: float) -> float:
        ends = np.stack([x[i] - c * own, x[i], x[i] + c * own])
        t, margins = labels[i], []
        for j in (j for j in range(4) if j != t):
            terms = (layer.weight[t] - layer.weight[j]) * ends - 2 * c * 0.03 * np.abs(ends)
            margins.append(terms.min(0).sum() + layer.bias[t] - layer.bias[j] - 2 * c * 0.04)
        return float(min(margins))

    grid = Grid(16, 0.05)
    for bracket in largest_factors(network, x, labels, Radii(own, 0.03, 0.04), grid, AUTO):
        if not bracket.misclassified:
            assert bracket.lower is not None and worst(bracket.index, bracket.lower) > -1e-12
            assert worst(bracket.index, grid.factors[grid.factors.index(bracket.lower) + 1]) < 1e-12
            assert bracket.upper is not None and worst(bracket.index, bracket.upper) <= 1e-12


# --- against verify at single factors, and properties ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "signed_hidden", "residual", "conv_pool"])
def test_both_ends_are_what_verify_says_there(name: str, rng: np.random.Generator) -> None:
    network = networks.NETWORKS[name](rng)
    x, labels = question(network, rng, 5)
    radii = networks.random_radii(network, rng)
    closed = 0
    for b in largest_factors(network, x, labels, radii, COARSE, AUTO):
        here = (x[[b.index]], labels[[b.index]])
        if b.misclassified:
            assert network.evaluate(here[0]).argmax() != b.label and b.lower is None
            continue
        assert b.lower is not None and b.predicted == b.label
        assert verify(network, *here, radii.scaled(b.lower), AUTO)[0].status is Status.VERIFIED
        if b.upper is None:
            assert b.lower == 8.0 or b.detail
            continue
        assert b.lower < b.upper
        closed += COARSE.factors.index(b.upper) == COARSE.factors.index(b.lower) + 1
        (verdict,) = verify(network, *here, radii.scaled(b.upper), AUTO)
        assert verdict.status is Status.FALSIFIED
        family = Family.of(network, radii.scaled(b.upper))
        for corner in (False, True):  # random members, evaluated by the oracle's own forward pass
            outputs = networks.sample_members(Family.of(network, radii.scaled(b.lower)), here[0][0], rng, 60, corner)[
                -1
            ]
            rivals = np.delete(outputs, b.label, axis=1).max(1)
            assert (outputs[:, b.label] > rivals).all()
        witness = verdict.witness()
        assert witness is not None and membership(family, witness.network, here[0][0], witness.input) == []
    assert closed >= 3 or network.shares_weights


def test_the_members_found_fail_in_a_plain_forward_pass(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict that set `upper` came with a member: taken here as it passes by."""
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = question(network, rng, 10)
    failing: dict[float, list[float]] = {}

    def watched(network: Network, x: Array, y: np.ndarray, radii: Radii, *more: Any) -> list[Verdict]:
        verdicts = verify(network, x, y, radii, *more)
        for verdict in verdicts:
            if verdict.status is Status.FALSIFIED:
                witness = verdict.witness()
                assert witness is not None
                outputs = witness.network.evaluate(witness.input[None])[0]
                assert outputs.argmax() != verdict.label or np.sort(outputs)[-1] == np.sort(outputs)[-2]
                failing.setdefault(float(radii.weight), []).append(float(x[verdict.index][0]))
        return verdicts

    monkeypatch.setattr(radius, "verdicts", watched)
    found = largest_factors(network, x, labels, Radii(0.02, 0.03, 0.03, 0.02), COARSE, AUTO)
    checked = [b for b in found if b.upper]
    assert len(checked) >= 8
    for b in checked:
        assert x[b.index][0] in failing[float(np.asarray(0.03) * b.upper)]


@pytest.mark.slow
def test_a_sharper_method_proves_no_less(rng: np.random.Generator) -> None:
    more = 0
    for name in ("dense", "conv_attributes"):
        network = networks.NETWORKS[name](rng)
        x, labels = question(network, rng, 6)
        radii = networks.random_radii(network, rng)
        by = [largest_factors(network, x, labels, radii, COARSE, options) for options in (IBP, BP, AUTO)]
        ibp, bp, auto = (places(COARSE, found) for found in by)
        for i, known in enumerate(by[2]):
            assert ibp[i] <= bp[i] <= auto[i]
            assert not known.upper or known.upper > max(found[i].factor for found in by)
        more += (sum(auto) > sum(bp)) + (sum(bp) > sum(ibp))
        assert {b.proved_by for b in by[0]} <= {"", "ibp"} and {b.broken_by for b in by[1]} <= {"", "forward"}
    assert more >= 3


def test_factor_1_is_what_verify_says_of_the_radii_themselves() -> None:
    network, samples = onnx_io.load(MODELS / "digits.onnx"), datasets.load("digits")
    x, labels, radii = samples.x[:50], samples.y[:50], Radii.from_bits(6)
    for options in (IBP, BP):
        proved = [v.index for v in verify(network, x, labels, radii, options) if v.status is Status.VERIFIED]
        found = largest_factors(network, x, labels, radii, Grid(4, 0.1), options)
        assert [b.index for b in found if b.factor >= 1] == proved and 25 < len(proved) < 50
    halved = largest_factors(network, x, labels, radii.scaled(2), Grid(2, 0.1), IBP)
    whole = largest_factors(network, x, labels, radii, Grid(4, 0.1), IBP)
    np.testing.assert_allclose([2 * b.factor for b in halved], [b.factor for b in whole], rtol=0.1001)


def test_schemes_that_clip() -> None:
    """Samples beyond the calibrated ranges: clipping stays in force at every factor, also at 0."""
    network, samples = onnx_io.load(MODELS / "digits.onnx"), datasets.load("digits")
    x, labels = samples.x[:40].reshape(40, -1), samples.y[:40]
    radii = Radii.from_bits(8, "tensor", "nearest", network, 0.3 * x)
    grid = Grid(8, 0.1)
    found = largest_factors(network, x, labels, radii, grid, BP)
    assert any(b.lower is None and not b.misclassified for b in found) and any(b.factor > 0.1 for b in found)
    for b in found:
        status = [
            verify(network, x[[b.index]], labels[[b.index]], radii.scaled(f), BP)[0].status
            for f in ([] if b.lower is None else [b.lower, 0.7 * b.lower]) + ([] if b.misclassified else [0.0])
        ]
        assert all((s is Status.VERIFIED) == (b.lower is not None) for s in status)


def test_input_that_stays_in_its_range(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 4, 6, 3)
    x = rng.integers(0, 2, (12, 4)).astype(float)
    labels = network.evaluate(x).argmax(1)
    free = largest_factors(network, x, labels, Radii(0.1), COARSE, IBP)
    clipped = largest_factors(network, x, labels, Radii(0.1), COARSE, Options(method="ibp", attack=False, clip=(0, 1)))
    assert all(a.factor <= b.factor for a, b in zip(free, clipped, strict=True))
    assert sum(a.factor < b.factor for a, b in zip(free, clipped, strict=True)) > 3
    with pytest.raises(DataError, match="Some inputs lie outside --clip-input"):
        largest_factors(network, x + 2, labels, Radii(0.1), COARSE, Options(method="ibp", clip=(0, 1)))


@pytest.mark.slow
def test_each_factor_is_asked_once_a_stage_and_a_proof_was_run_at_every_lower(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = question(network, rng, 10)
    asked: list[tuple[str, bool, float]] = []
    proved: set[Any] = set()

    def watched(network: Network, x: Array, y: np.ndarray, radii: Radii, options: Options, *more: Any) -> list[Verdict]:
        asked.append((options.method, options.attack, float(radii.weight)))
        verdicts = verify(network, x, y, radii, options, *more)
        proved.update((float(radii.weight), x[v.index][0]) for v in verdicts if v.status is Status.VERIFIED)
        return verdicts

    monkeypatch.setattr(radius, "verdicts", watched)
    found = largest_factors(network, x, labels, Radii(0.05, 0.1, 0.03, 0.05), Grid(8, 0.1), AUTO)
    assert len(asked) == len(set(asked)) and {a[0] for a in asked} == {"ibp", "bp", "auto"}
    assert all((float(np.asarray(0.1) * b.lower), x[b.index][0]) in proved for b in found if b.lower is not None)
    assert sum(b.lower is not None for b in found) >= 7


# --- what ends early, or contradicts ---


def test_an_unknown_is_no_claim(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown from factor 1 to 3: the bracket spans that, whichever way the bisection goes."""

    def scripted(
        network: Network,
        x: Array,
        y: np.ndarray,
        radii: Radii,
        options: Options,
        on_verdict: Any,
        stop: threading.Event,
    ) -> list[Verdict]:
        factor = float(radii.weight)
        status = Status.VERIFIED if factor < 1 else Status.UNKNOWN if factor <= 3 else Status.FALSIFIED
        if status is Status.FALSIFIED and not options.attack:
            status = Status.UNKNOWN
        return [
            Verdict(
                index=i,
                label=0,
                predicted=0,
                status=status,
                margin_lower=0,
                margin_upper=0,
                method=options.method,
                seconds=0.5,
                detail="time limit",
            )
            for i in range(len(x))
        ]

    monkeypatch.setattr(radius, "verdicts", scripted)
    network, grid = networks.mlp(rng, 3, 4, 2), Grid(16, 0.1)
    (found,) = largest_factors(network, np.ones((1, 3)), np.zeros(1, int), Radii(weight=1.0), grid, AUTO)
    assert found.lower == max(f for f in grid.factors if f < 1) and found.upper == min(f for f in grid.factors if f > 3)
    assert found.detail == "time limit" and found.seconds > 0.5
    bounds = largest_factors(network, np.ones((1, 3)), np.zeros(1, int), Radii(weight=1.0), grid, BP)
    assert bounds[0].lower == found.lower and bounds[0].upper is None and bounds[0].detail == ""


def test_a_contradiction_is_an_internal_error(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def scripted(
        network: Network, x: Array, y: np.ndarray, radii: Radii, options: Options, *more: Any
    ) -> list[Verdict]:
        status = Status.FALSIFIED if options.attack else Status.VERIFIED
        factor = float(radii.weight)
        status = Status.UNKNOWN if factor > (16 if options.attack else 2) else status
        return [
            Verdict(
                index=i,
                label=0,
                predicted=0,
                status=status,
                margin_lower=0,
                margin_upper=0,
                method=options.method,
                seconds=0.0,
            )
            for i in range(len(x))
        ]

    class Reset(radius._Chunk):
        def begin(self) -> None:
            super().begin()
            self.low = np.zeros_like(self.proved)

    monkeypatch.setattr(radius, "verdicts", scripted)
    monkeypatch.setattr(radius, "_Chunk", Reset)
    with pytest.raises(InternalError, match="Sample 0 is proved at a factor, and a member fails"):
        largest_factors(networks.mlp(rng, 3, 4, 2), np.ones((1, 3)), np.zeros(1, int), Radii(weight=1.0), None, AUTO)


def test_a_stopped_search_tells_finished_brackets_only(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = question(network, rng, 12)
    radii, stop, told = Radii(0.05, 0.1, 0.1, 0.05), threading.Event(), []

    def tell(bracket: Bracket) -> None:
        told.append(bracket)
        if len(told) == 5:
            stop.set()

    grid, options = Grid(2, 0.2), Options(jobs=1, attack=False)  # else attacks break them all at once
    FactorSearch(network, radii, grid, options, stop).run(x, labels, tell)
    whole = largest_factors(network, x, labels, radii, grid, options)
    assert 5 <= len(told) < 12
    assert all((b.lower, b.upper) == (whole[b.index].lower, whole[b.index].upper) for b in told)


def test_chunks_make_no_difference(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = question(network, rng, 23)
    radii = Radii(0.02, 0.03, 0.03, 0.02)
    whole = largest_factors(network, x, labels, radii, COARSE, BP)
    monkeypatch.setattr(radius, "_CHUNK", 7)
    parts = largest_factors(network, x, labels, radii, COARSE, BP)
    assert [(b.index, b.label, b.lower) for b in parts] == [(b.index, b.label, b.lower) for b in whole]


def test_what_cannot_be_asked(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 3, 4, 2)
    data = (np.ones((2, 3)), np.zeros(2, int))
    with pytest.raises(RadiiError, match="All radii are 0, and so is every multiple of them; state radii above 0"):
        largest_factors(network, *data, Radii(layers={"fc0": {"weight": 0.0}}))
    with pytest.raises(UsageError, match="not searched by method 'exact'; choose auto, ibp, bp"):
        largest_factors(network, *data, Radii(0.1), options=Options(method="exact"))
    with pytest.raises(RadiiError, match="NaN or infinity"):
        largest_factors(network, *data, Radii(1e308))
    with pytest.raises(DataError, match="The labels have shape"):
        largest_factors(network, data[0], data[1][:1], Radii(0.1))
