"""The command as its own process: streams, signals, full disks, closed pipes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from qverify.version import __version__
from tests.support.commands import answer, read_rows
from tests.support.paths import DIGITS
from tests.support.processes import COMMAND, ENVIRONMENT, SLOW, run, started


def test_help_and_version_load_nothing_heavy() -> None:
    """A child that may import neither torch nor onnx nor a solver; and it takes a fraction of a second."""
    code = "import sys, qverify.cli; sys.modules.update(dict.fromkeys(HEAVY)); qverify.cli.main(prog_name='qverify')"
    heavy = (
        "['torch', 'onnx', 'onnxruntime', 'numpy', 'scipy', 'highspy', 'gurobipy', 'pyscipopt', 'rich', 'matplotlib']"
    )
    for arguments in (
        ["--help"],
        ["--version"],
        ["verify", "--help"],
        ["discrepancy", "--help"],
        ["inspect", "--help"],
        ["sweep", "--help"],
        ["radius", "--help"],
        ["batch", "--help"],
    ):
        command = [sys.executable, "-c", code.replace("HEAVY", heavy), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, "")
    assert run("--version").stdout == f"qverify {__version__}\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no /dev/stdin here")
def test_a_radii_file_is_read_once(tmp_path: Path) -> None:
    """So it may come through a pipe, and what run.json names is what was used."""
    text = "weight = 0.01\n"
    given = ("--data", "digits", "--radii", "/dev/stdin", "--samples", "0:5", "--out", tmp_path)
    found = run("verify", DIGITS, *given, input=text)
    assert found.returncode == 0, found.stderr
    stated = json.loads((tmp_path / "run.json").read_text())["radii"]
    assert stated["sha256"] == hashlib.sha256(text.encode()).hexdigest() and stated["largest"]["weight"] == 0.01


def test_stdout_holds_the_result_and_nothing_else() -> None:
    """Even where stderr is a terminal, which is then shown the live progress."""
    master, terminal = pty.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while part := os.read(master, 4096):
                shown.append(part)

    watcher = threading.Thread(target=watch)
    watcher.start()
    given = ("verify", DIGITS, "--data", "digits", "--bits", "6", "--samples", "0:60", "--json")
    found = subprocess.run([*COMMAND, *given], stdout=-1, stderr=terminal, text=True, check=False, env=ENVIRONMENT)
    os.close(terminal)
    watcher.join(10)
    os.close(master)
    seen = b"".join(shown).decode()
    assert found.returncode == 0 and found.stdout.count("\n") == 1
    assert json.loads(found.stdout)["samples"] == 60
    assert "60 of 60" in seen and "qverify: note: " in seen and "samples" not in seen


@pytest.mark.slow
def test_a_missing_licence_is_status_3_with_a_remedy(tmp_path: Path) -> None:
    pytest.importorskip("gurobipy")
    environment = {**ENVIRONMENT, "GRB_LICENSE_FILE": "/nonexistent"}
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--samples", "0:5")
    found = run(*given, "--solver", "gurobi", "--out", tmp_path / "run", env=environment)
    assert not (tmp_path / "run").exists()  # said before anything begins
    assert found.returncode == 3 and found.stdout == "" and "Traceback" not in found.stderr
    assert "no valid licence" in found.stderr and "unset GRB_LICENSE_FILE" in found.stderr
    assert "--solver highs" in found.stderr
    goes_on = run(*given, "--json", env=environment)
    assert goes_on.returncode == 0 and json.loads(goes_on.stdout)["solver"].startswith("highs")


# --- a run that ends before its time ---


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    answer(*SLOW, "--out", folder)
    return read_rows(folder)


def completed(folder: Path, undisturbed: list[dict[str, Any]]) -> None:
    """Going on gives the rows of a run that nothing disturbed; what was there stays as it was."""
    before = read_rows(folder) if (folder / "samples.jsonl").read_bytes().endswith(b"\n") else []
    found = answer(*SLOW, "--out", folder, "--resume")
    rows = read_rows(folder)
    assert rows[: len(before)] == before and found["samples"] == len(rows) == 20
    expected = {row["index"]: row for row in undisturbed}
    assert sorted(expected) == sorted(row["index"] for row in rows)
    for row in rows:
        other = expected[row["index"]]
        same = ("label", "predicted", "status", "method")
        assert {k: row[k] for k in same} == {k: other[k] for k in same}
        if row["status"] == "verified":
            assert row["margin_lower"] == pytest.approx(other["margin_lower"], abs=1e-4)


def test_ctrl_c_keeps_the_rows_and_resume_completes_them(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    with started(*SLOW, "--out", tmp_path, "--json", rows=tmp_path / "samples.jsonl", count=5) as process:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    rows = read_rows(tmp_path)
    assert process.returncode == 130 and 5 <= len(rows) < 20 and "Traceback" not in stderr
    assert f"interrupted: {len(rows)} of 20 samples are decided and kept in {tmp_path}" in stderr
    assert "go on with the same command and --resume" in stderr
    result = json.loads(stdout)
    assert result["interrupted"] is True and result["samples"] == len(rows)
    completed(tmp_path, undisturbed)


@pytest.mark.slow
def test_kill_9_loses_no_row_that_was_written(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    with started(*SLOW, "--out", tmp_path, rows=tmp_path / "samples.jsonl", count=5) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    content = (tmp_path / "samples.jsonl").read_bytes()
    assert process.returncode == -signal.SIGKILL and 5 <= content.count(b"\n") < 20
    (tmp_path / "samples.jsonl").write_bytes(content + b'{"index": 19, "label"')  # as if torn in the middle
    completed(tmp_path, undisturbed)


@pytest.mark.slow
def test_ctrl_c_before_the_first_sample_is_status_130(tmp_path: Path) -> None:
    code = "import os, signal, qverify.runs.problem as p; from qverify.cli import main; "
    code += "p.load = lambda path, output=None: os.kill(os.getpid(), signal.SIGINT); main(prog_name='qverify')"
    found = subprocess.run([sys.executable, "-c", code, *SLOW], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "qverify: interrupted.\n")


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_rows_so_far_are_kept(tmp_path: Path) -> None:
    """The kernel's limit on the size of a file stands for the disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--out", tmp_path)
    found = run(*given, preexec_fn=limit)
    content = (tmp_path / "samples.jsonl").read_bytes()
    kept = content.count(b"\n")
    assert found.returncode == 2 and found.stdout == "" and "Traceback" not in found.stderr
    assert len(content) == 3000 and not content.endswith(b"\n") and kept > 5
    assert f"samples.jsonl cannot be written (File too large); {kept} samples are kept" in found.stderr
    assert answer(*given, "--resume")["samples"] == 599
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(content[: content.rfind(b"\n") + 1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_results_that_cannot_be_printed() -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run([*COMMAND, "solvers"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 2 and found.stderr.startswith("qverify: No space left on device")
    assert "Traceback" not in found.stderr and "Exception ignored" not in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_the_caller_closed_is_no_error(stream: int) -> None:
    command = [*COMMAND, "inspect", DIGITS]
    found = subprocess.run(
        command, capture_output=True, check=False, env=ENVIRONMENT, preexec_fn=lambda: os.close(stream)
    )
    assert found.returncode == 0 and found.stderr == b"" and (b"dense1" in found.stdout) is (stream == 2)


def test_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run([*COMMAND, "solvers"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")
