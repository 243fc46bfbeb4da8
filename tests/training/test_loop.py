"""Training: its loss, its schedules, what it is good for, and what it refuses."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qverify import datasets
from qverify.datasets import Samples
from qverify.errors import DataError, RadiiError, TrainingError, UsageError
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.training.architectures import build
from qverify.training.loop import Epoch, Training
from qverify.training.settings import Settings
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.modules import batch, filled

Array = np.ndarray
RADIUS = {"input": 0.02, "weight": 0.013, "bias": 0.007, "activation": 0.03}
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 2])
QUICK = Settings(epochs=3, batch_size=32, seed=5, threads=1)
SIX = Quantiser(6)


def digits(count: int = 200) -> Samples:
    """Some of the training samples of digits."""
    samples = datasets.load_train("digits")
    return replace(samples, x=samples.x[:count], y=samples.y[:count])


def training(settings: Settings = QUICK, stated: Any = SIX, seed: int = 0) -> Training:
    return Training.of(build("mlp:14,12", (8, 8), 10, torch.Generator().manual_seed(seed)), (8, 8), stated, settings)


def weights(module: nn.Module) -> list[Array]:
    return [p.detach().numpy().copy() for p in module.parameters()]


# --- the loss ---


def entropy(scores: Array, labels: Array) -> Array:
    """Cross-entropy (N,) from its definition."""
    return np.asarray(-np.log(np.exp(scores[np.arange(len(labels)), labels]) / np.exp(scores).sum(1)))


def ends(w: Array, radius: float, low: Array, high: Array) -> tuple[Array, Array]:
    """Smallest and largest sum_j of w_j x_j -+ R |x_j| over low <= x <= high: convex, so at an end of each x_j."""
    left, right = (w * end[:, None, :] for end in (low, high))
    a, b = (radius * np.abs(end[:, None, :]) for end in (low, high))
    return np.minimum(left - a, right - b).sum(2), np.maximum(left + a, right + b).sum(2)


def worst_scores(parameters: list[Array], x: Array, labels: Array, r: dict[str, float]) -> Array:
    """-min (y_label - y_j) by intervals in numpy, straight from mathematics.md, sections 3 and 4."""
    low, high = x - r["input"], x + r["input"]
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        bottom, top = ends(weight, r["weight"], low, high)
        bottom, top = bottom + bias - r["bias"], top + bias + r["bias"]
        low = np.maximum(np.maximum(bottom, 0) - r["activation"], 0)
        high = np.maximum(top, 0) + r["activation"]
    weight, bias = parameters[-2:]
    scores = np.zeros((len(x), len(bias)))
    for row, label in enumerate(labels):
        least, _ = ends(weight[label] - weight, 2 * r["weight"], low[row : row + 1], high[row : row + 1])
        scores[row] = -(least[0] + bias[label] - bias - 2 * r["bias"])
        scores[row, label] = 0.0
    return scores


@pytest.mark.parametrize(("factor", "own"), [(1.0, 1.0), (0.4, 1.0), (0.4, 2.5)])
def test_the_loss_against_numpy(factor: float, own: float) -> None:
    """At `factor` of the ramp times `own` of the settings; inputs around 0 straddle it."""
    module = filled(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    x = batch("mlp")
    found = Training.of(module, (4,), Radii(**RADIUS), replace(QUICK, factor=own)).losses(x, LABELS, factor)  # type: ignore[arg-type]
    layers, z, labels = [w.astype(np.float64) for w in weights(module)], x.double().numpy(), LABELS.numpy()
    hidden = np.maximum(z @ layers[0].T + layers[1], 0)
    scores = np.maximum(hidden @ layers[2].T + layers[3], 0) @ layers[4].T + layers[5]
    worst = worst_scores(layers, z, labels, {kind: factor * own * v for kind, v in RADIUS.items()})
    assert float(found[0].detach()) == pytest.approx(entropy(scores, labels).mean(), rel=1e-5)
    assert float(found[1].detach()) == pytest.approx(entropy(worst, labels).mean(), rel=1e-5)
    assert entropy(worst, labels).mean() > entropy(scores, labels).mean() + 0.02


def test_no_member_has_a_larger_loss() -> None:
    """Brute force: all 2^16 corners of input, weights, biases and activation errors of a 2-2-2 network."""
    module = filled(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), seed=3)
    signs = np.array(list(product([-1.0, 1.0], repeat=14)))
    x, labels = batch("mlp")[:4, :2], torch.tensor([0, 1, 1, 0])
    w1, b1, w2, b2 = (w.astype(np.float64) for w in weights(module))
    r = {kind: 4 * value for kind, value in RADIUS.items()}
    losses = Training.of(module, (2,), Radii(**r), QUICK)  # type: ignore[arg-type]
    for row, label in enumerate(labels.numpy()):
        worst = 0.0
        for corner in product([-1.0, 1.0], repeat=2):
            point = x[row].double().numpy() + r["input"] * np.array(corner)
            hidden = (w1 + r["weight"] * signs[:, :4].reshape(-1, 2, 2)) @ point + b1 + r["bias"] * signs[:, 4:6]
            hidden = np.maximum(np.maximum(hidden, 0) + r["activation"] * signs[:, 6:8], 0)
            second = w2 + r["weight"] * signs[:, 8:12].reshape(-1, 2, 2)
            scores = np.einsum("moi,mi->mo", second, hidden) + b2 + r["bias"] * signs[:, 12:14]
            worst = max(worst, entropy(scores, np.full(len(scores), label)).max())
        nominal, bound = losses.losses(x[row : row + 1], labels[row : row + 1], 1.0)
        assert float(nominal.detach()) + 0.05 < worst <= float(bound.detach()) + 1e-6
        assert float(bound.detach()) < worst + 0.2  # and it is not far off for one hidden layer


def test_normal_training_has_no_worst_case() -> None:
    nominal, worst = training(stated=None).losses(torch.rand(3, 8, 8), torch.tensor([1, 2, 3]), 1.0)
    assert nominal > 0 and worst == 0


# --- schedules ---


def recorded(monkeypatch: pytest.MonkeyPatch, settings: Settings, stated: Any = SIX) -> list[tuple[float, float]]:
    """Factor of every batch, and the weight of the nominal loss in the total: the gradient that arrives at it."""
    found: list[tuple[float, float]] = []
    job = training(settings, stated)

    def losses(self: Training, x: torch.Tensor, y: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        if self.family is not None:
            self.family.observe(self.live.values(x))
        one: Any = sum(p.sum() for p in self.live.module.parameters()) * 0.0 + 1.0
        one.register_hook(lambda gradient: found.append((factor, float(gradient))))
        return one, torch.zeros(())

    monkeypatch.setattr(Training, "losses", losses)
    job.run(digits(40))
    return found


@pytest.mark.parametrize(("ramp", "kappa"), [(0.5, 0.25), (1.0, 0.0), (0.25, 0.5)])
def test_radii_grow_while_kappa_falls(monkeypatch: pytest.MonkeyPatch, ramp: float, kappa: float) -> None:
    """8 epochs of 4 batches (38 samples after validation): batch k is k / 32 of the training."""
    found = recorded(monkeypatch, replace(QUICK, epochs=8, batch_size=10, ramp=ramp, kappa=kappa))
    factors = [min(1.0, k / 32 / ramp) for k in range(32)]
    assert [factor for factor, _ in found] == pytest.approx(factors)
    assert [weight for _, weight in found] == pytest.approx([1 - (1 - kappa) * f for f in factors])


def test_without_a_ramp_the_radii_are_full_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded(monkeypatch, replace(QUICK, ramp=0.0, kappa=0.25)) == [(1.0, 0.25)] * 6


def test_normal_training_weighs_the_nominal_loss_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {weight for _, weight in recorded(monkeypatch, replace(QUICK, kappa=0.25), None)} == {1.0}


def test_the_step_size_is_one_cycle() -> None:
    """Up to --lr, then down to nearly nothing; one step a batch."""
    job, rates = training(replace(QUICK, epochs=5, lr=0.01)), list[float]()
    job._optimiser.register_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    job.run(digits(100))
    top = int(np.argmax(rates))
    assert len(rates) == 15 and rates[top] == pytest.approx(0.01, rel=0.05) and 0 < top < 8
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] < 0.001 and rates[-1] < 0.0005


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.0])
def test_weights_stay_within_the_limit(limit: float) -> None:
    network = training(replace(QUICK, weight_limit=limit, lr=0.05)).run(digits())
    layers: list[Any] = [network.layers[i] for i in network.weighted]
    largest = max(max(np.abs(la.weight).max(), np.abs(la.bias).max()) for la in layers)
    assert largest == np.float32(limit) if limit else largest > 0.5


# --- what it is good for ---


@pytest.mark.slow
def test_robust_training_is_worth_it() -> None:
    """On digits at 6 bits (paper): guaranteed accuracy on the test set, verified; and the loss says so, too."""
    settings = Settings(epochs=8, batch_size=64, lr=0.02, threads=1)
    samples, test = datasets.load_train("digits"), datasets.load("digits")
    sure = {}
    for stated in (SIX, None):
        job = training(settings, stated)
        network = job.run(samples)
        verdicts = verify(network, test.x, test.y, Radii.from_bits(6), Options(method="ibp", attack=False))
        sure[stated] = sum(v.status is Status.VERIFIED for v in verdicts) / len(test)
        if stated:
            assert job.best_epoch is not None and job.best_epoch.guaranteed == pytest.approx(sure[stated], abs=0.15)
        clean = sum(v.status is not Status.MISCLASSIFIED for v in verdicts) / len(test)
        assert clean > (0.6 if stated else 0.9)
    assert sure[None] < 0.05 and sure[SIX] > 0.3


def test_the_radii_trained_for_matter() -> None:
    """Trained at factor 0, which is normal training, the worst case at the full radii is worse than trained at 1."""
    losses = []
    for factor in (0.0, 1.0):
        job = training(replace(QUICK, epochs=6, factor=factor, lr=0.02))
        job.run(digits(400))
        full = Training(job.live, job.family, replace(job.settings, factor=1.0))
        samples = digits(400)
        x, y = torch.as_tensor(samples.x[:100], dtype=torch.float32), torch.as_tensor(samples.y[:100])
        losses.append(float(full.losses(x, y, 1.0)[1].detach()))
    assert losses[1] < 0.8 * losses[0]


# --- validation ---


def test_the_validation_part_is_disjoint_and_its_size_as_asked() -> None:
    samples = digits(200)
    marked = replace(samples, x=np.arange(200.0)[:, None, None] * np.ones((8, 8)))
    job = training(replace(QUICK, validation=0.2))
    train, held_out = job._split(marked)
    first, second = train.x[:, 0, 0].int().tolist(), held_out.x[:, 0, 0].int().tolist()
    assert (len(first), len(second)) == (160, 40) and sorted(first + second) == list(range(200))
    assert train.y.tolist() == samples.y[first].tolist() and held_out.y.tolist() == samples.y[second].tolist()
    other = training(replace(QUICK, validation=0.2, seed=6))._split(marked)
    assert other[1].x[:, 0, 0].int().tolist() == second  # of the number of samples only


def test_what_is_held_out_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle sees every batch; its samples carry their index."""
    seen: set[int] = set()
    samples = replace(digits(100), x=np.arange(100.0)[:, None, None] * np.ones((8, 8)) / 100)
    job = training(replace(QUICK, validation=0.2, weight_limit=0.1))
    original = Training.losses

    def losses(self: Training, x: torch.Tensor, y: torch.Tensor, factor: float) -> Any:
        seen.update((100 * x[:, 0, 0]).round().int().tolist())
        return original(self, x, y, factor)

    monkeypatch.setattr(Training, "losses", losses)
    job.run(samples)
    held_out = job._split(samples)[1].x
    assert seen == set(range(100)) - set((100 * held_out[:, 0, 0]).round().int().tolist()) and len(seen) == 80


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.9, 0.3), (0.7, 0.5), (0.8, 0.4)], 1),  # (clean, guaranteed): the guarantee comes first
        ([(0.7, 0.5), (0.9, 0.5), (0.8, 0.5)], 1),  # then the clean accuracy
        ([(0.8, 0.5), (0.8, 0.5), (0.8, 0.4)], 1),  # of equal ones the later
        ([(0.8, None), (0.7, None), (0.6, None)], 0),
    ],
)
def test_the_best_epoch_is_kept(scores: list[tuple[Any, ...]], best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights, remembered as they were after each epoch; the validation says what the test wants."""
    after: list[list[Array]] = []
    monkeypatch.setattr(Training, "_validate", lambda self, held_out: scores[len(self.history)])
    job = training()
    network = job.run(digits(80), lambda t: after.append(weights(t.live.module)))
    assert job.best_epoch == job.history[best]
    layers: list[Any] = [network.layers[i] for i in network.weighted]
    for layer, weight, bias in zip(layers, after[best][::2], after[best][1::2], strict=True):
        assert np.array_equal(layer.weight, weight) and np.array_equal(layer.bias, bias)


def test_without_validation_the_last_epoch_is_best() -> None:
    job = training(replace(QUICK, validation=0.0))
    job.run(digits())
    assert [row.clean for row in job.history] == [None] * 3 and job.best_epoch == job.history[-1]


def test_how_epochs_are_ranked() -> None:
    def epoch(clean: float | None, guaranteed: float | None, number: int = 1) -> tuple[float, float]:
        return Epoch(
            number=number,
            factor=1.0,
            nominal_loss=0.1,
            worst_loss=None,
            clean=clean,
            guaranteed=guaranteed,
            seconds=0.0,
        ).score

    assert epoch(0.8, 0.6) > epoch(0.9, 0.5) and epoch(0.9, 0.5) > epoch(0.8, 0.5)
    assert epoch(0.9, None) > epoch(0.8, None) and epoch(None, None, 2) > epoch(None, None, 1)


def test_the_history_adds_up() -> None:
    job = training(replace(QUICK, epochs=4, ramp=0.5))
    job.run(digits())
    assert [row.number for row in job.history] == [1, 2, 3, 4]
    assert [row.factor for row in job.history] == pytest.approx([5 / 12, 11 / 12, 1.0, 1.0])  # of its last batch
    assert job.history[-1].nominal_loss < job.history[0].nominal_loss < 3
    assert all(0 <= row.guaranteed <= row.clean <= 1 for row in job.history)  # type: ignore[operator]
    assert job.seconds >= sum(row.seconds for row in job.history) * 0.9 > 0


# --- refusals ---


@pytest.mark.parametrize("stated", [None, SIX], ids=["normal", "robust"])
def test_a_loss_that_is_not_finite_is_an_error(stated: Quantiser | None) -> None:
    job = training(replace(QUICK, weight_limit=0.0, ramp=0.1), stated)
    with torch.no_grad():
        job._parameters[0].mul_(1e38)
    with pytest.raises(
        TrainingError, match=r"^The loss became infinite or NaN in epoch 1; lower --lr, .*\.$"
    ) as caught:
        job.run(digits())
    assert not isinstance(caught.value, RadiiError)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs is 0; give a whole number from 1."),
    ({"epochs": 2.0}, "epochs is 2.0; give a whole number from 1."),
    ({"epochs": True}, "epochs is True; give a whole number from 1."),
    ({"batch_size": -1}, "batch_size is -1; give a whole number from 1."),
    ({"seed": -1}, "seed is -1; give a whole number from 0."),
    ({"seed": 2**31}, f"seed is {2**31}; give a whole number from 0."),
    ({"threads": -1}, "threads is -1; give a whole number from 0."),
    ({"lr": 0.0}, "lr is 0.0; give a number from 1e-09 to 10."),
    ({"lr": float("nan")}, "lr is nan; give a number from 1e-09 to 10."),
    ({"kappa": 1.01}, "kappa is 1.01; give a number from 0 to 1."),
    ({"ramp": -0.1}, "ramp is -0.1; give a number from 0 to 1."),
    ({"ramp": "half"}, "ramp is 'half'; give a number from 0 to 1."),
    ({"factor": float("inf")}, "factor is inf; give a number from 0 to 100."),
    ({"weight_limit": -1}, "weight_limit is -1; give a number from 0 to 1e+06."),
    ({"distortion": 2}, "distortion is 2; give a number from 0 to 1."),
    ({"validation": 0.6}, "validation is 0.6; give a number from 0 to 0.5."),
    ({"clip": (1.0, 0.0)}, "The input range to clip to, 1 to 0, is empty."),
    ({"clip": (0.5, 0.5)}, "The input range to clip to, 0.5 to 0.5, is empty."),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_settings_that_make_no_sense(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**wrong)
    assert str(caught.value) == sentence


def test_samples_that_do_not_fit() -> None:
    samples = digits()
    with pytest.raises(DataError, match=r"^The largest label is 10, but the network has 10 outputs\.$"):
        training().run(replace(samples, y=samples.y + 1))
    with pytest.raises(DataError, match=r"outside the range to clip to, 0 to 0\.5; widen it\.$"):
        training(replace(QUICK, clip=(0.0, 0.5))).run(samples)


def test_nothing_to_train() -> None:
    with pytest.raises(UsageError, match=r"^The network has no weights to train\.$"):
        Training.of(nn.Sequential(nn.Flatten(), nn.ReLU()), (4,), None, QUICK)


def test_stopped_before_the_first_epoch_it_is_the_network_that_came() -> None:
    """Not one that half an epoch has changed."""
    job, stop = training(), threading.Event()
    before, original = weights(job.live.module), job.losses

    def losses(*arguments: Any) -> Any:
        if job._optimiser.state:
            stop.set()
        return original(*arguments)

    job.losses = losses  # type: ignore[method-assign, assignment]
    network = job.run(digits(), stop=stop)
    layers: list[Any] = [network.layers[i] for i in network.weighted]
    assert job.history == [] and all(np.array_equal(a.weight, w) for a, w in zip(layers, before[::2], strict=True))
