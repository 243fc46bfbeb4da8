"""`qverify report`: tables and a page about runs that lie on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qverify.console.output import echo, say, show, stdout_kept_clean
from qverify.errors import UsageError
from qverify.report.claim import required
from qverify.report.table import Line, labels, lines_of
from qverify.report.text import csv_table, latex_table, markdown_table, notes, terminal
from qverify.runs.folder import writing
from qverify.runs.gate import joined
from qverify.runs.merging import added_up
from qverify.runs.reading import read_runs
from qverify.text import escapes
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TEXTS: dict[str, Callable[[Sequence[Line]], str]] = {
    "markdown": markdown_table,
    "csv": csv_table,
    "latex": latex_table,
}
_TITLES = {
    "markdown": lambda title: f"# {escapes.markdown(title)}\n\n",
    "latex": lambda title: f"% {printable(title)}\n",
}
_FAILED = 1


def run(runs: Sequence[str], form: str, out: str | None, *, title: str | None, require: float | None) -> int:
    """Run the command; returns the exit status."""
    if form == "html" and out is None:
        raise UsageError("The page needs a file; give --out FILE.html too.")
    if form == "terminal" and out is not None:
        raise UsageError("--out keeps a file; name its --format too: markdown, csv, latex or html.")
    if form == "csv" and title is not None:
        raise UsageError("A CSV file has no place for --title; leave it out, or name another --format.")
    lines = lines_of(added_up(read_runs(runs)))
    passed, said = (True, []) if require is None else required(lines, labels(lines), require)
    if form == "terminal":
        show(*([title, ""] if title else []), *terminal(lines), *said)
    else:
        _write(lines, form, out, title, said)
    if not passed:
        failing = [one.partition(": ")[2].rstrip(".") for one in said if one.startswith("FAILED")]
        say(f"--require {require:g}: {joined(failing)}.")
    return 0 if passed else _FAILED


def _write(lines: Sequence[Line], form: str, out: str | None, title: str | None, said: Sequence[str]) -> None:
    """Write a form to its file, or to stdout; `said`: whether each line passes what is required of it."""
    if form == "html":
        from qverify.report.page import page

        with stdout_kept_clean():
            text = page(lines, say, title, said)
    else:
        text = _TITLES[form](title) if title else ""
        text += _TEXTS[form](lines) + _below(form, said)
    if out is not None:
        with writing(Path(out)):
            Path(out).write_text(text, encoding="utf-8")
    if form == "csv":  # the other forms carry the notes themselves
        for note in [*(f"note: {note}" for note in notes(lines)), *said]:
            say(note)
    if out is None:
        echo(text, end="")
        return
    say(f"{out} is written: {len(lines)} cases, {len(text.encode()) / 1024:.0f} KiB.")


def _below(form: str, said: Sequence[str]) -> str:
    """What is said of --require below a table, in a form."""
    if form == "markdown":
        return "".join(f"\n{escapes.markdown(one)}\n" for one in said)
    return "".join(f"% {printable(one)}\n" for one in said) if form == "latex" else ""
