"""Runs that an older version wrote (stored_runs/) are resumed and reported, and no row of them changes by a byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import qverify
from tests.support.paths import DIGITS

STORED = Path(__file__).parent / "stored_runs"
VERIFY = ("verify", "digits.onnx", "--data", "digits", "--bits", "6", "--out", "verify", "--resume", "--samples")
CHANNEL = ("--bits", "8", "--scheme", "channel", "--rounding", "nearest", "--samples", "10:20", "--timeout", "5")
SWEEP = ("--values", "0.01,0.05", "--parts", "all,weight", "--samples", ":20", "--method", "ibp", "--out", "sweep")
COMMANDS = {
    "verify/samples.jsonl": (*VERIFY, ":24"),
    "channel/samples.jsonl": ("verify", "digits.onnx", "--data", "digits", *CHANNEL, "--out", "channel", "--resume"),
    "batch/samples.jsonl": ("batch", "plan.toml", "--jobs", "1"),
    "sweep/sweep.csv": ("sweep", "digits.onnx", "--data", "digits", *SWEEP, "--resume"),
    "radius/factors.csv": (
        *("radius", "digits.onnx", "--data", "digits", "--bits", "6", "--samples", ":6", "--method", "bp"),
        *("--out", "radius", "--resume"),
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the stored runs beside their model."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    shutil.copy(DIGITS, tmp_path / "digits.onnx")
    monkeypatch.chdir(tmp_path)


def done(*arguments: str) -> str:
    """What a command prints that must succeed."""
    result = qverify(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("rows", COMMANDS)
def test_the_same_command_computes_nothing_and_changes_no_row(rows: str) -> None:
    before = Path(rows).read_bytes()
    done(*COMMANDS[rows])
    assert Path(rows).read_bytes() == before


def test_more_samples_come_behind_the_rows_that_are_there() -> None:
    before = Path("verify/samples.jsonl").read_bytes()
    done(*VERIFY, ":26")
    after = Path("verify/samples.jsonl").read_bytes()
    assert after.startswith(before)
    assert {json.loads(row)["index"] for row in after[len(before) :].splitlines()} == {24, 25}


def test_rows_computed_now_are_those_of_then() -> None:
    """The same answers; and the same bounds, where the same bounds decide."""

    def rows(folder: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in (Path(folder) / "samples.jsonl").read_text().splitlines()]
        return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in found), key=lambda r: r["index"])

    done(*VERIFY[:-4], "--out", "again", "--samples", ":24")
    now, then = rows("again"), rows("verify")
    assert [(r["index"], r["status"]) for r in now] == [(r["index"], r["status"]) for r in then]
    for one, other in zip(now, then, strict=True):
        assert one.keys() == other.keys()
        if one["method"] == other["method"] and one["method"] in ("ibp", "bp"):
            assert one["margin_lower"] == pytest.approx(other["margin_lower"], abs=1e-6)


@pytest.mark.parametrize("form", ["markdown", "csv", "html"])
def test_they_are_reported(form: str) -> None:
    text = done("report", "verify", "channel", "batch", "--format", form, *(("--out", "r.html") * (form == "html")))
    rows = [json.loads(line) for line in Path("verify/samples.jsonl").read_text().splitlines()]
    share = sum(row["status"] == "verified" for row in rows) / len(rows)
    shown = {"markdown": f"{100 * share:.2f}", "csv": f",{share:g},", "html": "digits.onnx"}
    assert shown[form] in (Path("r.html").read_text() if form == "html" else text)
