"""Runs over parts of one question: added up where no sample is missing between them, else left as they are."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.errors import UsageError
from qverify.runs.merging import added_up
from qverify.runs.reading import StoredCase, read_runs
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import random_rows, row, write_run


def part(folder: Path, start: int, stop: int, statuses: dict[int, str] | None = None, **changes: Any) -> str:
    methods = {"verified": "ibp", "falsified": "attack", "unknown": "exact", "misclassified": "forward"}
    found = dict.fromkeys(range(start, stop), "verified") | (statuses or {})
    rows = [row(index, status, methods[status]) for index, status in found.items()]
    return str(write_run(folder, rows, **({"samples": [start, stop]} | changes)))


def merged(*paths: str) -> list[StoredCase]:
    return added_up(read_runs(paths))


def test_parts_are_one_case(tmp_path: Path) -> None:
    """Given in any order; what each sample has to do with is still its own run's."""
    parts = [part(tmp_path / "b", 20, 40, {21: "falsified"}), part(tmp_path / "a", 0, 20), part(tmp_path / "c", 40, 45)]
    (whole,) = merged(*parts)
    assert whole.question.samples == (0, 45) and whole.asked == 45 and len(whole.run.starts) == 3
    assert [one.index for one in whole.rows] == list(range(45)) and whole.title == "a + b + c"
    assert [whole.source(index).run.name for index in (0, 21, 44)] == ["a", "b", "c"]
    assert "a + b + c: added up, samples 0:45 of one question." in whole.notes


@pytest.mark.parametrize(
    "changes",
    [
        {"model_sha256": "dd" * 32},
        {"network_sha256": "dd" * 32},
        {"data_sha256": "dd" * 32},
        {"model": "nowhere/other.onnx"},
        {"data": "nowhere/other.npz"},
        {"method": "bp"},
        {"solver": "scip"},
        {"clip_input": [0.0, 1.0]},
        {"timeout": None},
        {"tolerance": 1e-6},
        {"input_scale": 0.5},
        {"semantics": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_asks_something_else_stays_apart(tmp_path: Path, changes: dict[str, Any]) -> None:
    parts = [part(tmp_path / "a", 0, 20), part(tmp_path / "b", 20, 40, **changes)]
    assert [case.title for case in merged(*parts)] == ["a", "b"]


def test_other_radii_stay_apart(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", 0, 20), part(tmp_path / "b", 20, 40)
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    record["radii"]["rounding"] = "nearest"
    (tmp_path / "b" / "run.json").write_text(json.dumps(record))
    assert len(merged(a, b)) == 2


def test_gaps_and_the_very_same_samples_stay_apart(tmp_path: Path) -> None:
    a, b, again = part(tmp_path / "a", 0, 20), part(tmp_path / "b", 21, 40), part(tmp_path / "c", 0, 20)
    assert [case.title for case in merged(a, b)] == ["a", "b"]
    assert [case.title for case in merged(a, again)] == ["a", "c"]


def test_samples_of_two_runs_count_once(tmp_path: Path) -> None:
    parts = [part(tmp_path / "a", 0, 20, {15: "unknown"}), part(tmp_path / "b", 12, 40, {15: "unknown"})]
    (whole,) = merged(*parts)
    assert [one.index for one in whole.rows] == list(range(40)) and "8 that two of them have count once" in whole.notes[
        0
    ]


def test_two_verdicts_on_one_sample_are_refused(tmp_path: Path) -> None:
    parts = [part(tmp_path / "a", 0, 20), part(tmp_path / "b", 12, 40, {15: "falsified"})]
    with pytest.raises(UsageError, match="a and b both have sample 15, verified with label 1 and falsified with label"):
        merged(*parts)
    result = qverify("report", *parts)
    assert result.exit_code == 2 and "Traceback" not in result.stderr


def test_the_sum_is_that_of_one_run(tmp_path: Path, rng: np.random.Generator) -> None:
    """Random rows, cut at random places: every number of the table is that of the whole."""
    rows = sorted(random_rows(rng, 90), key=lambda one: int(one["index"]))
    ends = [0, *sorted(rng.choice(np.arange(1, 90), 3, replace=False).tolist()), 90]
    parts = [write_run(tmp_path / f"p{a}", rows[a:b], samples=[a, b]) for a, b in itertools.pairwise(ends)]
    whole = write_run(tmp_path / "whole", rows, samples=[0, 90])
    one, other = (qverify("report", *runs, "--format", "csv").stdout.splitlines() for runs in (parts, [whole]))
    assert len(one) == len(other) == 2 and one[1].split(",")[1:] == other[1].split(",")[1:]


def test_witnesses_of_both_runs_are_found(tmp_path: Path) -> None:
    """The page shows pictures of falsified samples with the witnesses that each run kept."""
    folders = []
    for samples in ("20:50", "50:80"):
        folders.append(tmp_path / samples.replace(":", "-"))
        given = ("--data", "digits", "--bits", 6, "--samples", samples, "--out", folders[-1], "--witnesses")
        assert answer("verify", DIGITS, *given)["falsified"] > 0
    assert qverify("report", *folders, "--format", "html", "--out", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    kept = [path.stem for folder in folders for path in (folder / "witnesses").glob("*.npz")]
    assert text.count("the witness answers") == len(kept) and "found again answers" not in text
    assert "1 case," in text and "samples 20:80" in text
