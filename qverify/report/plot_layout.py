"""Text and panels of plots in inches, so that no text is cut and no panel shrinks, whatever names there are.

matplotlib lays a figure out by shrinking its panels until the text has room, and gives up where there is too much of
it. Here text is broken to the width there is, and the figure grows with the number of its lines.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

if TYPE_CHECKING:
    from collections.abc import Iterator

DPI = 100
POINTS = 72
"""Points in an inch."""
_HANDLE = 4.8
"""Width of a line in a legend and of the space on both sides, in units of the font size."""
_SPACING = 1.25
"""Line height in units of the font size; matplotlib's own is 1.2."""
_SAFETY = 1.03
_LONGEST = 2000
_BREAKS = (r"\s*\S+", r"[^/\\_.,-]*[/\\_.,-]+|[^/\\_.,-]+", r".")
"""Where lines may be broken: between words, else after a separator, else anywhere."""


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """Settings of this package alone: no matplotlibrc, no formulas in names, nothing said about missing glyphs."""
    own = {"text.parse_math": False, "svg.hashsalt": "qverify", "svg.fonttype": "none", "figure.dpi": DPI}
    with warnings.catch_warnings(), style.context(["default", own]):
        warnings.simplefilter("ignore")
        yield


def width(text: str, size: float) -> float:
    """The width of one line at a font size in points; inches, rather too much than too little."""
    pixels, _, _ = _renderer().get_text_width_height_descent(text, FontProperties(size=size), False)
    return float(pixels) / DPI * _SAFETY


@functools.cache
def _renderer() -> Any:
    return RendererAgg(1, 1, DPI)  # type: ignore[no-untyped-call]


def height(text: str, size: float) -> float:
    """The height of the lines of `text`; inches."""
    return (text.count("\n") + 1) * size * _SPACING / POINTS


def wrapped(text: str, room: float, size: float, most: int = 3) -> str:
    """`text` in lines no wider than `room` inches, a line break in it being kept; a part that needs more than `most`
    lines loses its middle."""
    return "\n".join(_fitted(part, room, size, most) for part in text.split("\n"))


def _fitted(text: str, room: float, size: float, most: int) -> str:
    lines = _lines(text[:_LONGEST], room, size)
    low, high = 0, len(text) // 2  # letters kept at each end
    if len(lines) <= most and len(text) <= _LONGEST:
        return "\n".join(lines)
    while high - low > 1:
        middle = (low + high) // 2
        if middle < _LONGEST and len(_lines(_shortened(text, middle), room, size)) <= most:
            low = middle
        else:
            high = middle
    return "\n".join(_lines(_shortened(text, low), room, size))


def _shortened(text: str, ends: int) -> str:
    return f"{text[:ends]}\u2026{text[len(text) - ends :]}"


def _lines(text: str, room: float, size: float) -> list[str]:
    lines = [""]
    _fill(lines, text, room, size, 0)
    return lines


def _fill(lines: list[str], text: str, room: float, size: float, level: int) -> None:
    """Append `text` to the last line, or, broken at `level` or deeper, to more of them."""
    if width(lines[-1] + text, size) <= room:
        lines[-1] += text
    elif level < len(_BREAKS) and width(text.lstrip(), size) > room:
        for piece in re.findall(_BREAKS[level], text):
            _fill(lines, piece, room, size, level + 1)
    elif lines[-1]:
        lines.append(text.lstrip())
    else:
        lines[-1] = text.lstrip()


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Panels of one size, in inches, with room between them and around them; `count` of them in `across` columns."""

    count: int
    across: int
    panel: tuple[float, float]
    left: float
    right: float
    top: float
    bottom: float
    gaps: tuple[float, float] = (0.0, 0.0)

    @property
    def down(self) -> int:
        """The number of rows of panels."""
        return -(-self.count // self.across)

    @property
    def size(self) -> tuple[float, float]:
        """The size of the whole figure."""
        wide = self.left + self.across * self.panel[0] + (self.across - 1) * self.gaps[0] + self.right
        return wide, self.top + self.down * self.panel[1] + (self.down - 1) * self.gaps[1] + self.bottom

    def figure(self) -> tuple[Figure, list[Any]]:
        """The figure and its axes, row by row."""
        wide, high = self.size
        figure = Figure(figsize=(wide, high))
        FigureCanvasAgg(figure)
        axes = []
        for place in range(self.count):
            row, column = divmod(place, self.across)
            x = self.left + column * (self.panel[0] + self.gaps[0])
            y = high - self.top - (row + 1) * self.panel[1] - row * self.gaps[1]
            axes.append(figure.add_axes((x / wide, y / high, self.panel[0] / wide, self.panel[1] / high)))
        return figure, axes

    def lowest(self, place: int) -> bool:
        """Whether panel number `place` has none below it."""
        return place + self.across >= self.count


def legend_columns(labels: list[str], size: float, room: float) -> int:
    """The number of columns of a legend: as many as have room, in rows that are about full."""
    entry = max(width(label, size) for label in labels) + _HANDLE * size / POINTS
    most = max(1, int(room / entry))
    return math.ceil(len(labels) / math.ceil(len(labels) / most))
