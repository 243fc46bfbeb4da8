"""`qverify sweep`: guaranteed accuracy along an axis of radii; kept on disk, it can go on later.

    DIR/sweep.json    the question, and under "runs" when and how each start worked on it
    DIR/sweep.csv     one row a point (sweeps.SweepRow), appended as it is done; an empty cell is a missing value

A sweep that is killed loses the point it was working on and nothing else. `swept` is the whole of it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from qverify import datasets
from qverify.analysis import sweeps as sweep
from qverify.analysis.sweeps import PARTS, Key, Point, SweepRow
from qverify.choices import RANGED
from qverify.console.output import say
from qverify.console.progress import Pace, Progress
from qverify.console.signals import stoppable
from qverify.errors import InternalError, UsageError
from qverify.family.family import Family
from qverify.family.steps import Quantiser
from qverify.files.places import PLACES
from qverify.moved import former_names
from qverify.remarks import quiet
from qverify.runs.csv_rows import Columns
from qverify.runs.folder import Directory, Files, append, open_folder, writing
from qverify.runs.problem import Problem, calibrated_on_all, with_quantiser
from qverify.runs.question import Question, StatedRadii
from qverify.runs.start import SolverUsed, Start
from qverify.runs.stored import sweep_faults
from qverify.text.brief import Brief
from qverify.verification.arguments import usable_device

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from qverify.runs.given import Given
    from qverify.verification.verdict import Options, Verdict

__getattr__ = former_names(__name__, {"csv_text": "qverify.runs.sweep:sweep_csv"})

Case = tuple[str, Point]
"""A part, and a point of it."""

QUESTION, ROWS = "sweep.json", "sweep.csv"
_MAY_DIFFER = ("model_files", "data_source", "data_samples", PLACES, "runs")
"""Keys of sweep.json that do not belong to the question: files may move, their hashes count."""

COLUMNS = Columns(SweepRow, "a sweep")


class SweepDirectory(Directory):
    """The directory of a sweep. `rows`: the rows by `SweepRow.key`."""

    def __init__(self, path: Path, file: BinaryIO, rows: dict[Key, SweepRow]):
        super().__init__(path, {ROWS: file})
        self.rows = rows

    @staticmethod
    def start(path: str, question: Question, start: Start, resume: bool = False) -> SweepDirectory:
        """Begin a sweep in `path`, or go on with the one there; arguments and errors as `RunDirectory.start`."""
        files = Files(
            folder=Path(path), question=QUESTION, rows={ROWS: COLUMNS}, may_differ=_MAY_DIFFER, faults=sweep_faults
        )
        _, found = open_folder(files, question.to_json(), start.to_json(), resume)
        file, rows = found[ROWS]
        return SweepDirectory(files.folder, file, {row.key: row for row in rows})

    def add(self, row: SweepRow) -> None:
        """Append one row. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, f"{len(self.rows)} points" if self.rows else ""):
            append(self.files[ROWS], sweep_csv([row]).encode())
        self.rows[row.key] = row


def sweep_csv(rows: Iterable[SweepRow], header: bool = False) -> str:
    """The rows as lines of sweep.csv; numbers are written so that they are read back as they were."""
    return COLUMNS.text(rows, header)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The points asked for: bit-widths under the conventions of `quantiser`, or radii, `values`; and the parts.

    Raises UsageError for parts that there are not.
    """

    bits: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    quantiser: Quantiser = field(default_factory=lambda: Quantiser(8))
    parts: tuple[str, ...] = tuple(PARTS)

    def __post_init__(self) -> None:
        sweep.grid([], self.parts)

    @property
    def convention(self) -> str:
        """The convention of the points, for people."""
        if self.values:
            return "radius (half-width): the same number for every quantised kind"
        return f"bits under scheme {self.quantiser.scheme}, rounding {self.quantiser.rounding}"

    def points(self, problem: Problem) -> list[Point]:
        """The points for one network; schemes that need ranges take them from the whole data set."""
        if self.values:
            return sweep.by_value(self.values)
        calibration = None
        if self.quantiser.scheme in RANGED:
            calibration, _ = datasets.fit(problem.everything, problem.network)
        return sweep.by_quantiser(self.bits, self.quantiser, problem.network, calibration)

    def stated(self, problem: Problem) -> StatedRadii:
        """The axis, as sweep.json keeps it under `radii`."""
        if self.values:
            return StatedRadii(values=self.values, parts=self.parts)
        stated = replace(with_quantiser(StatedRadii(), self.quantiser), bits=self.bits, parts=self.parts)
        if self.quantiser.scheme not in RANGED:
            return stated
        return replace(stated, calibration=calibrated_on_all(len(problem.everything)))


@dataclass(frozen=True, eq=False, repr=False)
class Study(Brief):
    """The models by the names they have in rows, and every point of every part for each."""

    problems: dict[str, Problem]
    axis: Axis
    options: Options
    cases: dict[Key, Case]

    @staticmethod
    def load(given: Sequence[Given], axis: Axis) -> Study:
        """Read and check everything before the work begins."""
        models = [one.model for one in given]
        if len({str(Path(model).resolve()) for model in models}) < len(models):
            raise UsageError("A model is given twice; give each once.")
        stems = [Path(model).stem for model in models]
        names = stems if len(set(stems)) == len(stems) else models
        problems = {name: Problem.load(one.without_family()) for name, one in zip(names, given, strict=True)}
        options = next(iter(problems.values())).options()
        options = replace(options, attack=options.method in ("auto", "exact"))
        usable_device(options.device)
        cases: dict[Key, Case] = {}
        for name, problem in problems.items():
            for part, point in sweep.grid(axis.points(problem), axis.parts):
                Family.of(problem.network, point.radii, options.clip)
                cases[name, part, point.bits, point.value] = (part, point)
        return Study(problems, axis, options, cases)

    @property
    def first(self) -> Problem:
        """The problem of the first model."""
        return next(iter(self.problems.values()))

    def question(self) -> Question:
        """The question, as sweep.json keeps it."""
        asked = {name: problem.asked(self.axis.stated(problem)) for name, problem in self.problems.items()}
        hashes = ("model_sha256", "network_sha256")
        return replace(
            next(iter(asked.values())),
            models={name: {key: getattr(own, key) for key in hashes} for name, own in asked.items()},
            model_files=tuple(own.model for own in asked.values()),
            model="",
            model_sha256=None,
            network_sha256=None,
            attack=self.options.attack,
        )

    def places(self, folder: str) -> dict[str, Any]:
        """The files' places, as `Problem.places` gives them; models by their names."""
        models = {name: problem.places(folder)["model"] for name, problem in self.problems.items()}
        common = {kind: place for kind, place in self.first.places(folder).items() if kind != "model"}
        return {"models": models, **common}

    def computed(self, directory: SweepDirectory | None) -> list[SweepRow]:
        """A row for every case in order, those of earlier starts included; fewer after Ctrl-C."""
        before = {} if directory is None else directory.rows
        rows = {key: before[key] for key in self.cases if key in before and self._fits(before[key])}
        kept, samples = len(rows), len(self.first.indices)
        if strange := len(before) - kept:
            say(f"note: {strange} rows of sweep.csv are about other points or samples and do not count.")
        if rows:
            say(f"{kept} points are done already; {len(self.cases) - kept} are left.")
        pace = Pace((len(self.cases) - kept) * samples, self.options.method in ("auto", "exact"))

        def describe() -> list[str]:
            for name, part, bits, value in (key for key in self.cases if key not in rows):
                where = f"{bits} bits" if value is None else f"radius {value:g}"
                return [f"point {len(rows) + 1} of {len(self.cases)}: {name}, {part}, {where}"]
            return ["all points are done"]

        with stoppable() as stop, Progress(pace, describe) as progress, contextlib.suppress(KeyboardInterrupt), quiet():

            def tell(verdict: Verdict) -> None:
                progress.add((len(rows) - kept) * samples + verdict.index, verdict.method == "exact")

            for row in self._rows([key for key in self.cases if key not in rows], tell, stop):
                if directory is not None:
                    directory.add(row)
                rows[row.key] = row
        if len(rows) < len(self.cases) and not stop.is_set():
            raise InternalError(f"{len(self.cases) - len(rows)} points were passed over.")
        return [rows[key] for key in self.cases if key in rows]

    def _fits(self, row: SweepRow) -> bool:
        """Whether a row is about all the samples, by the method asked for."""
        asked = (len(self.problems[row.model].indices), self.options.method, self.options.attack)
        return (row.samples, row.method, row.attack is not None) == asked

    def _rows(self, todo: list[Key], tell: Callable[[Verdict], None], stop: threading.Event) -> Iterator[SweepRow]:
        """The rows of some cases, model by model."""
        for name, problem in self.problems.items():
            cases = [self.cases[key] for key in todo if key[0] == name]
            x, y = problem.inputs(), problem.samples.y
            for row in sweep.sweep(problem.network, x, y, cases, self.options, tell, stop):
                yield replace(row, model=name)


def swept(study: Study, *, out: str | None = None, resume: bool = False) -> list[SweepRow]:
    """A row for every point in order, or as many as there were before Ctrl-C; kept in the folder `out`, if given.

    Raises what `SweepDirectory.start` and `qverify.verify` raise.
    """
    start = Start(started=Start.now(), solver=SolverUsed.of(study.options))
    with contextlib.ExitStack() as stack:
        directory = None
        if out is not None:
            asked = replace(study.question(), places=study.places(out))
            directory = stack.enter_context(SweepDirectory.start(out, asked, start, resume))
        return study.computed(directory)
