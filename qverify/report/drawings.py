"""Small static drawings in SVG for the page: lines, brackets and shares.

Colours are classes, which the page has for light, dark and paper. All numbers that a drawing shows are in a table too.
`brackets` and `shares` take the width they are given, with lengths in per cent, so that letters keep their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 34
_FIELD, _EDGE, _NAMES, _AXIS = 150, 8, 18, 52
"""Heights of a field of brackets, of the room above and below them and of the names below; the width of its axis."""
_BENT = 50.0
"""The ratio of the largest to the smallest number from which on a scale is logarithmic."""
_APART, _LABELLED = 15, 12
"""Units between two ticks, and the most names of brackets that have room beside each other."""
_PLACES = 16
"""So many places of an axis are labelled themselves; more get round numbers."""
_FEWEST = 10
"""Brackets that have room at least, so that few are no blocks."""
_GAP = 0.25
"""The part of a bracket's room that is left between two."""
_THINNEST = 2.0
_FARTHEST = 1e300


@dataclass(frozen=True)
class Series:
    """A line: its class, and its points in the order of x; `stepped`: it stays as it is up to the next point."""

    name: str
    points: tuple[tuple[float, float], ...]
    stepped: bool = False


@dataclass(frozen=True)
class Mark:
    """A bracket: its class, its ends (None: open), ends that were met within it if any are known, and its name."""

    style: str
    low: float | None
    high: float | None
    met: tuple[float, float] | None = None
    name: str = ""


def lines(series: Sequence[Series], across: str, said: str) -> str:
    """Lines over an axis called `across`, in per cent from 0 to 100; `said`: the drawing in words."""
    places = sorted({x for one in series for x, _ in one.points})
    scale = _scale(places)
    first, last = scale(places[0]), scale(places[-1])

    def x(value: float) -> float:
        part = (scale(value) - first) / (last - first) if last > first else 0.5
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (100 - value) / 100 * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for value in (0, 25, 50, 75, 100):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    parts += [
        f'<text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        for value in _spread([(x(place), place) for place in _labelled(places)], 2 * _APART)
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 3}" text-anchor="middle">{_text(across)}</text>')
    for one in series:
        spots = [(x(place), y(share)) for place, share in one.points]
        path = f"M{spots[0][0]:.1f} {spots[0][1]:.1f}"
        for px, py in spots[1:]:
            path += f"H{px:.1f}V{py:.1f}" if one.stepped else f"L{px:.1f} {py:.1f}"
        dots = "" if one.stepped else "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in spots)
        parts.append(f'<g class="curve {_text(one.name)}"><path d="{path}"/>{dots}</g>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(said)}">{"".join(parts)}</svg>'


def brackets(marks: Sequence[Mark], said: str, line: float = 0.0) -> str:
    """Brackets beside each other, upwards, with a line at the number `line`; `said`: the drawing in words.

    The scale is linear near `line` and logarithmic far from it. Of many brackets only some have their names below them.
    """
    numbers = [end for mark in marks for end in (mark.low, mark.high, *(mark.met or ())) if end is not None]
    sizes = sorted(abs(end - line) for end in numbers if end != line) or [1.0]
    unit = sizes[len(sizes) // 2]
    ends = [_bent(end - line, unit) for end in (line, *numbers)]
    low, high = min(ends), max(ends)

    def y(value: float) -> float:
        part = (_bent(value - line, unit) - low) / (high - low) if high > low else 0.5
        return _EDGE + (1 - part) * (_FIELD - 2 * _EDGE)

    bars, step = [], 100 / max(len(marks), _FEWEST)
    named = any(mark.name for mark in marks)
    every = -(-len(marks) // _LABELLED)
    for place, mark in enumerate(marks):
        across = (place + _GAP / 2) * step, (1 - _GAP) * step
        top, bottom = (0.0 if mark.high is None else y(mark.high)), (_FIELD if mark.low is None else y(mark.low))
        bars.append(_bar(f"{mark.style} proved" if mark.met else mark.style, across, top, bottom))
        if mark.met is not None:
            bars.append(_bar(mark.style, across, y(mark.met[1]), y(mark.met[0])))
        if named and place % every == 0:
            spot = f'x="{(place + 0.5) * step:.2f}%" y="{_FIELD + 13}"'
            bars.append(f'<text {spot} text-anchor="middle">{_text(mark.name)}</text>')
    ticks = _spread([(y(value), value) for value in _round(line, unit, min([line, *numbers]), max([line, *numbers]))])
    return _plot(bars, [(y(value), value) for value in ticks], line, _FIELD + _NAMES * named, said)


def shares(parts: Sequence[tuple[str, int]], said: str) -> str:
    """One bar of parts beside each other: their classes, and how many each has; `said`: the drawing in words."""
    total, left, found = sum(count for _, count in parts), 0.0, ""
    for style, count in parts:
        wide = 100 * count / total if total else 0.0
        found += f'<rect class="{style}" x="{left:.3f}%" width="{wide:.3f}%" height="100%"/>' if count else ""
        left += wide
    return f'<svg class="shares" role="img" aria-label="{_text(said)}">{found}</svg>'


def _plot(bars: Sequence[str], ticks: Sequence[tuple[float, float]], line: float, tall: int, said: str) -> str:
    """The field of brackets and the axis beside it; `ticks`: where each number is."""
    axis = "".join(f'<text x="{_AXIS - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(own)}</text>' for y, own in ticks)
    grid = "".join(
        f'<line class="{"zero" if own == line else "grid"}" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>' for y, own in ticks
    )
    return (
        f'<div class="plot" role="img" aria-label="{_text(said)}">'
        f'<svg class="axis" width="{_AXIS}" height="{tall}" aria-hidden="true">{axis}</svg>'
        f'<svg class="field" height="{tall}" aria-hidden="true">{grid}{"".join(bars)}</svg></div>'
    )


def _bar(style: str, across: tuple[float, float], top: float, bottom: float) -> str:
    thin = max(bottom - top, _THINNEST)
    y = (top + bottom - thin) / 2
    return f'<rect class="{style}" x="{across[0]:.2f}%" width="{across[1]:.2f}%" y="{y:.1f}" height="{thin:.1f}"/>'


# -- scales ---------------------------------------------------------------------------------------


def _bent(value: float, unit: float) -> float:
    """Linear near 0 and logarithmic far from it, and finite however far."""
    return math.asinh(max(-_FARTHEST, min(_FARTHEST, value / unit)))


def _scale(places: Sequence[float]) -> Callable[[float], float]:
    """The scale of an axis with these ascending numbers from 0 on: logarithmic if they differ by decades."""
    positive = [place for place in places if place > 0]
    if positive and positive[-1] / positive[0] >= _BENT:
        return lambda value: _bent(value, positive[0])
    return float


def _labelled(places: Sequence[float]) -> list[float]:
    """The numbers below an axis with these ascending places, those that matter most first."""
    if len(places) <= _PLACES:
        return [places[-1], *places]
    step = 10.0 ** math.floor(math.log10(places[-1] / 4))
    step *= 5 if places[-1] > 20 * step else 2 if places[-1] > 8 * step else 1
    return [step * k for k in range(int(places[-1] / step) + 1)]


def _round(line: float, unit: float, low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, `line` first, then those that matter most."""
    most = max(high - line, line - low)
    if not most:
        return [line]
    decades = range(math.floor(math.log10(most)), math.floor(math.log10(unit)) - 2, -1)
    steps = [float(f"{digit}e{decade}") for digit in (1, 5, 2) for decade in decades]
    found = [line, *(line + sign * step for step in steps for sign in (1, -1))]
    return [value for value in found if low <= value <= high]


def _spread(found: Sequence[tuple[float, float]], apart: float = _APART) -> list[float]:
    """Of numbers and where they would be shown, the first ones that have room beside those before them."""
    shown: dict[float, float] = {}
    for place, value in found:
        if all(abs(place - other) >= apart for other in shown):
            shown[place] = value
    return list(shown.values())


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\u2212")


def _text(text: str) -> str:
    return escape(printable(text))
