"""Accuracy against bits, as small drawings in SVG, where cases differ only by their bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.files.places import PLACES
from qverify.report.numbers import percent
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.report.table import Line

_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 34
_INTERVALS, _STEP, _ROOM = 4, 20, 2
"""Intervals between ticks; the percentage at the bottom is a multiple of `_STEP`, with `_ROOM` below the lowest dot."""
_CURVES = ("clean", "attack", "guaranteed")  # the last is drawn over the others
_SET_APART = ("radii", "format", "qverify", "model", "data", "data_source", PLACES, "witnesses")
"""Keys of a question that do not tell whether two cases differ only by bits; model and data count by their hashes."""


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Brief):
    """Lines of at least two bit-widths, in their order, one a bit-width."""

    lines: list[Line]

    @property
    def title(self) -> str:
        """The heading of the drawing: all that its lines share."""
        line = self.lines[0]
        first, stop = line.case.question.samples
        how = f"{line.case.convention}, method {line.case.method}"
        return f"{line.model} on {line.data}, samples {first}:{stop}, {how}"


def curves(lines: Sequence[Line]) -> list[Curve]:
    """The curves that these lines make. Of cases equal even in bits, only the first counts."""
    groups: dict[str, dict[int, Line]] = {}
    for line in lines:
        case = line.case
        if case.bits is None or case.radii != f"{case.bits} bits" or not line.tally.samples:
            continue
        asked = {key: value for key, value in case.question.to_json().items() if key not in _SET_APART}
        key = json.dumps([case.model, case.convention, asked], sort_keys=True)
        groups.setdefault(key, {}).setdefault(case.bits, line)
    return [Curve([group[bits] for bits in sorted(group)]) for group in groups.values() if len(group) > 1]


def svg(curve: Curve) -> str:
    """The drawing of one curve as SVG, with classes for the page to colour; all numbers are also in the table."""
    bits = [line.case.bits or 0 for line in curve.lines]
    low = min(100 * line.count("guaranteed") / line.tally.samples for line in curve.lines)
    floor = max(0.0, _STEP * ((low - _ROOM) // _STEP))  # whole numbers at the ticks

    def x(value: float) -> float:
        return _LEFT + (value - bits[0]) / (bits[-1] - bits[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (100 - value) / (100 - floor) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in range(_INTERVALS + 1):
        value = floor + tick * (100 - floor) / _INTERVALS
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.extend(
        f'<text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value}</text>' for value in bits
    )
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 3}" text-anchor="middle">bits</text>')
    for name in _CURVES:
        counts = [(line.count(name), line.tally.samples) for line in curve.lines]
        shares = [100 * count / samples for count, samples in counts]
        points = [(x(bit), y(share)) for bit, share in zip(bits, shares, strict=True)]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        dots = "".join(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"><title>{name}, {bit} bits: {percent(*count)}</title></circle>'
            for (px, py), bit, count in zip(points, bits, counts, strict=True)
        )
        parts.append(f'<g class="curve {name}"><path d="M{path}"/>{dots}</g>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="accuracy in %">{"".join(parts)}</svg>'
