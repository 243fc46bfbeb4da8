"""Runs written by hand: whole, and without contradictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.support.runs_on_disk import MARGINS, question, random_rows, write_batch, write_run


def test_random_rows_are_whole_and_do_not_contradict_themselves(rng: np.random.Generator) -> None:
    rows = random_rows(rng, 400)
    assert sorted(row["index"] for row in rows) == list(range(400))
    assert {row["status"] for row in rows} == set(MARGINS) and {row["label"] for row in rows} == set(range(10))
    for row in rows:
        low, high, status = row["margin_lower"], row["margin_upper"], row["status"]
        assert (low is not None and low > 0) is (status == "verified")
        assert (high < 0) is (status in ("falsified", "misclassified"))
        assert low is None or low <= high
        assert (row["predicted"] != row["label"]) is (status == "misclassified")


def test_what_is_written_is_what_was_given(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 20)
    folder = write_run(tmp_path / "run", rows, bits=4)
    asked = json.loads((folder / "run.json").read_text())
    assert asked["samples"] == [0, 20] and asked["radii"]["bits"] == 4 and len(asked["runs"]) == 1
    assert [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()] == rows
    batch = write_batch(tmp_path / "batch", {"a": question()}, [row | {"case": "a"} for row in rows])
    assert json.loads((batch / "batch.json").read_text())["cases"] == {"a": question()}
