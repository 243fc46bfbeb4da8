"""The lines of the table: their order, and names that tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.report.table import ACCURACIES, Line, _natural, identities, labels, lines_of
from qverify.runs.reading import read_runs
from tests.support.runs_on_disk import row, write_run


def lines(folder: Path, *changes: dict[str, Any]) -> list[Line]:
    """The lines of runs with these changes to their questions."""
    paths = [str(write_run(folder / str(number), [row(0)], **own)) for number, own in enumerate(changes)]
    return lines_of(read_runs(paths))


@given(
    first=st.from_regex(r"[a-z]{0,2}[0-9]{1,30}[a-z]?", fullmatch=True),
    second=st.from_regex(r"[a-z]{0,2}[0-9]{1,30}[a-z]?", fullmatch=True),
)
def test_numbers_in_names_are_ordered_as_numbers(first: str, second: str) -> None:
    def parts(text: str) -> tuple[str, int, str]:
        head = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        letters = head.rstrip("0123456789")
        return letters, int(head[len(letters) :]), text[len(head) :]

    assert (_natural(first) < _natural(second)) is (parts(first) < parts(second))


def test_leading_zeros_do_not_count() -> None:
    assert sorted(["a10", "a8", "a007", "a0009"], key=_natural) == ["a007", "a8", "a0009", "a10"]


def test_lines_are_in_the_order_of_models_and_bits(tmp_path: Path) -> None:
    models = ["net10.onnx", "net9.onnx", "net9.onnx", "net9.onnx"]
    found = lines(tmp_path, *({"model": m, "bits": b} for m, b in zip(models, (8, 10, 9, 8), strict=True)))
    assert [(line.case.model, line.case.bits) for line in found] == [
        ("net9", 8),
        ("net9", 9),
        ("net9", 10),
        ("net10", 8),
    ]


@pytest.mark.parametrize(
    ("changes", "shown", "common"),
    [
        (({}, {"bits": 6}), {"model", "radii"}, {"data data.npz", "method auto", "samples 0:1"}),
        (({}, {"method": "ibp"}), {"model", "radii", "method"}, {"data data.npz", "samples 0:1"}),
        (({}, {"data": "x/other.npz"}), {"model", "radii", "data"}, {"method auto", "samples 0:1"}),
        (({}, {"solver": "scip"}), {"model", "radii", "run"}, {"data data.npz", "method auto", "samples 0:1"}),
    ],
)
def test_columns_tell_lines_apart(tmp_path: Path, changes: Any, shown: set[str], common: set[str]) -> None:
    found = lines(tmp_path, *changes)
    columns, said = identities(found)
    assert columns.keys() == shown and common <= set(said.split(", "))
    cells = list(zip(*columns.values(), strict=True))
    assert len(set(cells)) == len(cells) == len(set(labels(found)))
    assert all(
        line.case.model in name and line.case.radii in name for line, name in zip(found, labels(found), strict=True)
    )


def test_a_record_counts_what_its_rows_say(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, "falsified", "attack"),
        row(2, "unknown", "exact"),
        row(3, "misclassified", "forward"),
        row(4),
    ]
    (line,) = lines_of(read_runs([str(write_run(tmp_path, rows))]))
    record = line.record()
    counts = {"clean": 4, "ibp": 2, "bp": 2, "guaranteed": 2, "attack": 3}
    assert {name: record[name] for name in ACCURACIES} == counts
    assert all(record[f"{name}_accuracy"] == count / 5 for name, count in counts.items())
    assert (record["samples"], record["unknown"], record["seconds"]) == (5, 1, 1.25)
