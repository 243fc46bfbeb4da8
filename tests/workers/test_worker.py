"""The process that does tasks: what it holds, what it finds, and how it ends."""

from __future__ import annotations

import pickle
import subprocess
import threading
from typing import Any

import numpy as np
import pytest

import qverify
from qverify.network import Network
from qverify.processes import command, environment
from qverify.workers.tasks import Found, Parcels, Setting, Task
from qverify.workers.worker import Bench
from tests.support import networks

FIRST = 10
"""The index of the first sample in the parcel."""


class Work:
    """A network, 12 samples, and the parcels of a case that is decided by a method."""

    def __init__(self, rng: np.random.Generator, method: str):
        self.network: Network = networks.mlp(rng, 4, 6, 3)
        self.x = networks.inputs(self.network, rng).reshape(-1, 4)[:1] + rng.normal(size=(12, 4))
        self.y = self.network.evaluate(self.x).argmax(1)
        self.radii = qverify.Radii.from_bits(7)
        self.options = qverify.Options(method=method, jobs=1, memory=2**30)
        self.parcels = Parcels()
        self.names: dict[str, Any] = {
            "network": self.parcels.add(self.network),
            "samples": self.parcels.add((FIRST, self.x, self.y)),
            "setting": self.parcels.add(Setting(self.radii, self.options)),
        }

    def task(self, start: int, stop: int, exact: bool = False) -> Task:
        return Task(case="c", start=start, stop=stop, exact=exact, **self.names)

    def packed(self) -> dict[str, bytes]:
        return {name: self.parcels[name] for name in self.names.values()}

    def statuses(self, method: str) -> dict[int, str]:
        options = qverify.Options(method=method, memory=2**30)
        found = qverify.verify(self.network, self.x, self.y, self.radii, options)
        return {FIRST + verdict.index: verdict.status.value for verdict in found}


def rows(*parts: tuple[Any, ...]) -> dict[int, str]:
    return {row.index: row.status.value for part in parts for row in part}


def test_cheap_stages_decide_what_verify_decides(rng: np.random.Generator) -> None:
    work, bench = Work(rng, "bp"), Bench()
    task = work.task(FIRST + 2, FIRST + 9)
    bench.prepare(task, work.packed())
    found = bench.perform(task)
    expected = {index: status for index, status in work.statuses("bp").items() if FIRST + 2 <= index < FIRST + 9}
    assert rows(found.rows, found.open) == expected and found.seconds > 0


def test_what_is_open_is_left_to_the_exact_step_sample_by_sample(rng: np.random.Generator) -> None:
    work, bench = Work(rng, "exact"), Bench()
    task = work.task(FIRST, FIRST + 12)
    bench.prepare(task, work.packed())
    cheap = bench.perform(task)
    still, expected = rows(cheap.open), work.statuses("exact")
    assert set(still.values()) == {"unknown"} and len(still) >= 2
    assert rows(cheap.rows) == {index: status for index, status in expected.items() if index not in still}
    for index in sorted(still)[:2]:
        one = work.task(index, index + 1, exact=True)
        bench.prepare(one, {})  # nothing new: all of it is held
        found = bench.perform(one)
        assert rows(found.rows) == {index: expected[index]} and not found.open


def test_parcels_are_held_for_the_next_task_and_dropped_for_another(rng: np.random.Generator) -> None:
    work, other, bench = Work(rng, "ibp"), Work(rng, "ibp"), Bench()
    bench.prepare(work.task(FIRST, FIRST + 1), work.packed())
    bench.prepare(work.task(FIRST + 1, FIRST + 2), {})
    task = other.task(FIRST, FIRST + 12)
    bench.prepare(task, other.packed())
    found = bench.perform(task)
    assert rows(found.rows, found.open) == other.statuses("ibp")
    with pytest.raises(KeyError):  # what it does not need any more it has not got any more
        bench.prepare(work.task(FIRST, FIRST + 1), {})


@pytest.mark.slow
def test_a_real_process_says_that_it_is_ready_and_answers(rng: np.random.Generator) -> None:
    work = Work(rng, "bp")
    process = subprocess.Popen(
        command("qverify.workers.worker"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None and process.stdout is not None
    overdue = threading.Timer(60, process.kill)  # a process that is silent ends the test, too
    overdue.start()
    try:
        assert pickle.load(process.stdout) == "ready"
        pickle.dump((work.task(FIRST, FIRST + 12), work.packed()), process.stdin)
        process.stdin.flush()
        found = pickle.load(process.stdout)
        assert isinstance(found, Found) and rows(found.rows, found.open) == work.statuses("bp")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    finally:
        overdue.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
