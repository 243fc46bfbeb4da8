"""What other commands than `verify` and `batch` found, read back for reports.

That are folders of `sweep` and `radius`, and files that hold the object that `discrepancy`, `property`, `compare`,
`covers` or `runtimes` prints with `--json`.

Everything that a report says is counted from the rows; an object whose own counts are others is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qverify.errors import DataError, UsageError
from qverify.files.names import short_names
from qverify.files.strict_json import parsed
from qverify.runs import radius, sweep
from qverify.runs.folder import RUNS, Reader, read_record
from qverify.runs.found import Comparison, Coverage, Discrepancies, Properties, Runtimes
from qverify.runs.objects import object_of
from qverify.runs.question import AXIS, REPORTED, SWEPT, Question
from qverify.runs.start import Start
from qverify.runs.stored import BATCH, RUN, record_faults
from qverify.text.brief import Brief
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.analysis.grid import Bracket
    from qverify.analysis.layers import LayerRow
    from qverify.analysis.sweeps import SweepRow

Found = TypeVar("Found", covariant=True)


@dataclass(frozen=True, eq=False, repr=False)
class Finding(Brief, Generic[Found]):
    """What a folder or file holds. `name`: a short one for people; `notes`: what does not count, a sentence each."""

    name: str
    found: Found
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sweep(Brief):
    """A sweep: its question, its starts, and a row a point that is done, in their order."""

    question: Question
    starts: tuple[Start, ...]
    rows: tuple[SweepRow, ...]

    @property
    def asked(self) -> int:
        """How many points were asked for."""
        stated = self.question.radii
        points = stated.values if isinstance(stated.bits, int) or stated.bits is None else stated.bits
        return len(self.question.models or {}) * len(points or ()) * len(stated.parts or ())


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Factors(Brief):
    """A search for the largest factors: its question, its starts, a bracket a sample that is done, and layers."""

    question: Question
    starts: tuple[Start, ...]
    rows: tuple[Bracket, ...]
    layers: tuple[LayerRow, ...]


AnyFinding = Finding[Sweep | Factors | Discrepancies | Properties | Comparison | Coverage | Runtimes]


def sorted_out(paths: Sequence[str]) -> tuple[list[str], list[AnyFinding]]:
    """The paths of runs of `verify` and `batch`, which `read_runs` reads, and what the others hold.

    Raises DataError for what is damaged, UsageError for what is given twice.
    """
    resolved = [Path(os.path.realpath(path)) for path in paths]  # as `resolve`, but links may go in a circle
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UsageError(f"The run {printable(path)} is given twice; give each once.")
    names = dict(zip(paths, map(printable, short_names([str(place) for place in resolved])), strict=True))
    runs, findings = [], []
    for path in paths:
        kept = _kept(Path(path), names[path])
        findings += kept
        if not kept or any((Path(path) / name).exists() for name in (RUN, BATCH)):
            runs.append(path)
    return runs, findings


def _kept(path: Path, name: str) -> list[AnyFinding]:
    """The findings at a path; none in a folder of `verify` or `batch`."""
    if path.is_file():
        return [Finding(name, _read(path, lambda: object_of(parsed(path.read_bytes()))))]
    found: list[AnyFinding] = []
    if (path / sweep.QUESTION).exists():
        found.append(_sweep(path, name))
    if (path / radius.QUESTION).exists():
        found.append(_factors(path, name))
    return found


# -- folders --------------------------------------------------------------------------------------


def _sweep(folder: Path, name: str) -> Finding[Sweep]:
    question, starts = _question(folder / sweep.QUESTION, lambda record: record_faults(record, SWEPT, AXIS))
    rows, torn = _rows(folder / sweep.ROWS, sweep.COLUMNS)
    start, stop = question.samples
    latest = {row.key: row for row in rows if row.samples == stop - start and row.method == question.method}
    known = [key for key in latest if key[0] in (question.models or {}) and key[1] in (question.radii.parts or ())]
    points = question.radii.bits if isinstance(question.radii.bits, tuple) else question.radii.values or ()
    own = [latest[key] for key in known if (key[2] if key[3] is None else key[3]) in points]
    own.sort(key=lambda row: (list(question.models or {}).index(row.model), row.place))
    for model in question.models or {}:
        if len({row.clean for row in own if row.model == model}) > 1:
            raise DataError(
                f"{printable(str(folder))}: points of {printable(model)} differ in how many samples the network gets"
                " right, which no sweep writes; sweep again."
            )
    notes = [*torn, *_left_out(len(rows) - len(own), "points or samples")]
    return Finding(name, Sweep(question=question, starts=starts, rows=tuple(own)), tuple(notes))


def _factors(folder: Path, name: str) -> Finding[Factors]:
    question, starts = _question(folder / radius.QUESTION, lambda record: record_faults(record, REPORTED))
    rows, torn = _rows(folder / radius.ROWS, radius.BRACKETS)
    start, stop = question.samples
    latest = {row.index: row for row in rows if start <= row.index < stop}
    layers: list[LayerRow] = []
    lost = 0
    if (folder / radius.LAYERS).exists():
        found, more = _rows(folder / radius.LAYERS, radius.LAYER_ROWS)
        kept = {row.key: row for row in found if row.samples == stop - start}
        layers, torn, lost = list(kept.values()), [*torn, *more], len(found) - len(kept)
    notes = [*torn, *_left_out(len(rows) - len(latest) + lost, "samples")]
    brackets = tuple(latest[index] for index in sorted(latest))
    return Finding(name, Factors(question=question, starts=starts, rows=brackets, layers=tuple(layers)), tuple(notes))


def _left_out(count: int, what: str) -> list[str]:
    return [f"{count} rows are about other {what}, or were replaced by later ones, and are left out."] if count else []


def _question(path: Path, faults: Callable[[dict[str, Any]], list[str]]) -> tuple[Question, tuple[Start, ...]]:
    record = _read(path, lambda: read_record(path, faults))
    starts = tuple(map(Start.from_json, record.pop(RUNS)))
    return _read(path, lambda: Question.from_json(record)), starts


def _rows(path: Path, reader: Reader) -> tuple[list[Any], list[str]]:
    """The rows of a CSV file, in its order, and notes."""
    if not path.exists():
        return [], [f"{path.name} is missing."]
    content = _read(path, path.read_bytes)
    rows, end = reader.read(path, content)
    return rows, [f"The last line of {path.name} is torn and left out."] if content[end:].strip() else []


T = TypeVar("T")


def _read(path: Path, read: Callable[[], T]) -> T:
    """Read; raises DataError for what cannot be read, or is not what a command writes."""
    try:
        return read()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:
        raise DataError(
            f"{printable(str(path))} cannot be reported: {error}; name a folder that `verify`, `batch`, `sweep` or"
            " `radius` wrote with --out, or a file that holds what another command printed with --json."
        ) from None
