"""The time limit of a sample holds for all stages together, and what was proved by then is handed on.

Stages take long by the clock, which is put forward; where they really do: test_large_network.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qverify.analysis import discrepancies as discrepancy
from qverify.analysis import unstable
from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.analysis.factors import largest_factors
from qverify.analysis.grid import Grid
from qverify.bounds import refinement
from qverify.budget import Deadline
from qverify.errors import UsageError
from qverify.exact import search
from qverify.exact.search import Search
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.network import Network, margins
from qverify.verification import attack, branching, cascade, setup
from qverify.verification.cascade import verify
from qverify.verification.exact_step import ExactStep
from qverify.verification.row import Row
from qverify.verification.verdict import Options, Status, Verdict
from qverify.workers import dispatch, worker
from qverify.workers.tasks import Parcels, Setting, Task
from tests.support.cases import Plain
from tests.support.networks import Array, inputs, mlp, sample_members
from tests.support.progress import Silent

LIMIT, AGES = 50.0, 1e5
"""Seconds for a sample, and seconds that no batch here has."""
RADII = Radii(0.02, 0.02, 0.02, 0.02)


class Clock:
    """The clock of all stages; `on(module, name)` lets a function take ages, before or after it works."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch, self._ahead, self.used = patch, 0.0, 0
        for name in ("monotonic", "perf_counter"):
            patch.setattr(time, name, self._read(getattr(time, name)))

    def _read(self, real: Callable[[], float]) -> Callable[[], float]:
        return lambda: real() + self._ahead

    def on(self, owner: Any, name: str, after: bool = False, seconds: float = AGES) -> None:
        before: Callable[..., Any] = getattr(owner, name)

        def slow(*given: Any, **more: Any) -> Any:
            self.used += 1
            self._ahead += 0.0 if after else seconds
            try:
                return before(*given, **more)
            finally:
                self._ahead += seconds if after else 0.0

        self._patch.setattr(owner, name, slow)


@pytest.fixture(autouse=True)
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that leaves something to every stage."""
    weak = replace(attack.QUICK, steps=1)
    monkeypatch.setattr(attack, "QUICK", weak)
    for module, names in ((cascade, ("FIRST", "GUIDED", "THOROUGH")), (branching, ("THOROUGH", "SLOW"))):
        for name in names:
            monkeypatch.setattr(module, name, weak)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def problem() -> tuple[Network, Array, Array]:
    """A network, and samples of which each stage decides some."""
    rng = np.random.default_rng(20240229)
    network = mlp(rng, 5, 8, 6, 3)
    x = np.concatenate([inputs(network, rng) for _ in range(5)])
    return network, x, network.evaluate(x).argmax(1)


def options(**more: Any) -> Options:
    return Options(**{"seconds": LIMIT, "jobs": 1, "isolated": False, **more})


def by_index(verdicts: list[Verdict]) -> dict[int, Verdict]:
    return {verdict.index: verdict for verdict in verdicts}


@pytest.fixture(scope="module")
def truth() -> dict[int, Verdict]:
    """The worst margin of every sample, to the solver's tolerance, with all the time there is."""
    found = verify(*problem(), RADII, options(method="exact", seconds=None))
    assert {v.status for v in found} == {Status.VERIFIED, Status.FALSIFIED}
    for verdict in found:
        assert verdict.margin_upper - verdict.margin_lower < 1e-5 or verdict.status is Status.FALSIFIED
    return by_index(found)


def honest(verdicts: list[Verdict], truth: dict[int, Verdict]) -> None:
    """Every sample has a verdict that is not wrong, by the truth and by members drawn at random."""
    network, x, y = problem()
    family, rng = Family.of(network, RADII), np.random.default_rng(7)
    assert [v.index for v in verdicts] == list(range(len(x)))
    for verdict in verdicts:
        true = truth[verdict.index]
        assert verdict.margin_lower <= true.margin_upper + 1e-9
        assert verdict.margin_upper >= true.margin_lower - 1e-9
        assert verdict.status in (true.status, Status.UNKNOWN)
        members = sample_members(family, x[verdict.index], rng, 50, corner=True)[-1]
        assert margins(members, np.full(50, y[verdict.index])).min() >= verdict.margin_lower - 1e-9
        if verdict.status is Status.UNKNOWN:
            assert verdict.limit == LIMIT and verdict.detail.startswith("time limit"), verdict
            assert verdict.seconds >= LIMIT


def proved_by(method: str) -> dict[int, Verdict]:
    return by_index(verify(*problem(), RADII, options(method=method, attack=False, seconds=None)))


# --- stage after stage ---


@pytest.mark.parametrize("method", ["auto", "ibp", "bp", "exact"])
def test_no_time_for_interval_bounds(method: str, clock: Clock, truth: dict[int, Verdict]) -> None:
    clock.on(setup, "interval_bounds")
    found = verify(*problem(), RADII, options(method=method))
    honest(found, truth)
    assert clock.used == 1
    for verdict in found:
        assert verdict.status is Status.UNKNOWN and verdict.margin_lower == -np.inf
        assert verdict.row().margin_lower is None and verdict.margin_upper > 0
        assert (verdict.method, verdict.detail) == ("ibp", "time limit: not even interval bounds could be computed")


@pytest.mark.parametrize("method", ["auto", "bp", "exact"])
@pytest.mark.parametrize(
    ("stage", "after", "reached"),
    [
        *(("attack", False, "ibp"), ("attack", True, "ibp"), ("interval_margins", True, "ibp")),
        *(("backward_margins", False, "ibp"), ("backward_margins", True, "bp")),
    ],
)
def test_a_stage_that_takes_all_the_time_hands_on_the_bounds_so_far(
    method: str, stage: str, after: bool, reached: str, truth: dict[int, Verdict], clock: Clock
) -> None:
    before = proved_by(reached)
    clock.on(cascade, stage, after)
    found = verify(*problem(), RADII, options(method=method))
    honest(found, truth)
    assert clock.used == 1
    assert any(v.status is Status.UNKNOWN for v in found)
    for verdict in found:
        if verdict.status is Status.UNKNOWN:
            lower = before[verdict.index].margin_lower
            assert verdict.margin_lower >= lower - 1e-12
            assert reached != "ibp" or verdict.margin_lower <= lower + 1e-12  # no stage went on
        elif verdict.status is Status.VERIFIED:
            assert before[verdict.index].status is Status.VERIFIED and method != "exact"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["auto", "exact"])
def test_bounds_at_every_layer_take_all_the_time(
    method: str, after: bool, truth: dict[int, Verdict], clock: Clock
) -> None:
    before = proved_by("bp")
    clock.on(cascade, "tightened_bounds", after)
    found = verify(*problem(), RADII, options(method=method))
    honest(found, truth)
    unknown = [v for v in found if v.status is Status.UNKNOWN]
    assert clock.used == 1 and unknown
    for verdict in unknown:
        assert verdict.margin_lower >= before[verdict.index].margin_lower - 1e-12


def test_bounds_at_every_layer_look_at_the_clock_between_pieces(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a small cap there are many pieces; the first one takes all the time."""
    network, x, _ = problem()
    monkeypatch.setattr(setup, "working_memory", lambda memory, needed: 1500)
    work = setup.Setup(network, RADII, options())
    bounds = work.intervals(x[:4])
    clock.on(refinement, "backward_bound", after=True)
    refinement.tightened_bounds(work.model, bounds, Deadline.after(LIMIT, threading.Event()))
    assert clock.used == 1
    refinement.tightened_bounds(work.model, bounds)
    assert clock.used > 4


@pytest.mark.parametrize("method", ["auto", "exact"])
def test_no_time_to_set_up_the_program(method: str, truth: dict[int, Verdict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "count_coefficients", lambda family: 1e9)
    found = [v for v in verify(*problem(), RADII, options(method=method, memory=None)) if v.method == "exact"]
    assert found
    for verdict in found:
        # A program that large would not fit into the memory either, which is said then.
        assert verdict.status is Status.UNKNOWN and "GiB" in verdict.detail
    monkeypatch.setattr(search, "_BYTES", 0)
    found = verify(*problem(), RADII, options(method=method))
    late = [v for v in found if v.method == "exact"]
    assert late
    for verdict in late:
        assert verdict.status is Status.UNKNOWN and verdict.limit == LIMIT
        assert verdict.detail.startswith("time limit: to set up the program alone takes about 5e+02 s")
        assert verdict.margin_lower <= truth[verdict.index].margin_upper + 1e-9


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["auto", "exact"])
def test_a_solve_takes_all_the_time(method: str, after: bool, truth: dict[int, Verdict], clock: Clock) -> None:
    clock.on(search.Search, "_ask", after)
    found = verify(*problem(), RADII, options(method=method))
    # `exact` with its sign settled and its value not: ended by the limit, and not unknown
    settled = [v for v in found if v.status is not Status.UNKNOWN and v.limit is not None]
    assert method == "exact" or not settled
    for verdict in settled:
        assert verdict.detail == "time limit: the worst margin is bounded, not found" or verdict.detail == "time limit"
    honest(found, truth)
    assert clock.used and (after or any(v.status is Status.UNKNOWN and v.method == "exact" for v in found))
    assert after or method == "auto" or all(v.limit == LIMIT for v in found if v.method == "exact")


def test_the_time_of_the_cheap_stages_is_taken_off_the_solver_s(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time for BP leaves half of it; the limit handed to the solver says so."""
    network, x, y = problem()
    given: list[float] = []
    before = ExactStep._settings

    def settings(self: ExactStep, left: Any) -> Any:
        given.append(left)
        return before(self, left)

    monkeypatch.setattr(ExactStep, "_settings", settings)
    clock.on(cascade, "backward_margins", after=True, seconds=LIMIT / 4)
    verify(network, x[:1], y[:1], RADII, options(method="exact", attack=False))
    assert clock.used == 2  # once more after the layers
    assert given == [pytest.approx(LIMIT / 2, abs=2.0)]


def test_a_batch_shares_its_time_and_what_is_done_leaves_it_to_the_rest(clock: Clock) -> None:
    """Thirty samples have thirty limits together: one stage may take twenty of them."""
    network, x, y = problem()
    clock.on(cascade, "interval_margins", seconds=20 * LIMIT)
    found = verify(network, x, y, RADII, options())
    assert all(v.limit is None and v.status is not Status.UNKNOWN for v in found)
    assert any(v.method == "attack" for v in found)


def test_without_a_limit_nothing_is_ended(clock: Clock, truth: dict[int, Verdict]) -> None:
    for stage in ("interval_bounds", "attack", "backward_margins", "tightened_bounds"):
        clock.on(setup if stage == "interval_bounds" else cascade, stage)
    found = verify(*problem(), RADII, options(seconds=None))
    assert [v.status for v in found] == [truth[v.index].status for v in found]
    assert all(v.limit is None and v.detail == "" for v in found)


# --- discrepancy, radius, counting ---


def discrepancies(method: str, **more: Any) -> Any:
    network, x, _ = problem()
    return worst_case_discrepancy(network, x[:4], RADII, options(method=method, **more))


@pytest.mark.parametrize("stage", ["tightened_bounds", "backward_outputs", None])
def test_the_discrepancy_hands_on_the_bounds_so_far(stage: str | None, clock: Clock) -> None:
    rough, true = discrepancies("ibp", seconds=None), discrepancies("exact", seconds=None)
    clock.on(*((discrepancy, stage) if stage else (search.Search, "_ask")))
    for found, ibp, best in zip(discrepancies("exact"), rough, true, strict=True):
        assert not found.complete and best.complete
        assert (found.lower <= best.lower + 1e-9).all() and (found.upper >= best.upper - 1e-9).all()
        assert (found.lower >= ibp.lower - 1e-9).all() and (found.upper <= ibp.upper + 1e-9).all()
        assert np.isfinite(found.lower).all() and np.isfinite(found.upper).all()
        if stage == "tightened_bounds":  # nothing after it went on
            assert found.lower == pytest.approx(ibp.lower, abs=1e-12)


def test_a_discrepancy_without_any_bound_is_refused_with_the_way_out(clock: Clock) -> None:
    clock.on(setup, "interval_bounds")
    with pytest.raises(UsageError, match=r"in 50 s a sample; give a longer time limit\.$"):
        discrepancies("bp")


@pytest.mark.slow
def test_the_limit_holds_at_one_factor_of_a_radius(clock: Clock) -> None:
    network, x, y = problem()
    grid = Grid(max_factor=2.0, precision=0.1)
    x, y = x[:12], y[:12]
    full = largest_factors(network, x, y, RADII, grid, options(seconds=None))
    clock.on(search.Search, "_ask")
    found = largest_factors(network, x, y, RADII, grid, options())
    assert clock.used and any(bracket.detail == "time limit" for bracket in found)
    for some, best in zip(found, full, strict=True):
        assert some.factor <= best.factor and (some.upper or np.inf) >= (best.upper or np.inf)
        assert some.upper is None or some.misclassified or some.upper > best.factor


def test_unstable_neurons_are_counted_on_the_samples_there_was_time_for(clock: Clock) -> None:
    network, x, _ = problem()
    whole = unstable.unstable_neurons(network, RADII, x[:8], options())
    clock.on(unstable, "tightened_bounds", after=True, seconds=40.0)
    deadline = Deadline.after(60.0, threading.Event())
    heard: list[int] = []
    found = unstable.unstable_neurons(network, RADII, x, options(), deadline, heard.append)
    assert (found.samples, heard) == (8, [8]) and found == whole


# --- across tasks of a batch ---


class Here:
    """An engine whose tasks are done by a `Bench` in this thread."""

    slots = window = 1

    def __init__(self, parcels: Parcels) -> None:
        self._parcels, self._bench = parcels, worker.Bench()
        self._waiting: list[Any] = []
        self.tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self.tasks.append(task)

    def get(self, seconds: float) -> Any:
        task = self._waiting.pop()
        self._bench.prepare(task, {name: self._parcels[name] for name in task.parcels})
        return task, self._bench.perform(task)


def batch(**more: Any) -> tuple[Here, dict[int, Row]]:
    """The rows of a batch of one case, by index."""
    network, x, y = problem()
    parcels, ways = Parcels(), options(**more)
    network_name, samples, setting = map(parcels.add, (network, (0, x, y), Setting(RADII, ways)))
    one = Plain(
        "a", range(len(x)), Task(case="a", network=network_name, samples=samples, setting=setting), ways.seconds
    )
    engine, rows = Here(parcels), {}
    work = dispatch.Dispatch(engine, [one], set(), lambda new: rows.update({r.index: r for r in new}), Silent())
    work.run(threading.Event())
    return engine, rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "stage"),
    [
        *((setup, "interval_bounds"), (cascade, "attack"), (cascade, "backward_margins")),
        *((cascade, "tightened_bounds"), (search.Search, "_ask")),
    ],
)
def test_a_batch_keeps_the_limit_too(
    owner: ModuleType | type[Search], stage: str, truth: dict[int, Verdict], clock: Clock
) -> None:
    clock.on(owner, stage, after=stage in ("backward_margins", "tightened_bounds"))
    _, rows = batch()
    assert sorted(rows) == sorted(truth)
    unknown = [row for row in rows.values() if row.status is Status.UNKNOWN]
    assert unknown
    for index, row in rows.items():
        assert row.status in (truth[index].status, Status.UNKNOWN)
        assert row.margin_lower is None or row.margin_lower <= truth[index].margin_upper + 1e-9
    for row in unknown:
        assert row.limit == LIMIT and row.detail.startswith("time limit") and row.seconds >= LIMIT


@pytest.mark.slow
def test_what_the_first_task_took_counts_in_the_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 of 50 s went by in the first task, and the second works through the cheap stages again: no solver is asked
    for more than what is left."""
    _, x, _ = problem()
    given: list[float] = []
    before = ExactStep._settings

    def settings(self: ExactStep, left: Any) -> Any:
        given.append(left)
        return before(self, left)

    monkeypatch.setattr(ExactStep, "_settings", settings)
    clock.on(cascade, "tightened_bounds", after=True, seconds=0.6 * LIMIT)
    engine, rows = batch(method="exact", attack=False)
    exact = [task for task in engine.tasks if task.exact]
    assert len(exact) == len(x) and all(task.spent == pytest.approx(LIMIT * 0.6 / len(x), abs=1.0) for task in exact)
    assert given and all(left <= LIMIT * (0.4 - 0.6 / len(x)) + 1e-6 for left in given)
    clock.on(cascade, "backward_margins", seconds=0.9 * LIMIT * len(x))
    given.clear()
    engine, rows = batch(method="exact", attack=False)
    assert given == [] and all(row.limit == LIMIT and row.status is Status.UNKNOWN for row in rows.values())


def test_bounds_of_the_first_task_are_not_lost_in_the_second(
    clock: Clock, truth: dict[int, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There time is up at once, with no bound at all: the row still has what BP proved."""
    before, perform = proved_by("bp"), worker.Bench.perform

    def late(self: worker.Bench, task: Task) -> Any:
        if task.exact and not hasattr(cascade, "late"):
            monkeypatch.setattr(cascade, "late", True, raising=False)
            clock.on(setup, "interval_bounds")
        return perform(self, task)

    monkeypatch.setattr(worker.Bench, "perform", late)
    monkeypatch.setattr(branching.PairStages, "_tried", lambda self, left: left)  # it decides them all
    engine, rows = batch(method="auto", attack=False)
    unknown = [row for row in rows.values() if row.status is Status.UNKNOWN]
    assert clock.used == len(unknown) == sum(task.exact for task in engine.tasks) > 0
    for row in unknown:
        assert row.limit == LIMIT and row.detail.startswith("time limit")
        assert row.margin_lower >= before[row.index].margin_lower - 1e-12  # type: ignore[operator]
        assert row.margin_lower <= truth[row.index].margin_upper + 1e-9  # type: ignore[operator]
