"""The same settings give the same bytes, interrupted or not, and what belongs to the process is put back."""

from __future__ import annotations

import copy
import io
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qverify import datasets
from qverify.datasets import Samples
from qverify.errors import TrainingError
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.training.architectures import build
from qverify.training.loop import Training
from qverify.training.settings import Settings
from tests.support.marks import mostly_slow

SETTINGS = Settings(epochs=5, batch_size=32, lr=0.02, ramp=0.6, validation=0.2, seed=5, threads=1)
STATED = {
    "normal": None,
    "paper": Quantiser(6),
    "tensor": Quantiser(7, "tensor", "nearest"),
    "channel": Quantiser(6, "channel"),
    "radii": Radii(input=0.01, weight=0.005, bias=0.01, activation=0.02),
}


@pytest.fixture(scope="module")
def samples() -> Samples:
    """The first 150 training samples of digits."""
    found = datasets.load_train("digits")
    return replace(found, x=found.x[:150], y=found.y[:150])


def training(name: str, settings: Settings, arch: str = "mlp:14,12") -> Training:
    """With Dropout behind the second ReLU, which draws random numbers in every batch."""
    module = build(arch, (8, 8), 10, torch.Generator().manual_seed(settings.seed))
    layers = list(module.named_children())
    position = [n for n, _ in layers].index("relu2") + 1
    layers.insert(position, ("dropout", nn.Dropout(0.2)))
    return Training.of(nn.Sequential(OrderedDict(layers)), (8, 8), STATED[name], settings)


def numbers(network: Network) -> list[np.ndarray]:
    layers: list[Any] = [network.layers[i] for i in network.weighted]
    return [array for layer in layers for array in (layer.weight, layer.bias)]


def same(one: Network, other: Network) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(numbers(one), numbers(other), strict=True))


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    found: dict[str, Any] = torch.load(content, weights_only=True)
    return found


class Interrupted:
    """Keeps the state after every epoch; stops in the middle of epoch `after` + 1."""

    def __init__(self, job: Training, after: int) -> None:
        self.job, self.after, self.stop = job, after, threading.Event()
        self.state: dict[str, Any] = {}
        values = job.live.values

        def counted(x: torch.Tensor) -> list[torch.Tensor]:
            self.batches += job.live.module.training
            if self.batches == 2 and len(job.history) >= after:
                self.stop.set()
            return values(x)

        self.batches = 0
        job.live.values = counted  # type: ignore[method-assign]

    def __call__(self, job: Training) -> None:
        self.state, self.batches = saved(job.state()), 0


# --- going on ---


@pytest.mark.parametrize(("after", "distortion"), mostly_slow([(1, 0.6), (1, 0.0), (4, 0.6), (4, 0.0)], several=True))
@pytest.mark.parametrize("name", STATED)
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(
    name: str, distortion: float, after: int, samples: Samples
) -> None:
    """Every weight, every figure of the history, and the choice of the best epoch; the break is within an epoch."""
    settings = replace(SETTINGS, distortion=distortion)
    whole = training(name, settings)
    expected = whole.run(samples)
    broken = training(name, settings)
    keeper = Interrupted(broken, after)
    broken.run(samples, keeper, keeper.stop)
    assert len(broken.history) == after
    torch.manual_seed(99)  # whatever the process did meanwhile
    resumed = training(name, settings)
    with torch.no_grad():
        for parameter in resumed.live.module.parameters():
            parameter.zero_()
    found = resumed.run(samples, state=keeper.state)
    assert same(found, expected)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert replace(one, seconds=0.0) == replace(other, seconds=0.0)
    assert resumed.best_epoch is not None and whole.best_epoch is not None
    assert resumed.best_epoch.number == whole.best_epoch.number
    if name in ("tensor", "channel"):
        assert resumed.family is not None and whole.family is not None
        assert resumed.family.state() == whole.family.state()


def test_a_state_survives_what_goes_on_from_it(samples: Samples) -> None:
    """The same state twice: going on must not write into it."""
    keeper = Interrupted(training("tensor", SETTINGS), 2)
    keeper.job.run(samples, keeper, keeper.stop)
    before = copy.deepcopy(keeper.state)
    first = training("tensor", SETTINGS).run(samples, state=keeper.state)
    for part in ("exp_avg", "exp_avg_sq", "step"):
        for old, new in zip(*(s["optimiser"]["state"].values() for s in (before, keeper.state)), strict=True):
            assert torch.equal(old[part], new[part])
    assert same(training("tensor", SETTINGS).run(samples, state=keeper.state), first)


def test_a_finished_training_has_nothing_to_go_on_with(samples: Samples) -> None:
    job, states = training("paper", SETTINGS), list[dict[str, Any]]()
    network = job.run(samples, lambda t: states.append(saved(t.state())))
    assert [len(state["history"]) for state in states] == [1, 2, 3, 4, 5]
    again = training("paper", SETTINGS)
    assert same(again.run(samples, state=states[-1]), network) and len(again.history) == 5


# --- nothing but the settings ---


@pytest.mark.parametrize("name", ["normal", "paper", "tensor"])
def test_the_same_seed_gives_the_same_file(name: str, samples: Samples, tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(number)  # must not matter
        network = training(name, replace(SETTINGS, seed=seed, distortion=0.3)).run(samples)
        onnx_io.save(network, tmp_path / f"{number}.onnx")
        files.append((tmp_path / f"{number}.onnx").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_convolution_is_reproducible_too(samples: Samples) -> None:
    runs = [training("tensor", replace(SETTINGS, epochs=2), "conv:3k3s2,4k2s2p0/9").run(samples) for _ in range(2)]
    assert same(*runs)


@pytest.mark.parametrize(
    "changed", [{"lr": 0.01}, {"kappa": 0.2}, {"ramp": 0.2}, {"factor": 1.5}, {"clip": (0.0, 1.0)}, {"batch_size": 16}]
)
def test_every_setting_matters(changed: dict[str, Any], samples: Samples) -> None:
    one, other = (training("paper", replace(SETTINGS, epochs=2, **more)).run(samples) for more in ({}, changed))
    assert not same(one, other)


def test_the_test_set_is_not_looked_at(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = training("tensor", SETTINGS).run(samples)
    monkeypatch.setattr(datasets, "load", None)
    assert same(training("tensor", SETTINGS).run(samples), expected)


# --- what is put back ---


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(fails: bool, samples: Samples) -> None:
    """Random numbers, number of threads, the flag for deterministic algorithms; also where training fails."""
    job = training("paper", replace(SETTINGS, epochs=1, threads=2, weight_limit=0.0))
    seen: list[tuple[int, bool]] = []
    kept = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(7)
    random = torch.get_rng_state()

    def note(*_: Any) -> None:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    hook = job._optimiser.register_step_pre_hook(note)
    try:
        if fails:
            with torch.no_grad():
                job._parameters[0].fill_(float("nan"))
            with pytest.raises(TrainingError):
                job.run(samples)
        else:
            job.run(samples)
            assert set(seen) == {(2, True)}
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == kept == (1, False)
        assert torch.equal(torch.get_rng_state(), random)
    finally:
        hook.remove()
        torch.set_num_threads(kept[0])


def test_the_flag_stays_on_where_it_was_on(samples: Samples) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        training("paper", replace(SETTINGS, epochs=1)).run(samples)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
