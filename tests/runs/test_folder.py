"""Starts in one directory: one after the other even where they begin at once, and without a trace where refused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qverify.errors import DataError, OutputError, QVerifyError, UsageError
from qverify.runs import folder as records
from qverify.runs.radius import RadiusDirectory
from tests.support.paths import ROOT
from tests.support.runs_on_disk import asked
from tests.support.starts import NOW, SIX, batch, filled, radius, sweep, verify


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ROWS = {verify: "samples.jsonl", batch: "samples.jsonl", sweep: "sweep.csv", radius: "factors.csv"}
QUESTIONS = {verify: "run.json", batch: "batch.json", sweep: "sweep.json", radius: "radius.json"}
starts = pytest.mark.parametrize("start", ROWS, ids=lambda start: start.__name__)

# --- two processes at once ---

DELAYED = """
import fcntl, json, pathlib, sys, time
sys.path.insert(0, sys.argv[4])
from tests.support import starts
before = fcntl.flock
def flock(*given):
    pathlib.Path(sys.argv[1], "waits").touch()
    while not pathlib.Path(sys.argv[1], "goes").exists():
        time.sleep(0.01)
    return before(*given)
fcntl.flock = flock
try:
    start = getattr(starts, sys.argv[2])
    start(pathlib.Path(sys.argv[1], "run"), resume=json.loads(sys.argv[3]), method="ibp", bits=4).__enter__()
except Exception as error:
    print(type(error).__name__, error)
"""


@contextlib.contextmanager
def delayed(folder: Path, start: Any, resume: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that begins a run of another question, and waits just before it takes the lock."""
    command = [sys.executable, "-c", DELAYED, str(folder), start.__name__, json.dumps(resume), str(ROOT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        until = time.monotonic() + 120
        while not (folder / "waits").exists():
            assert time.monotonic() < until and process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("start", [verify, sweep], ids=lambda start: start.__name__)
def test_a_delayed_start_does_not_take_over_the_rows_of_another(
    tmp_path: Path, start: Callable[..., Any], resume: bool
) -> None:
    pytest.importorskip("fcntl")
    with delayed(tmp_path, start, resume) as process:
        filled(tmp_path / "run", start)
        before = contents(tmp_path / "run")
        (tmp_path / "goes").touch()
        said, _ = process.communicate(timeout=60)
    assert contents(tmp_path / "run") == before
    assert said.startswith("UsageError") and ("asked something else" if resume else "holds a run already") in said


def test_a_file_that_is_taken_away_before_the_lock_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a start that is refused, which removes the empty file that it made."""
    folder = tmp_path / "run"

    def taken_away(file: Any, path: Path) -> None:
        monkeypatch.setattr(records, "_lock", own)
        path.unlink()
        own(file, path)

    own = records._lock
    monkeypatch.setattr(records, "_lock", taken_away)
    filled(folder, verify)
    assert (folder / "samples.jsonl").read_bytes().count(b"\n") == 3
    with verify(folder) as kept, pytest.raises(OutputError, match="Another process is writing"):
        verify(folder)
    assert len(kept.rows) == 3


# --- starts that are refused ---


def damaged(folder: Path, name: str, number: int) -> None:
    """The file with one line of nonsense, and a torn end, which a start that goes on would cut off."""
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    lines[number] = b"nonsense\n"
    (folder / name).write_bytes(b"".join(lines) + b"torn")


@starts
def test_a_refused_start_leaves_everything_as_it_was(tmp_path: Path, start: Callable[..., Any]) -> None:
    filled(tmp_path, start)
    question_file, rows_file = tmp_path / QUESTIONS[start], tmp_path / ROWS[start]
    question, rows = question_file.read_bytes(), rows_file.read_bytes()

    def refused(error: type[QVerifyError], words: str, **how: Any) -> None:
        before = contents(tmp_path)
        with pytest.raises(error, match=words):
            start(tmp_path, **how)
        assert contents(tmp_path) == before

    rows_file.write_bytes(rows + b"torn")
    if start is not batch:
        refused(UsageError, "holds a run already", resume=False)
        refused(UsageError, "asked something else", method="ibp")
    for content in (None, b"", b"[]", b'{"runs": [1]}', question[:-5], b"[" * 100_000, b"\xff" + question):
        question_file.unlink()
        if content is not None:
            question_file.write_bytes(content)
        refused(DataError, f"{QUESTIONS[start]} is missing or damaged")
        question_file.write_bytes(question)
    damaged(tmp_path, ROWS[start], 1)
    refused(DataError, rf"Line 2 of .*{ROWS[start]} is damaged; delete that line")
    rows_file.write_bytes(rows + b"torn")
    if start is radius:
        damaged(tmp_path, "layers.csv", 2)
        refused(DataError, r"Line 3 of .*layers\.csv is damaged; delete that line")
        (tmp_path / "layers.csv").write_text("a,b\n")
        refused(DataError, "does not begin with the columns of a search layer by layer")
        (tmp_path / "layers.csv").unlink()
    with start(tmp_path):
        refused(OutputError, "Another process is writing")
    assert rows_file.read_bytes() == rows
    assert len(json.loads(question_file.read_bytes())["runs"]) == 2


def test_of_many_differences_a_few_are_named(tmp_path: Path) -> None:
    filled(tmp_path, verify)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({"k" * 999: 1, "runs": record["runs"]}))
    with pytest.raises(UsageError, match=r"; and \d\d more\); ask the same") as caught:
        verify(tmp_path)
    assert len(str(caught.value)) < 900


@starts
def test_a_start_that_cannot_write_its_question_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            start(tmp_path / "new" / "run", resume=False)
    assert not (tmp_path / "new").exists()
    filled(tmp_path / "run", start)
    before = contents(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            start(tmp_path / "run")
    assert contents(tmp_path / "run") == before


@starts
def test_rows_without_their_question_are_not_gone_on_with(tmp_path: Path, start: Callable[..., Any]) -> None:
    filled(tmp_path, start)
    (tmp_path / QUESTIONS[start]).unlink()
    names = [ROWS[start], *(["layers.csv"] if start is radius else [])]
    for kept in names:  # each file alone too
        for name in names:
            if name != kept:
                (tmp_path / name).rename(tmp_path / "aside")
        before = contents(tmp_path)
        with pytest.raises(DataError, match="is missing or damaged, so its rows cannot be trusted"):
            start(tmp_path)
        assert contents(tmp_path) == before
        for name in names:
            if name != kept:
                (tmp_path / "aside").rename(tmp_path / name)


@pytest.mark.parametrize("start", [sweep, radius], ids=lambda start: start.__name__)
def test_a_header_without_a_question_is_no_run(tmp_path: Path, start: Callable[..., Any]) -> None:
    """What a start of an older version leaves that was killed before it wrote the question."""
    filled(tmp_path / "other", start)
    header = (tmp_path / "other" / ROWS[start]).read_bytes().partition(b"\n")[0] + b"\n"
    for content in (b"", header[:7], header):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ROWS[start]).write_bytes(content)
        filled(tmp_path / "run", start)
        with (tmp_path / "run" / ROWS[start]).open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 3
        for path in (tmp_path / "run").iterdir():
            path.unlink()
        (tmp_path / "run").rmdir()


def test_layers_that_another_search_left_are_not_adopted(tmp_path: Path) -> None:
    filled(tmp_path, radius)
    for name in ("radius.json", "factors.csv"):
        (tmp_path / name).unlink()
    before = contents(tmp_path)
    for layers in (True, False):
        with pytest.raises(UsageError, match="holds a run already"):
            RadiusDirectory.start(str(tmp_path), asked(**SIX), NOW, False, layers)
    assert contents(tmp_path) == before
