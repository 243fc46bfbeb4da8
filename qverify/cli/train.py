"""`qverify train`: a network trained so that its quantisations are right, exported, and described beside it."""

from __future__ import annotations

import copy
import shlex
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qverify import datasets
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.datasets import units
from qverify.errors import DataError, UsageError
from qverify.family.radii import Radii
from qverify.family.radii_file import load_radii
from qverify.family.steps import Quantiser
from qverify.files.hashes import file_sha256
from qverify.training.architectures import build
from qverify.training.loop import Training
from qverify.training.model_files import (
    read_checkpoint,
    refuse_taken,
    remove_checkpoint,
    versions,
    write_checkpoint,
    write_model,
)
from qverify.training.settings import Settings
from qverify.verification.arguments import usable_device
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status

if TYPE_CHECKING:
    from qverify.network import Network

_KEEP_EVERY = 10.0
"""Seconds between two checkpoints: what a kill -9 can cost, beside the epoch under way."""
_TELL_EVERY = 2.0


@dataclass(frozen=True, kw_only=True)
class TrainGiven:
    """The command line, as click parsed it; `settings` are those of `Settings`."""

    data: str
    arch: str
    out: str
    bits: int | None
    scheme: str | None
    rounding: str | None
    radii: str | None
    input_scale: float | None
    resume: bool
    as_json: bool
    settings: dict[str, Any]

    @staticmethod
    def of(values: dict[str, Any]) -> TrainGiven:
        """Click's parameters: those that `Settings` has a field for, and the others."""
        names = {field.name for field in fields(Settings)}
        settings = {name: value for name, value in values.items() if name in names}
        rest = {name: value for name, value in values.items() if name not in names}
        return TrainGiven(settings=settings, **rest)


def run(given: TrainGiven) -> int:
    """Run the command; returns the exit status."""
    with stdout_kept_clean():
        work = _TrainWork(given)
        finished = work.train()
        if not work.training.history:
            say("interrupted before the first epoch was done; nothing is kept.")
            return INTERRUPTED
        facts = write_model(work.out, work.training.network(), lambda network: work.describe(network, finished))
        if finished:
            remove_checkpoint(work.out)
    if given.as_json:
        show_json(facts)
    else:
        _show(given, facts)
    if finished:
        return 0
    done = len(work.training.history)
    say(
        f"interrupted after {done} of {work.settings.epochs} epochs; the best so far is in {work.out}, and the same"
        " command with --resume goes on."
    )
    return INTERRUPTED


class _TrainWork:
    """The work of `qverify train`: everything read and checked, and the training itself."""

    def __init__(self, given: TrainGiven):
        self.given, self.out = given, Path(given.out)
        refuse_taken(self.out, given.resume)
        self.settings = Settings(**given.settings)
        usable_device(self.settings.device)
        stated = _stated(given)
        self.samples = datasets.scaled(datasets.load_train(given.data), given.input_scale)
        self.test = datasets.scaled(datasets.load(given.data), given.input_scale)
        for doubt in units.doubts_in_training(self.samples.x):
            say(f"note: {doubt}")
        classes = int(max(self.samples.y.max(), self.test.y.max())) + 1
        generator = torch.Generator().manual_seed(self.settings.seed)
        module = build(given.arch, self.samples.shape, classes, generator)
        self.training = Training.of(module, self.samples.shape, stated, self.settings)
        x, _ = datasets.fit(self.test, self.training.live.network)
        if (clip := self.settings.clip) and not clip[0] <= x.min() <= x.max() <= clip[1]:
            raise DataError(f"Some inputs lie outside --clip-input {clip[0]:g} {clip[1]:g}; widen it.")
        self.kept: dict[str, Any] | None = None
        self.written = self.told = time.monotonic()

    @property
    def question(self) -> dict[str, Any]:
        """The question: the settings that a training that goes on later must share."""
        given = self.given
        return {
            "arch": given.arch,
            "data": given.data,
            "data_sha256": self.samples.sha256,
            **_scale(given),
            "radii": _asked(given),
            "versions": versions(),
            "settings": {**asdict(self.settings), "threads": self.settings.threads or torch.get_num_threads()},
        }

    def train(self) -> bool:
        """True if all epochs are done; on Ctrl-C the state after the last whole epoch is kept."""
        state = read_checkpoint(self.out, self.question) if self.given.resume else None
        if state is not None:
            say(f"going on after epoch {len(state['history'])}.")
        with stoppable("ending this epoch") as stop:
            self.training.run(self.samples, self._after, stop, state)
        finished = len(self.training.history) == self.settings.epochs
        if not finished and self.kept is not None:
            write_checkpoint(self.out, self.question, self.kept)
        return finished

    def _after(self, training: Training) -> None:
        """After every epoch: keep its state, and say where the training is."""
        self.kept = copy.deepcopy(training.state())
        now = time.monotonic()
        last = len(training.history) == self.settings.epochs
        if now - self.written >= _KEEP_EVERY and not last:
            self.written = now
            write_checkpoint(self.out, self.question, self.kept)
        if now - self.told >= _TELL_EVERY or last:
            self.told = now
            say(self._where(training))

    def _where(self, training: Training) -> str:
        epoch, total = training.history[-1], self.settings.epochs
        parts = [f"loss {epoch.nominal_loss:.4f}"]
        if epoch.worst_loss is not None:
            parts += [f"worst-case loss {epoch.worst_loss:.4f}", f"radii at {epoch.factor:.0%}"]
        if epoch.clean is not None:
            parts.append(f"validation: clean {epoch.clean:.2%}")
        if epoch.guaranteed is not None:
            parts.append(f"guaranteed by IBP {epoch.guaranteed:.2%}")
        left = (total - epoch.number) * training.seconds / epoch.number
        return f"epoch {epoch.number} of {total}: {', '.join(parts)}; {duration(left)} left"

    def describe(self, network: Network, finished: bool) -> dict[str, Any]:
        """The content of the .json; accuracies are of the test set, once, after everything is chosen."""
        training, given = self.training, self.given
        best, options = training.best_epoch, Options(method="ibp", attack=False, clip=self.settings.clip)
        x, _ = datasets.fit(self.test, network)
        radii = Radii() if training.family is None else training.family.radii(x)
        proved = verify(network, x, self.test.y, radii, options)
        right = sum(verdict.status is not Status.MISCLASSIFIED for verdict in proved)
        sure = sum(verdict.status is Status.VERIFIED for verdict in proved)
        described = {
            "command": _command(given, self.settings),
            "architecture": given.arch,
            "data": given.data,
            "data_sha256": self.samples.sha256,
            **_scale(given),
            "radii": _asked(given),
            "seed": self.settings.seed,
            "settings": asdict(self.settings),
            "threads": self.settings.threads or torch.get_num_threads(),
            "epochs": len(training.history),
            "best_epoch": None if best is None else best.number,
            "seconds": round(training.seconds, 1),
            "interrupted": not finished,
            "validation": None if best is None else {"clean": best.clean, "guaranteed_by_ibp": best.guaranteed},
            "clean_accuracy": right / len(proved),
            "weight_range": _ranges(network),
            "versions": versions(),
        }
        if training.family is not None:
            described |= {"convention": radii.convention, "guaranteed_by_ibp": sure / len(proved)}
        return described


def _stated(given: TrainGiven) -> Quantiser | Radii | None:
    if given.bits is not None and given.radii is not None:
        raise UsageError("--bits and --radii exclude each other; give one of them, or none to train normally.")
    if given.bits is None and (given.scheme or given.rounding):
        raise UsageError("--scheme and --rounding say what --bits means; give --bits too.")
    if given.radii is not None:
        return load_radii(given.radii)
    if given.bits is None:
        return None
    return Quantiser(given.bits, given.scheme or "paper", given.rounding or "any")


def _scale(given: TrainGiven) -> dict[str, float]:
    return {} if given.input_scale is None else {"input_scale": given.input_scale}


def _asked(given: TrainGiven) -> dict[str, Any] | None:
    """The radii as stated; None for normal training."""
    if given.radii is not None:
        return {"file": given.radii, "sha256": file_sha256(given.radii)}
    if given.bits is None:
        return None
    return {"bits": given.bits, "scheme": given.scheme or "paper", "rounding": given.rounding or "any"}


def _command(given: TrainGiven, settings: Settings) -> str:
    """The command line that makes this model again, every setting that is not the default written out."""
    words = ["qverify", "train", "--data", given.data, "--arch", given.arch]
    for name in ("bits", "scheme", "rounding", "radii", "input_scale"):
        if (value := getattr(given, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if field.name == "clip" and value is not None:
            words += ["--clip-input", *map(str, value)]
        elif value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--out", given.out])


def _ranges(network: Network) -> dict[str, list[float]]:
    """Smallest and largest weight of every layer: absolute radii mean little where these leave [-1, 1]."""
    layers: list[Any] = [network.layers[i] for i in network.weighted]
    return {layer.name: [float(layer.weight.min()), float(layer.weight.max())] for layer in layers}


def _show(given: TrainGiven, facts: dict[str, Any]) -> None:
    show(f"{given.out}: {facts['epochs']} epochs in {duration(facts['seconds'])}, best is {facts['best_epoch']}", "")
    show(f"clean accuracy          {facts['clean_accuracy']:.2%} of the test set")
    if "guaranteed_by_ibp" in facts:
        show(f"guaranteed by IBP       {facts['guaranteed_by_ibp']:.2%} ({facts['convention']})")
    show("", f"Made again by: {facts['command']}", f"How it was made: {Path(given.out).with_suffix('.json')}")
