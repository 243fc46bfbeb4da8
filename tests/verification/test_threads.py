"""Results as they come out of several threads; what ends the loop ends the work, and is let through."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from qverify.verification.threads import as_they_come, in_threads
from qverify.verification.verdict import Options


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_every_item_comes_once_with_its_own_result(workers: int) -> None:
    found = list(as_they_come(lambda n: n * n, range(20), workers, threading.Event()))
    assert sorted(found) == [(n, n * n) for n in range(20)]
    assert workers > 1 or found == sorted(found)


def test_what_is_done_first_comes_first() -> None:
    late = threading.Event()

    def work(name: str) -> str:
        if name == "late":
            assert late.wait(30.0)
        return name

    found = as_they_come(work, ["late", "early"], 2, threading.Event())
    assert next(found) == ("early", "early")
    late.set()
    assert list(found) == [("late", "late")]


def test_one_worker_is_this_thread_and_works_when_it_is_asked() -> None:
    begun = []

    def work(n: int) -> int:
        begun.append((n, threading.get_ident()))
        return n

    found = as_they_come(work, range(5), 1, threading.Event())
    next(found)
    found.close()
    assert begun == [(0, threading.get_ident())]


def test_leaving_the_loop_stops_the_work_under_way() -> None:
    stop, begun = threading.Event(), []

    def work(n: int) -> int:
        begun.append(n)
        if n:
            assert stop.wait(30.0)  # a solve that looks at `stop`
        return n

    with contextlib.closing(as_they_come(work, range(100), 2, stop)) as found:
        assert next(found) == (0, 0)
    assert stop.is_set() and len(begun) < 100


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_thread_is_let_through(workers: int) -> None:
    def work(n: int) -> int:
        if n == 3:
            raise ZeroDivisionError
        return n

    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        list(as_they_come(work, range(50), workers, stop))
    assert stop.is_set() == (workers > 1)


@pytest.mark.parametrize("jobs", [1, 4])
def test_results_are_told_in_this_thread_and_none_is_passed_over(jobs: int) -> None:
    told = []
    in_threads(
        Options(jobs=jobs),
        threading.Event(),
        lambda n: None if n % 3 else n,
        10,
        lambda n: told.append((n, threading.get_ident())),
    )
    assert sorted(told) == [(n, threading.get_ident()) for n in (0, 3, 6, 9)]


def test_an_interrupt_while_telling_stops_the_threads() -> None:
    stop = threading.Event()

    def work(n: int) -> int:
        while n > 1 and not stop.is_set():
            time.sleep(0.01)
        return n

    def tell(n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(Options(jobs=2), stop, work, 30, tell)
    assert stop.is_set()
