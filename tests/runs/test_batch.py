"""The directory of a batch: rows under keys, through kills and changes of plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qverify.errors import DataError, OutputError
from qverify.runs.batch import BatchDirectory
from qverify.runs.start import Start
from qverify.runs.stored import BATCH
from qverify.verification.row import Row
from tests.support import runs_on_disk
from tests.support.runs_on_disk import asked

CASES: dict[str, Any] = {"a": {}}
START = Start(jobs=1)


def line(key: str) -> dict[str, Any]:
    return runs_on_disk.row(1, case="a", key=key)


def row(key: str) -> Row:
    return runs_on_disk.typed(line(key))


def start(path: Path, cases: dict[str, Any] | None = None) -> BatchDirectory:
    """`cases`: name -> changes to the question."""
    questions = {name: asked(**changes) for name, changes in (CASES if cases is None else cases).items()}
    return BatchDirectory.start(str(path), questions, START)


def filled(path: Path, *keys: str) -> bytes:
    with start(path) as batch:
        batch.add([row(key) for key in keys])
    return (path / "samples.jsonl").read_bytes()


def test_a_batch_goes_on_and_may_ask_more(tmp_path: Path) -> None:
    before = filled(tmp_path, "x", "y")
    with start(tmp_path, {"b": {"method": "ibp"}, "a": {"samples": [0, 9]}}) as batch:
        assert batch.rows == {"x": row("x"), "y": row("y")}
        batch.add([row("z")])
        assert set(batch.rows) == {"x", "y", "z"}
    assert (tmp_path / "samples.jsonl").read_bytes() == before + json.dumps(line("z")).encode() + b"\n"
    record = json.loads((tmp_path / BATCH).read_text())
    expected = {"a": asked(samples=[0, 9]).to_json(), "b": asked(method="ibp").to_json()}
    assert record["cases"] == expected and record["format"] == 1
    assert record["runs"] == [{"solver": None, "jobs": 1}] * 2


@pytest.mark.parametrize("lost", [1, 2, 40, 80])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, lost: int) -> None:
    content = filled(tmp_path, "x", "y")
    (tmp_path / "samples.jsonl").write_bytes(content[:-lost])
    with start(tmp_path) as batch:
        assert set(batch.rows) == {"x"}
    assert (tmp_path / "samples.jsonl").read_bytes() == content[: content.index(b"\n") + 1]


def test_a_row_without_a_key_is_no_row(tmp_path: Path) -> None:
    content = filled(tmp_path, "x")
    keyless = json.dumps({k: v for k, v in line("y").items() if k != "key"}).encode() + b"\n"
    (tmp_path / "samples.jsonl").write_bytes(keyless + content)
    with pytest.raises(DataError, match=r"Line 1 of .* is damaged; delete that line and start again"):
        start(tmp_path)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with start(tmp_path), pytest.raises(OutputError, match="Another process is writing"):
        start(tmp_path)
    start(tmp_path).close()


def test_a_start_that_was_killed_before_its_question_was_written(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / BATCH).unlink()
    assert filled(tmp_path, "x")
    (tmp_path / BATCH).unlink()
    with pytest.raises(DataError, match=r"batch\.json is missing or damaged, so its rows cannot be trusted"):
        start(tmp_path)
