"""`qverify report`: tables and a page about runs that lie on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qverify.console.output import echo, say, show, stdout_kept_clean
from qverify.errors import UsageError
from qverify.report.table import Line, lines_of
from qverify.report.text import csv_table, latex_table, markdown_table, notes, terminal
from qverify.runs.folder import writing
from qverify.runs.reading import read_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TEXTS: dict[str, Callable[[Sequence[Line]], str]] = {
    "markdown": markdown_table,
    "csv": csv_table,
    "latex": latex_table,
}


def run(runs: Sequence[str], form: str, out: str | None) -> int:
    """Run the command; returns the exit status."""
    if form == "html" and out is None:
        raise UsageError("The page needs a file; give --out FILE.html too.")
    if form == "terminal" and out is not None:
        raise UsageError("--out keeps a file; name its --format too: markdown_table, csv, latex or html.")
    lines = lines_of(read_runs(runs))
    if form == "terminal":
        show(*terminal(lines))
        return 0
    if form == "html":
        from qverify.report.page import page

        with stdout_kept_clean():
            text = page(lines, say)
    else:
        text = _TEXTS[form](lines)
    if out is not None:
        with writing(Path(out)):
            Path(out).write_text(text, encoding="utf-8")
    if form == "csv":  # the other forms carry the notes themselves
        for note in notes(lines):
            say(f"note: {note}")
    if out is None:
        echo(text, end="")
        return 0
    say(f"{out} is written: {len(lines)} cases, {len(text.encode()) / 1024:.0f} KiB.")
    return 0
