"""Text and panels of plots, measured in what matplotlib draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qverify.report.plot_layout import DPI, Panels, height, legend_columns, plain_style, width, wrapped

TEXTS = ["net", "a long name of a model, of some data", "WWWWWWWW", "iiiiiiii", "größer & kleiner_$x$", "line\nline"]


def drawn(text: str, size: float) -> tuple[float, float]:
    """The width and height in inches of the ink of a text, counted in pixels."""
    with plain_style():
        figure = Figure(figsize=(8, 2), dpi=DPI)
        canvas: Any = FigureCanvasAgg(figure)
        figure.text(0.05, 0.5, text, fontsize=size)
        canvas.draw()
        dark = np.asarray(canvas.buffer_rgba())[..., :3].min(axis=2) < 200
    down, across = np.nonzero(dark)
    return (np.ptp(across) + 1) / DPI, (np.ptp(down) + 1) / DPI


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [8.0, 10.0])
def test_text_is_never_larger_than_was_thought(text: str, size: float) -> None:
    wide, high = drawn(text, size)
    with plain_style():
        thought = max(width(line, size) for line in text.split("\n"))
        assert wide <= thought <= 1.3 * wide + 0.05 and high <= height(text, size)


@settings(max_examples=30, deadline=None)
@given(
    words=st.lists(st.text("abcW_-/", min_size=1, max_size=25), min_size=1, max_size=12),
    room=st.floats(1.0, 5.0),
    most=st.integers(1, 4),
)
def test_lines_fit_and_lose_only_their_middle(words: list[str], room: float, most: int) -> None:
    text = " ".join(words)
    with plain_style():
        found = wrapped(text, room, 10.0, most)
        lines = found.split("\n")
        assert len(lines) <= most and all(width(line, 10.0) <= room for line in lines)
    squeezed = found.replace("\n", "").replace(" ", "")
    whole = text.replace(" ", "")
    if "\u2026" in squeezed:
        head, tail = squeezed.split("\u2026")
        assert whole.startswith(head) and whole.endswith(tail) and len(head + tail) < len(whole)
    else:
        assert squeezed == whole


def test_line_breaks_of_the_text_stay() -> None:
    with plain_style():
        assert wrapped("a\nb", 5.0, 10.0) == "a\nb"


@pytest.mark.parametrize(("count", "across"), [(1, 1), (3, 2), (4, 2), (7, 3)])
def test_panels_have_their_size_and_lie_apart(count: int, across: int) -> None:
    panels = Panels(
        count=count, across=across, panel=(2.0, 1.5), left=0.5, right=0.25, top=0.75, bottom=1.0, gaps=(0.5, 0.25)
    )
    figure, axes = panels.figure()
    wide, high = figure.get_size_inches()
    boxes = [axis.get_position() for axis in axes]
    inches = np.array([(b.x0 * wide, b.y0 * high, b.x1 * wide, b.y1 * high) for b in boxes])
    assert len(axes) == count and np.allclose(inches[:, 2:] - inches[:, :2], (2.0, 1.5))
    assert inches[:, 0].min() == pytest.approx(0.5) and high - inches[:, 3].max() == pytest.approx(0.75)
    assert wide - inches[:, 2].max() == pytest.approx(0.25) and inches[:, 1].min() == pytest.approx(1.0)
    for k, one in enumerate(inches):
        below = [k2 for k2, o in enumerate(inches) if np.isclose(o[0], one[0]) and o[1] < one[1] - 0.1]
        assert panels.lowest(k) is (not below)
        for other in inches[:k]:
            across_gap = max(one[0] - other[2], other[0] - one[2])
            down_gap = max(one[1] - other[3], other[1] - one[3])
            assert across_gap >= 0.5 - 1e-9 or down_gap >= 0.25 - 1e-9


@given(count=st.integers(1, 12), room=st.floats(0.1, 20.0))
def test_rows_of_a_legend_are_as_few_as_fit_and_even(count: int, room: float) -> None:
    labels = ["input+weight"] * count
    with plain_style():
        entry = width(labels[0], 9.0) + 4.8 * 9.0 / 72
        columns = legend_columns(labels, 9.0, room)
    rows = -(-count // columns)
    fitting = [k for k in range(1, count + 1) if k * entry <= room] or [1]
    assert columns <= max(fitting) and rows == min(-(-count // k) for k in fitting)
    assert columns == min(k for k in fitting if -(-count // k) == rows)
