"""Files of a training: the model, the `.json` beside it that says how it was made, and the checkpoint.

    NAME.onnx             the network of the best epoch, in float32
    NAME.json             command, settings, seed, versions, time, accuracies, sha256 of NAME.onnx
    NAME.onnx.checkpoint  all that the next epoch depends on, and the sha256 of that, as a bit that flipped would go
                          unnoticed into the weights; goes away when the training is finished

Every file is written beside its place and then moved there: whoever reads it finds the old one or the new one, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from qverify.errors import DataError, InternalError, OutputError, UsageError
from qverify.files.atomic import partial_path, write_atomically
from qverify.files.dotted import dotted
from qverify.onnx.reader import load, save
from qverify.text.escapes import shown
from qverify.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qverify.network import Network

FORMAT = 2
_DIGEST = hashlib.sha256().digest_size


def checkpoint_path(model: Path) -> Path:
    """The path of the checkpoint of a model."""
    return model.with_name(model.name + ".checkpoint")


def write_checkpoint(model: Path, question: dict[str, Any], state: dict[str, Any]) -> None:
    """Keep `state` (Training.state) together with what was asked. Raises OutputError."""
    content = io.BytesIO()  # torch.save to a file reports a full disk in words of its own
    torch.save({"format": FORMAT, "question": question, "state": state}, content)
    kept = content.getvalue()
    _write(checkpoint_path(model), lambda path: path.write_bytes(kept + hashlib.sha256(kept).digest()))


def read_checkpoint(model: Path, question: dict[str, Any]) -> dict[str, Any]:
    """The state kept for the same question.

    Raises UsageError if there is none or the question was another, DataError if the file is damaged.
    """
    path = checkpoint_path(model)
    if not path.exists():
        raise UsageError(f"There is no checkpoint {path} to go on from; leave out --resume.")
    try:
        kept = path.read_bytes()
        if hashlib.sha256(kept[:-_DIGEST]).digest() != kept[-_DIGEST:]:
            raise ValueError
        content = torch.load(io.BytesIO(kept[:-_DIGEST]), weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError
        old, state = dict(dotted(content["question"])), dict(content["state"])
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise DataError(f"The checkpoint {path} is damaged or of another version; delete it and start anew.") from error
    new = dict(dotted(question))
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if differing:
        key = differing[0]
        raise UsageError(
            f"The training kept in {path} asked something else ({key} was {shown(old.get(key))} and is"
            f" {shown(new.get(key))} now); ask the same, or delete it and start anew."
        )
    return state


def remove_checkpoint(model: Path) -> None:
    """Delete the checkpoint of a finished training, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        checkpoint_path(model).unlink()


def refuse_taken(model: Path, resume: bool) -> None:
    """Raise UsageError where a model or a started training would be overwritten, or the name cannot be one.

    Raises OutputError where nothing can be written, before anything is computed.
    """
    if model.suffix != ".onnx":
        raise UsageError(f"--out {model} must end in .onnx.")
    if resume:
        return
    _write(model.with_suffix(".json"), lambda path: path.touch(), keep=False)
    if checkpoint_path(model).exists():
        raise UsageError(f"{checkpoint_path(model)} holds a training; add --resume to go on, or delete it.")
    for path in (model, model.with_suffix(".json")):
        if path.exists():
            raise UsageError(f"{path} exists already; name another --out, or delete it.")


def write_model(model: Path, network: Network, describe: Callable[[Network], dict[str, Any]]) -> dict[str, Any]:
    """Export `network`, read it back, compare, and write the `.json`; returns the content of that.

    `describe` adds what is known about the network as read back. Raises OutputError, and InternalError if the file does
    not hold what was trained.
    """
    _write(model, lambda path: save(network, path))
    again = load(model)  # compares itself with onnxruntime
    x = np.random.default_rng(0).random((64, network.input_size))
    if not np.array_equal(again.evaluate(x), network.evaluate(x)):
        raise InternalError(f"{model} does not hold the network that was trained.")
    facts = {**describe(again), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    _write(model.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
    return facts


def versions() -> dict[str, str]:
    """Versions of the software that the numbers of a training depend on."""
    modules = {"torch": torch, "numpy": np, "onnx": onnx}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"qverify": __version__, **found, "python": platform.python_version()}


def _write(path: Path, write: Callable[[Path], Any], keep: bool = True) -> None:
    """Make a file; without `keep`, only try to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep:
            write_atomically(path, write)
        else:
            write(partial_path(path))
            partial_path(path).unlink()
    except (OSError, ValueError) as error:  # onnx_io.save: ModelError
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = getattr(cause, "strerror", None) or str(error).rstrip(".")
        raise OutputError(f"{path} cannot be written ({reason}); free some space or name another --out.") from error
