"""Programs that run beside this one: started for real."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qverify.processes import TOO_LITTLE, command, ended, environment

ECHO = """
import os, sys
from qverify.processes import serving

def main():
    messages, say = serving()
    while True:
        message = messages.get()
        print("noise of a library")
        os.system("echo more noise; echo and errors >&2")
        say(("answer", message))
"""


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "echoing.py").write_text(ECHO)
    own = environment()
    own["PYTHONPATH"] += os.pathsep + str(tmp_path / "modules")
    (tmp_path / "random.py").write_text("raise SystemExit(9)")  # a file of the user's, where the command is given
    process = subprocess.Popen(
        command("echoing"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=own,
        cwd=tmp_path,
    )
    overdue = threading.Timer(60, process.kill)  # a process that is silent ends the test, too
    overdue.start()
    yield process
    overdue.cancel()
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def test_answers_come_alone_and_the_end_of_questions_is_the_end(echo: subprocess.Popen[bytes]) -> None:
    out, errors = echo.communicate(pickle.dumps(1), timeout=60)
    assert echo.returncode == 0 and errors == b""
    assert out == b"" or pickle.loads(out) == ("answer", 1)  # stdin closed: nobody waits for the answer


def test_every_message_is_answered_in_order(echo: subprocess.Popen[bytes]) -> None:
    assert echo.stdin is not None and echo.stdout is not None
    for message in (1, {"a": [2.5]}, "x" * 100_000):
        pickle.dump(message, echo.stdin)
        echo.stdin.flush()
        assert pickle.load(echo.stdout) == ("answer", message)
    echo.stdin.close()
    assert echo.wait(timeout=60) == 0 and echo.stdout.read() == b""


def test_a_torn_message_ends_the_process(echo: subprocess.Popen[bytes]) -> None:
    echo.communicate(pickle.dumps("x" * 1000)[:500], timeout=60)
    assert echo.returncode == 0


def test_one_thread_and_the_qverify_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import qverify

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("QVERIFY_DEBUG", raising=False)
    own = environment()
    first, second = own["PYTHONPATH"].split(os.pathsep)
    assert Path(first, "qverify", "__init__.py").samefile(str(qverify.__file__)) and second == "/elsewhere"
    assert own["OMP_NUM_THREADS"] == own["OPENBLAS_NUM_THREADS"] == "1" and own["PYTHONWARNINGS"] == "ignore"
    monkeypatch.setenv("QVERIFY_DEBUG", "1")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    assert "PYTHONWARNINGS" not in environment()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        (f"raise SystemExit({TOO_LITTLE})", "ended for want of memory"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by SIGTERM"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL, perhaps for want of memory"),
    ],
)
def test_how_a_real_process_ended(code: str, words: str) -> None:
    assert ended(subprocess.run([sys.executable, "-c", code], check=False).returncode) == words


def test_a_signal_without_a_name_has_a_number() -> None:
    unnamed = max(signal.Signals) + 60
    assert ended(-unnamed) == f"was ended by {unnamed}"
