"""A solver that lies never yields a wrong verdict that members, bounds or another part could have caught."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.arrays import Array
from qverify.errors import InternalError, ModelTooLarge, SolverError
from qverify.exact import decide, solvers
from qverify.exact.branching import Tree
from qverify.exact.decide import Known, Ruling, proved_bound, rule, tolerance
from qverify.exact.gain import Gain
from qverify.exact.program import Objective
from qverify.exact.solvers.base import Availability, Ending, Limits, Outcome
from qverify.family.radii import Radii
from qverify.layers import Input
from qverify.network import Network
from qverify.verification import attack, cascade
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status, Verdict
from tests.support.networks import conv, dense, mlp, relu

HIGHS = solvers.adapter("highs")


@pytest.fixture(autouse=True, scope="module")
def little_before() -> Iterator[None]:
    """Neither optimised bounds nor much of an attack: what is asked here has to reach the exact step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "targets", lambda model: {})
        patch.setattr(attack, "QUICK", replace(attack.QUICK, steps=1))
        yield


class Liar:
    """HiGHS (and our tree, in `with_liar`) whose outcomes pass through `lie(outcome, relaxed) -> outcome`."""

    name, products = "highs", False

    def __init__(self, lie: Callable[..., Any]) -> None:
        self.lie = lie
        self.asked = 0

    def availability(self) -> Any:
        return HIGHS.availability()

    def open(self, program: Any, threads: Any = 1, stop: Any = None) -> Any:
        session, liar = HIGHS.open(program, threads, stop), self

        class Session:
            def minimise(self, objective: Any, limits: Any, relax: Any = False) -> Any:
                liar.asked += 1
                return liar.lie(session.minimise(objective, limits, relax), relax)

            def close(self) -> None:
                session.close()

        return Session()


def question(seed: int) -> tuple[Network, Array, np.ndarray, Radii]:
    """A network, samples and radii of which the exact step decides several, both ways."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, 5, 12, 12, 12, 3)
    x = rng.normal(size=(60, 5))[:24]
    radii = Radii(input=0.072, weight=0.024, bias=0.036, activation=0.024)
    return network, x, network.evaluate(x).argmax(1), radii


def with_liar(monkeypatch: pytest.MonkeyPatch, lie: Callable[..., Any], seed: int = 0, method: str = "auto") -> Any:
    truth()  # cached before the liar takes over
    network, x, labels, radii = question(seed)
    liar = Liar(lie)

    class LyingTree(Tree):
        def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
            liar.asked += 1
            found: Outcome = lie(super().minimise(objective, limits, relax), relax)
            return found

    monkeypatch.setattr("qverify.exact.solvers.host.Tree", LyingTree)
    monkeypatch.setattr("qverify.exact.search.solvers.choose", lambda name, products: liar)
    monkeypatch.setattr("qverify.exact.search.solvers.adapter", lambda name: liar)
    verdicts = verify(network, x, labels, radii, Options(method=method, isolated=False))
    assert liar.asked > 0
    return verdicts


@functools.cache
def truth(seed: int = 0, method: str = "auto") -> list[Verdict]:
    return verify(*question(seed), Options(method=method))


def test_the_question_needs_the_solver() -> None:
    decided = {(v.status, v.method) for v in truth()}
    assert {(Status.VERIFIED, "exact"), (Status.FALSIFIED, "exact")} <= decided
    assert Status.UNKNOWN not in {v.status for v in truth()}


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, -1e30])
def test_a_missing_bound_verifies_nothing(monkeypatch: pytest.MonkeyPatch, bound: float) -> None:
    verdicts = with_liar(monkeypatch, lambda outcome, relaxed: replace(outcome, dual_bound=bound, row_duals=None))
    for true, verdict in zip(truth(), verdicts, strict=True):
        if true.method == "exact":
            assert verdict.status in (Status.UNKNOWN, Status.FALSIFIED)
            assert verdict.status is Status.UNKNOWN or true.status is Status.FALSIFIED
        else:
            assert verdict.status is true.status


@pytest.mark.parametrize("status", [Ending.INFEASIBLE, Ending.UNBOUNDED, Ending.FAILED])
def test_a_false_status_is_unknown_whatever_the_bound(monkeypatch: pytest.MonkeyPatch, status: Ending) -> None:
    def lie(outcome: Outcome, relaxed: bool) -> Outcome:
        return Outcome(status=status, dual_bound=5.0, message="boom")

    verdicts = with_liar(monkeypatch, lie)
    for true, verdict in zip(truth(), verdicts, strict=True):
        assert verdict.status is (Status.UNKNOWN if true.method == "exact" else true.status)
        if true.method == "exact":
            assert "another --solver" in verdict.detail


def test_a_wrong_incumbent_falsifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points from nowhere with values to die for: what counts is the member made from them."""
    rng = np.random.default_rng(0)

    def lie(outcome: Outcome, relaxed: bool) -> Outcome:
        if outcome.point is None:
            return outcome
        noise = rng.normal(size=len(outcome.point))
        return replace(outcome, status=Ending.TARGET_REACHED, incumbent=-100.0, point=noise, dual_bound=-math.inf)

    for true, verdict in zip(truth(), with_liar(monkeypatch, lie), strict=True):
        if true.status is Status.VERIFIED:
            assert verdict.status in (Status.VERIFIED, Status.UNKNOWN)
            assert verdict.margin_upper > 0


@pytest.mark.parametrize("point", ["nan", "none"])
def test_no_usable_point_is_no_member(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    def lie(outcome: Outcome, relaxed: bool) -> Outcome:
        made = None if point == "none" or outcome.point is None else np.full_like(outcome.point, np.nan)
        return replace(outcome, point=made)

    for true, verdict in zip(truth(), with_liar(monkeypatch, lie), strict=True):
        assert verdict.status in (true.status, Status.UNKNOWN)


def test_a_bound_above_a_member_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that is too high is caught as soon as any member lies below it."""
    with pytest.raises(InternalError, match="concrete member"):
        with_liar(monkeypatch, lambda outcome, relaxed: replace(outcome, dual_bound=1e3, row_duals=None))


def test_a_slightly_high_bound_is_caught_by_the_member_of_its_own_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimum's own point gives a member; a bound above it refutes itself (method exact: no early stop)."""

    def lie(outcome: Outcome, relaxed: bool) -> Outcome:
        return outcome if relaxed else replace(outcome, dual_bound=outcome.dual_bound + 0.01)

    with pytest.raises(InternalError, match="concrete member"):
        with_liar(monkeypatch, lie, method="exact")


def test_rule() -> None:
    assert rule(Known(lower=1e-9), 1.0) is Ruling.HOLDS
    assert rule(Known(lower=0.0), 1.0) is Ruling.OPEN
    assert rule(Known(lower=-1.0, upper=1.0), 1.0) is Ruling.OPEN
    assert rule(Known(lower=-1.0, upper=0.0), 1.0) is Ruling.BROKEN
    assert rule(Known(lower=-math.inf), 1.0) is Ruling.OPEN


@pytest.mark.parametrize(
    "known",
    [
        Known(lower=0.1, upper=0.0),
        Known(lower=3.0, upper=2.9),
        Known(lower=1e-30, upper=5e-31),
        Known(lower=2e-20, upper=1e-20),
    ],
)
def test_a_member_below_a_bound_is_an_error_however_small_the_outputs_are(known: Known) -> None:
    with pytest.raises(InternalError):
        rule(known, 10.0 * known.lower)
    assert rule(Known(lower=known.upper * (1 + 1e-10), upper=known.upper), 10.0) is (
        Ruling.HOLDS if known.upper > 0 else Ruling.BROKEN
    )


def test_proved_bound_takes_the_tolerance_off() -> None:
    assert proved_bound(Outcome(status=Ending.OPTIMAL, dual_bound=2.0), 0.5) == 1.5
    assert proved_bound(Outcome(status=Ending.TIME_LIMIT, dual_bound=-2.0), 0.5) == -2.5
    for status in Ending:
        assert proved_bound(Outcome(status=status, dual_bound=math.inf), 0.0) == -math.inf
        assert proved_bound(Outcome(status=status, dual_bound=math.nan), 0.0) == -math.inf


def test_the_reason_names_the_tolerance_only_where_it_is_one() -> None:
    done = Outcome(status=Ending.OPTIMAL, dual_bound=0.0)
    for known in (Known(-1e-9, 3.0), Known(-5.0, 1e-9)):
        assert "within the solver's tolerance of 0" in decide.reason(done, known, 1e-8)
    apart = decide.reason(done, Known(-117.2, 100.42), 1e-3)
    assert apart == "the program's worst case is -117, of which members were found to reach 100"
    assert decide.reason(replace(done, status=Ending.TIME_LIMIT), Known(-1.0, 1.0), 1e-8) == "time limit"


@pytest.mark.slow
def test_too_large_for_gurobi_is_refused_by_name_and_auto_goes_on() -> None:
    rng = np.random.default_rng(0)
    network = mlp(rng, 30, 800, 700, 600, 3)
    x = rng.normal(size=(1, 30))
    labels = network.evaluate(x).argmax(1)
    radii = Radii(input=1e-4, weight=1e-5)
    if solvers.adapter("gurobi").full_licence():  # type: ignore[attr-defined]
        pytest.skip("the licence here has no limit")
    with pytest.raises(ModelTooLarge, match=r"2000 variables.*--solver highs"):
        verify(network, x, labels, radii, Options("exact", solver="gurobi"))
    assert solvers.choose("auto", False).name == "highs"


class _Broken:
    name, products = "gurobi", True

    def availability(self) -> Availability:
        return Availability(
            works=False, version="1", licence="none", remedy="Gurobi finds no licence; use `--solver highs`."
        )


def test_no_licence_is_a_solver_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(solvers.ADAPTERS, "gurobi", _Broken())
    with pytest.raises(SolverError, match="no licence"):
        verify(*question(0), Options("exact", solver="gurobi"))


def convolutional(rng: np.random.Generator) -> Network:
    first = conv(rng, "conv", 0, (1, 3, 3), (2, 1, 2, 2))
    layers = (Input("x", (), (1, 3, 3)), first, relu("relu", 1, first))
    return Network((*layers, dense(rng, "out", 2, 2, first.size)))


def test_bilinear_decides_what_independent_positions_leave_open() -> None:
    """The shared kernel matters: relational alone is unknown, the default goes on to the bilinear program."""
    decided = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = convolutional(rng)
        x = rng.normal(size=(3, 9))
        labels = network.evaluate(x).argmax(1)
        radii = Radii(input=0.02, weight=0.25, bias=0.05, activation=0.02)
        relational = verify(network, x, labels, radii, Options(solver="highs"))
        automatic = verify(network, x, labels, radii)
        for first, second in zip(relational, automatic, strict=True):
            if first.status is not Status.UNKNOWN:
                assert second.status is first.status
                continue
            assert first.scope == "independent positions"
            assert second.status in (Status.VERIFIED, Status.FALSIFIED)
            assert (second.method, second.scope) == ("exact", "exact")
            decided += second.status is Status.VERIFIED
    assert decided >= 1


def test_tolerances() -> None:
    gain = Gain(ranges=100.0, magnitudes=1000.0)
    relational, bilinear = tolerance(gain, False), tolerance(gain, True)
    assert relational == pytest.approx(decide.TOLERANCE * 100, rel=1e-3)
    assert bilinear == pytest.approx(decide.TOLERANCE * 1000, rel=1e-3)
