"""Processes on this machine that do the work, and what happens when one hangs or dies.

They are separate programs, not children of `multiprocessing`: so they can have an environment with one thread each,
and a worker of a cluster, which is itself a daemonic child, can have them too.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import threading
import time
from collections.abc import Callable

from qverify.errors import WorkerError
from qverify.processes import command, ended, environment
from qverify.workers.tasks import Found, Lost, Task

COMMAND = command("qverify.workers.worker")
Parcel = Callable[[str], bytes]


class _Gone(Exception):
    """A process that ended in the middle of a task. `overdue`: because it was over its time limit."""

    def __init__(self, reason: str, overdue: bool = False):
        super().__init__(reason)
        self.overdue = overdue


class Child:
    """A process that does one task at a time; started with the first, and again when it has gone.

    `shares`: how many such processes share the memory of this machine.
    """

    def __init__(self, shares: int = 1) -> None:
        self._shares = shares
        self._process: subprocess.Popen[bytes] | None = None
        self._holds: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False

    def perform(self, task: Task, parcel: Parcel) -> Found | Lost:
        """Have a task done. One that dies of it is tried again once, one over its limit is not.

        Raises what the task raised, and WorkerError if no process can be started.
        """
        began = time.monotonic()
        reason, overdue = "", False
        for _ in range(2):
            try:
                return self._perform(task, parcel)
            except MemoryError:  # perhaps here, in the middle of an answer
                reason = "not enough memory"
                self._end()
            except _Gone as end:
                reason, overdue = str(end), end.overdue
                if overdue or self._closed:
                    break
        return Lost(reason, time.monotonic() - began, overdue)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the process at once, whatever it does; it is not started again."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _perform(self, task: Task, parcel: Parcel) -> Found:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        needed = set(task.parcels)
        limit = _Limit(process, task.limit if task.exact else None)
        try:
            pickle.dump((task, {name: parcel(name) for name in needed - self._holds}), process.stdin)
            process.stdin.flush()
            self._holds = needed
            with limit:
                answer = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            process.kill()
            status = _reaped(process)
            raise _Gone(limit.passed or f"the process {ended(status)}", bool(limit.passed)) from None
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Found)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, ready for a task. Raises WorkerError if it cannot be started."""
        with self._lock:
            if self._closed:
                raise _Gone("the run was ended")
            if self._process is not None and self._process.poll() is None:
                return self._process
            if self._process is not None:
                _reaped(self._process)
            self._holds = set()
            self._process = process = subprocess.Popen(
                [*COMMAND, str(self._shares)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
                start_new_session=True,  # Ctrl-C is for the parent
            )
        try:
            assert process.stdout is not None
            pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            status = _reaped(process)
            if self._closed:
                raise _Gone("the run was ended") from None
            raise WorkerError(f"A worker process {ended(status)} before it could work; use fewer --jobs?") from None
        return process


class _Limit:
    """Kills a process that is not done in time; a context manager. `passed`: what happened then, else empty."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float | None):
        self.passed = ""
        self._process, self._seconds = process, seconds
        self._timer = None if seconds is None else threading.Timer(seconds, self._kill)

    def _kill(self) -> None:
        self.passed = f"time limit: killed after {self._seconds:g} s, as it did not end by itself"
        self._process.kill()

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Local:
    """`jobs` processes on this machine, a task each at a time; a context manager that leaves none behind."""

    def __init__(self, jobs: int, parcel: Parcel):
        self.slots = self.window = jobs
        self._parcel = parcel
        self._tasks: queue.Queue[Task | None] = queue.Queue()
        self._answers: queue.Queue[tuple[Task, Found | Lost | BaseException]] = queue.Queue()
        self._children = [Child(jobs) for _ in range(jobs)]
        self._threads = [threading.Thread(target=self._work, args=(c,), daemon=True) for c in self._children]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        """Have a task done as soon as a process is free."""
        self._tasks.put(task)

    def get(self, seconds: float) -> tuple[Task, Found | Lost] | None:
        """An answer, None if there is none within some seconds. Raises what a task raised."""
        try:
            task, answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return task, answer

    def _work(self, child: Child) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._answers.put((task, child.perform(task, self._parcel)))
            except BaseException as error:
                self._answers.put((task, error))

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._tasks.put(None)
        for child in self._children:
            child.close()
        for thread in self._threads:
            thread.join(5.0)


def _reaped(process: subprocess.Popen[bytes]) -> int:
    """The status of a process that has ended or is about to; its pipes are closed."""
    status = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
    return status
