"""Tables turned: a row a model, a column a family; the numbers are those of the long table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.cli.options import SHARES
from qverify.report.pivot import pivot
from qverify.report.table import ACCURACIES, Line, lines_of
from qverify.runs.reading import read_runs
from tests.support.commands import qverify
from tests.support.pages import Parsed
from tests.support.runs_on_disk import random_rows, row, write_run


@pytest.fixture
def runs(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    """Two models at 6 and 8 bits by auto, one of them at 8 bits by exact too."""
    found = []
    for model, bits, method in (
        ("a", 8, "auto"),
        ("a", 6, "auto"),
        ("b_1", 6, "auto"),
        ("b_1", 8, "auto"),
        ("a", 8, "exact"),
    ):
        rows, changes = random_rows(rng, 40), {"model": f"{model}.onnx", "method": method}
        found.append(write_run(tmp_path / f"{model}{bits}{method}", rows, bits=bits, **changes))
    return found


def share(line: Line) -> str:
    return f"{100 * sum(row.status == 'verified' for row in line.case.rows) / 40:.2f} %"


def test_every_number_is_in_its_cell(runs: list[Path]) -> None:
    lines = lines_of(read_runs(list(map(str, runs))))
    found = pivot(lines)
    assert SHARES == ACCURACIES
    assert found.headings == ("model",) and found.rows == (("a",), ("b_1",)) and len(found.columns) == 3
    texts = found.texts("guaranteed")
    for line in lines:
        column = next(k for k, name in enumerate(found.columns) if line.case.radii in name and line.case.method in name)
        assert texts[found.rows.index((line.case.model,))][column] == share(line)
    assert sorted(cell == "" for row in texts for cell in row) == [False] * 5 + [True]


def test_forms(runs: list[Path], tmp_path: Path) -> None:
    given: tuple[Any, ...] = ("report", *runs, "--pivot", "guaranteed")
    rows = list(csv.reader(io.StringIO(qverify(*given, "--format", "csv").stdout)))
    assert [row[0] for row in rows] == ["model", "a", "b_1"] and sum(
        bool(cell) for row in rows[1:] for cell in row[1:]
    ) == 5
    text = qverify(*given, "--format", "markdown").stdout
    assert text.count("\n| ") == 3 and "b\\_1" in text and "In each cell: guaranteed" in text
    latex = qverify(*given, "--format", "latex", "--caption", "100 % of a_b", "--label", "tab:one").stdout
    assert "\\begin{table}\n\\centering\n\\begin{tabular}{lrrr}" in latex and "b\\_1 & " in latex
    assert "\\caption{100 \\% of a\\_b}\\label{tab:one}\n\\end{table}" in latex
    assert "guaranteed" in qverify(*given).stdout


def test_what_falls_into_one_cell_has_rows_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    paths = [write_run(tmp_path / name, random_rows(rng, 30)) for name in ("one", "two")]
    found = pivot(lines_of(read_runs(list(map(str, paths)))))
    assert found.headings[-1] == "run" and {row[-1] for row in found.rows} == {"one", "two"}
    assert all(cell is not None for row in found.cells for cell in row)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--caption", "a"), "are for LaTeX"),
        (("--label", "a", "--format", "latex"), "--label goes with a --caption"),
        (("--label", "a}b", "--caption", "c", "--format", "latex"), "is made of letters"),
        (("--pivot", "speed"), "speed"),
    ],
)
def test_senseless_options(runs: list[Path], more: tuple[str, ...], why: str) -> None:
    found = qverify("report", *runs, *more)
    assert found.exit_code == 2 and why in found.stderr and not found.stdout


def test_the_page_has_the_table_in_columns_that_have_room(tmp_path: Path) -> None:
    """Ten families of one model: two tables below each other, with the cells of the long one."""
    paths = [
        write_run(
            tmp_path / f"{bits}{method}",
            [row(0), row(1, "unknown", "exact") if bits % 2 else row(1)],
            bits=bits,
            method=method,
        )
        for bits in range(4, 9)
        for method in ("bp", "ibp")
    ]
    out = tmp_path / "page.html"
    result = qverify("report", *paths, "--format", "html", "--out", out, "--pivot", "guaranteed")
    assert result.exit_code == 0, result.stderr
    text = out.read_text().partition('id="accuracy"')[2].partition("</section>")[0]
    pieces = text.split('<table class="found')[1:]
    tables = [Parsed("<table>" + piece.partition(">")[2].partition("</table>")[0]).tables[""] for piece in pieces]
    assert [len(table[0]) for table in tables] == [7, 5] and tables[0][1][0] == tables[1][1][0] == "net"
    cells = dict(zip(tables[0][0][1:] + tables[1][0][1:], tables[0][1][1:] + tables[1][1][1:], strict=True))
    assert cells == {
        f"{b} bits, {m}": "50.00\u00a0%" if b % 2 else "100.00\u00a0%" for b in range(4, 9) for m in ("bp", "ibp")
    }
