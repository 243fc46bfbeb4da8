"""The process that does the work: messages come on stdin, answers go to stdout, and it ends when stdin closes.

It has one thread for torch and one for numpy (`local.Child` sets the environment), and waits while its solver works,
so that N such processes use N cores.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from qverify.budget import share_of
from qverify.errors import InternalError, QVerifyError
from qverify.processes import serving
from qverify.verification.cascade import Cascade
from qverify.verification.row import Row, Status
from qverify.workers.tasks import Found, Setting, Task

if TYPE_CHECKING:
    from qverify.verification.verdict import Verdict

READY = "ready"
_IDLE = 600.0
"""Seconds without a message after which the process ends; whoever needs it starts another."""


class Bench:
    """The parcels and cascade of a case, kept from one task to the next.

    `shares`: processes that share the memory of this machine.
    """

    def __init__(self, shares: int = 1) -> None:
        self._shares = shares
        self._values: dict[str, Any] = {}
        self._cascade: Cascade | None = None
        self._of: tuple[str, ...] = ()

    def prepare(self, task: Task, parcels: dict[str, bytes]) -> None:
        """Unpack what is new, drop what this task does not need."""
        held = {name: value for name, value in self._values.items() if name in task.parcels}
        self._values = held | {name: pickle.loads(content) for name, content in parcels.items()}
        if self._of != task.parcels or self._cascade is None:
            network, setting = self._values[task.network], self._values[task.setting]
            assert isinstance(setting, Setting)
            options = replace(setting.options, memory=share_of(setting.options.memory, self._shares))
            self._cascade = Cascade(network, setting.radii, options)
            self._of = task.parcels

    def perform(self, task: Task) -> Found:
        """Do a task that was prepared."""
        began = time.perf_counter()
        assert self._cascade is not None
        cascade = self._cascade
        first, x, y = self._values[task.samples]
        rows: list[Row] = []
        still: list[Row] = []
        step = cascade.setup.chunk
        for start in range(task.start, task.stop, step):
            stop = min(start + step, task.stop)

            def tell(verdict: Verdict, start: int = start) -> None:
                rows.append(replace(verdict, index=start + verdict.index).row())

            some = slice(start - first, stop - first)
            batch = cascade.cheap_stages(0, x[some], y[some], tell, task.spent)
            if task.exact and len(batch.open):
                cascade.exact_stage(batch, tell)
                continue
            for sample in batch.open:
                verdict = batch.verdict(int(sample), Status.UNKNOWN, "exact")
                still.append(replace(verdict, index=start + verdict.index).row())
        return Found(tuple(rows), tuple(still), time.perf_counter() - began)


def main() -> None:
    """Serve until stdin closes.

    The argument of the command line: how many such processes share the memory.
    """
    torch.set_num_threads(1)
    messages, say = serving()
    bench = Bench(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    say(READY)
    while True:
        try:
            task, parcels = messages.get(timeout=_IDLE)
        except queue.Empty:
            return
        say(_answer(bench, task, parcels))


def _answer(bench: Bench, task: Task, parcels: dict[str, bytes]) -> Found | Exception:
    """The answer to a task, or the error that should end the run."""
    try:
        bench.prepare(task, parcels)
        return bench.perform(task)
    except (QVerifyError, MemoryError) as error:
        return error
    except Exception as error:
        if os.environ.get("QVERIFY_DEBUG") == "1":
            traceback.print_exc()
        return InternalError(f"Unexpected {type(error).__name__} ({error}) in {task.case}.")
