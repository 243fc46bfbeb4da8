"""`qverify sweep`: guaranteed accuracy along an axis of radii, a curve for every part that is quantised."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qverify.analysis.sweeps import PARTS, SweepRow
from qverify.choices import QUANTISER
from qverify.cli.pictures import draw, shown_by
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.console.signals import INTERRUPTED
from qverify.errors import UsageError
from qverify.files.names import file_name
from qverify.runs.given import option
from qverify.runs.sweep import Axis, Study, swept
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.runs.given import Given


def run(given: Sequence[Given], axis: Axis, *, out: str | None, resume: bool, as_json: bool) -> int:
    """Run the command for one or more models; returns the exit status."""
    if resume and out is None:
        raise UsageError("--resume needs a directory; give --out DIR too.")
    began = time.perf_counter()
    with stdout_kept_clean():
        study = Study.load(given, axis)
        rows = swept(study, out=out, resume=resume)
        if out is not None and rows:
            _plot(Path(out), rows, study)
    missing, seconds = len(study.cases) - len(rows), time.perf_counter() - began
    if as_json:
        _print(study, rows, seconds)
    else:
        _report(study, rows, out, seconds)
    if missing:
        kept = f"kept in {out}; go on with the same command and --resume" if out else "shown"
        say(f"interrupted: {len(rows)} of {len(study.cases)} points are done and {kept}.")
    return INTERRUPTED if missing else 0


def axis_of(given: Given, bits: str | None, values: str | None, parts: str | None) -> Axis:
    """The axis that options state. Raises UsageError."""
    if (bits is None) == (values is None):
        raise UsageError("Give the points of the sweep, either as --bits LO:HI or as --values LIST.")
    said = [name for name in QUANTISER if getattr(given, name) is not None]
    if values is not None and said:
        raise UsageError(f"{option(said[0])} says what --bits means; with --values it means nothing.")
    replace(given, bits=8).check()
    quantiser = given.quantiser(8)
    axis = Axis(quantiser=quantiser, parts=tuple(PARTS) if parts is None else _distinct("--parts", parts, str))
    if bits is not None:
        return replace(axis, bits=_bits(bits))
    return replace(axis, values=_distinct("--values", values or "", _radius))


def _plot(folder: Path, rows: list[SweepRow], study: Study) -> None:
    """Draw DIR/sweep.png and DIR/sweep.svg."""
    samples, data = len(study.first.indices), file_name(study.first.given.data or "")
    title = f"{samples} samples of {printable(data)}, by {study.options.method}; {study.axis.convention}"
    draw(folder / "sweep", lambda plots: plots.sweep_figure(rows, title))


def _print(study: Study, rows: list[SweepRow], seconds: float) -> None:
    """Write the result to stdout, as JSON."""
    missing = len(study.cases) - len(rows)
    result = {"rows": [row.as_dict() for row in rows], "interrupted": bool(missing), "seconds": round(seconds, 3)}
    show_json(study.question().summary() | {"convention": study.axis.convention} | result)


def _report(study: Study, rows: list[SweepRow], out: str | None, seconds: float) -> None:
    """Write the result to stdout, for people."""
    missing = len(study.cases) - len(rows)
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
    if out is not None:
        show(f"Kept in {out}: sweep.csv has a row a point{shown_by(Path(out) / 'sweep')}.")


def _table(rows: list[SweepRow], axis: Axis) -> Table:
    """The table of accuracies: a line a point, a column a part."""
    table = Table("bits" if axis.bits else "radius", box=None, padding=(0, 2, 0, 0))
    for part in axis.parts:
        table.add_column(part, justify="right", no_wrap=True)
    found = {(row.place, row.part): row for row in rows}
    for place in axis.bits or axis.values:
        cells = [_cell(found.get((place, part))) for part in axis.parts]
        table.add_row(f"{place:g}", *cells)
    return table


def _cell(row: SweepRow | None) -> str:
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
