"""Margins without a script: one drawing a case, worst first, and what is drawn is what the rows hold."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from qverify.report.drawings import Mark, brackets, shares
from qverify.report.margins import DRAWN, drawing, extent, listing
from qverify.report.table import lines_of
from qverify.runs.reading import read_runs
from tests.support.pages import written
from tests.support.runs_on_disk import random_rows, row, write_run

BAR = re.compile(r'<rect class="([\w ]+)" x="([\d.]+)%" width="([\d.]+)%" y="([-\d.]+)" height="([\d.]+)"/>')


def test_the_worst_come_first(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 300)
    (line,) = lines_of(read_runs([str(write_run(tmp_path / "run", rows))]))
    table = listing(line)
    lows = sorted(-math.inf if r["margin_lower"] is None else r["margin_lower"] for r in rows)
    shown = [cells[5] for cells in table.rows]
    found = [-math.inf if text == "open" else float(text.replace("\u2212", "-")) for text in shown]
    assert len(found) == 20 and found == sorted(found)
    for text, low in zip(found, lows, strict=False):
        assert text <= low and (text == low or low - text <= abs(low) * 1e-4)
    by_index = {r["index"]: r for r in rows}
    for cells in table.rows:
        one = by_index[int(cells[2])]
        assert (cells[0], int(cells[3]), int(cells[4])) == (one["status"], one["label"], one["predicted"])
        assert float(cells[6].replace("\u2212", "-")) >= one["margin_upper"]


def test_every_sample_is_drawn_up_to_a_limit(tmp_path: Path, rng: np.random.Generator) -> None:
    for count in (1, DRAWN, DRAWN + 7):
        rows = random_rows(rng, count)
        (line,) = lines_of(read_runs([str(write_run(tmp_path / str(count), rows))]))
        bars = BAR.findall(drawing(line))
        assert len(bars) == min(count, DRAWN)
        assert all(0 <= float(x) <= float(x) + float(w) <= 100.01 for _, x, w, *_ in bars)
        said = extent(line)
        assert (f"{DRAWN} samples" in said and f"of {count} decided" in said) is (count > DRAWN)


def test_bars_lie_where_the_axis_says() -> None:
    """Each number of the axis, drawn as a bracket, lies on its own line; and what is larger lies higher."""
    ends = [(-3.0, -1.0), (-0.5, 0.25), (1.0, 10.0), (50.0, 500.0), (None, -1.0), (2.0, None)]
    text = brackets([Mark("verified", low, high) for low, high in ends], "said")
    ticks = {
        float(t.replace("\u2212", "-")): float(y) - 4
        for y, t in re.findall(r'y="([-\d.]+)" text-anchor="end">([^<]+)<', text)
    }
    assert 0.0 in ticks and len(ticks) >= 4
    places = sorted(ticks.items())
    assert all(y > z for (_, y), (_, z) in itertools.pairwise(places))
    assert min(abs(y - z) for y in ticks.values() for z in ticks.values() if y != z) >= 14
    bars = BAR.findall(text)
    for value, y in ticks.items():
        for (_, _, _, top, height), (low, high) in zip(bars, ends, strict=True):
            first, last = float(top), float(top) + float(height)
            if low is not None and low > value:
                assert last <= y + 1.1
            if high is not None and high < value:
                assert first >= y - 1.1
    assert float(bars[4][3]) + float(bars[4][4]) == 150 and float(bars[5][3]) == 0


@pytest.mark.parametrize(
    "marks",
    [
        [Mark("a", 0.0, 0.0)],
        [Mark("a", None, None)],
        [Mark("a", 5.0, 5.0, (5.0, 5.0))],
        [Mark("a", 5e-324, 1e-300), Mark("a", -1.7e308, 1.7e308)],
    ],
)
def test_degenerate_brackets(marks: list[Mark]) -> None:
    assert "nan" not in brackets(marks, "x") and "inf" not in brackets(marks, "x")


def test_shares_add_up() -> None:
    found = re.findall(r'class="(\w+)" x="([\d.]+)%" width="([\d.]+)%"', shares([("a", 1), ("b", 0), ("c", 2)], "x"))
    assert [name for name, *_ in found] == ["a", "c"]
    assert float(found[1][1]) == pytest.approx(33.333) and float(found[1][2]) == pytest.approx(66.667)
    assert "rect" not in shares([("a", 0)], "x")


def test_the_page_needs_no_script_for_them(tmp_path: Path) -> None:
    """Without its scripts it still has a drawing and a table a case; what needs one is hidden until it runs."""
    runs = [write_run(tmp_path / str(bits), [row(0), row(1, "falsified", "attack")], bits=bits) for bits in (6, 8)]
    text = re.sub(r"<script.*?</script>", "", written(*runs), flags=re.DOTALL)
    section = text.partition('id="margins"')[2].partition("</section>")[0]
    assert section.count('class="plot"') == 2 and section.count('<table class="found">') == 2
    assert '<details id="explorer" hidden>' in section
    alone = written(runs[0]).partition('id="margins"')[2]
    assert '<details class="worst" open><summary>The 2 samples with the lowest margins' in alone
