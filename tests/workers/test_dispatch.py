"""The order of the work, what becomes of answers that fail to come, and the time left; no processes here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from qverify.console.progress import Course
from qverify.errors import InternalError, WorkerError
from qverify.verification.row import Row, Status
from qverify.workers.dispatch import Dispatch
from qverify.workers.tasks import Found, Lost, Task, chunk_of
from tests.support.cases import CHUNK, Plain
from tests.support.networks import mlp
from tests.support.progress import Silent

Answer = Callable[[Task], Any]


def row(index: int, status: str = "verified", **more: Any) -> Row:
    fields: dict[str, Any] = {"method": "ibp", "seconds": 0.5, "margin_lower": -1.0, "margin_upper": None} | more
    return Row(index=index, label=0, predicted=0, status=Status(status), **fields)


def case(name: str, indices: range) -> Plain:
    return Plain(name, indices, Task(case=name, network="n", samples="s", setting=name, limit=5.0))


def cheap(task: Task) -> Found:
    """Every third sample stays open; the exact step verifies it."""
    if task.exact:
        return Found((row(task.start, method="exact"),), (), 2.0)
    indices = range(task.start, task.stop)
    still = tuple(row(i, "unknown", method="exact") for i in indices if i % 3 == 0)
    return Found(tuple(row(i) for i in indices if i % 3), still, 1.0)


class Scripted:
    """An engine that answers by a function, last task first."""

    def __init__(self, answer: Answer, window: int = 3) -> None:
        self.answer, self.window, self.slots = answer, window, window
        self.seen: list[Task] = []
        self.waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self.seen.append(task)
        self.waiting.append(task)
        assert len(self.waiting) <= self.window

    def get(self, seconds: float) -> Any:
        task = self.waiting.pop()
        return task, self.answer(task)


def dispatched(
    cases: Sequence[Plain], answer: Answer = cheap, done: dict[str, Any] | None = None
) -> tuple[Scripted, dict[str, Any]]:
    """The engine and the rows by key."""
    engine, rows = Scripted(answer), {} if done is None else done

    def keep(new: Any) -> None:
        assert not any(r.key in rows for r in new)
        rows.update({r.key: r for r in new})

    Dispatch(engine, cases, rows, keep, Silent()).run(threading.Event())
    return engine, rows


def test_chunks_first_then_what_they_leave_open() -> None:
    a, b = case("a", range(100, 300)), case("b", range(5))
    engine, rows = dispatched([a, b])
    cut = [(t.case, t.start, t.stop) for t in engine.seen if not t.exact]
    assert cut == [("a", 100, CHUNK), ("a", CHUNK, 2 * CHUNK), ("a", 2 * CHUNK, 300), ("b", 0, 5)]
    exact = [t.exact for t in engine.seen]
    assert exact == sorted(exact) and sum(exact) == sum(i % 3 == 0 for c in (a, b) for i in c.indices)
    assert set(rows) == {c.key(i) for c in (a, b) for i in c.indices}
    for each in (a, b):
        for index in each.indices:
            found = rows[each.key(index)]
            assert (found.case, found.index) == (each.name, index)
            assert found.status is Status.VERIFIED and found.method == ("ibp" if index % 3 else "exact")


def test_only_what_is_missing_is_done_and_in_the_same_chunks() -> None:
    one = case("a", range(400))
    _, whole = dispatched([one])
    missing = [129, 130, 132]  # 129 and 132 are for the exact step
    done = {key: found for key, found in whole.items() if found.index not in missing}
    engine, rows = dispatched([one], done=done)
    assert [(t.start, t.stop) for t in engine.seen] == [(CHUNK, 2 * CHUNK), (129, 130), (132, 133)]
    assert rows == whole
    engine, _ = dispatched([one], done=rows)
    assert engine.seen == []


def test_an_exact_step_without_an_answer_leaves_unknown_with_the_bounds() -> None:
    def answer(task: Task) -> Any:
        return Lost("time limit: killed", 7.0) if task.exact and task.start == 3 else cheap(task)

    one = case("a", range(6))
    _, rows = dispatched([one], answer)
    assert rows[one.key(0)].status is Status.VERIFIED
    expected = row(3, "unknown", method="exact", detail="time limit: killed", case="a", key=one.key(3))
    assert rows[one.key(3)] == replace(expected, seconds=7.5)


def test_the_exact_step_has_the_time_that_is_left_and_hands_on_the_best_bounds() -> None:
    """Sample 0 has spent its 5 s on bounds: it is done. Sample 3 goes on, with less time, and finds less."""

    def answer(task: Task) -> Any:
        if task.exact:
            return Found((row(task.start, "unknown", method="exact", margin_lower=-8.0, margin_upper=2.0),), (), 2.0)
        still = (row(0, "unknown", method="exact", seconds=5.0), row(3, "unknown", method="exact", seconds=1.25))
        return Found((row(1), row(2)), still, 1.0)

    one = case("a", range(4))
    engine, rows = dispatched([one], answer)
    assert [(t.start, t.spent) for t in engine.seen if t.exact] == [(3, 1.25)]
    late = rows[one.key(0)]
    assert (late.status, late.detail, late.limit) == ("unknown", "time limit", 5.0)
    assert rows[one.key(3)].margin_lower == -1.0 and rows[one.key(3)].margin_upper == 2.0


def test_a_chunk_without_an_answer_is_said_at_the_end_and_the_rest_is_done() -> None:
    def answer(task: Task) -> Any:
        return Lost("the process was ended by SIGKILL", 1.0) if task.case == "a" else cheap(task)

    rows: dict[str, Any] = {}
    b = case("b", range(3))
    with pytest.raises(
        WorkerError, match=r"bounds of samples 0:4 of a could not be computed: the process was ended by"
    ):
        dispatched([case("a", range(4)), b], answer, rows)
    assert set(rows) == {b.key(i) for i in range(3)}


@pytest.mark.parametrize("wrong", [(), (1, 2), (0, 0, 1), (0, 1, 7)])
def test_answers_that_are_not_complete_are_a_fault(wrong: tuple[int, ...]) -> None:
    with pytest.raises(InternalError, match="are not complete"):
        dispatched([case("a", range(2))], lambda task: Found(tuple(row(i) for i in wrong), (), 1.0))


def test_an_exact_answer_about_another_sample_is_a_fault() -> None:
    def answer(task: Task) -> Any:
        return Found((row(task.start + 1),), (), 1.0) if task.exact else cheap(task)

    with pytest.raises(InternalError, match="exact step on sample 0 of a"):
        dispatched([case("a", range(2))], answer)


def test_an_error_of_a_task_ends_the_work() -> None:
    def answer(task: Task) -> Any:
        raise InternalError("a bound above a member")

    with pytest.raises(InternalError, match="a bound above a member"):
        dispatched([case("a", range(2))], answer)


def test_the_time_left_counts_what_is_open_and_what_was_not_looked_at() -> None:
    now = [0.0]
    course = Course(1000, lambda: 2, lambda: now[0])
    assert course.left() is None
    now[0] = 1.0
    course.chunk(500, 10, 2.0)
    assert course.left() is None and (course.decided, course.open, course.unseen) == (490, 10, 500)
    now[0] = 5.0
    course.exact(8.0)  # 9 open here and 10 expected among the others, 8 s each; 2 s for their bounds; by two
    assert course.left() == pytest.approx((2.0 + 19 * 8.0) / 2)
    now[0] = 9.0  # nothing for 4 s: two slots have been busy meanwhile
    assert course.left() == pytest.approx((2.0 + 19 * 16.0) / 2)
    course.chunk(500, 0, 2.0)
    for _ in range(9):
        course.exact(1.0)
    assert course.left() == 0.0 and course.decided == 1000


def test_the_time_left_of_bounds_alone() -> None:
    now = [0.0]
    course = Course(100, lambda: 4, lambda: now[0])
    now[0] = 3.0
    course.chunk(50, 0, 8.0)
    assert course.left() == pytest.approx(2.0) and course.rate == pytest.approx(50 / 3)
    assert Course(100, lambda: 0).left() is None


def test_large_networks_share_tasks_less(rng: Any) -> None:
    """What their samples take is long, and a task gives its rows at its end."""
    small, large = mlp(rng, 300, 300, 10), mlp(rng, 2000, 600, 10)
    assert chunk_of(small, 10_000) == 512 and chunk_of(large, 10_000) == 128


def test_few_samples_are_several_tasks_still(rng: Any) -> None:
    found = [chunk_of(mlp(rng, 3, 3, 2), samples) for samples in (1, 32, 128, 255, 256, 300, 1000, 2047, 2048, 10**6)]
    assert found == [32, 32, 32, 32, 64, 64, 128, 256, 512, 512]
