"""Plans of batches, their rows, and the processes that work on them; shared by the tests of `qverify batch`."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qverify.workers.tasks import CHUNK
from tests.support import processes
from tests.support.commands import answer, read_rows
from tests.support.paths import DIGITS

NORMAL = DIGITS.replace("digits.onnx", "digits_normal.onnx")
PLAN = f"""
models = ["{DIGITS}", "{NORMAL}"]
data = "digits"
bits = [8]
methods = ["auto"]
samples = "100:140"
"""
DOZEN = range(CHUNK - 7, CHUNK + 5)
EXACT = PLAN.replace(f', "{NORMAL}"', "").replace("auto", "exact").replace("100:140", f"{DOZEN.start}:{DOZEN.stop}")
"""A dozen samples in two chunks, each for the exact step; one has the label 9, and others have not."""

Rows = dict[str, dict[str, Any]]


def plan(folder: Path, text: str = PLAN) -> str:
    path = folder / "plan.toml"
    path.write_text(text)
    return str(path)


def kept(folder: Path) -> Rows:
    """The rows by key, without their seconds; no key is there twice."""
    rows = read_rows(folder)
    found = {row["key"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}
    assert len(found) == len(rows)
    return found


@functools.cache
def undisturbed(text: str) -> Rows:
    """The rows of a plan that nothing disturbed; each plan is worked on once. Call it before disturbing anything."""
    with tempfile.TemporaryDirectory() as folder:
        answer("batch", plan(Path(folder), text), "--out", Path(folder, "out"), "--jobs", 1)
        return kept(Path(folder, "out"))


@contextlib.contextmanager
def started(folder: Path, count: int, *more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that works on a plan and has written at least `count` rows."""
    out = folder / "out"
    asked = ("batch", plan(folder, EXACT), "--out", out, *more)
    with processes.started(*asked, rows=out / "samples.jsonl", count=count, patience=120) as process:
        yield process


def workers_of(pid: int) -> list[tuple[int, int]]:
    """The worker processes among the descendants of a process, each with its parent."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if stat[0] != "Z":
                parents[int(folder.name)] = int(stat[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes()
    found = []
    for child in parents:
        ancestor = child
        while ancestor in parents and ancestor != pid:
            ancestor = parents[ancestor]
        if ancestor == pid and b"qverify.workers.worker" in commands[child]:
            found.append((child, parents[child]))
    return found


def gone(pids: list[int]) -> None:
    """Wait until none of some processes is left."""
    until = time.monotonic() + 60
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
