"""A training of some length as its own process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from qverify.training.model_files import checkpoint_path
from tests.support.processes import ENVIRONMENT

GIVEN = ("train", "--data", "digits", "--arch", "mlp:24,16", "--bits", 7, "--scheme", "tensor", "--epochs", 12)
LONG = (*GIVEN, "--batch-size", 64, "--threads", 1, "--distortion", 0.2, "--validation", 0.1)


EVERY_EPOCH = [
    sys.executable,
    "-c",
    "import qverify.cli.train as train; train._KEEP_EVERY = train._TELL_EVERY = 0.0;"
    " from qverify.cli import main; main(prog_name='qverify')",
]


@contextlib.contextmanager
def started(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A training that has written a checkpoint, and goes on writing one after every epoch."""
    given = [*EVERY_EPOCH, *map(str, LONG), "--out", str(out)]
    process = subprocess.Popen(given, stdout=-1, stderr=-1, text=True, env=ENVIRONMENT)
    try:
        until = time.monotonic() + 100
        while not checkpoint_path(out).exists():
            assert time.monotonic() < until and process.poll() is None, process.communicate()
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.wait()
