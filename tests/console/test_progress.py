"""Progress on stderr: a time left that is not fooled by the cheap samples; and a stdout kept clean."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from qverify.analysis import discrepancies as discrepancy
from qverify.analysis import unstable
from qverify.console import progress
from qverify.console.output import stdout_kept_clean
from qverify.console.progress import Pace, duration
from qverify.console.signals import stoppable
from qverify.verification import setup
from qverify.verification.exact_step import ExactStep
from tests.support.commands import qverify
from tests.support.paths import DIGITS


def test_what_libraries_print_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_kept_clean():
        print("from Python")
        os.write(1, b"from C\n")
    print("the result")
    found = capfd.readouterr()
    assert found.out == "the result\n" and sorted(found.err.splitlines()) == ["from C", "from Python"]


def test_plain_progress_is_an_occasional_line_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--samples", "0:20", "--json")
    assert " of 20: " not in qverify(*given).stderr
    monkeypatch.setattr(progress, "_PLAIN_EVERY", 0.0)
    result = qverify(*given)
    lines = [line for line in result.stderr.splitlines() if " of 20: " in line]
    assert len(lines) == 20 and lines[-1].startswith("qverify: 20 of 20: ") and lines[-1].endswith(" 0.0 s left")
    assert "decided by forward 1" in lines[-1] and result.stdout.count("\n") == 1


def test_the_time_left_does_not_take_the_cheap_samples_for_the_rest() -> None:
    now = [0.0]
    pace = Pace(1000, exact_step=True, clock=lambda: now[0])
    assert pace.left() is None
    now[0] = 2.0
    for position in [*range(950), 999]:
        pace.add(position, exact=False)
    assert pace.left() is None  # the overall rate would say 0.1 s
    for position in range(950, 960):
        now[0] += 4.0
        pace.add(position, exact=True)
    assert pace.left() == pytest.approx(39 * 4.0)
    now[0] += 40.0  # the next one takes its time
    assert pace.left() == pytest.approx(39 * 8.0)


def test_the_time_left_counts_the_samples_of_later_batches() -> None:
    now = [0.0]
    pace = Pace(2000, exact_step=True, clock=lambda: now[0])
    now[0] = 10.0
    for position in [*range(990), 999]:
        pace.add(position, exact=False)
    for position in range(990, 999):
        now[0] += 10.0
        pace.add(position, exact=True)
    assert pace.left() == pytest.approx(100.0) and pace.rate == pytest.approx(10.0)
    cheap = Pace(100, exact_step=False, clock=lambda: now[0])
    now[0] += 3.0
    cheap.add(0, exact=False)
    assert cheap.left() == pytest.approx(99 * 3.0)


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (42.4, "42 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_first_ctrl_c_asks_and_the_second_one_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:  # noqa: PT012
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        stop.wait(10)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_ctrl_c_is_left_alone() -> None:
    seen = []

    def work() -> None:
        with stoppable() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [False]


# --- while a single answer takes long ---

ONE = ("--data", "digits", "--bits", 8, "--samples", 1)
AT_ONE = ("--data", "digits", "--values", "0.001", "--parts", "weight", "--samples", 1, "--method", "ibp")
SLOW_COMMANDS = {
    "verify": (("verify", DIGITS, *ONE, "--method", "bp"), setup, "interval_bounds", "ibp: 1 open"),
    "exact": (("verify", DIGITS, *ONE, "--method", "exact", "--jobs", 1), ExactStep, "_case", "exact: 1 open"),
    "sweep": (("sweep", DIGITS, *AT_ONE), setup, "interval_bounds", "point 1 of 1: digits, weight, radius 0.001"),
    "radius": (("radius", DIGITS, *ONE, "--method", "ibp"), setup, "interval_bounds", "samples 0 to 0, ibp (stage 1"),
    "discrepancy": (("discrepancy", DIGITS, *ONE), discrepancy, "backward_outputs", "worst-case discrepancy by bp"),
    "inspect": (("inspect", DIGITS, *ONE), unstable, "tightened_bounds", "unstable neurons"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_COMMANDS)
def test_a_sample_that_takes_long_is_no_silence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage of the only sample takes a second; nothing is told before its end but by the thread that watches."""
    given, owner, stage, doing = SLOW_COMMANDS[name]
    before = getattr(owner, stage)
    slept: list[float] = []

    def slow(*arguments: Any, **more: Any) -> Any:
        if not slept:
            slept.append(1.0)
            time.sleep(1.0)
        return before(*arguments, **more)

    monkeypatch.setattr(owner, stage, slow)
    monkeypatch.setattr(progress, "_PLAIN_EVERY", 0.1)
    monkeypatch.setattr(progress, "_WATCH", 0.02)
    threads = set(threading.enumerate())
    result = qverify(*given)
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("qverify: 0 of 1: ")]
    assert slept and all(line.endswith("time left unknown") for line in told)
    assert len([line for line in told if doing in line]) >= 3
    assert not [thread for thread in set(threading.enumerate()) - threads if "_watch" in thread.name]


def test_lines_come_no_faster_than_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_WATCH", 0.01)
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    with progress.Progress(Pace(5, False), lambda: ["working"], 0.3):
        time.sleep(1.0)
    assert 1 <= len(said) <= 3 and all(line.startswith("0 of 5: working; ") for line in said)


def test_the_thread_that_watches_ends_with_the_work_and_survives_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_WATCH", 0.01)
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    calls = [0]

    def describe() -> list[str]:
        calls[0] += 1
        if calls[0] < 3:
            raise RuntimeError("dictionary changed size during iteration")
        return ["working"]

    before = threading.active_count()
    with pytest.raises(KeyError), progress.Progress(Pace(5, False), describe, 0.0):  # noqa: PT012
        assert threading.active_count() == before + 1
        until = time.monotonic() + 10
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        raise KeyError
    assert said and threading.active_count() == before  # joined, also after an error
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count
