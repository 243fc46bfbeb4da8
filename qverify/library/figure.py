"""The brackets of margins as a matplotlib figure, without a display and without pyplot's global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from qverify.report.plot_layout import wrapped
from qverify.verification.row import STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.verification.row import Row

_COLOURS = dict(zip(STATUSES, ("#00795a", "#c24e00", "#a97800", "#7b7f86"), strict=True))
"""Those of the page of `qverify report`."""
_SIZE, _LINE, _MARK = (6.4, 3.6), 1.4, 3.0
_TITLE = 9.0
"""Inches of the figure, and points of brackets, of their ends, and of the title."""


def margins_figure(rows: Sequence[Row], title: str) -> Figure:
    """A bracket a row from the margin proved to that attained; a dot where there is one end only.

    The scale is linear near 0 and logarithmic far from it. Above 0 every member answers right.
    """
    placed = sorted(rows, key=lambda row: (_end(row.margin_lower), _end(row.margin_upper)))
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for status in STATUSES:
        own = [(place, row) for place, row in enumerate(placed) if row.status.value == status]
        if not own:
            continue
        places = [place for place, _ in own]
        ends = [[end for end in (row.margin_lower, row.margin_upper) if end is not None] for _, row in own]
        low = [min(pair, default=np.nan) for pair in ends]
        high = [max(pair, default=np.nan) for pair in ends]
        axes.vlines(places, low, high, color=_COLOURS[status], linewidth=_LINE, label=f"{len(own)} {status}")
        axes.plot(places, high, ".", color=_COLOURS[status], markersize=_MARK)
    axes.axhline(0.0, color="black", linewidth=0.8)
    known = [abs(end) for row in rows for end in (row.margin_lower, row.margin_upper) if end]
    axes.set_yscale("symlog", linthresh=float(np.median(known)) if known else 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda margin, _: f"{margin:g}"))
    axes.set_xlabel("samples, in the order of the margin proved")
    axes.set_ylabel("worst margin over the family")
    heading = wrapped(title, 0.9 * _SIZE[0], _TITLE)
    axes.set_title(heading, fontsize=_TITLE, parse_math=False)  # a name may have any letters
    if placed:
        axes.legend(fontsize="small", loc="lower right")
    return figure


def _end(margin: float | None) -> float:
    return -np.inf if margin is None else margin
