"""`qverify discrepancy`: what it prints and writes, and what becomes of it after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.family.radii import Radii
from qverify.onnx import reader as onnx_io
from qverify.verification.verdict import Options
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS


def test_discrepancy_is_that_of_the_library(tmp_path: Path) -> None:
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    expected = worst_case_discrepancy(network, samples.x[5:9], Radii.from_bits(8), Options(method="bp"))
    given = ("discrepancy", DIGITS, "--data", "digits", "--bits", 8, "--samples", "5:9")
    found = answer(*given, "--out", tmp_path / "rows.jsonl")
    assert found["largest"] == max(e.worst for e in expected) and found["samples"] == 4
    assert found["lower"] == pytest.approx(np.min([e.lower for e in expected], axis=0))
    assert found["upper"] == pytest.approx(np.max([e.upper for e in expected], axis=0))
    assert [r["index"] for r in found["rows"]] == [5, 6, 7, 8] and "attained_lower" not in found
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda r: r["index"]) == found["rows"]
    again = qverify(*given, "--out", tmp_path / "rows.jsonl")
    assert again.exit_code == 2 and "exists already" in again.stderr
    table = qverify(*given).stdout
    largest = float(table.split("at most ")[-1].split(" over 4 samples")[0])
    assert found["largest"] <= largest <= found["largest"] * (1 + 1e-5)
    for line, low, high in zip(table.splitlines()[3:], found["lower"], found["upper"], strict=False):
        shown = [float(cell) for cell in line.split()[1:]]
        assert low - 1e-4 < shown[0] <= low and high <= shown[1] < high + 1e-4  # what is proved is rounded outwards


def test_a_discrepancy_that_is_interrupted_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        def tell(result: Any) -> None:
            given[-2](result)
            os.kill(os.getpid(), signal.SIGINT)

        worst_case_discrepancy(*given[:-2], tell, given[-1])  # type: ignore[call-arg]

    monkeypatch.setattr("qverify.cli.discrepancy.worst_case_discrepancy", interrupted)
    given = ("--data", "digits", "--bits", 8, "--samples", "7:12", "--out", tmp_path / "rows.jsonl")
    result = qverify("discrepancy", DIGITS, *given, "--json")
    assert result.exit_code == 130 and "interrupted: 2 of 5 samples are done" in result.stderr
    assert json.loads(result.stdout)["interrupted"] is True
    rows = [json.loads(line)["index"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == [7, 8]


def test_the_exact_discrepancy_lies_between_members_and_bounds() -> None:
    given = ("discrepancy", DIGITS, "--data", "digits", "--bits", 8, "--samples", "0:1", "--method")
    exact, bounds = answer(*given, "exact"), answer(*given, "bp")
    assert exact["complete"] and exact["solver"]["name"] and bounds["solver"] is None
    assert exact["largest_attained"] <= exact["largest"] <= bounds["largest"]
    assert exact["largest_attained"] == pytest.approx(exact["largest"], abs=1e-4)
