"""`qverify batch`: all cases of a plan, their rows in one file, each under a key that says all it answers.

    DIR/batch.json       under "cases" what each case asks, and under "runs" when and how each start worked on it
    DIR/samples.jsonl    the rows of `qverify verify` (formats.md, section 2), and in each also "case" and "key"

A start may ask more than the one before, or something else: keys say which rows are there. Those that nobody asks for
any more stay, and do not matter. `worked` is the whole of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from qverify.budget import parse_memory, resident, share_of
from qverify.console.output import say
from qverify.console.progress import Course, Progress
from qverify.console.signals import stoppable
from qverify.errors import InternalError
from qverify.runs.assembly import Assembly, BatchCase
from qverify.runs.folder import RUNS, Directory, Files, append, open_folder, writing
from qverify.runs.start import Start
from qverify.runs.stored import BATCH, CASES, ROWS, RowLines, batch_faults
from qverify.verification.tally import Tally
from qverify.verification.verdict import Options
from qverify.workers.dispatch import Dispatch, Engine

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from qverify.datasets.samples import Labels
    from qverify.runs.plan import Plan
    from qverify.runs.question import Question
    from qverify.verification.row import Row
    from qverify.workers.tasks import Parcels

_PLAIN_EVERY = 60.0
"""Seconds between two lines where stderr is no terminal: batches take hours."""


class BatchDirectory(Directory):
    """The directory of a batch. `rows`: key -> row."""

    def __init__(self, path: Path, file: BinaryIO, rows: dict[str, Row]):
        super().__init__(path, {ROWS: file})
        self.rows = rows

    @staticmethod
    def start(path: str, cases: Mapping[str, Question], start: Start) -> BatchDirectory:
        """Begin in `path`, or go on with what is there; `cases`: case id -> question.

        Raises DataError if its files are damaged; OutputError if the directory cannot be written or is in use.
        """
        lines = RowLines("key", ("key", "case"), " and start again")
        files = Files(
            folder=Path(path),
            question=BATCH,
            rows={ROWS: lines},
            may_differ=(CASES, RUNS),
            faults=batch_faults,
            changed=_more_cases,
        )
        asked = {name: question.to_json() for name, question in cases.items()}
        _, found = open_folder(files, {CASES: asked}, start.to_json(), True)
        return BatchDirectory(files.folder, *found[ROWS])

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they survive a reboot once this returns. Raises OutputError; the rows before are kept."""
        kept = f"{len(self.rows)} samples" if self.rows else ""
        with writing(self.path / ROWS, kept, "with the same command"):
            append(
                self.files[ROWS], b"".join(json.dumps(row.to_json(), allow_nan=False).encode() + b"\n" for row in rows)
            )
            os.fsync(self.files[ROWS].fileno())
        self.rows |= {row.key: row for row in rows}


def _more_cases(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The cases of all starts, each as it was asked last."""
    return {CASES: kept[CASES] | now[CASES]}


@contextlib.contextmanager
def _engine(start: Start, parcels: Parcels) -> Iterator[Engine]:
    """The engine: a cluster, or processes here."""
    if start.cluster is None:
        from qverify.workers.local import Local

        with Local(start.jobs or 1, parcels.__getitem__) as local:
            yield local
        return
    from qverify.workers.cluster import Cluster

    with Cluster(start.cluster, parcels.__getitem__) as remote:
        if not remote.slots:
            say(f"the cluster at {start.cluster} has no workers yet; waiting for the first.")
        yield remote


class BatchWork:
    """The work of a batch: cases still to do, rows done, and how it goes."""

    def __init__(
        self, cases: Sequence[BatchCase], directory: BatchDirectory, labels: Mapping[str, Labels], start: Start
    ):
        self.cases, self.directory, self._labels, self.start = cases, directory, labels, start
        self.tallies = {case.name: Tally() for case in cases}
        self.all = Tally()
        self.done = {key: row for case in cases for key, row in self._found(case).items()}
        self._count(self.done.values())
        self.total = sum(len(case.indices) for case in cases)
        if self.all.samples:
            say(f"{self.all.samples} samples are decided already; {self.missing} are left.")

    def _found(self, case: BatchCase) -> dict[str, Row]:
        """The rows of a case that are there by key; those of a file that was called otherwise then, under its name."""
        about = zip(case.indices, self._labels[case.name], strict=True)
        there = {key: (row, one) for one in about if (row := self.directory.rows.get(key := case.key(one[0])))}
        fitting = {key: row for key, (row, one) in there.items() if (row.index, row.label) == one}
        if strange := len(there) - len(fitting):
            say(f"note: {strange} rows of {case.name} have another index or label than their key and do not count.")
        found = {key: row for key, row in fitting.items() if row.settled(case.timeout)}
        if renamed := [replace(row, case=case.name) for row in found.values() if row.case != case.name]:
            self.directory.add(renamed)
        return {key: self.directory.rows[key] for key in found}

    def rows(self, case: BatchCase) -> list[Row]:
        """The rows of a case that count, in the order of the indices."""
        found = (self.directory.rows.get(case.key(index)) for index in case.indices)
        return [row for row in found if row is not None and row.case == case.name and row.settled(case.timeout)]

    @property
    def missing(self) -> int:
        """The number of samples without a verdict."""
        return self.total - self.all.samples

    def run(self, engine: Engine, stop: threading.Event) -> None:
        """Do what is left; ends early when `stop` is set."""
        course = Course(self.missing, lambda: engine.slots)

        def describe() -> list[str]:
            complete = sum(self.tallies[case.name].samples == len(case.indices) for case in self.cases)
            waiting = f"{course.open} open for the exact step, {course.unseen} not looked at yet"
            return [*self.all.lines(), waiting, f"{complete} of {len(self.cases)} cases complete"]

        with Progress(course, describe, _PLAIN_EVERY) as progress:
            dispatch = Dispatch(engine, self.cases, self.done, self._keep, Pulse(course, progress))
            dispatch.run(stop)
        if self.missing and not stop.is_set():
            raise InternalError(f"{self.missing} samples were passed over without a verdict.")

    def _keep(self, rows: Sequence[Row]) -> None:
        self.directory.add(rows)
        self._count(rows)

    def _count(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.all.add(row)
            self.tallies[row.case].add(row)


class Pulse:
    """Tells a `Course` what a `Dispatch` says, and shows it."""

    def __init__(self, course: Course, progress: Progress):
        self.chunk, self.exact, self.tick = course.chunk, course.exact, progress.tick


@dataclass(frozen=True, kw_only=True)
class Where:
    """The processes that work: `jobs` here, 0 for one a core, or those of a `cluster`; `memory` for all here."""

    jobs: int = 0
    cluster: str | None = None
    memory: str | None = None

    def for_workers(self) -> int | None:
        """Bytes for the workers, without this process. Raises UsageError if they are too few for so many jobs."""
        if self.memory is None:
            return None
        left = parse_memory(self.memory) - resident()
        share_of(left, Options(jobs=self.jobs).workers)
        return left


def worked(
    plan: Plan, folder: str, where: Where, check: Callable[[Mapping[str, Question]], None] = lambda questions: None
) -> BatchWork:
    """Decide all samples of all cases, or as many as there were before Ctrl-C, and keep their rows in `folder`.

    `check` hears the questions of the cases by their names before the work begins, and may raise. Raises what
    `BatchDirectory.start` and `qverify.verify` raise, and WorkerError.
    """
    assembly = Assembly(plan, folder, where.for_workers())
    start = Start(started=Start.now(), solver=assembly.solver, cluster=where.cluster)
    start = start if where.cluster else replace(start, jobs=Options(jobs=where.jobs).workers)
    questions = {case.name: case.question for case in assembly.cases}
    check(questions)
    with BatchDirectory.start(folder, questions, start) as directory:
        work = BatchWork(assembly.cases, directory, assembly.labels, start)
        if work.missing:
            ending = "ending; samples under way are dropped"
            with stoppable(ending) as stop, _engine(start, assembly.parcels) as engine:
                work.run(engine, stop)
    return work
