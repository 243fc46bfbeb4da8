"""`qverify sweep`: guaranteed accuracy along an axis of radii, a curve for every part that is quantised."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from qverify import datasets
from qverify.analysis import sweeps as sweep
from qverify.analysis.sweeps import PARTS, Key, Point, Row
from qverify.choices import RANGED
from qverify.cli.options import Given
from qverify.cli.pictures import draw, shown_by
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import InternalError, UsageError
from qverify.family.family import Family
from qverify.family.steps import Quantiser
from qverify.files.names import file_name
from qverify.files.places import PLACES
from qverify.remarks import quiet
from qverify.runs.problem import Problem, chosen_solver, of_ranges, quantiser_of, started
from qverify.runs.sweep import SweepDirectory
from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.verification.arguments import usable_device
from qverify.verification.verdict import Options, Verdict

Case = tuple[str, Point]


@dataclass(frozen=True)
class Axis:
    """The points asked for: bit-widths under a scheme, or radii; and the parts."""

    bits: tuple[int, ...]
    values: tuple[float, ...]
    quantiser: Quantiser
    parts: tuple[str, ...]

    @staticmethod
    def of(given: Given, bits: str | None, values: str | None, parts: str | None) -> Axis:
        """From the command line. Raises UsageError."""
        if (bits is None) == (values is None):
            raise UsageError("Give the points of the sweep, either as --bits LO:HI or as --values LIST.")
        if values is not None and (given.scheme or given.rounding or given.kernel or given.batchnorm):
            raise UsageError(
                "--scheme, --rounding, --kernel and --batchnorm say what --bits means; with --values they mean nothing."
            )
        quantiser = quantiser_of(given, 8)
        if quantiser.scheme not in RANGED and (given.kernel or given.batchnorm):
            raise UsageError("--kernel and --batchnorm say what --scheme tensor and channel mean; give one of these.")
        chosen = tuple(PARTS) if parts is None else _distinct("--parts", parts, str)
        sweep.grid([], chosen)
        return Axis(
            () if bits is None else _bits(bits),
            () if values is None else _distinct("--values", values, _radius),
            quantiser,
            chosen,
        )

    @property
    def convention(self) -> str:
        """What a point means, for people."""
        if self.values:
            return "radius (half-width): the same number for every quantised kind"
        return f"bits under scheme {self.quantiser.scheme}, rounding {self.quantiser.rounding}"

    def points(self, problem: Problem) -> list[Point]:
        """The points for one network; schemes that need ranges take them from the whole data set."""
        if self.values:
            return sweep.by_value(self.values)
        calibration = None
        if self.quantiser.scheme in RANGED and problem.everything is not None:
            calibration, _ = datasets.fit(problem.everything, problem.network)
        one: Any = self.quantiser
        options = {"kernel": one.kernel, "batchnorm": one.batchnorm}
        return sweep.by_bits(self.bits, one.scheme, one.rounding, problem.network, calibration, **options)

    def question(self, problem: Problem) -> dict[str, Any]:
        """The axis, as sweep.json keeps it."""
        if self.values:
            return {"values": list(self.values), "parts": list(self.parts)}
        one = self.quantiser
        stated: dict[str, Any] = {"bits": list(self.bits), "scheme": one.scheme, "rounding": one.rounding}
        if one.scheme in RANGED:
            stated |= of_ranges(one.kernel, one.batchnorm, problem.whole)
        return stated | {"parts": list(self.parts)}


def run(given: Sequence[Given], bits: str | None, values: str | None, parts: str | None) -> int:
    """The whole command for one or more models; returns the exit status."""
    first = given[0]
    axis = Axis.of(first, bits, values, parts)
    if first.resume and first.out is None:
        raise UsageError("--resume needs a directory; give --out DIR too.")
    began = time.perf_counter()
    with stdout_kept_clean():
        study = Study.load(given, axis)
        session = {"started": started(), "solver": chosen_solver(study.options)}
        with contextlib.ExitStack() as stack:
            directory = None
            if first.out is not None:
                asked = study.question() | study.places(first.out)
                start = SweepDirectory.start(first.out, asked, session, first.resume)
                directory = stack.enter_context(start)
            rows = study.computed(directory)
        if directory is not None and rows:
            _plot(directory.path, rows, study)
    missing = len(study.cases) - len(rows)
    _report(study, rows, first, time.perf_counter() - began)
    if missing:
        kept = f"kept in {first.out}; go on with the same command and --resume" if directory else "shown"
        say(f"interrupted: {len(rows)} of {len(study.cases)} points are done and {kept}.")
    return INTERRUPTED if missing else 0


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
        problems = {
            name: Problem.load(replace(one, scheme=None, rounding=None, kernel=None, batchnorm=None))
            for name, one in zip(names, given, strict=True)
        }
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
        return next(iter(self.problems.values()))

    def question(self) -> dict[str, Any]:
        """What is asked, as sweep.json keeps it."""
        asked = {name: problem.asked() for name, problem in self.problems.items()}
        own = ("model", "model_sha256", "network_sha256")
        models = {name: {key: found[key] for key in own[1:]} for name, found in asked.items()}
        common = {key: value for key, value in self.first.asked().items() if key not in own}
        return {
            "models": models,
            "model_files": [found["model"] for found in asked.values()],
            **common,
            "radii": self.axis.question(self.first),
            "attack": self.options.attack,
        }

    def places(self, folder: str) -> dict[str, Any]:
        """Where the files lie, as `Problem.places`; models by their names."""
        models = {name: problem.places(folder)[PLACES]["model"] for name, problem in self.problems.items()}
        common = {kind: place for kind, place in self.first.places(folder)[PLACES].items() if kind != "model"}
        return {PLACES: {"models": models, **common}}

    def computed(self, directory: SweepDirectory | None) -> list[Row]:
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

    def _fits(self, row: Row) -> bool:
        """Whether a row is about all the samples, by the method asked for."""
        asked = (len(self.problems[row.model].indices), self.options.method, self.options.attack)
        return (row.samples, row.method, row.attack is not None) == asked

    def _rows(self, todo: list[Key], tell: Callable[[Verdict], None], stop: threading.Event) -> Iterator[Row]:
        """The rows of some cases, model by model."""
        for name, problem in self.problems.items():
            assert problem.samples is not None
            cases = [self.cases[key] for key in todo if key[0] == name]
            x, y = problem.inputs(), problem.samples.y
            for row in sweep.sweep(problem.network, x, y, cases, self.options, tell, stop):
                yield replace(row, model=name)


def _plot(folder: Path, rows: list[Row], study: Study) -> None:
    """DIR/sweep.png and DIR/sweep.svg."""
    samples, data = len(study.first.indices), file_name(study.first.given.data or "")
    title = f"{samples} samples of {printable(data)}, by {study.options.method}; {study.axis.convention}"
    draw(folder / "sweep", lambda plots: plots.sweep_figure(rows, title))


def _report(study: Study, rows: list[Row], given: Given, seconds: float) -> None:
    """The result on stdout."""
    missing = len(study.cases) - len(rows)
    if given.as_json:
        question = study.question()
        question["sample_range"] = question.pop("samples")
        result = {"rows": [row.as_dict() for row in rows], "interrupted": bool(missing), "seconds": round(seconds, 3)}
        show_json(question | {"convention": study.axis.convention} | result)
        return
    decided = f"{len(rows)} points in {duration(seconds)}"
    if missing:
        decided += f", interrupted: {missing} are not done"
    problem = study.first
    show(f"Guaranteed accuracy, %, of {len(problem.indices)} samples of {problem.given.data}: {decided}", "")
    for name in study.problems:
        own = [row for row in rows if row.model == name]
        if own:
            clean = f"{100 * own[0].clean / own[0].samples:.2f} %"
            show(f"{name}: clean {clean}", _table(own, study.axis), "")
    show(f"Points: {study.axis.convention}. Kinds outside the part are exact. Method: {study.options.method}.")
    if any(row.unknown for row in rows) and study.options.attack:
        show("A to B: A is proved, B is what no failing network is known against; the rest is unknown.")
    if given.out is not None:
        show(f"Kept in {given.out}: sweep.csv has a row a point{shown_by(Path(given.out) / 'sweep')}.")


def _table(rows: list[Row], axis: Axis) -> Table:
    """A line a point, a column a part."""
    table = Table("bits" if axis.bits else "radius", box=None, padding=(0, 2, 0, 0))
    for part in axis.parts:
        table.add_column(part, justify="right", no_wrap=True)
    found = {(row.place, row.part): row for row in rows}
    for place in axis.bits or axis.values:
        cells = [_cell(found.get((place, part))) for part in axis.parts]
        table.add_row(f"{place:g}", *cells)
    return table


def _cell(row: Row | None) -> str:
    """The guaranteed accuracy, and up to what it could be if some samples are undecided after an attack."""
    if row is None:
        return ""
    proved = f"{100 * row.guaranteed / row.samples:.2f}"
    open_ = row.attack is not None and row.unknown
    return f"{proved} to {100 * (row.attack or 0) / row.samples:.2f}" if open_ else proved


# -- what the options say -------------------------------------------------------------------------


def _bits(text: str) -> tuple[int, ...]:
    """`LO:HI`, both included, or a single bit-width. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,2})\s*(?::\s*(\d{1,2})\s*)?", text, re.ASCII)
    if match is None:
        raise UsageError(f"The bit-widths {text!r} are not of the form LO:HI; write for example 4:12.")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise UsageError(f"The bit-widths {text!r} are empty; the smaller number comes first.")
    return tuple(range(low, high + 1))


def _distinct(option: str, text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    """A list joined by commas. Raises UsageError for an entry that is given twice."""
    found = tuple(read(word.strip()) for word in text.split(","))
    for entry in found:
        if found.count(entry) > 1:
            raise UsageError(f"{option} has {entry} more than once; give each entry once.")
    return found


def _radius(word: str) -> float:
    """A finite number >= 0. Raises UsageError."""
    try:
        radius = float(word)
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise UsageError(f"The radius {word!r} in --values is no finite number of at least 0; write 0,0.001,0.002.")
    return radius
