"""Rows packed for the page's script, unpacked by hand and compared as fractions."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.report.page_rows import DIGITS, packed
from qverify.runs.reading import read_runs
from tests.support.runs_on_disk import Line, random_rows, row, write_run


def unpacked(folder: Path, rows: list[Line], label: str = "name") -> tuple[str, list[dict[str, Any]]]:
    """The text, and the rows that a script makes of it."""
    text = packed(read_runs([str(write_run(folder, rows))]), [label])
    found = json.loads(text)
    (case,) = found["cases"]
    assert case.pop("name") == label
    lists = {"status": "statuses", "method": "methods", "detail": "details"}
    columns = {key: [found[lists[key]][k] for k in column] if key in lists else column for key, column in case.items()}
    return text, [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def test_nothing_is_lost_but_digits_and_those_outwards(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 60)
    _, found = unpacked(tmp_path, rows)
    for line, shown in zip(sorted(rows, key=lambda each: each["index"]), found, strict=True):
        assert {key: shown[key] for key in ("index", "label", "predicted", "status", "method")} == {
            key: line[key] for key in ("index", "label", "predicted", "status", "method")
        }
        for key, sign in (("lower", 1), ("upper", -1)):
            exact, text = line[f"margin_{key}"], shown[key]
            if exact is None:
                assert text is None
                continue
            slack = sign * (Fraction(exact) - Fraction(text))
            assert 0 <= slack <= abs(Fraction(exact)) / 10 ** (DIGITS - 1)
            assert float(f"{text:.{DIGITS}g}") == text
        assert shown["ms"] == pytest.approx(1000 * line["seconds"], rel=0.005)
        assert float(f"{shown['ms']:.3g}") == shown["ms"]


def test_what_is_unknown_says_why_and_exact_scope_is_no_remark(tmp_path: Path) -> None:
    rows = [
        row(0, "unknown", "exact", detail="no time", scope="independent positions"),
        row(1, "verified", "exact", scope="exact"),
        row(2, "unknown", "exact", detail="no time"),
    ]
    _, found = unpacked(tmp_path, rows)
    assert [line["detail"] for line in found] == ["independent positions; no time", "", "no time"]


def test_nothing_in_it_ends_the_script_element(tmp_path: Path) -> None:
    label = "</script><!-- & \u2028 'x'"
    text, _ = unpacked(tmp_path, [row(0, "unknown", "exact", detail="</script>")], label)
    assert not set("<>&") & set(text) and text.isascii()
