"""`qverify train` as its own process: killed, interrupted, and on a full disk."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qverify.errors import OutputError
from qverify.training.model_files import checkpoint_path, write_checkpoint
from tests.support.commands import answer, qverify
from tests.support.processes import COMMAND, ENVIRONMENT
from tests.support.trainings import EVERY_EPOCH, LONG, started


def run(command: list[str], *arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    given = [*command, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT, **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """What nothing interrupts: the file and its description."""
    out = tmp_path_factory.mktemp("undisturbed") / "m.onnx"
    facts = answer(*LONG, "--out", out)
    return out.read_bytes(), facts


def completed(out: Path, undisturbed: tuple[bytes, dict[str, Any]]) -> None:
    """--resume, in another process than the one that began, ends in the same bytes and the same description."""
    result = qverify(*LONG, "--out", out, "--resume")
    assert result.exit_code == 0 and "going on after epoch " in result.stderr
    assert out.read_bytes() == undisturbed[0]
    times = {"seconds": 0, "command": ""}
    assert {**json.loads(out.with_suffix(".json").read_text()), **times} == {**undisturbed[1], **times}
    assert sorted(path.name for path in out.parent.iterdir()) == ["m.json", "m.onnx"]


@pytest.mark.slow
def test_kill_9_costs_one_epoch_at_most(tmp_path: Path, undisturbed: tuple[bytes, dict[str, Any]]) -> None:
    out = tmp_path / "m.onnx"
    with started(out) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not out.exists()
    again = run(COMMAND, *LONG, "--out", out)
    assert again.returncode == 2 and again.stderr.endswith("holds a training; add --resume to go on, or delete it.\n")
    completed(out, undisturbed)


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, undisturbed: tuple[bytes, dict[str, Any]]) -> None:
    out = tmp_path / "m.onnx"
    with started(out) as process:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr and str(out) in stdout
    facts = json.loads((tmp_path / "m.json").read_text())
    assert facts["interrupted"] is True and 1 <= facts["best_epoch"] <= facts["epochs"] < 12
    assert "qverify: ending this epoch; Ctrl-C again ends at once\n" in stderr
    assert stderr.endswith(
        f"qverify: interrupted after {facts['epochs']} of 12 epochs; the best so far is in {out},"
        " and the same command with --resume goes on.\n"
    )
    verified = answer("verify", out, "--data", "digits", "--bits", 7, "--scheme", "tensor", "--method", "ibp")
    assert facts["guaranteed_by_ibp"] == verified["guaranteed_accuracy"]
    assert facts["clean_accuracy"] == verified["clean_accuracy"]
    completed(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "limit", "what"), [(COMMAND, 3000, "m.onnx"), (EVERY_EPOCH, 20000, "m.onnx.checkpoint")]
)
def test_a_full_disk_is_one_sentence(tmp_path: Path, command: list[str], limit: int, what: str) -> None:
    """The kernel's limit on the size of a file stands for the disk: too small for the model, or for a checkpoint."""
    given = ("train", "--data", "digits", "--arch", "mlp:24,16", "--epochs", 2, "--threads", 1)
    found = run(
        command,
        *given,
        "--out",
        tmp_path / "m.onnx",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    sentence = f"qverify: {tmp_path / what} cannot be written (File too large); free some space or name another --out."
    assert found.returncode == 2 and found.stdout == "" and found.stderr.splitlines()[-1] == sentence
    assert "Traceback" not in found.stderr and list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    write_checkpoint(model, {"epochs": 1}, {"seconds": 1.0})
    before = checkpoint_path(model).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        with pytest.raises(OutputError, match=r"cannot be written \(File too large\); free some space"):
            write_checkpoint(model, {"epochs": 1}, {"large": "x" * 1_000_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint_path(model).read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, qverify.cli; sys.modules.update(dict.fromkeys(HEAVY)); qverify.cli.main(prog_name='qverify')"
    heavy = "['torch', 'onnx', 'onnxruntime', 'numpy', 'scipy', 'highspy', 'rich', 'matplotlib']"
    found = run([sys.executable, "-c", code.replace("HEAVY", heavy)], "train", "--help")
    assert (found.returncode, found.stderr) == (0, "") and "--weight-limit" in found.stdout
