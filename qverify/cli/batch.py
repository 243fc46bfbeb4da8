"""`qverify batch`: all cases of a plan, kept in one directory, by processes here or on a cluster."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from qverify import datasets
from qverify.budget import parse_memory, resident, share_of
from qverify.choices import RANGED
from qverify.cli.options import Given
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Course, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.datasets import Samples, units
from qverify.datasets.samples import Labels
from qverify.errors import InternalError, UsageError
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.remarks import quiet
from qverify.report.numbers import Tally, percent
from qverify.runs.batch import BatchDirectory
from qverify.runs.folder import settled
from qverify.runs.plan import Entry, Plan, case_id, identity
from qverify.runs.problem import Problem, chosen_solver, hint, started
from qverify.verification.verdict import Options
from qverify.workers.dispatch import BatchCase, Dispatch, Engine
from qverify.workers.tasks import GRACE, Parcels, Row, Setting, Task

_PLAIN_EVERY = 60.0
"""Seconds between two lines where stderr is no terminal: batches take hours."""


def run(path: str, out: str | None, machine: tuple[int, str | None, str | None], as_json: bool) -> int:
    """The whole command; returns the exit status. `machine`: --jobs, --cluster and --memory."""
    began, (jobs, cluster, memory) = time.perf_counter(), machine
    plan = Plan.read(path)
    folder = out or plan.out
    if folder is None:
        raise UsageError(f'There is no place for the rows; give --out DIR, or add out = "DIR" to {path}.')
    if cluster is not None and jobs:
        raise UsageError("--jobs and --cluster exclude each other; a cluster has the workers it has.")
    with stdout_kept_clean():
        assembly = Assembly(plan, folder, None if memory is None else _for_workers(memory, jobs))
        session: dict[str, Any] = {"started": started(), "solver": assembly.solver}
        session |= {"jobs": Options(jobs=jobs).workers} if cluster is None else {"cluster": cluster}
        with BatchDirectory.start(folder, {c.name: c.question for c in assembly.cases}, session) as directory:
            work = BatchWork(assembly.cases, directory, assembly.labels)
            if work.missing:
                ending = "ending; samples under way are dropped"
                with stoppable(ending) as stop, _engine(cluster, session, assembly.parcels) as engine:
                    work.run(engine, stop)
    _report(work, as_json, time.perf_counter() - began)
    if work.missing:
        say(
            f"interrupted: {work.total - work.missing} of {work.total} samples are decided and kept in {folder};"
            " go on with the same command."
        )
        return INTERRUPTED
    return 0


def _for_workers(memory: str, jobs: int) -> int:
    """Bytes of `--memory` without this process. Raises UsageError if they are too few for so many jobs."""
    left = parse_memory(memory) - resident()
    share_of(left, Options(jobs=jobs).workers)
    return left


class Assembly:
    """The cases of a plan, with all that their work needs: `cases`, `parcels`, `solver`. Raises what is wrong.

    `labels`: those of the samples of each case, by its name. `memory`: bytes for all processes that work.
    """

    def __init__(self, plan: Plan, folder: str, memory: int | None = None):
        self._memory = memory
        self.parcels = Parcels()
        self.solver: dict[str, str] | None = None
        self.cases: list[BatchCase] = []
        self.labels: dict[str, Labels] = {}
        self._plan, self._folder = plan, folder
        self._packed: dict[tuple[str, ...], str] = {}
        self._hinted: set[tuple[str, ...]] = set()
        data = {name: datasets.scaled(datasets.load(name), plan.input_scale) for name in plan.data}
        for model in plan.models:
            network = _network(model)
            for name, samples in data.items():
                for doubt in units.doubts(network, samples):
                    say(f"note: {network.source} on {name}: {doubt}")
            for entry in (entry for entry in plan.entries() if entry.model == model):
                self._add(entry, network, data[entry.data])
        self._refuse_twins()

    def _add(self, entry: Entry, network: Network, everything: Samples) -> None:
        problem = Problem.of(_given(entry, self._plan), network, everything)
        if entry.scheme is not None and (entry.scheme, entry.model, entry.data) not in self._hinted:
            hint(problem, f"{network.source} on {entry.data}: ")
            self._hinted.add((entry.scheme, entry.model, entry.data))
        options = replace(problem.options(), jobs=1, memory=self._memory)
        question = problem.question() | {"arrays_sha256": everything.arrays_sha256} | problem.places(self._folder)
        self.solver = chosen_solver(options) or self.solver
        assert problem.samples is not None and problem.radii is not None
        if (entry.data,) not in self._packed:
            labelled = (problem.indices.start, problem.inputs(), problem.samples.y)
            self._packed[(entry.data,)] = self.parcels.add(labelled)
        if (entry.model,) not in self._packed:
            self._packed[(entry.model,)] = self.parcels.add(network)
        own = identity(question)
        task = Task(
            case_id(entry.name, own),
            self._packed[(entry.model,)],
            self._packed[(entry.data,)],
            self.parcels.add(Setting(problem.radii, options)),
            None if options.seconds is None else options.seconds + GRACE,
        )
        self.cases.append(BatchCase(task.case, question, own, problem.indices, task))
        self.labels[task.case] = problem.samples.y

    def _refuse_twins(self) -> None:
        """Two cases that ask the same would share their rows."""
        seen: dict[str, BatchCase] = {}
        for case in self.cases:
            before = seen.setdefault(str(case.identity), case)
            if before is not case:
                raise UsageError(
                    f"The plan asks the same twice: {before.name} and {case.name} (models {before.question['model']}"
                    f" and {case.question['model']}); leave one out."
                )


def _network(model: str) -> Network:
    with quiet():
        network = onnx_io.load(model)
    for note in network.notes:
        say(f"note: {Path(model).name}: {note}")
    return network


def _given(entry: Entry, plan: Plan) -> Given:
    """The command line of `qverify verify` for one case."""
    return Given(
        entry.model,
        entry.data,
        bits=entry.bits,
        scheme=entry.scheme,
        rounding=entry.rounding,
        kernel=plan.kernel if entry.scheme in RANGED else None,
        batchnorm=plan.batchnorm if entry.scheme in RANGED else None,
        radii=entry.radii,
        samples=plan.samples,
        input_scale=plan.input_scale,
        clip_input=plan.clip_input,
        method=entry.method,
        formulation=plan.formulation,
        solver=plan.solver,
        timeout=plan.timeout,
        jobs=1,
    )


@contextlib.contextmanager
def _engine(cluster: str | None, session: dict[str, Any], parcels: Parcels) -> Iterator[Engine]:
    """Who does the work."""
    if cluster is None:
        from qverify.workers.local import Local

        with Local(session["jobs"], parcels.__getitem__) as local:
            yield local
        return
    from qverify.workers.cluster import Cluster

    with Cluster(cluster, parcels.__getitem__) as remote:
        if not remote.slots:
            say(f"the cluster at {cluster} has no workers yet; waiting for the first.")
        yield remote


class BatchWork:
    """What is to do, what is done, and how it goes."""

    def __init__(self, cases: Sequence[BatchCase], directory: BatchDirectory, labels: Mapping[str, Labels]):
        self.cases, self.directory, self._labels = cases, directory, labels
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
        fitting = {key: row for key, (row, one) in there.items() if (row["index"], row["label"]) == one}
        if strange := len(there) - len(fitting):
            say(f"note: {strange} rows of {case.name} have another index or label than their key and do not count.")
        found = {key: row for key, row in fitting.items() if settled(row, case.question["timeout"])}
        if renamed := [{**row, "case": case.name} for row in found.values() if row["case"] != case.name]:
            self.directory.add(renamed)
        return {key: self.directory.rows[key] for key in found}

    @property
    def missing(self) -> int:
        """How many samples have no verdict."""
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

    def _count(self, rows: Any) -> None:
        for row in rows:
            self.all.add(row)
            self.tallies[row["case"]].add(row)


class Pulse:
    """Tells a `Course` what a `Dispatch` says, and shows it."""

    def __init__(self, course: Course, progress: Progress):
        self.chunk, self.exact, self.tick = course.chunk, course.exact, progress.tick


def _report(work: BatchWork, as_json: bool, seconds: float) -> None:
    """The result on stdout, over all rows that the plan asks for."""
    where = work.directory.path
    if as_json:
        cases = {case.name: work.tallies[case.name].as_dict() for case in work.cases}
        counts: dict[str, Any] = {
            "samples": work.all.samples,
            "missing": work.missing,
            "interrupted": bool(work.missing),
        }
        show_json(counts | {"seconds": round(seconds, 3), "out": str(where), "cases": cases})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("case", overflow="fold")
    for heading in ("samples", "clean", "guaranteed", "attack", "unknown", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in work.cases:
        tally = work.tallies[case.name]
        shares = [percent(part, tally.samples) for part in (tally.clean, tally.guaranteed, tally.attack)]
        decided, unknown = f"{tally.samples} of {len(case.indices)}", str(tally.statuses["unknown"])
        table.add_row(case.name, decided, *shares, unknown, f"{sum(tally.seconds.values()):.1f}")
    show(f"{len(work.cases)} cases, {work.all.samples} samples in {duration(seconds)}", "", table, "")
    if work.all.limited:
        show(f"{work.all.limited} samples ran into the time limit; a plan with a larger one asks about these again.")
    show(f"Kept in {where}: batch.json says what each case asks, samples.jsonl has a line a sample.")
