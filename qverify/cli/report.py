"""`qverify report`: tables and a page about runs that lie on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qverify.console.output import echo, say, show, stdout_kept_clean
from qverify.errors import UsageError
from qverify.report.claim import required
from qverify.report.pivot import Pivot, csv_pivot, latex_pivot, listed_pivot, markdown_pivot, pivot, terminal_pivot
from qverify.report.sections import latex_sections, markdown_sections, sections_of, terminal_sections
from qverify.report.table import Line, labels, lines_of
from qverify.report.text import csv_table, floating, latex_table, markdown_table, notes, terminal
from qverify.runs.findings import sorted_out
from qverify.runs.folder import writing
from qverify.runs.gate import joined
from qverify.runs.merging import added_up
from qverify.runs.reading import read_runs
from qverify.text import escapes
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.report.section import Section

_TEXTS: dict[str, Callable[[Sequence[Line]], str]] = {
    "markdown": markdown_table,
    "csv": csv_table,
    "latex": latex_table,
}
_PIVOTS: dict[str, Callable[[Pivot, str], str]] = {
    "markdown": markdown_pivot,
    "csv": csv_pivot,
    "latex": latex_pivot,
}
_TITLES = {
    "markdown": lambda title: f"# {escapes.markdown(title)}\n\n",
    "latex": lambda title: f"% {printable(title)}\n",
}
_SECTIONS: dict[str, Callable[[Sequence[Section]], str]] = {
    "markdown": markdown_sections,
    "latex": latex_sections,
}
_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How a table is shown: its form, and what stands around it, by the names of options of `qverify report`."""

    form: str
    out: str | None = None
    title: str | None = None
    pivot: str | None = None
    caption: str | None = None
    label: str | None = None

    def check(self) -> None:
        """Raise UsageError for combinations that make no sense."""
        if self.form == "html" and self.out is None:
            raise UsageError("The page needs a file; give --out FILE.html too.")
        if self.form == "terminal" and self.out is not None:
            raise UsageError("--out keeps a file; name its --format too: markdown, csv, latex or html.")
        if self.form == "csv" and self.title is not None:
            raise UsageError("A CSV file has no place for --title; leave it out, or name another --format.")
        if self.form != "latex" and (self.caption or self.label) is not None:
            raise UsageError("--caption and --label are for LaTeX; name --format latex too.")
        if self.label is not None and (self.caption is None or not re.fullmatch(r"[\w:.-]+", self.label)):
            raise UsageError("--label goes with a --caption, and is made of letters, digits and : . - _.")


def run(runs: Sequence[str], shown: Shown, require: float | None) -> int:
    """Run the command; returns the exit status."""
    shown.check()
    paths, findings = sorted_out(runs)
    lines = lines_of(added_up(read_runs(paths)))
    _check_kinds(lines, [finding.name for finding in findings], shown, require)
    sections = sections_of(findings)
    passed, said = (True, []) if require is None else required(lines, labels(lines), require)
    if shown.form == "terminal":
        table = terminal(lines) if shown.pivot is None else terminal_pivot(pivot(lines), shown.pivot)
        show(*([shown.title, ""] if shown.title else []), *(table if lines else []), *said)
        show(*terminal_sections(sections)[0 if lines else 1 :])
    else:
        _write(lines, sections, shown, said)
    if not passed:
        failing = [one.partition(": ")[2].rstrip(".") for one in said if one.startswith("FAILED")]
        say(f"--require {require:g}: {joined(failing)}.")
    return 0 if passed else _FAILED


def _check_kinds(lines: Sequence[Line], others: Sequence[str], shown: Shown, require: float | None) -> None:
    """Raise UsageError where what was given has no place, or not what an option is about."""
    asked = [("--require", require), ("--pivot", shown.pivot), ("--caption", shown.caption)]
    for option, given in asked:
        if given is not None and not lines:
            raise UsageError(f"{option} is about runs of verify and batch; give one of these too, or leave it out.")
    if shown.form == "csv" and others:
        raise UsageError(
            f"The CSV file is about runs of verify and batch; leave {joined(others)} out, or name another --format."
        )


def _write(lines: Sequence[Line], sections: Sequence[Section], shown: Shown, said: Sequence[str]) -> None:
    """Write a form to its file, or to stdout; `said`: whether each line passes what is required of it."""
    form, out, title = shown.form, shown.out, shown.title
    if form == "html":
        from qverify.report.page import Around, page

        table = [] if shown.pivot is None else listed_pivot(pivot(lines), shown.pivot)
        with stdout_kept_clean():
            text = page(lines, say, Around(title=title, required=said, pivot=table, sections=sections))
    else:
        text = _text(lines, shown, said) if lines else ""
        text += _SECTIONS[form](sections) if sections else ""
        text = (_TITLES[form](title) if title else "") + text.lstrip("\n")
    if out is not None:
        with writing(Path(out)):
            Path(out).write_text(text, encoding="utf-8")
    if form == "csv":  # the other forms carry the notes themselves
        for note in [*(f"note: {note}" for note in notes(lines)), *said]:
            say(note)
    if out is None:
        echo(text, end="")
        return
    beside = f" and {len(sections)} sections" if sections else ""
    say(f"{out} is written: {len(lines)} cases{beside}, {len(text.encode()) / 1024:.0f} KiB.")


def _text(lines: Sequence[Line], shown: Shown, said: Sequence[str]) -> str:
    """The table of the cases in a form that is text."""
    form = shown.form
    text = _TEXTS[form](lines) if shown.pivot is None else _PIVOTS[form](pivot(lines), shown.pivot)
    return (text if shown.caption is None else floating(text, shown.caption, shown.label)) + _below(form, said)


def _below(form: str, said: Sequence[str]) -> str:
    """What is said of --require below a table, in a form."""
    if form == "markdown":
        return "".join(f"\n{escapes.markdown(one)}\n" for one in said)
    return "".join(f"% {printable(one)}\n" for one in said) if form == "latex" else ""
