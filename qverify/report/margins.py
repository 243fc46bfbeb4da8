"""The margins of one case without a script: its brackets drawn, worst first, and the worst of them as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qverify.report.drawings import Mark, brackets
from qverify.report.numbers import outward
from qverify.report.page_rows import DIGITS, remark
from qverify.report.section import Listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.report.table import Line
    from qverify.verification.row import Row

DRAWN, LISTED = 400, 20
"""So many samples of a case are drawn and listed, those with the lowest ends."""


def worst(rows: Sequence[Row]) -> list[Row]:
    """All rows, those with the lowest proved end first; an open end is the lowest."""

    def place(row: Row) -> tuple[float, float, int]:
        low = -math.inf if row.margin_lower is None else row.margin_lower
        return low, math.inf if row.margin_upper is None else row.margin_upper, row.index

    return sorted(rows, key=place)


def drawing(line: Line) -> str:
    """The brackets of a case as SVG, worst first; nothing without rows."""
    rows = worst(line.case.rows)[:DRAWN]
    marks = [Mark(row.status.value, row.margin_lower, row.margin_upper) for row in rows]
    said = f"the margins of {len(rows)} samples, worst first; the worst are in the table below"
    return brackets(marks, said) if marks else ""


def extent(line: Line) -> str:
    """Which samples are drawn, in words."""
    done, drawn = len(line.case.rows), min(len(line.case.rows), DRAWN)
    if drawn < done:
        return f"The {drawn} samples with the lowest margins, of {done} decided; worst at the left."
    return "1 sample decided." if done == 1 else f"All {done} samples decided; worst at the left."


def listing(line: Line) -> Listing:
    """The worst samples of a case as a table; margins rounded outwards."""
    rows = worst(line.case.rows)[:LISTED]
    cells = [
        (
            row.status.value,
            "; ".join(filter(None, (row.method, remark(row)))),
            str(row.index),
            str(row.label),
            str(row.predicted),
            _end(row.margin_lower, up=False),
            _end(row.margin_upper, up=True),
        )
        for row in rows
    ]
    return Listing(
        headings=("status", "decided by", "sample", "label", "answers", "lower", "upper"),
        texts=2,
        rows=tuple(cells),
        said="Answers: the class that the network itself gives. What decides is explained in the appendix.",
    )


def _end(margin: float | None, up: bool) -> str:
    return "open" if margin is None else outward(margin, DIGITS, up).replace("-", "\u2212")
