"""The verified-accuracy table as text: for a terminal, as Markdown, as CSV, and as LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from rich.table import Table

from qverify.moved import former_names
from qverify.report.numbers import percent
from qverify.report.table import ACCURACIES, EXACT_ONLY, HEADINGS, MEANINGS, Line, identities
from qverify.text import escapes

if TYPE_CHECKING:
    from collections.abc import Sequence

__getattr__ = former_names(
    __name__,
    {
        "csv_text": "qverify.report.text:csv_table",
        "latex": "qverify.report.text:latex_table",
        "markdown": "qverify.report.text:markdown_table",
    },
)

_NAMES = 31
"""Columns that a table of the usual width leaves to names; what is longer shares them instead of being cut."""
_HEADINGS = (*HEADINGS.values(), "unknown", "seconds")


def terminal(lines: Sequence[Line]) -> list[Table | str]:
    """The table and the lines below it, for `console.output.show`."""
    shown, common = identities(lines)
    if sum(max(map(len, (heading, *cells))) + 2 for heading, cells in shown.items()) > _NAMES:
        shown = {"case": [", ".join(filter(None, cells)) for cells in zip(*shown.values(), strict=True)]}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in shown:
        table.add_column(heading, overflow="fold")
    for heading in ("samples", *_HEADINGS):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, line in enumerate(lines):
        shares = [percent(line.count(name), line.tally.samples) for name in ACCURACIES]
        table.add_row(*(cells[number] for cells in shown.values()), str(line.tally.samples), *shares, *_rest(line))
    return [table, "", *([f"All: {common}."] if common else []), *legend(lines), *notes(lines)]


def markdown_table(lines: Sequence[Line]) -> str:
    """The table in GitHub's Markdown, with a legend."""
    shown, common = identities(lines)
    headings = [*shown, "samples", *_HEADINGS]
    rules = ["---"] * len(shown) + ["---:"] * (len(headings) - len(shown))
    rows = [headings, rules]
    for number, line in enumerate(lines):
        names = [escapes.markdown(cells[number]) for cells in shown.values()]
        rows.append([*names, str(line.tally.samples), *_shares(line), *_rest(line)])
    table = ["| " + " | ".join(row) + " |" for row in rows]
    said = [escapes.markdown(text) for text in ([f"All: {common}."] if common else []) + notes(lines)]
    return "\n".join([*table, "", *said[: bool(common)], *legend(lines), *said[bool(common) :]]) + "\n"


def csv_table(lines: Sequence[Line]) -> str:
    """The table as CSV, under the names of `Line.record`; floats with all their digits.

    Text that a spreadsheet would take for a formula begins with `'`.
    """
    file = io.StringIO()
    records = [line.record() for line in lines]
    writer = csv.DictWriter(file, list(records[0]) if records else ["run"], lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {name: escapes.spreadsheet(cell) if isinstance(cell, str) else cell for name, cell in record.items()}
        writer.writerow(cells)
    return file.getvalue()


def latex_table(lines: Sequence[Line]) -> str:
    """The table as a tabular for booktabs, accuracies in per cent; what it rests on as comments above it."""
    shown, common = identities(lines)
    said = [*([f"All: {common}."] if common else []), *legend(lines), *notes(lines)]
    headings = [*shown, "samples", *(f"{heading} (\\%)" for heading in HEADINGS.values()), "unknown", "seconds"]
    body = []
    for number, line in enumerate(lines):
        shares = [percent(line.count(name), line.tally.samples).removesuffix(" %") for name in ACCURACIES]
        names = [escapes.latex(cells[number]) for cells in shown.values()]
        body.append([*names, str(line.tally.samples), *shares, *_rest(line)])
    columns = "l" * len(shown) + "r" * (len(headings) - len(shown))
    return tabular(columns, [headings, *body], said)


def tabular(columns: str, rows: Sequence[Sequence[str]], said: Sequence[str]) -> str:
    """A tabular for booktabs of cells that are LaTeX, headings first; `said` as comments above it."""
    head, *body = (" & ".join(row) + r" \\" for row in rows)
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *(f"% {escapes.printable(text)}" for text in said),
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            head,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def floating(text: str, caption: str, label: str | None) -> str:
    """The same with its tabular in a table environment, under a caption and a label."""
    above, begin, rest = text.partition("\\begin{tabular}")
    inside, end, below = rest.partition("\\end{tabular}")
    named = "" if label is None else f"\\label{{{label}}}"
    ends = f"\n\\caption{{{escapes.latex(caption)}}}{named}\n\\end{{table}}"
    return f"{above}\\begin{{table}}\n\\centering\n{begin}{inside}{end}{ends}{below}"


def notes(lines: Sequence[Line]) -> list[str]:
    """Notes on runs and cases, one sentence each, each once."""
    return list(dict.fromkeys(note for line in lines for note in line.case.notes))


def legend(lines: Sequence[Line]) -> list[str]:
    """The legend: a line a column, with its meaning."""
    exact = any(line.case.method == "exact" for line in lines)
    return [f"Shares of the samples decided; {'; '.join(MEANINGS)}.", *([EXACT_ONLY] if exact else [])]


def _shares(line: Line) -> list[str]:
    total = line.tally.samples
    return [f"{percent(line.count(name), total)} ({line.count(name)})" for name in ACCURACIES]


def _rest(line: Line) -> list[str]:
    return [str(line.tally.statuses["unknown"]), f"{line.seconds:.2f}"]
