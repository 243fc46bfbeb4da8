"""The command as its own process: how it is started, and one that takes its time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.paths import DIGITS

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of torch that compete for busy cores cost minutes
COMMAND = [sys.executable, "-c", "from qverify.cli import main; main(prog_name='qverify')"]
SLOW = ("verify", DIGITS, "--data", "digits", "--bits", "8", "--samples", "0:20", "--method", "exact", "--jobs", "1")


def run(*arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, **{"env": ENVIRONMENT, **more}
    )


@contextlib.contextmanager
def started(*arguments: Any, rows: Path, count: int, patience: float = 60) -> Iterator[subprocess.Popen[str]]:
    """A process that has written at least `count` rows, within so many seconds."""
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=-1, stderr=-1, text=True, env=ENVIRONMENT)
    try:
        until = time.monotonic() + patience
        while not (rows.exists() and rows.read_bytes().count(b"\n") >= count):
            assert time.monotonic() < until and process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()
