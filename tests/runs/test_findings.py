"""Objects and folders that contradict themselves are refused, so that a report cannot say what no row holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.errors import DataError, UsageError
from qverify.report.sections import sections_of
from qverify.runs.findings import sorted_out
from tests.support import findings as made
from tests.support.runs_on_disk import row, write_run


def read(path: Path, found: dict[str, Any]) -> Any:
    (one,) = sorted_out([str(made.write_object(path / "o.json", found))])[1]
    return one.found


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "discrepancy": made.discrepancies,
    "property": made.properties,
    "compare": made.comparison,
    "covers": made.coverage,
    "runtimes": made.runtimes,
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_whole_is_read(tmp_path: Path, kind: str) -> None:
    found = KINDS[kind]()
    whole = read(tmp_path, found)
    assert len(whole.parts if kind == "covers" else whole.rows) == 4 - (kind != "property")


def changed(found: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    """A copy with another value at a place."""
    new = copy.deepcopy(found)
    place: Any = new
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return new


LIES = {
    "a gap above epsilon is within": changed(made.comparison(), "rows", 1, "status", to="within"),
    "a gap that was met is not known": changed(made.comparison(epsilon=1.0), "rows", 2, "status", to="unknown"),
    "counts of gaps": changed(made.comparison(), "within", to=3),
    "more are right than there are": changed(made.comparison(), "float_right", to=4),
    "a part beyond its radius is covered": changed(made.coverage(), "parts", 0, "share", to=1.01),
    "a file is covered though a part is not": changed(made.coverage(1), "covered", to=True),
    "a file without parts is covered": changed(made.coverage(), "parts", to=[]),
    "one more holds": changed(made.properties(), "holds", to=3),
    "a status that is none": changed(made.properties(), "rows", 0, "status", to="verified"),
    "a sample twice": changed(made.properties(), "rows", 1, "index", to=0),
    "a sample that was not asked about": changed(made.properties(), "rows", 3, "index", to=4),
    "fewer rows than samples": changed(made.discrepancies(), "samples", to=4),
    "ends that cross": changed(made.discrepancies(), "rows", 0, "lower", 0, to=9.0),
    "an end that was met beyond the one proved": changed(made.discrepancies(), "rows", 0, "attained_upper", 0, to=1.1),
    "ends of other outputs": changed(made.discrepancies(), "rows", 0, "upper", to=[1.0]),
    "rows of other outputs": changed(made.discrepancies(), "rows", 0, to=made.ends(0, 1.0, 2) | {"complete": True}),
    "no outputs": changed(made.discrepancies(1), "rows", 0, to=made.ends(0, 1.0, 0) | {"complete": True}),
    "text for a number": changed(made.discrepancies(), "rows", 0, "lower", 0, to="0"),
    "a difference without a witness": changed(made.runtimes(), "rows", 2, "witness", to=None),
    "a witness of one class": changed(made.runtimes(), "rows", 2, "witness", 0, "predicted", to=2),
    "same, with two classes": changed(made.runtimes(("same", "differs")), "rows", 1, "status", to="same"),
    "rules that are none": changed(made.runtimes(), "rules", to={"banker": "x"}),
    "no range of samples": changed(made.runtimes(), "sample_range", to=[3, 3]),
    "rows that are none": changed(made.runtimes(), "rows", to=[1]),
    "senseless radii": changed(made.discrepancies(), "radii", "largest", to={"input": -1}),
    "no hash": changed(made.coverage(), "float", to={"model": "a"}),
    "nothing": {},
}


@pytest.mark.parametrize("lie", list(LIES))
def test_what_contradicts_itself_is_refused(tmp_path: Path, lie: str) -> None:
    with pytest.raises(DataError, match="cannot be reported"):
        read(tmp_path, LIES[lie])


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_field_that_is_needed_is_asked_for(tmp_path: Path, kind: str) -> None:
    """Without any one of them an object is either read all the same or refused in words."""
    found = KINDS[kind]()
    needed = 0
    for key in found:
        try:
            read(tmp_path, {name: value for name, value in found.items() if name != key})
        except DataError:
            needed += 1
    assert needed >= 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"rows": [', b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}'])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json cannot be reported"):
        sorted_out([str(tmp_path / "x.json")])


def test_paths_are_sorted_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "both", [row(0)])
    sweep = made.write_sweep(tmp_path / "sweep", [made.sweep_row("all", 4, 2)])
    for name in ("sweep.json", "sweep.csv"):
        (run / name).write_bytes((sweep / name).read_bytes())
    runs, found = sorted_out([str(run), str(tmp_path / "nowhere")])
    assert runs == [str(run), str(tmp_path / "nowhere")] and [one.name for one in found] == ["both"]
    with pytest.raises(UsageError, match="is given twice"):
        sorted_out([str(sweep), str(sweep / ".." / "sweep")])


def test_damaged_folders(tmp_path: Path) -> None:
    sweep = made.write_sweep(tmp_path / "sweep", [made.sweep_row("all", 4, 2), made.sweep_row("all", 6, 3)])
    whole = (sweep / "sweep.csv").read_text()
    (sweep / "sweep.csv").write_text(whole[:-20])
    (found,) = sorted_out([str(sweep)])[1]
    assert len(found.found.rows) == 1 and "is torn" in found.notes[0]  # type: ignore[union-attr]
    (sweep / "sweep.csv").write_text(whole.replace(",2,", ",11,", 1))
    with pytest.raises(DataError, match="is damaged"):
        sorted_out([str(sweep)])
    (sweep / "sweep.csv").unlink()
    (found,) = sorted_out([str(sweep)])[1]
    assert not found.found.rows and "sweep.csv is missing." in found.notes  # type: ignore[union-attr]
    asked = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(asked | {"samples": [4, 1]}))
    with pytest.raises(DataError, match="samples missing or senseless"):
        sorted_out([str(sweep)])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in an object."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, one in inner for found in places(one, (*path, key)))]


@pytest.mark.parametrize("kind", list(KINDS))
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    """And what is read has sections."""
    whole = KINDS[kind]()
    strange: list[Any] = [
        None,
        True,
        -1,
        0,
        2**53,
        1e308,
        5e-324,
        "",
        "x" * 300,
        [],
        {},
        [[]],
        [1e308, -1e308],
        {"a": []},
    ]
    paths, refused = places(whole), 0
    for _ in range(150):
        path, value = paths[rng.integers(len(paths))], strange[rng.integers(len(strange))]
        one = str(made.write_object(tmp_path / "o.json", changed(whole, *path, to=value)))
        try:
            _, found = sorted_out([one])
        except DataError:
            refused += 1
            continue
        (section,) = sections_of(found)
        assert "nan" not in section.drawing and "inf%" not in section.drawing, (path, value)
    assert 20 < refused < 150
