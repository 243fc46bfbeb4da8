"""Rows that are whole, but about something else than what was asked, do not count, and a note says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from qverify.report import plots
from qverify.runs.batch import BatchWork
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS

FIRST, COUNT = 30, 10
DATA = ("--data", "digits", "--samples", f"{FIRST}:{FIRST + COUNT}")
TIMELESS = {"seconds", "runs", "by_method"}


def again(note: str, *given: Any) -> dict[str, Any]:
    """What the command says that goes on, with its note."""
    result = qverify(*given, "--json")
    assert result.exit_code == 0 and note in result.stderr, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def timeless(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in TIMELESS}
    return [timeless(one) for one in found] if isinstance(found, list) else found


def moved(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a sample with another label."""
    return row | dict.fromkeys(("label", "predicted"), (row["label"] + 1) % 10)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_verify(tmp_path: Path) -> None:
    given = ("verify", DIGITS, *DATA, "--bits", 6, "--method", "bp", "--out", tmp_path)
    truth = answer(*given)
    rows = read_rows(tmp_path)
    verified = next(row for row in rows if row["status"] == "verified")
    strangers = [verified | {"index": index} for index in (0, FIRST - 1, FIRST + COUNT, 2**53 - 1)]
    write(tmp_path / "samples.jsonl", [*strangers, *rows])
    found = again("note: 4 rows of ", *given, "--resume")
    assert timeless(found) == timeless(truth) and found["samples"] == COUNT
    wrong = [moved(row) if k < 3 else row for k, row in enumerate(rows)]
    write(tmp_path / "samples.jsonl", wrong)
    result = qverify(*given, "--resume", "--json")
    assert "note: 3 rows of " in result.stderr and "7 samples are decided already; 3 are left." in result.stderr
    assert timeless(json.loads(result.stdout)) == timeless(truth)
    kept = {row["index"]: row["label"] for row in read_rows(tmp_path)}  # decided again, and the last row counts
    assert kept == {row["index"]: row["label"] for row in rows}
    assert "note: " not in qverify(*given, "--resume").stderr.replace("note: weights", "")


@pytest.mark.slow
def test_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.toml").write_text(
        f'models = ["{DIGITS}"]\ndata = "digits"\nbits = [6]\nmethods = ["bp"]\nsamples = "{FIRST}:{FIRST + COUNT}"\n'
    )
    given = ("batch", tmp_path / "plan.toml", "--out", tmp_path / "out", "--jobs", 1)
    assert answer(*given)["samples"] == COUNT
    rows = read_rows(tmp_path / "out")
    changed = [moved(rows[0]), rows[1] | {"index": rows[1]["index"] + 1}, *rows[2:]]
    write(tmp_path / "out" / "samples.jsonl", changed)
    monkeypatch.setattr(BatchWork, "run", lambda *_: None)
    result = qverify(*given, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 130 and found["samples"] == COUNT - 2 and found["missing"] == 2
    assert "note: 2 rows of digits-digits-6bit" in result.stderr and "another index or label" in result.stderr


def edited(path: Path, *changes: tuple[int, dict[str, Any]]) -> None:
    """Rows of a CSV file with some cells written otherwise, by the number of the row; appended where there is none."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for number, cells in changes:
        if number == len(rows):
            rows.append(rows[0] | cells)
        rows[number] |= cells
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "save_figure", lambda *_: [])
    given: tuple[Any, ...] = ("sweep", DIGITS, *DATA, "--values", "0.01,0.02,0.03", "--parts", "all", "--method", "ibp")
    given += ("--out", tmp_path)
    truth = answer(*given)
    counts = {"samples": 7, "clean": 7, "guaranteed": 7, "attack": "", "unknown": 0}
    edited(tmp_path / "sweep.csv", (0, counts), (1, {"method": "bp"}), (2, {"attack": 10}), (3, {"value": "0.5"}))
    with (tmp_path / "sweep.csv").open() as file:
        row = list(csv.DictReader(file))[2]
    attack = int(row["guaranteed"]) + int(row["unknown"])
    edited(tmp_path / "sweep.csv", (2, {"attack": attack}), (4, {"part": "input"}), (5, {"model": "other"}))
    found = again("note: 6 rows of sweep.csv are about other points or samples", *given, "--resume")
    assert timeless(found) == timeless(truth)


@pytest.mark.parametrize("accuracy", [True, False])
def test_radius(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accuracy: bool) -> None:
    monkeypatch.setattr(plots, "save_figure", lambda *_: [])
    given: tuple[Any, ...] = (
        "radius",
        DIGITS,
        *DATA,
        "--bits",
        6,
        "--method",
        "ibp",
        "--precision",
        0.2,
        "--max-factor",
        4,
    )
    given += ("--out", tmp_path, *(("--accuracy", 0.5, "--layer-method", "ibp") if accuracy else ()))
    truth = answer(*given)
    with (tmp_path / "factors.csv").open() as file:
        rows = list(csv.DictReader(file))
    proved = [k for k, row in enumerate(rows) if row["lower"] and float(row["lower"]) > 0][:2]
    label = (int(rows[proved[0]]["label"]) + 1) % 10
    between = repr(float(rows[proved[1]]["lower"]) * 1.01)  # no factor of the grid
    changes: list[Any] = [(proved[0], {"label": label, "predicted": label}), (proved[1], {"lower": between})]
    edited(tmp_path / "factors.csv", *changes, (COUNT, {"index": FIRST - 1}), (COUNT + 1, {"index": FIRST + COUNT}))
    strangers = 4
    if accuracy:
        more: list[Any] = [
            (0, {"samples": 11}),
            (1, {"layer": "dense9"}),
            (2, {"radius": "9.0"}),
            (6, {"layer": "relu9"}),
        ]
        edited(tmp_path / "layers.csv", *more, (7, {"layer": "other", "accuracy": "0.51", "reached": "0.6"}))
        strangers += 4  # what was asked for with another accuracy is none
    found = again(f"note: {strangers} rows in {tmp_path} fit no sample or layer asked for", *given, "--resume")
    assert timeless(found) == timeless(truth)
