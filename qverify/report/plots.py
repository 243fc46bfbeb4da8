"""Curves as pictures, with matplotlib and without a display. Imported only where a picture is wanted.

Figures are built and saved in `plain_style`: names are shown as they are, whatever letters they have.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from qverify.analysis.sweeps import PARTS, SweepRow
from qverify.files.atomic import partial_path
from qverify.files.names import short_names
from qverify.report.plot_layout import DPI, POINTS, Panels, height, legend_columns, plain_style, wrapped
from qverify.runs.folder import writing
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from qverify.analysis.grid import Bracket

_COLOURS = dict(zip(PARTS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"), strict=True))
"""A palette that colour-blind readers can tell apart (Okabe and Ito)."""

_MARKERS = dict(zip(PARTS, "osD^vPX", strict=True))
_WIDE = 50.0
"""The ratio of the largest to the smallest radius from which on the axis is logarithmic."""

_COLUMNS = 3
_BINS = 40
_TICKS = 9
_TITLE, _LABEL, _SMALL = 10.0, 9.0, 8.0
"""Font sizes in points."""
_LEGEND_SPACING = 1.65
"""Height of a line of the legend, in units of the font size."""
_LINE, _THIN, _GRID = 1.3, 0.9, 0.6
"""Widths in points of curves, of lines to compare them with, and of the grid."""
_ALONE, _BESIDE, _FACTORS = (5.0, 3.1), (3.6, 2.7), (5.5, 2.9)
"""Inches of a panel of a sweep, alone or beside others, and of that of the factors."""
_LEFT, _RIGHT, _BELOW = 0.8, 0.25, 0.62
"""Inches for ticks and labels beside and below panels."""
_GAP, _TICK_LABELS = 0.3, 0.32
"""Inches between panels beside each other, and for the labels of ticks between those above each other."""
_EDGE, _PAD = 0.12, 0.06
"""Inches between text and the edge of the figure, and between text and text."""


def sweep_figure(rows: Sequence[SweepRow], title: str) -> Figure:
    """Guaranteed accuracy against the radius or the bits: a panel a model, a curve a part; at least one row.

    Only parts that have rows are in the legend. A line break in `title` is one, in the name of a model it is not.
    """
    with plain_style():
        models = list(dict.fromkeys(row.model for row in rows))
        across = 2 if len(models) == 4 else min(_COLUMNS, len(models))
        panel = _ALONE if len(models) == 1 else _BESIDE
        names = [wrapped(printable(name), panel[0], _LABEL) for name in short_names(models)]
        room = _LEFT + across * panel[0] + (across - 1) * _GAP + _RIGHT - 2 * _EDGE
        parts = [part for part in PARTS if any(row.part == part for row in rows)]
        columns = legend_columns([*parts, "clean"], _SMALL, room)
        heading = _broken(title, room)
        named = max(height(name, _LABEL) for name in names) + 2 * _PAD
        below = _legend_height(len(parts) + 1, columns, "quantised")
        top, bottom = _EDGE + height(heading, _TITLE) + _PAD + named, below + _BELOW
        grid = Panels(
            count=len(models),
            across=across,
            panel=panel,
            left=_LEFT,
            right=_RIGHT,
            top=top,
            bottom=bottom,
            gaps=(_GAP, named + _TICK_LABELS),
        )
        figure, panels = grid.figure()
        for place, (axes, model, name) in enumerate(zip(panels, models, names, strict=True)):
            _panel(axes, [row for row in rows if row.model == model], [row.place for row in rows])
            axes.set_title(name, fontsize=_LABEL, pad=POINTS * _PAD)
            axes.tick_params(labelsize=_SMALL, labelbottom=grid.lowest(place), labelleft=place % across == 0)
        high = grid.size[1]
        figure.suptitle(heading, fontsize=_TITLE, y=1 - _EDGE / high, va="top", linespacing=1.2)
        figure.supylabel("guaranteed accuracy, % of the samples", fontsize=_TITLE, x=_EDGE / grid.size[0], ha="left")
        what = "bits" if rows[0].value is None else "radius (half-width) of every quantised kind"
        figure.supxlabel(what, fontsize=_LABEL, y=(below + _PAD) / high, va="bottom")
        _legend(figure, panels[0], columns, "quantised")
    return figure


def _broken(title: str, room: float) -> str:
    """A title in lines that fit."""
    return wrapped("\n".join(map(printable, title.split("\n"))), room, _TITLE)


def _legend_height(entries: int, columns: int, title: str = "") -> float:
    rows = math.ceil(entries / columns) + bool(title)
    return _EDGE + rows * _SMALL * _LEGEND_SPACING / POINTS + _PAD


def _legend(figure: Figure, axes: Any, columns: int, title: str = "") -> None:
    """Draw the legend at the bottom, below everything."""
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, _EDGE / figure.get_figheight())}
    look: dict[str, Any] = {"fontsize": _SMALL, "title_fontsize": _SMALL, "frameon": False, "borderaxespad": 0.0}
    figure.legend(handles, labels, ncols=columns, title=title or None, borderpad=0.0, **place, **look)


def _panel(axes: Any, rows: list[SweepRow], places: list[float]) -> None:
    """Draw one model: a curve a part, and the clean accuracy; `places`: those of all models."""
    places = sorted(set(places))
    for part in PARTS:
        curve = sorted((row for row in rows if row.part == part), key=lambda row: row.place)
        if not curve:
            continue
        y = [100 * row.guaranteed / row.samples for row in curve]
        style = {"color": _COLOURS[part], "marker": _MARKERS[part], "linestyle": "--" if "+" in part else "-"}
        axes.plot([row.place for row in curve], y, label=part, markersize=3.5, linewidth=_LINE, clip_on=False, **style)
    axes.axhline(100 * rows[0].clean / rows[0].samples, color="0.6", linewidth=_THIN, linestyle=":", label="clean")
    _across(axes, places, rows[0].value is None)
    axes.set_ylim(-2, 102)
    axes.grid(color="0.9", linewidth=_GRID)


def _across(axes: Any, places: list[float], bits: bool) -> None:
    """The axis of the points: whole numbers for bits; logarithmic beside 0 where radii differ by decades."""
    positive = [place for place in places if place > 0]
    if len(places) == 1:
        axes.set_xticks(places)
        axes.set_xlim(places[0] - 1.0, places[0] + 1.0) if bits or not positive else axes.set_xlim(0, 2 * places[0])
    elif bits:
        axes.set_xticks(places[:: math.ceil(len(places) / (_TICKS + 3))])
    elif positive[-1] / positive[0] >= _WIDE:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.3)
        axes.set_xticks(_ticks(positive, places[0] == 0))
        axes.set_xticks([], minor=True)
        axes.set_xlim(places[0], positive[-1])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")


def factor_figure(brackets: Sequence[Bracket], title: str, max_factor: float) -> Figure:
    """Two histograms over the factors: samples proved up to each, and failing from each; at least one sample."""
    proved = [bracket.factor for bracket in brackets]
    broken = [bracket.upper for bracket in brackets if bracket.upper]
    wrong, zero = sum(bracket.misclassified for bracket in brackets), proved.count(0.0)
    hidden = f"at 0: {wrong} misclassified, {zero - wrong} never proved"
    panel, left, right = _FACTORS, 0.7, _RIGHT
    room = left + panel[0] + right - 2 * _EDGE
    with plain_style():
        heading = _broken(title, room)
        below = _legend_height(3, 3)
        top = _EDGE + height(heading, _TITLE) + 2 * _PAD
        grid = Panels(count=1, across=1, panel=panel, left=left, right=right, top=top, bottom=below + _BELOW)
        figure, (axes,) = grid.figure()
        _histograms(axes, proved, broken, max_factor)
        axes.set_xlabel(f"factor on the radii (not shown, {hidden})", fontsize=_LABEL)
        axes.set_ylabel("samples", fontsize=_LABEL)
        axes.set_title(heading, fontsize=_TITLE, pad=2 * POINTS * _PAD, x=(room / 2 + _EDGE - left) / panel[0])
        _legend(figure, axes, 3)
    return figure


def _histograms(axes: Any, proved: list[float], broken: list[float], max_factor: float) -> None:
    positive = [factor for factor in (*proved, *broken) if factor > 0] or [max_factor]
    low, high = min(positive) / 1.2, max(positive) * 1.2
    bins = np.geomspace(low, high, _BINS + 1).tolist()
    counts = [
        axes.hist([p for p in proved if p > 0], bins, color=_COLOURS["input"], label="largest factor that is proved")[0]
    ]
    if broken:
        look = {"histtype": "step", "color": _COLOURS["weight"], "linewidth": _LINE}
        counts.append(axes.hist(broken, bins, label="smallest factor known to fail", **look)[0])
    if low < 1 < high:
        axes.axvline(1.0, color="0.4", linewidth=_THIN, linestyle=":", label="the radii as given")
    axes.set_xscale("log")
    axes.set_xticks(_ticks([low, high], False))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.05 * max(1.0, *(float(count.max()) for count in counts)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9", linewidth=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=_SMALL)


def _ticks(positive: list[float], zero: bool) -> list[float]:
    """Round numbers between the ends, and 0 if asked for, few enough that their labels have room."""
    low, high = positive[0], positive[-1]
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ways = [((1, 2, 5), 1), ((1, 5), 1), *(((1,), stride) for stride in range(1, len(decades) + 1))]
    for digits, stride in ways:
        steps = [float(f"{digit}e{decade}") for decade in decades[::stride] for digit in digits]
        steps = [step for step in steps if low <= step <= high]
        if len(steps) + zero <= _TICKS:
            break
    return [0.0] * zero + (steps or [high])


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg, both or neither, the same bytes for the same figure. Raises OutputError."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    partial = list(map(partial_path, paths))
    options: list[dict[str, Any]] = [{"dpi": DPI, "pil_kwargs": {"optimize": True}}, {"metadata": {"Date": None}}]
    with plain_style():
        for path, place, kind, more in zip(paths, partial, ("png", "svg"), options, strict=True):
            with writing(path):
                figure.savefig(place, format=kind, **more)
    for path, place in zip(paths, partial, strict=True):
        with writing(path):
            os.replace(place, path)
    return paths
