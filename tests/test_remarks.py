"""What the command line notes reaches a Python caller as QVerifyWarning, at the caller's line, and nobody twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import Options as QOptions
from qverify import QVerifyWarning, datasets, load, save, verify, worst_case_discrepancy
from qverify.analysis import factors as radius
from qverify.analysis import layers as layer_radius
from qverify.analysis import sweeps as sweep
from qverify.analysis.grid import Grid
from qverify.family.radii import Radii
from qverify.remarks import quiet, remark
from tests.support.commands import qverify
from tests.support.onnx_models import model, node, weights
from tests.support.paths import DIGITS
from tests.support.processes import ENVIRONMENT

BOUNDS = QOptions(method="ibp", attack=False)
WEIGHTS = "weights reach"
"""How the remark on the shipped digits network under scheme paper begins."""


def caught(function: Any) -> list[tuple[str, str, int]]:
    """The sentences that a call warns with, and where."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function()
    assert all(one.category is QVerifyWarning for one in found)
    return [(str(one.message), one.filename, one.lineno) for one in found]


def noted(rng: Any) -> onnx.ModelProto:
    """Three notes: a Softmax that is dropped, weights and biases that two layers share."""
    constants = {"w": weights(rng, 4, 4), "b": weights(rng, 4)}
    nodes = [node("Gemm", "x w b", "g"), node("Relu", "g", "r"), node("Gemm", "r w b", "o"), node("Softmax", "o", "y")]
    return model(nodes, constants, ["N", 4])


def test_the_class_is_public_and_no_error() -> None:
    assert issubclass(QVerifyWarning, UserWarning) and not issubclass(QVerifyWarning, ValueError)


def test_notes_of_the_loader(rng: np.random.Generator) -> None:
    built = noted(rng)
    line = sys._getframe().f_lineno + 1
    found = caught(lambda: load(built))
    network = load(built)
    assert len(network.notes) == 3
    assert [sentence for sentence, *_ in found] == [f"{network.source}: {note}" for note in network.notes]
    assert {(file, at) for _, file, at in found} == {(__file__, line)}
    assert caught(lambda: load(DIGITS)) == []


def test_notes_on_network_radii_and_data() -> None:
    network, samples, radii = load(DIGITS), datasets.load("digits"), Radii.from_bits(8)
    x, y = samples.x[:40], samples.y[:40]
    grid = Grid(2.0, 0.5)
    points = sweep.grid(sweep.by_bits([7, 8]), ["all"])
    calls: list[Any] = [
        lambda: verify(network, x, y, radii, BOUNDS),
        lambda: worst_case_discrepancy(network, x[:2], radii, QOptions(method="ibp")),
        lambda: radius.largest_factors(network, x, y, radii, grid, BOUNDS),
        lambda: layer_radius.layer_radii(network, (x, y), radii, 0.5, grid, BOUNDS),
    ]
    first = calls[0].__code__.co_firstlineno
    for offset, call in enumerate(calls):
        ((sentence, file, line),) = caught(call)
        assert sentence.startswith(WEIGHTS) and (file, line) == (__file__, first + offset)
    wrong = x / 255
    for call in (
        lambda: verify(network, wrong, y, radii, BOUNDS),
        lambda: radius.largest_factors(network, wrong, y, radii, grid, BOUNDS),
        lambda: list(sweep.sweep(network, wrong, y, points)),
    ):
        assert sum("with the inputs multiplied by 255" in sentence for sentence, *_ in caught(call)) == 1
    assert caught(lambda: verify(network, x, y, Radii(weight=0.01), BOUNDS)) == []
    assert caught(lambda: list(sweep.sweep(network, x, y, points))) == []


def test_a_warning_can_be_an_error_or_silent() -> None:
    network, samples = load(DIGITS), datasets.load("digits")
    given = (network, samples.x[:2], samples.y[:2], Radii.from_bits(8), BOUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QVerifyWarning)
        with pytest.raises(QVerifyWarning, match=WEIGHTS):
            verify(*given)
        with quiet():
            assert len(verify(*given)) == 2


def test_it_is_the_caller_of_the_package_who_is_shown() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(caught(lambda: remark(["something"]))))
    thread.start()
    thread.join()
    ((sentence, file, _),) = found
    assert sentence == "something" and file == __file__


# --- the command line ---


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Path:
    onnx.save_model(noted(rng), tmp_path / "noted.onnx")
    np.savez(tmp_path / "mine.npz", x=rng.random((4, 4)), y=np.arange(4) % 4)
    np.savez(tmp_path / "twice.npz", x=datasets.load("digits").x / 255, y=datasets.load("digits").y)
    plan = 'models = ["noted.onnx"]\ndata = "mine.npz"\nbits = [7, 8]\nmethods = ["ibp", "bp"]\n'
    (tmp_path / "plan.toml").write_text(plan)
    return tmp_path


COMMANDS = {
    "verify": "verify noted.onnx --data mine.npz --bits 8",
    "sweep": "sweep noted.onnx --data mine.npz --bits 8 --parts all --method ibp",
    "radius": "radius noted.onnx --data mine.npz --bits 8 --method ibp",
    "discrepancy": "discrepancy noted.onnx --data mine.npz --bits 8",
    "inspect": "inspect noted.onnx --data mine.npz --bits 8",
    "batch": "batch plan.toml --out run --jobs 2",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("verify", "batch"))) for name in COMMANDS]
)
def test_each_note_is_printed_once_and_never_as_python_prints_it(command: str, files: Path) -> None:
    """In its own process, with processes that work for it; even where Python is asked for every warning."""
    code = [sys.executable, "-W", "always", "-c", "from qverify.cli import main; main(prog_name='qverify')"]
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [*code, *COMMANDS[command].split()], capture_output=True, text=True, cwd=files, env=environment, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "Warning" not in found.stderr and "warnings.warn" not in found.stderr
    notes = [line for line in found.stderr.splitlines() if line.startswith("qverify: note: ")]
    assert len(set(notes)) == len(notes)
    assert (
        sum("dropped" in line for line in notes) == 1 and sum("used by layers" in line for line in notes) == 2
    )  # w, b


def test_a_report_says_nothing_about_models_that_it_reads_again(files: Path) -> None:
    assert qverify("verify", files / "noted.onnx", "--data", files / "mine.npz", "--bits", 8, "--out", files / "run")
    result = qverify("report", files / "run", "--format", "html", "--out", files / "page.html")
    assert result.exit_code == 0 and "note" not in result.stderr


def test_training_says_when_what_it_made_is_right_by_chance(tmp_path: Path) -> None:
    """Labels that say nothing: the remark of `verify` on the test set is printed as a note."""
    rng = np.random.default_rng(1)
    x, y = rng.random((80, 5)), rng.integers(0, 4, 80)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=rng.random((80, 5)), y_test=rng.integers(0, 4, 80))
    given = ("--data", tmp_path / "d.npz", "--arch", "mlp:4", "--epochs", 1, "--threads", 1)
    result = qverify("train", *given, "--out", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("qverify: note: the network is right on ") == 1
    assert "not clearly better than chance with 4 classes" in result.stderr and "Warning" not in result.stderr


def test_warnings_of_libraries_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*_: Any, **__: Any) -> Any:
        warnings.warn("something about a driver", UserWarning, stacklevel=2)
        warnings.warn("something about a network", QVerifyWarning, stacklevel=2)
        warnings.warn("something about a network", QVerifyWarning, stacklevel=2)
        raise KeyboardInterrupt

    monkeypatch.setattr("qverify.cli.verify.FamilyProblem.load", warning)
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 8)
    assert result.stderr == "qverify: note: something about a network\nqverify: interrupted.\n"


def test_what_save_writes_is_read_without_a_word(tmp_path: Path) -> None:
    save(load(DIGITS), tmp_path / "m.onnx")
    assert caught(lambda: load(tmp_path / "m.onnx")) == []
