"""The verified-accuracy table turned: a row a model, a column for every family and method, one accuracy in the cells.

What a paper or a decision sheet shows. Lines that fall into one cell (runs of other samples, say) get rows of their
own, by the names of their runs, so that no number is left out.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from qverify.report.numbers import percent
from qverify.report.section import Listing
from qverify.report.table import HEADINGS, Line
from qverify.report.text import tabular
from qverify.text import escapes
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

_BESIDE = 6
"""Columns that have room beside the names."""
NOTHING = ""
"""In a cell that no case falls into."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pivot(Brief):
    """Headings of the row names, the names of rows and columns, and a line or None for each cell."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Line | None, ...], ...]

    def texts(self, accuracy: str) -> list[list[str]]:
        """The share of the samples in each cell that `accuracy` of `table.ACCURACIES` counts, in per cent."""
        return [
            [NOTHING if line is None else percent(line.count(accuracy), line.tally.samples) for line in cells]
            for cells in self.cells
        ]


def pivot(lines: Sequence[Line]) -> Pivot:
    """The table of these lines, rows and columns in their order."""
    names = {
        "model": [line.model for line in lines],
        "data": [line.data for line in lines],
        "range": ["{}:{}".format(*line.case.question.samples) for line in lines],
    }
    headings = [name for name, cells in names.items() if name == "model" or len(set(cells)) > 1]
    families = [(line.case.radii, line.case.convention, line.case.method) for line in lines]
    told = [number for number in range(3) if number == 0 or len({family[number] for family in families}) > 1]
    columns = [", ".join(filter(None, (family[number] for number in told))) for family in families]
    rows = list(zip(*(names[name] for name in headings), strict=True))
    if len(set(zip(rows, columns, strict=True))) < len(lines):
        headings.append("run")
        rows = [(*row, line.case.title) for row, line in zip(rows, lines, strict=True)]
    found = dict(zip(zip(rows, columns, strict=True), lines, strict=True))
    across, down = tuple(dict.fromkeys(columns)), tuple(dict.fromkeys(rows))
    return Pivot(
        headings=tuple(headings),
        rows=down,
        columns=across,
        cells=tuple(tuple(found.get((row, column)) for column in across) for row in down),
    )


def said(accuracy: str) -> str:
    """What the cells hold."""
    return f"In each cell: {HEADINGS[accuracy]}, the share of the samples."


def terminal_pivot(table: Pivot, accuracy: str) -> list[Table | str]:
    """The table and the line below it, for `console.output.show`."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for heading in table.headings:
        shown.add_column(heading, overflow="fold")
    for column in table.columns:
        shown.add_column(column, justify="right", overflow="fold")
    for row, cells in zip(table.rows, table.texts(accuracy), strict=True):
        shown.add_row(*row, *cells)
    return [shown, "", said(accuracy)]


def markdown_pivot(table: Pivot, accuracy: str) -> str:
    """The table in GitHub's Markdown."""
    head = [*table.headings, *map(escapes.markdown, table.columns)]
    rules = ["---"] * len(table.headings) + ["---:"] * len(table.columns)
    body = [[*map(escapes.markdown, row), *cells] for row, cells in zip(table.rows, table.texts(accuracy), strict=True)]
    return "\n".join([*("| " + " | ".join(row) + " |" for row in (head, rules, *body)), "", said(accuracy)]) + "\n"


def listed_pivot(table: Pivot, accuracy: str) -> list[Listing]:
    """The table for the page; where it has more columns than have room beside each other, several below each other."""
    found, texts = [], table.texts(accuracy)
    for first in range(0, len(table.columns), _BESIDE):
        some = slice(first, first + _BESIDE)
        rows = tuple((*row, *cells[some]) for row, cells in zip(table.rows, texts, strict=True))
        headings = (*table.headings, *table.columns[some])
        found.append(Listing(headings=headings, texts=len(table.headings), rows=rows, said=said(accuracy)))
    return found


def csv_pivot(table: Pivot, accuracy: str) -> str:
    """The table as CSV; accuracies as fractions, empty where there is none."""

    def fraction(line: Line | None) -> float | None:
        return None if line is None or not line.tally.samples else line.count(accuracy) / line.tally.samples

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.headings, *map(escapes.spreadsheet, table.columns)])
    for row, cells in zip(table.rows, table.cells, strict=True):
        writer.writerow([*map(escapes.spreadsheet, row), *map(fraction, cells)])
    return file.getvalue()


def latex_pivot(table: Pivot, accuracy: str) -> str:
    """The table as a tabular for booktabs, accuracies in per cent."""
    head = [*table.headings, *(f"{escapes.latex(column)} (\\%)" for column in table.columns)]
    body = [
        [*map(escapes.latex, row), *(cell.removesuffix(" %") for cell in cells)]
        for row, cells in zip(table.rows, table.texts(accuracy), strict=True)
    ]
    return tabular("l" * len(table.headings) + "r" * len(table.columns), [head, *body], [said(accuracy)])
