"""`qverify train` in this process: the files it writes, `--config`, `--resume`, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Event
from typing import Any

import click
import numpy as np
import onnxruntime
import pytest
import torch

from qverify import datasets
from qverify.cli import app as cli
from qverify.cli import train
from qverify.onnx import reader as onnx_io
from qverify.training.settings import Settings
from qverify.version import __version__
from tests.support.commands import answer, qverify

ARGUMENTS = ("--data", "digits", "--arch", "mlp:24,16", "--bits", 6, "--epochs", 8, "--batch-size", 64, "--lr", 0.02)
QUICK = ("train", *ARGUMENTS, "--threads", 1, "--clip-input", 0, 1)
BRIEF = ("train", *ARGUMENTS[:6], "--batch-size", 200, "--threads", 1, "--epochs", 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A model, and what `--json` said about it."""
    out = tmp_path_factory.mktemp("made") / "m.onnx"
    return out, answer(*QUICK, "--out", out)


def refused(sentence: str, *arguments: Any) -> None:
    """Status 2, nothing on stdout, and one sentence."""
    result = qverify(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith("qverify: ") and result.stderr.endswith(".\n") and result.stderr.count("\n") == 1
    assert sentence in result.stderr


# --- what it writes ---


@pytest.mark.slow
def test_accuracies_agree_with_others(made: tuple[Path, dict[str, Any]]) -> None:
    """Oracles: onnxruntime on the file for the clean accuracy, `qverify verify` on it for the guaranteed one."""
    out, facts = made
    test = datasets.load("digits")
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: test.x.astype(np.float32)})
    assert facts["clean_accuracy"] == (scores.argmax(1) == test.y).mean() > 0.6
    given = ("--data", "digits", "--bits", 6, "--method", "ibp", "--clip-input", 0, 1)
    verified = answer("verify", out, *given)
    assert facts["guaranteed_by_ibp"] == verified["guaranteed_accuracy"] > 0.3
    assert facts["clean_accuracy"] == verified["clean_accuracy"] and facts["convention"] == verified["convention"]


def test_the_json_beside_it(made: tuple[Path, dict[str, Any]]) -> None:
    out, facts = made
    assert json.loads((out.parent / "m.json").read_text()) == facts
    assert sorted(path.name for path in out.parent.iterdir()) == ["m.json", "m.onnx"]
    assert facts["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert facts["data_sha256"] == datasets.load_train("digits").sha256
    assert facts["radii"] == {"bits": 6, "scheme": "paper", "rounding": "any"}
    assert facts["versions"]["qverify"] == __version__ and facts["versions"]["torch"] == torch.__version__
    assert (facts["epochs"], facts["interrupted"], facts["seed"], facts["threads"]) == (8, False, 0, 1)
    assert 1 <= facts["best_epoch"] <= 8 and 0 <= facts["validation"]["guaranteed_by_ibp"] <= 1
    assert facts["settings"]["lr"] == 0.02 and facts["settings"]["clip"] == [0, 1]
    network = onnx_io.load(out)
    ranges = {network.layers[i].name: network.layers[i].weight for i in network.weighted}  # type: ignore[attr-defined]
    assert facts["weight_range"] == {name: [w.min(), w.max()] for name, w in ranges.items()}
    assert list(ranges) == ["dense1", "dense2", "dense3"]


def test_its_command_makes_the_same_bytes_again(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, facts = made
    words = shlex.split(facts["command"])
    assert words[0] == "qverify" and words[-2:] == ["--out", str(out)]
    answer(*words[1:-1], tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_another_seed_makes_another_file(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert answer(*QUICK, "--seed", 1, "--out", tmp_path / "m.onnx")["sha256"] != made[1]["sha256"]


def test_normal_training_says_nothing_of_guarantees(tmp_path: Path) -> None:
    given = ("train", "--data", "digits", "--arch", "conv:4k3s2/12", "--epochs", 2, "--threads", 1)
    facts = answer(*given, "--out", tmp_path / "sub" / "m.onnx")
    assert facts["radii"] is None and "guaranteed_by_ibp" not in facts and "convention" not in facts
    assert facts["validation"]["guaranteed_by_ibp"] is None and (tmp_path / "sub" / "m.json").exists()


def test_ranges_of_quantisers_and_a_radii_file(tmp_path: Path) -> None:
    """What is verified here is what `qverify verify` makes of the same words."""
    (tmp_path / "r.toml").write_text('weight = 0.01\n[layers."dense2"]\nweight = 0.02\nbias = 0.01\n')
    for name, given in {
        "channel": ("--bits", 7, "--scheme", "channel", "--rounding", "nearest"),
        "file": ("--radii", tmp_path / "r.toml"),
    }.items():
        out = tmp_path / f"{name}.onnx"
        facts = answer("train", *ARGUMENTS[:4], *given, "--epochs", 4, "--lr", 0.02, "--threads", 1, "--out", out)
        found = answer("verify", out, "--data", "digits", *given, "--method", "ibp")
        assert facts["guaranteed_by_ibp"] == found["guaranteed_accuracy"] > 0
        assert facts["convention"] == found["convention"]
    digest = hashlib.sha256((tmp_path / "r.toml").read_bytes()).hexdigest()
    assert facts["radii"] == {"file": str(tmp_path / "r.toml"), "sha256": digest}


def test_what_people_are_shown(tmp_path: Path) -> None:
    result = qverify(*BRIEF, "--out", tmp_path / "m.onnx")
    facts = json.loads((tmp_path / "m.json").read_text())
    assert result.exit_code == 0 and "epoch 2 of 2: loss " in result.stderr and "radii at " in result.stderr
    assert f"clean accuracy          {facts['clean_accuracy']:.2%} of the test set" in result.stdout
    assert f"{facts['guaranteed_by_ibp']:.2%} (6 bits, scheme paper, rounding any)" in result.stdout
    assert f"Made again by: {facts['command']}" in result.stdout


def test_defaults_are_those_of_the_library() -> None:
    options = {option.name: option for option in cli.main.commands["train"].params}
    for field in fields(Settings):
        option = options[field.name]
        assert isinstance(option, click.Option)
        expected = None if field.name == "clip" else field.default
        given = option.default if isinstance(option.default, (int, float, str)) else None
        assert given == expected and type(given) is type(expected), field.name
        assert bool(option.show_default) is (field.name not in ("clip", "threads"))


# --- going on ---


@contextmanager
def at_once(_: str) -> Any:
    """As if Ctrl-C were there from the start."""
    stop = Event()
    stop.set()
    yield stop


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training of two epochs that lost its process after the first one."""
    monkeypatch.setattr(train, "_KEEP_EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(train, "remove_checkpoint", lambda path: None)
        answer(*BRIEF, "--out", tmp_path / "m.onnx")
    (tmp_path / "m.json").unlink()
    return tmp_path / "m.onnx"


def test_resume_gives_the_same_and_clears_up(begun: Path) -> None:
    expected = begun.read_bytes()
    begun.unlink()
    result = qverify(*BRIEF, "--out", begun, "--resume")
    assert result.exit_code == 0 and "qverify: going on after epoch 1.\n" in result.stderr
    assert begun.read_bytes() == expected
    assert sorted(path.name for path in begun.parent.iterdir()) == ["m.json", "m.onnx"]


def test_ctrl_c_right_after_resume_loses_nothing(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, checkpoint = begun.read_bytes(), begun.with_name("m.onnx.checkpoint")
    with monkeypatch.context() as patch:
        patch.setattr(train, "stoppable", at_once)
        assert qverify(*BRIEF, "--out", begun, "--resume").exit_code == 130
    assert checkpoint.exists() and json.loads((begun.parent / "m.json").read_text())["interrupted"] is True
    assert qverify(*BRIEF, "--out", begun, "--resume").exit_code == 0 and begun.read_bytes() == expected


def test_ctrl_c_in_the_first_epoch_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "stoppable", at_once)
    result = qverify(*BRIEF, "--out", tmp_path / "m.onnx", "--json")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "qverify: interrupted before the first epoch was done; nothing is kept.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (("--seed", 1), "(settings.seed was 0 and is 1 now)"),
        (("--bits", 5), "(radii.bits was 6 and is 5 now)"),
        (("--arch", "mlp:24,17"), "(arch was 'mlp:24,16' and is 'mlp:24,17' now)"),
        (("--threads", 2), "(settings.threads was 1 and is 2 now)"),
        (("--epochs", 3), "(settings.epochs was 2 and is 3 now)"),
    ],
)
def test_a_checkpoint_of_another_question(begun: Path, changed: tuple[Any, ...], sentence: str) -> None:
    refused(sentence, *BRIEF, *changed, "--out", begun, "--resume")


@pytest.mark.parametrize("damage", ["half", "text", "empty", "other"])
def test_a_damaged_checkpoint(begun: Path, damage: str) -> None:
    path = begun.with_name("m.onnx.checkpoint")
    content = path.read_bytes()
    if damage == "other":
        torch.save({"format": 99, "question": {}, "state": {}}, path)
    else:
        path.write_bytes({"half": content[: len(content) // 2], "text": b"weights", "empty": b""}[damage])
    refused("is damaged or of another version; delete it and start anew.", *BRIEF, "--out", begun, "--resume")


def test_a_checkpoint_in_which_one_bit_flipped(begun: Path, rng: np.random.Generator) -> None:
    """Also one that torch would read: as another weight, step or random number."""
    path = begun.with_name("m.onnx.checkpoint")
    content = path.read_bytes()
    for place in [0, len(content) - 1, *rng.integers(len(content), size=12).tolist()]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        refused("is damaged or of another version; delete it", *BRIEF, "--out", begun, "--resume")
    path.write_bytes(content + b"\n")
    refused("is damaged or of another version; delete it", *BRIEF, "--out", begun, "--resume")


@pytest.mark.parametrize(
    "content",
    [[], 3, {}, {"format": 2}, {"format": 2, "question": [1], "state": {}}, {"format": 2, "question": {}, "state": 7}],
)
def test_a_checkpoint_that_holds_something_else(begun: Path, content: Any) -> None:
    stored = io.BytesIO()
    torch.save(content, stored)
    digest = hashlib.sha256(stored.getvalue()).digest()
    begun.with_name("m.onnx.checkpoint").write_bytes(stored.getvalue() + digest)
    refused("is damaged or of another version; delete it", *BRIEF, "--out", begun, "--resume")


def test_a_checkpoint_runs_no_code(begun: Path, tmp_path: Path) -> None:
    """What lies where a checkpoint is expected may come from anyone."""

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    stored = io.BytesIO()
    torch.save({"format": 2, "question": {}, "state": Evil()}, stored)
    digest = hashlib.sha256(stored.getvalue()).digest()
    begun.with_name("m.onnx.checkpoint").write_bytes(stored.getvalue() + digest)
    refused("is damaged or of another version", *BRIEF, "--out", begun, "--resume")
    assert not (tmp_path / "ran").exists()


# --- --config ---


def test_config_holds_options_and_the_command_line_goes_before_it(
    tmp_path: Path, made: tuple[Path, dict[str, Any]]
) -> None:
    text = """
        data = "digits"
        arch = "mlp:24,16"
        bits = 8
        epochs = 8
        batch-size = 64
        lr = 0.02
        threads = 1
        weight-limit = 1
        clip-input = [0, 1.0]
    """
    (tmp_path / "c.toml").write_text(text)
    given = ("train", "--config", tmp_path / "c.toml", "--bits", 6, "--out", tmp_path / "m.onnx")
    facts = answer(*given)
    assert facts["sha256"] == made[1]["sha256"] and facts["settings"] == made[1]["settings"]
    assert facts["radii"]["bits"] == 6 and "--config" not in facts["command"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("epoch = 3", "unknown key 'epoch'; the keys are arch, batch-size, bits, "),
        ("resume = true", "unknown key 'resume'"),
        ("[train]\nepochs = 3", "unknown key 'train'"),
        ("epochs = = 3", "c.toml is not valid TOML: "),
        ("epochs = 1.5", "c.toml: epochs is 1.5; write it as a whole number."),
        ("epochs = true", "c.toml: epochs is True; write it as a whole number."),
        ('epochs = "3"', "c.toml: epochs is '3'; write it as a whole number."),
        ("epochs = [3]", "c.toml: epochs is [3]; write it as a whole number."),
        ("lr = 'fast'", "c.toml: lr is 'fast'; write it as a number."),
        ("arch = 256", "c.toml: arch is 256; write it as a text in quotes."),
        ("clip-input = 0", "c.toml: clip-input is 0; write it as a list of 2 numbers."),
        ("clip-input = [0, 1, 2]", "write it as a list of 2 numbers."),
        ("clip-input = [0, 'one']", "write it as a list of 2 numbers."),
        ("lr = 50", "lr is 50"),
    ],
)
def test_a_config_that_is_wrong(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "c.toml").write_text(line)
    refused(sentence, *BRIEF[:5], "--out", tmp_path / "m.onnx", "--config", tmp_path / "c.toml")


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    refused("No such file", *BRIEF, "--out", tmp_path / "m.onnx", "--config", tmp_path / "none.toml")
    (tmp_path / "c.toml").write_bytes(b"arch = '\xff'")
    refused("is not valid TOML", *BRIEF, "--out", tmp_path / "m.onnx", "--config", tmp_path / "c.toml")


# --- refusals ---


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (("--out", "m.pt"), "--out m.pt must end in .onnx."),
        (("--data", "imagenet"), "There is no data set or file 'imagenet'"),
        (("--radii", "r.toml"), "--bits and --radii exclude each other; give one of them, or none to train normally."),
        (("--arch", "mlp:24,,16"), "is not understood at '24,,16'"),
        (("--arch", "conv:8k9p0"), "no pixels left after '8k9p0'"),
        (("--bits", 0), "The bit-width is 0"),
        (("--bits", 1, "--scheme", "tensor"), "The bit-width is 1"),
        (("--epochs", 0), "epochs is 0; give a whole number from 1."),
        (("--kappa", "nan"), "kappa is nan; give a number from 0 to 1."),
        (("--clip-input", 1, 0), "The input range to clip to, 1 to 0, is empty."),
        (("--clip-input", 0, 0.5), "Some inputs lie outside --clip-input 0 0.5; widen it."),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: tuple[Any, ...], sentence: str
) -> None:
    """All of them before the first epoch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text("weight = 0.1\n")
    monkeypatch.setattr("qverify.training.loop.Training.run", None)
    refused(sentence, *BRIEF, "--out", tmp_path / "m.onnx", *changed)
    assert [path.name for path in tmp_path.iterdir()] == ["r.toml"]


def test_radii_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[layers."dense9"]\nweight = 0.1\n')
    given = ("train", *ARGUMENTS[:4], "--out", tmp_path / "m.onnx")
    refused("The network has no layer 'dense9'", *given, "--radii", tmp_path / "r.toml")
    refused("--scheme and --rounding say what --bits means; give --bits too.", *given, "--scheme", "channel")


def test_data_without_a_training_part_or_with_another_test_part(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((30, 2, 3)), np.arange(30) % 3
    given = ("train", "--arch", "mlp:5", "--out", tmp_path / "m.onnx", "--data", tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x_test=x, y_test=y)
    refused("d.npz", *given)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:, :, :2], y_test=y)
    refused("have shape (2, 2), but the network reads (2, 3)", *given)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=0 * y, x_test=x, y_test=0 * y)
    refused("a classifier needs at least 2.", *given)


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.onnx.checkpoint"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    wanted = "add --resume to go on, or delete it." if name.endswith("checkpoint") else "exists already; name another"
    refused(wanted, *BRIEF, "--out", tmp_path / "m.onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    refused("There is no checkpoint", *BRIEF, "--out", tmp_path / "m.onnx", "--resume")


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("qverify.training.loop.Training.run", None)
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        refused("cannot be written (", *BRIEF, "--out", folder / "m.onnx")
