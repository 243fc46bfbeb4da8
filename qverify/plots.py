"""Curves as pictures, with matplotlib and without a display. Imported only where a picture is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qverify.radius import Bracket
from qverify.records import writing
from qverify.sweep import PARTS, Row

_COLOURS = dict(zip(PARTS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"), strict=True))
"""A palette that colour-blind readers can tell apart (Okabe and Ito)."""

_MARKERS = dict(zip(PARTS, "osD^vPX", strict=True))
_WIDE = 50.0
"""The ratio of the largest to the smallest radius from which on the axis is logarithmic."""

_COLUMNS = 3
_BINS = 40


def sweep_figure(rows: Sequence[Row], title: str) -> Figure:
    """Guaranteed accuracy against the radius or the bits: a panel a model, a curve a part; at least one row."""
    models = list(dict.fromkeys(row.model for row in rows))
    across = min(_COLUMNS, len(models))
    if len(models) == 4:
        across = 2
    down = math.ceil(len(models) / across)
    figure = Figure(figsize=(max(5.6, 4.2 * across), 3.4 * down + 0.9), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes, model in zip(grid.flat, models, strict=False):
        _panel(axes, [row for row in rows if row.model == model], model)
    for axes in list(grid.flat)[len(models) :]:
        axes.set_visible(False)
    figure.supylabel("guaranteed accuracy, % of the samples", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("bits" if rows[0].value is None else "radius (half-width) of every quantised kind", fontsize=9)
    figure.suptitle(title, fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False, title="quantised")
    return figure


def _panel(axes: Any, rows: list[Row], model: str) -> None:
    """One curve a part of one model, and its clean accuracy."""
    places = sorted({row.place for row in rows})
    for part in PARTS:
        curve = sorted((row for row in rows if row.part == part), key=lambda row: row.place)
        y = [100 * row.guaranteed / row.samples for row in curve]
        style = {"color": _COLOURS[part], "marker": _MARKERS[part], "linestyle": "--" if "+" in part else "-"}
        axes.plot([row.place for row in curve], y, label=part, markersize=3.5, linewidth=1.3, clip_on=False, **style)
    axes.axhline(100 * rows[0].clean / rows[0].samples, color="0.6", linewidth=0.9, linestyle=":", label="clean")
    positive = [place for place in places if place > 0]
    if rows[0].value is None:
        axes.set_xticks(places)
    elif positive and positive[-1] / positive[0] >= _WIDE:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.3)
        axes.set_xticks(_ticks(positive))
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(min(places), positive[-1])
    axes.set_ylim(-2, 102)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_title(model, fontsize=9)
    axes.tick_params(labelsize=8)


def factor_figure(brackets: Sequence[Bracket], title: str, max_factor: float) -> Figure:
    """How many samples are proved up to which factor, and fail from which: two histograms; at least one sample."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    proved = [bracket.factor for bracket in brackets]
    broken = [bracket.upper for bracket in brackets if bracket.upper]
    positive = [factor for factor in (*proved, *broken) if factor > 0] or [max_factor]
    low, high = min(positive) / 1.2, max(positive) * 1.2
    bins = np.geomspace(low, high, _BINS + 1).tolist()
    axes.hist([p for p in proved if p > 0], bins, color=_COLOURS["input"], label="largest factor that is proved")
    if broken:
        colour, label = _COLOURS["weight"], "smallest factor known to fail"
        axes.hist(broken, bins, label=label, histtype="step", color=colour, linewidth=1.3)
    if low < 1 < high:
        axes.axvline(1.0, color="0.4", linewidth=0.9, linestyle=":", label="the radii as given")
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in _ticks([low, high]) if tick > 0])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    wrong, zero = sum(bracket.misclassified for bracket in brackets), proved.count(0.0)
    hidden = f"at 0: {wrong} misclassified, {zero - wrong} never proved"
    axes.set_xlabel(f"factor on the radii (not shown, {hidden})", fontsize=9)
    axes.set_ylabel("samples", fontsize=9)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.set_title(title, fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _ticks(positive: list[float]) -> list[float]:
    """0, and round numbers between the ends, few enough that their labels have room."""
    low, high = positive[0], positive[-1]
    digits = (1, 2, 5) if high / low < 2 * _WIDE else (1, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return [0.0, *(step for step in steps if low <= step <= high)]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg, the same bytes for the same figure. Raises OutputError."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    png, svg = paths
    with matplotlib.rc_context({"svg.hashsalt": "qverify", "svg.fonttype": "none"}):
        with writing(png):
            figure.savefig(png, dpi=100, pil_kwargs={"optimize": True})
        with writing(svg):
            figure.savefig(svg, metadata={"Date": None})
    return paths
