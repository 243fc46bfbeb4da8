"""The small drawings of accuracy against bits, read back as XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from qverify.report.curves import Curve, curves, svg
from qverify.report.table import lines_of
from qverify.runs.reading import read_runs
from tests.support.runs_on_disk import row, write_run


def found(folder: Path, *runs: tuple[int, int, dict[str, str]]) -> list[Curve]:
    """The curves of runs, each with so many bits and so many of 10 samples verified, and changes to its question."""
    paths = []
    for number, (bits, verified, changes) in enumerate(runs):
        rows = [row(k, "verified" if k < verified else "unknown", "exact") for k in range(10)]
        paths.append(str(write_run(folder / str(number), rows, bits=bits, **changes)))
    return curves(lines_of(read_runs(paths)))


def test_cases_that_differ_by_bits_alone_are_a_curve(tmp_path: Path) -> None:
    other = {"method": "ibp"}
    made = found(
        tmp_path, (10, 9, {}), (6, 3, {}), (8, 5, other), (8, 7, {}), (12, 8, other), (4, 1, {"solver": "scip"})
    )
    said = {curve.lines[0].case.method: [line.case.bits for line in curve.lines] for curve in made}
    assert said == {"auto": [6, 8, 10], "ibp": [8, 12]}
    assert all(
        curve.title.endswith(f"samples 0:10, scheme paper, rounding any, method {m}")
        for curve, m in zip(made, said, strict=True)
    )


def test_of_cases_that_ask_the_same_the_first_counts(tmp_path: Path) -> None:
    (curve,) = found(tmp_path, (6, 3, {}), (8, 5, {}), (8, 9, {}))
    assert [line.count("guaranteed") for line in curve.lines] == [3, 5]


@pytest.mark.parametrize("verified", [(0, 5, 10), (9, 10, 10), (7, 7, 8)])
def test_dots_lie_where_axes_say(tmp_path: Path, verified: tuple[int, int, int]) -> None:
    (curve,) = found(tmp_path, *((bits, count, {}) for bits, count in zip((4, 6, 12), verified, strict=True)))
    picture = ET.fromstring(svg(curve))
    texts = [(float(t.get("x", 0)), float(t.get("y", 0)), t.text or "") for t in picture.iter("text")]
    ticks = {float(text): y - 4 for x, y, text in texts if text.replace(".", "").isdigit() and x < 40}
    scale = np.polyfit(list(ticks), list(ticks.values()), 1)
    assert len(ticks) == 5 and max(ticks) == 100 and 100 * min(verified) / 10 >= min(ticks)
    bits = {text: x for x, y, text in texts if y > max(ticks.values()) + 10 and text.isdigit()}
    (group,) = (g for g in picture.iter("g") if g.get("class") == "curve guaranteed")
    dots = [(float(c.get("cx", 0)), float(c.get("cy", 0)), c[0].text or "") for c in group.iter("circle")]
    for (x, y, said), count, name in zip(dots, verified, ("4", "6", "12"), strict=True):
        assert said == f"guaranteed, {name} bits: {10 * count:.2f} %"
        assert x == bits[name] and y == pytest.approx(np.polyval(scale, 10 * count), abs=0.11)
    across = sorted(bits.values())
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(2 / 8, abs=0.01)
    (path,) = group.iter("path")
    numbers = [float(each) for each in re.findall(r"[\d.]+", path.get("d", ""))]
    assert numbers == [end for x, y, _ in dots for end in (x, y)]
