"""Guaranteed accuracies as groups of bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study import Result

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#56B4E9", "#E69F00", "#CC79A7")


@dataclass(frozen=True)
class Bar:
    """One result, in which group and which series (a colour) of which panel."""

    panel: str
    group: str
    series: str
    result: Result


def bars(content: Sequence[Bar], title: str) -> Figure:
    """A panel below the other; what is proved as a bar, what is undecided as an outline above it, clean as a line."""
    panels = list(dict.fromkeys(bar.panel for bar in content))
    series = list(dict.fromkeys(bar.series for bar in content))
    figure = Figure(figsize=(9.0, 3.2 * len(panels) + 0.8), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=True):
        _panel(axes, [bar for bar in content if bar.panel == panel], series)
        axes.set_title(panel, fontsize=9)
    figure.suptitle(title, fontsize=10)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = [label for label in (*series, "undecided", "clean") if label in handles]
    shown = [handles[label] for label in labels]
    figure.legend(shown, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _panel(axes: Any, content: Sequence[Bar], series: Sequence[str]) -> None:
    groups = list(dict.fromkeys(bar.group for bar in content))
    left = 0.0
    ticks = []
    for group in groups:
        members = sorted((bar for bar in content if bar.group == group), key=lambda bar: series.index(bar.series))
        ticks.append(left + (len(members) - 1) / 2)
        for place, bar in enumerate(members):
            _bar(axes, left + place, bar, series.index(bar.series))
        left += len(members) + 1
    axes.set_xticks(ticks, groups, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("% of the samples", fontsize=9)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _bar(axes: Any, x: float, bar: Bar, colour: int) -> None:
    result = bar.result
    proved = 100 * result.guaranteed / result.samples
    clean = 100 * result.clean / result.samples
    published = {"hatch": "///", "edgecolor": "white"} if result.model.startswith("published") else {}
    axes.bar(x, proved, 0.85, color=_COLOURS[colour % len(_COLOURS)], label=bar.series, linewidth=0, **published)
    top = proved
    if result.attack is not None and result.unknown:
        top = 100 * result.attack / result.samples
        undecided = {"fill": False, "edgecolor": "0.4", "linewidth": 0.8, "label": "undecided"}
        axes.bar(x, top - proved, 0.85, bottom=proved, **undecided)
    axes.plot([x - 0.42, x + 0.42], [clean, clean], color="black", linewidth=1.0, label="clean")
    axes.text(x, max(top, clean if clean - top < 8 else 0) + 1.5, f"{proved:.1f}", ha="center", fontsize=6.5)
