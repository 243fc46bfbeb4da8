"""Runs of properties on disk: their rows, going on with them, and the page that claims what they prove."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import onnx
from qverify.properties.samples import PropertyRow
from qverify.runs.property import found_in, row_of
from qverify.verification.row import Row, row_fault
from tests.support.commands import answer, qverify, read_rows
from tests.support.networks import mlp
from tests.support.paths import ROOT

DIGITS = ROOT / "models" / "digits.onnx"


@pytest.fixture
def margin(tmp_path: Path) -> Path:
    (tmp_path / "m.toml").write_text('property = "margin"\nmargin = 0.5\n')
    return tmp_path / "m.toml"


def given(file: Path, *more: Any) -> tuple[Any, ...]:
    return ("property", DIGITS, "--data", "digits", "--bits", 6, "--property", file, *more)


def test_rows_are_kept_and_a_run_goes_on(margin: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = answer(*given(margin, "--samples", 12))
    answer(*given(margin, "--samples", 5, "--out", out))
    result = qverify(*given(margin, "--samples", 12, "--out", out, "--resume", "--json"))
    assert "5 samples are decided already; 7 are left" in result.stderr
    found = json.loads(result.stdout)
    for name in ("holds", "violated", "unknown", "itself"):
        assert found[name] == whole[name]
    rows = read_rows(out)
    assert [row["index"] for row in rows] == list(range(12)) and not any(map(row_fault, rows))
    meant = {"verified": ("holds", True), "falsified": ("violated", True), "misclassified": ("violated", False)}
    assert [meant[row["status"]] for row in rows] == [(row["status"], row["itself"]) for row in whole["rows"]]
    assert {row["status"] for row in rows} == set(meant)


def test_another_property_is_another_question(margin: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    answer(*given(margin, "--samples", 2, "--out", out))
    margin.write_text('property = "margin"\nmargin = 0.5000000001\n')
    result = qverify(*given(margin, "--samples", 2, "--out", out, "--resume"))
    assert result.exit_code == 2 and "wanted" in result.stderr
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", 2, "--out", out, "--resume")
    assert result.exit_code == 2
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", 2, "--baseline", out)
    assert result.exit_code == 2 and "is a run of qverify property" in result.stderr
    assert qverify(*given(margin, "--resume")).exit_code == 2


def claimed(out: Path, page: Path) -> str:
    result = qverify("report", out, "--format", "html", "--out", page)
    assert result.exit_code == 0, result.stderr
    text = re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))
    found = re.search(r"Of the [^\n]*", text)
    assert found is not None
    return found[0]


def test_the_page_claims_the_property_that_was_proved(margin: Path, tmp_path: Path) -> None:
    answer(*given(margin, "--samples", 12, "--out", tmp_path / "run"))
    claim = claimed(tmp_path / "run", tmp_path / "page.html")
    proved = sum(row["status"] == "verified" for row in read_rows(tmp_path / "run"))
    assert f"Of the 12 samples 0:12 of digits, which has 599, {proved} " in claim
    words = "the label is above every other output by more than 0.5"
    assert f"are proved to have the property &quot;{words}&quot; in every network" in claim
    assert "to be classified" not in claim
    assert "command: qverify property digits.onnx --data digits --property m.toml --samples 0:12 --bits 6" in claim
    assert f"not covered: the other {12 - proved} samples (" in claim
    assert f"property: {words}" in qverify("report", tmp_path / "run").stdout


def test_the_page_of_boxes_speaks_of_boxes(tmp_path: Path) -> None:
    """Halved: six boxes of two inputs, with a bound that some of them meet."""
    network = mlp(np.random.default_rng(2), 2, 5, 4, 2)
    onnx.save(network, tmp_path / "m.onnx")
    limit = float(network.evaluate(np.random.default_rng(1).uniform(-1, 1, size=(500, 2)))[:, 0].mean())
    boxes = "".join(f"[[boxes]]\nlow = [{k / 3 - 1}, -1]\nhigh = [{k / 3 - 2 / 3}, 1]\n" for k in range(6))
    (tmp_path / "p.toml").write_text(f'[[holds]]\nall = ["y[0] <= {limit:.6f}"]\n{boxes}')
    (tmp_path / "r.toml").write_text("weight = 0.001\n")
    out = tmp_path / "run"
    options = ("--radii", tmp_path / "r.toml", "--property", tmp_path / "p.toml", "--out", out)
    found = answer("property", tmp_path / "m.onnx", *options)
    assert 0 < found["holds"] < 6 and not any(map(row_fault, read_rows(out)))
    claim = claimed(out, tmp_path / "page.html")
    assert (
        claim.startswith(f"Of the 6 boxes of inputs 0:6 of p.toml, {found['holds']} ") or "6 boxes of inputs" in claim
    )
    assert f"&quot;y[0] &lt;= {limit:.6f}&quot; at every input of the box in every network" in claim
    assert "command: qverify property m.onnx --property p.toml --samples 0:6" in claim
    assert "inputs beyond these radii around the boxes of inputs" in claim


@pytest.mark.parametrize(
    ("status", "itself", "method", "ends", "kept"),
    [
        ("holds", True, "ibp", (0.5, 1.0), ("verified", "ibp", 0.5, 1.0)),
        ("holds", True, "halving", (0.5, None), ("verified", "halving", 0.5, None)),
        ("holds", True, "exact", (1e-9, None), ("verified", "exact", 1e-9, None)),
        ("holds", True, "forward", (None, None), ("verified", "ibp", 1.0, None)),
        ("violated", True, "attack", (-2.0, -1.0), ("falsified", "attack", -2.0, -1.0)),
        ("violated", True, "forward", (None, 0.0), ("falsified", "attack", None, 0.0)),
        ("violated", True, "halving", (None, -1.0), ("falsified", "halving", None, -1.0)),
        ("violated", False, "halving", (None, -1.0), ("misclassified", "forward", None, -1.0)),
        ("violated", False, "forward", (None, None), ("misclassified", "forward", None, 0.0)),
        ("unknown", True, "bp-optimised", (-1.0, None), ("unknown", "bp-optimised", -1.0, None)),
        ("unknown", True, "halving", (None, None), ("unknown", "halving", None, None)),
    ],
)
def test_every_answer_makes_a_row_that_says_it(status: str, itself: bool, method: str, ends: Any, kept: Any) -> None:
    lower, upper = ends
    found = PropertyRow(index=3, label=None, itself=itself, status=status, seconds=0.5, method=method)
    row = row_of(replace(found, margin_lower=lower, margin_upper=upper))
    assert (row.status.value, row.method, row.margin_lower, row.margin_upper) == kept
    assert not row_fault(row.to_json()) and Row.from_json(row.to_json()) == row
    again = found_in(row, False)
    assert (again.index, again.label, again.status, again.itself) == (3, None, status, itself)
