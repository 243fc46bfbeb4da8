"""Solvers in processes of their own: a crash, a hang or a want of memory ends the sample under way, never the run.

A `SolverProcess` lives as long as the program does and is lent to one sample after the other (`borrowed`), so that
starting it, a third of a second, is paid once a thread. A session on it behaves as one here does (`base.Session`); what
becomes of its process is an `Outcome` of status FAILED, or TIME_LIMIT if it had to be killed because it was overdue.

SCIP is a reason beside: its expression interpreter numbers the operating-system threads that ever used it, and crashes
at the 65th. A host process has one thread that solves.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import pickle
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelTooLarge, SolverError
from qverify.exact.solvers.base import Ending, Limits, Outcome
from qverify.exact.solvers.host import NEEDS_MORE, Failed
from qverify.processes import TOO_LITTLE, command, ended, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.exact.program import Objective, Program

OVERDUE = 1.0
"""Seconds that a solver may exceed its limit before its process is killed."""
_START = 60.0
"""Seconds that a process may take to start, on a busy machine."""
_LOOK = 0.05
"""Seconds between two looks at whether the run was stopped."""


class Gone(Exception):
    """The process ended in the middle of a question. `overdue`: because it was over its limit."""

    def __init__(self, reason: str, overdue: bool = False):
        super().__init__(reason)
        self.overdue = overdue


class SolverProcess:
    """One process; `alive` until it crashes or is killed. Not to be used by two threads at once."""

    def __init__(self, memory: int | None = None):
        """Start it; `memory`: bytes by which it may grow, None for any. Raises SolverError if it cannot be started."""
        self._numbers = itertools.count()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                command("qverify.exact.solvers.host"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except OSError as error:
            raise SolverError(f"A process for the solver cannot be started ({error.strerror}).") from error
        threading.Thread(target=self._collect, daemon=True).start()
        self.alive = True
        try:
            self._wait(time.monotonic() + _START, None)
            self.ask("limit", memory)
        except BaseException as end:
            self.end()
            if isinstance(end, Gone):
                raise SolverError(f"A process for the solver cannot be started ({end}).") from end
            raise

    def _collect(self) -> None:
        """Hand on the answers; the end of them as None, in a thread since pipes cannot be waited for everywhere."""
        assert self._process.stdout is not None
        try:
            while True:
                self._answers.put((pickle.load(self._process.stdout),))
        except Exception:  # a process that dies while it writes leaves anything
            self._answers.put(None)

    def ask(self, verb: str, *arguments: Any, until: float | None = None, stop: threading.Event | None = None) -> Any:
        """The return value of `Host.verb`. Raises its errors, and Gone; `until`: a time of `time.monotonic`."""
        try:
            self._send((verb, arguments))
            answer = self._wait(until, stop)
        except BaseException:  # Ctrl-C too: an answer that nobody took would be taken for that to the next question
            self.end()
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has gone, which the answer says too
            pickle.dump(message, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()

    def _wait(self, until: float | None, stop: threading.Event | None) -> Any:
        while True:
            left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
            try:
                answer = self._answers.get(timeout=max(left, 0.001))
            except queue.Empty:
                overdue = until is not None and time.monotonic() >= until
                if overdue or (stop is not None and stop.is_set()):
                    raise Gone("time limit" if overdue else "interrupted", overdue) from None
                continue
            if answer is None:
                self.end()
                status = self._process.returncode
                raise Gone(NEEDS_MORE if status == TOO_LITTLE else f"its process {ended(status)}")
            return answer[0]

    def next_number(self) -> int:
        """A number for a new session."""
        return next(self._numbers)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()


class Hosted:
    """The `Session` of a program in another process. Raises what the session there raises."""

    def __init__(self, host: Lent, name: str, program: Program, stop: threading.Event | None = None):
        self._host, self._name, self._program, self._stop = host, name, program, stop
        self._process: SolverProcess | None = None
        self._number = 0

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        """See `Session.minimise`; an overdue process is killed, and its bound is lost."""
        began = time.perf_counter()
        until = None if limits.seconds is None else time.monotonic() + limits.seconds + OVERDUE
        try:
            process = self._process_with_program(until)
            found = process.ask("minimise", self._number, objective, limits, relax, until=until, stop=self._stop)
            assert isinstance(found, Outcome)
            return found
        except Gone as end:
            stopped = self._stop is not None and self._stop.is_set()
            status = Ending.TIME_LIMIT if end.overdue else Ending.INTERRUPTED if stopped else Ending.FAILED
            reason = str(end)
        except ModelTooLarge:
            raise
        except SolverError as error:
            if self._process is None and not isinstance(error, Failed):
                raise
            status, reason = Ending.FAILED, str(error).rstrip(".")
        return Outcome(status=status, dual_bound=-np.inf, seconds=time.perf_counter() - began, message=reason)

    def _process_with_program(self, until: float | None) -> SolverProcess:
        """The process, with the program loaded: anew where the last one has gone."""
        process = self._host.process()
        if process is not self._process:
            self._number = process.next_number()
            process.ask("open", self._number, self._name, self._program, until=until, stop=self._stop)
            self._process = process
        return process

    def close(self) -> None:
        """Give the solver's memory back."""
        if self._process is not None and self._process.alive:
            with contextlib.suppress(Gone):
                self._process.ask("close", self._number, until=time.monotonic() + _START)
        self._process = None


class Lent:
    """The right to a process, one at a time: another one is started where the last has gone."""

    def __init__(self, memory: int | None):
        self._memory = memory
        self._own: SolverProcess | None = None

    def process(self) -> SolverProcess:
        """A living process. Raises SolverError if none can be started."""
        if self._own is None or not self._own.alive:
            self._own = _taken(self._memory)
        return self._own

    def give_back(self) -> None:
        """Let others have it."""
        if self._own is not None and self._own.alive:
            with _lock:
                _idle.append(self._own)
        self._own = None


_lock = threading.Lock()
_idle: list[SolverProcess] = []


@contextlib.contextmanager
def borrowed(memory: int | None = None) -> Iterator[Lent]:
    """A process for one sample; `memory`: bytes by which it may grow. It is there when the sample's time begins."""
    lent = Lent(memory)
    try:
        lent.process()
        yield lent
    finally:
        lent.give_back()


def _taken(memory: int | None) -> SolverProcess:
    """One that nobody uses, or else a new one."""
    while (process := _popped()) is not None:
        with contextlib.suppress(Gone):  # it died while it had nothing to do
            if process.ask("limit", memory, until=time.monotonic() + _START):
                return process
            process.end()
    return SolverProcess(memory)


def _popped() -> SolverProcess | None:
    with _lock:
        return _idle.pop() if _idle else None


@atexit.register
def end_all() -> None:
    """End the processes that nobody uses; those in use end with this one."""
    while (process := _popped()) is not None:
        process.end()
