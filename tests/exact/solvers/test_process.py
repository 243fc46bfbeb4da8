"""Solvers in processes of their own: one that crashes, hangs or wants too much costs its sample and no more.

What goes wrong is planted in the host process, for the sample whose input it recognises in the program.
"""

from __future__ import annotations

import _thread
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.errors import SolverError
from qverify.exact.solvers import process
from qverify.exact.solvers.base import Ending, Limits
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.verification import setup
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status, Verdict
from tests.support.marks import mostly_slow
from tests.support.networks import conv_of, mlp, relu
from tests.support.paths import DIGITS
from tests.support.processes import ENVIRONMENT
from tests.support.programs import optimum, relational

RADII = Radii(weight=0.03, bias=0.03, activation=0.015)
"""Without one of the input, so that a program has the coordinates of its sample among its limits."""
STRANGE, MARK = 2, -0.777123
"""The sample at which it goes wrong, and its first coordinate."""
PLANTED = """
import os, sys, time
ANSWERS = os.dup(1)
from qverify.exact.solvers import host
opened, minimise = host.Host.open, host.Host.minimise
strange = set()
def is_strange(program):
    return any(abs(low - {mark!r}) < 1e-6 for low in program.lower.tolist())
def at_open(self, number, name, program):
    if is_strange(program):
        strange.add(number)
        {opening}
    opened(self, number, name, program)
def at_minimise(self, number, *asked):
    if number in strange:
        {solving}
    return minimise(self, number, *asked)
host.Host.open, host.Host.minimise = at_open, at_minimise
host.main()
"""


@pytest.fixture
def problem() -> tuple[Any, Any, Any]:
    """A network, and five samples about which a solver is asked for the margin itself.

    The strange one has a coordinate by which its program is recognised, and only the solver finds that it fails.
    """
    rng = np.random.default_rng(0)
    network = mlp(rng, 5, 9, 3)
    x = rng.uniform(0.5, 1.0, (5, 5))
    x[STRANGE, 0] = MARK
    return network, x, network.evaluate(x).argmax(1)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Host processes in which some code runs at the strange sample, as soon as it is called; gone afterwards."""

    def plant(opening: str = "pass", solving: str = "pass") -> None:
        code = PLANTED.format(mark=MARK, opening=opening, solving=solving)
        monkeypatch.setattr(process, "command", lambda module: [sys.executable, "-c", code])

    process.end_all()
    yield plant
    process.end_all()


def options(**more: Any) -> Options:
    return Options(**{"method": "exact", "attack": False, "jobs": 1, "seconds": 60.0, **more})


def decided(problem: Any, **more: Any) -> list[Verdict]:
    network, x, y = problem
    return verify(network, x, y, RADII, options(**more))


def solver_processes() -> list[int]:
    """The host processes below this one, zombies counted in."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "host" in " ".join(child.cmdline()) or child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def only_the_strange_one_is_lost(found: list[Verdict], expected: list[Verdict]) -> Verdict:
    """Every other verdict is as without the fault; returns that on the strange sample."""
    assert [v.index for v in found] == [v.index for v in expected] == list(range(5))
    for verdict, other in zip(found, expected, strict=True):
        assert other.status in (Status.VERIFIED, Status.FALSIFIED) and other.method == "exact"
        if verdict.index != STRANGE:
            assert (verdict.status, verdict.detail, verdict.limit) == (other.status, "", None)
            assert verdict.margin_lower == pytest.approx(other.margin_lower, abs=1e-7)
            assert verdict.margin_upper == pytest.approx(other.margin_upper, abs=1e-7)
    assert expected[STRANGE].status is Status.FALSIFIED and {v.status for v in expected} > {Status.FALSIFIED}
    lost, whole = found[STRANGE], expected[STRANGE]
    assert lost.status is Status.UNKNOWN and lost.method == "exact" and lost.detail
    assert lost.margin_lower <= whole.margin_lower + 1e-9 and lost.margin_upper >= whole.margin_upper - 1e-9
    return lost


# --- crashes ---

CRASHES = {
    "aborts": ("os.abort()", r"its process was ended by SIGABRT"),
    "is killed": ("os.kill(os.getpid(), 9)", r"its process was ended by SIGKILL, perhaps for want of memory"),
    "reads a wild pointer": ("__import__('ctypes').string_at(8)", r"its process was ended by SIGSEGV"),
    "exits": ("os._exit(3)", r"its process ended with status 3"),
    "answers rubbish": ("os.write(ANSWERS, b'rubbish'); time.sleep(30)", r"its process was ended by SIGKILL"),
    "raises": ("raise RuntimeError('no such basis')", r"RuntimeError: no such basis"),
}


@pytest.mark.parametrize(
    ("crash", "where"),
    mostly_slow(
        [
            *(("is killed", "solving"), ("answers rubbish", "solving"), ("raises", "solving"), ("raises", "opening")),
            *(("aborts", "opening"), ("exits", "opening"), ("reads a wild pointer", "solving")),
        ],
        2,
        several=True,
    ),
)
def test_a_solver_that_crashes_costs_its_sample_only(
    crash: str, where: str, problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    expected = decided(problem, isolated=False)
    code, reason = CRASHES[crash]
    planted(**{where: code})
    lost = only_the_strange_one_is_lost(decided(problem), expected)
    assert lost.limit is None
    assert lost.detail.startswith("the solver failed (") and lost.detail.endswith("); try another --solver")
    assert re.search(reason, lost.detail), lost.detail


def test_a_crash_in_one_of_several_threads(problem: tuple[Any, Any, Any], planted: Callable[..., None]) -> None:
    expected = decided(problem, isolated=False)
    planted(solving="os.abort()")
    lost = only_the_strange_one_is_lost(decided(problem, jobs=2), expected)
    assert "its process was ended by SIGABRT" in lost.detail


@pytest.mark.slow
def test_a_crash_while_the_discrepancy_is_asked_for(
    problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    network, x, _ = problem
    x = x[STRANGE - 1 : STRANGE + 1]
    expected = worst_case_discrepancy(network, x, RADII, options(isolated=False))
    planted(solving="os.abort()")
    for found, other in zip(worst_case_discrepancy(network, x, RADII, options()), expected, strict=True):
        assert other.complete and found.complete is (found.index == 0)
        assert (found.lower <= other.lower + 1e-7).all() and (found.upper >= other.upper - 1e-7).all()
        if found.complete:
            assert found.lower == pytest.approx(other.lower, abs=1e-7)


def test_a_process_that_died_while_idle_is_not_noticed(
    problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    planted()
    expected = decided(problem)
    (pid,) = solver_processes()
    os.kill(pid, signal.SIGKILL)
    assert [v.status for v in decided(problem)] == [v.status for v in expected]
    assert len(solver_processes()) == 1 and solver_processes() != [pid]


def test_processes_are_used_again_whatever_the_share(
    problem: tuple[Any, Any, Any], planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each sample, or for each call, would be left behind by the hundreds in a search for radii."""
    planted()
    decided(problem)
    before = solver_processes()
    for share in (100 << 20, 300 << 20, 200 << 20):
        monkeypatch.setattr(setup, "program_memory", lambda options, memory, share=share: share)
        decided(problem)
    assert len(before) == 1 and solver_processes() == before


def test_a_process_that_cannot_be_started_is_said_in_one_sentence(
    problem: tuple[Any, Any, Any], planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "command", lambda module: ["/nonexistent/python"])
    with pytest.raises(SolverError, match=r"^A process for the solver cannot be started \(No such file or directory\)"):
        decided(problem)
    monkeypatch.setattr(process, "command", lambda module: [sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(SolverError, match=r"cannot be started \(its process ended with status 5\)"):
        decided(problem)
    assert solver_processes() == []


# --- hangs ---


@pytest.mark.slow
@pytest.mark.parametrize("solver", [pytest.param("sleeps", marks=pytest.mark.slow), "locks Python"])
def test_a_solver_that_hangs_is_ended_soon_after_its_limit(
    solver: str, problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    """`PyDLL` keeps Python's lock, as a solver may: then not even the thread that listens can end the process."""
    expected = decided(problem, isolated=False)
    planted(solving="time.sleep(30)" if solver == "sleeps" else "__import__('ctypes').PyDLL(None).sleep(30)")
    began = time.monotonic()
    lost = only_the_strange_one_is_lost(decided(problem, seconds=2.0), expected)
    assert 2.0 < time.monotonic() - began < 2.0 + 6.0
    assert (lost.detail, lost.limit) == ("time limit", 2.0)
    assert 2.0 <= lost.seconds < 2.0 + 6.0


@pytest.mark.slow
def test_a_hang_on_loading_the_program_is_ended_too(
    problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    expected = decided(problem, isolated=False)
    planted(opening="time.sleep(30)")
    began = time.monotonic()
    lost = only_the_strange_one_is_lost(decided(problem, seconds=1.5), expected)
    assert time.monotonic() - began < 1.5 + 6.0
    assert (lost.detail, lost.limit) == ("time limit", 1.5)


# --- memory ---


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not limit address space")
@pytest.mark.parametrize("where", ["opening", "solving"])
def test_a_solver_that_wants_more_than_its_share(
    where: str, problem: tuple[Any, Any, Any], planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decided(problem, isolated=False)
    monkeypatch.setattr(setup, "program_memory", lambda options, memory: 200 << 20)
    planted(**{where: "bytearray(2 << 30)"})
    lost = only_the_strange_one_is_lost(decided(problem), expected)
    assert "it needs more memory than its share; more: --memory, fewer --jobs" in lost.detail and lost.limit is None


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not limit address space")
def test_a_program_too_large_for_the_process_to_take_in(
    problem: tuple[Any, Any, Any], planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a time limit: nothing else would end the wait for a process that could not even read the question."""
    expected = decided(problem, isolated=False)
    monkeypatch.setattr(setup, "program_memory", lambda options, memory: 200 << 20)
    planted()
    before = pickle.dump

    def dump(message: Any, file: Any, **more: Any) -> None:
        verb, arguments = message
        if verb == "open" and any(abs(low - MARK) < 1e-6 for low in arguments[2].lower.tolist()):
            message = (verb, (*arguments, bytes(1 << 30)))
        before(message, file, **more)

    monkeypatch.setattr(pickle, "dump", dump)
    done: list[list[Verdict]] = []
    thread = threading.Thread(target=lambda: done.append(decided(problem, seconds=None)), daemon=True)
    thread.start()
    thread.join(60)
    assert done, "still waiting"
    lost = only_the_strange_one_is_lost(done[0], expected)
    assert "it needs more memory than its share" in lost.detail


@pytest.mark.parametrize("solver", ["highs", "scip", "gurobi"])
def test_the_smallest_share_is_enough_to_load_every_solver(
    solver: str, problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    """Shared libraries map hundreds of megabytes that they hardly touch."""
    pytest.importorskip({"highs": "highspy", "scip": "pyscipopt", "gurobi": "gurobipy"}[solver])
    network, x, _ = problem
    program, row = relational(Family.of(network, RADII), x[0]), np.array([1.0, -1.0, 0.0])
    planted()
    with process.borrowed(16 << 20) as lent:
        session = process.Hosted(lent, solver, program.program)
        outcome = session.minimise(program.combination(row), Limits())
        session.close()
    assert outcome.status is Ending.OPTIMAL, outcome.message
    assert outcome.incumbent == pytest.approx(optimum(program, row), abs=1e-6)


# --- a stop ---


@pytest.mark.parametrize("jobs", mostly_slow([3, 1]))
def test_a_stop_during_a_solve_ends_soon_and_leaves_no_hanging_process(
    jobs: int, problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    planted(solving="time.sleep(30)")
    network, x, y = problem
    stop = threading.Event()
    told: list[Any] = []
    threading.Timer(2.0, stop.set).start()
    began = time.monotonic()
    found = verify(network, x, y, RADII, options(jobs=jobs, seconds=20.0), told.append, stop)
    assert 1.5 < time.monotonic() - began < 2.0 + 6.0
    assert {v.index for v in found} <= {0, 1, 3, 4} and STRANGE not in {v.index for v in told}
    assert all(v.status in (Status.VERIFIED, Status.FALSIFIED) for v in found)
    process.end_all()
    assert solver_processes() == []


@pytest.mark.slow
def test_ctrl_c_during_a_solve_leaves_no_answer_for_the_next_question(
    problem: tuple[Any, Any, Any], planted: Callable[..., None]
) -> None:
    """As in a notebook, where the next call takes the same process."""
    expected = decided(problem, isolated=False)
    planted(solving="time.sleep(1.5)")
    threading.Timer(1.0, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        decided(problem)
    assert solver_processes() == []
    for verdict, other in zip(decided(problem), expected, strict=True):
        assert (verdict.status, verdict.detail) == (other.status, "")
        assert verdict.margin_lower == pytest.approx(other.margin_lower, abs=1e-7)


HANGING = """
import threading, sys
from qverify.exact.solvers import process
code = "import time; from qverify.exact.solvers import host as h; h.Host.minimise = lambda *a: time.sleep(30); h.main()"
process.command = lambda module: [sys.executable, "-c", code]
print("ready", flush=True)
from qverify.cli import main
main(prog_name="qverify")
"""


def below(pid: int, count: int) -> Any:
    """At least so many descendants of a process, as soon as they are there."""
    until = time.monotonic() + 60
    while len(found := psutil.Process(pid).children(recursive=True)) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def all_gone(processes: list[psutil.Process], seconds: float = 20.0) -> bool:
    _, left = psutil.wait_procs(processes, seconds)
    return not left


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_during_a_solve_leaves_no_process(number: signal.Signals) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", "8", "--samples", "4", "--method", "exact", "--jobs", "2")
    child = subprocess.Popen(
        [sys.executable, "-c", HANGING, *given, "--timeout", "25"],
        stdout=-1,
        stderr=-1,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        hosts = below(child.pid, 2)
        time.sleep(1.0)  # they are asked by now
        began = time.monotonic()
        child.send_signal(number)
        _, stderr = child.communicate(timeout=60)
        assert time.monotonic() - began < 10.0
    finally:
        child.kill()
        child.wait()
    assert all_gone(hosts)
    if number == signal.SIGINT:
        assert child.returncode == 130 and "Traceback" not in stderr
        assert re.search("interrupted: . of 4 samples are decided", stderr)  # one needs no solver


@pytest.mark.slow
def test_no_process_is_left_after_the_end() -> None:
    code = """
import sys, psutil
from qverify import datasets, load, verify
from qverify.network import Dense, Input, Network
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.verification.verdict import Options
network, samples = load(sys.argv[1]), datasets.load("digits")
verify(network, samples.x[:3], samples.y[:3], Radii(weight=1e-3), Options(method="exact", jobs=2))
print(*[child.pid for child in psutil.Process().children(recursive=True)])
"""
    found = subprocess.run(
        [sys.executable, "-c", code, DIGITS], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    pids = [int(word) for word in found.stdout.split()]
    assert 1 <= len(pids) <= 2
    assert all_gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


# --- SCIP ---


@pytest.mark.slow
def test_scip_solves_from_more_threads_than_its_interpreter_has_room_for(
    planted: Callable[..., None],
) -> None:
    """Its expression interpreter numbers the threads that ever used it, up to 64; every call makes new threads."""
    pytest.importorskip("pyscipopt")
    rng = np.random.default_rng(5)

    def drawn(*shape: int) -> np.ndarray:
        return 0.6 * rng.normal(size=shape)

    one, two, three = ((drawn(*shape), drawn(2)) for shape in ((2, 1, 2, 2), (2, 2, 2, 2), (2, 8)))
    first, second = conv_of("c1", 0, (1, 4, 4), *one), conv_of("c2", 2, (2, 3, 3), *two)
    last = Dense("d", (4,), (2,), weight=three[0], bias=three[1])
    layers = (Input("x", (), (1, 4, 4)), first, relu("r1", 1, first), second, relu("r2", 3, second), last)
    network = Network(layers)
    x = rng.random((68, 16))
    y = network.evaluate(x).argmax(1)
    ways = options(formulation="bilinear", solver="scip", seconds=1.0)
    planted()
    found: list[Verdict] = []
    for i in range(68):
        thread = threading.Thread(
            target=lambda i=i: found.extend(verify(network, x[i : i + 1], y[i : i + 1], Radii.from_bits(5), ways))
        )
        thread.start()
        thread.join()
    assert len(found) == 68 and not any("failed" in v.detail for v in found)
    assert {v.method for v in found} == {"exact"}
