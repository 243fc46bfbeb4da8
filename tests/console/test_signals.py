"""SIGTERM ends a command as Ctrl-C does, and a signal that is ignored at the start stays ignored."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qverify.console.signals import stoppable
from tests.support import batches, trainings
from tests.support.commands import answer, read_rows
from tests.support.paths import ROOT
from tests.support.processes import SLOW, started


@contextlib.contextmanager
def ignored(number: int) -> Iterator[None]:
    """As a shell starts what it puts into the background of a script: children inherit it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.slow
def test_the_suite_hears_ctrl_c_wherever_it_is_started() -> None:
    """Else every test that sends it fails in the background of a script."""
    code = "import signal, tests.conftest; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    with ignored(signal.SIGINT):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_sigterm_keeps_the_rows_and_is_status_143(tmp_path: Path) -> None:
    with started(*SLOW, "--out", tmp_path, "--json", rows=tmp_path / "samples.jsonl", count=3) as process:
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    rows = read_rows(tmp_path)
    assert process.returncode == 143 and 3 <= len(rows) < 20 and "Traceback" not in stderr
    assert "SIGTERM again ends at once" in stderr
    assert f"interrupted: {len(rows)} of 20 samples are decided and kept in {tmp_path}" in stderr
    assert json.loads(stdout)["interrupted"] is True
    assert answer(*SLOW, "--out", tmp_path, "--resume")["samples"] == 20


@pytest.mark.slow
def test_a_command_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path) -> None:
    rows = tmp_path / "samples.jsonl"
    with ignored(signal.SIGINT):
        running = started(*SLOW, "--out", tmp_path, rows=rows, count=2)
        process = running.__enter__()
    with contextlib.closing(running.gen):
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0 and "Ctrl-C" not in stderr and len(read_rows(tmp_path)) == 20


@pytest.mark.slow
def test_sigterm_before_the_first_sample() -> None:
    code = "import os, signal, qverify.runs.problem as p; from qverify.cli import main; "
    code += "p.load = lambda path, output=None: os.kill(os.getpid(), signal.SIGTERM); main(prog_name='qverify')"
    found = subprocess.run([sys.executable, "-c", code, *SLOW], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (143, "", "qverify: ended by SIGTERM.\n")


@pytest.mark.slow
@batches.linux
def test_sigterm_ends_a_batch_in_order(tmp_path: Path) -> None:
    with batches.started(tmp_path, 3, "--jobs", 2, "--json") as process:
        children = [child for child, _ in batches.workers_of(process.pid)]
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    rows = batches.kept(tmp_path / "out")
    assert process.returncode == 143 and "Traceback" not in stderr and not any(map(batches.alive, children))
    assert f"interrupted: {len(rows)} of 12 samples are decided" in stderr
    assert json.loads(stdout)["samples"] == len(rows) >= 3


@pytest.mark.slow
def test_sigterm_keeps_the_best_so_far_of_a_training(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with trainings.started(out) as process:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in stderr and out.exists()
    assert json.loads((tmp_path / "m.json").read_text())["interrupted"] is True


def test_the_second_sigterm_ends_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, stoppable() as stop:  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(10)
        signal.raise_signal(signal.SIGTERM)
    assert caught.type.__name__ == "Terminated"
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored_here() -> None:
    with ignored(signal.SIGINT), stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop.wait(0.05) and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
