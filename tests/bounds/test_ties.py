"""What ties leave open, against all runtimes of tiny files enumerated in rational numbers."""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from qverify import choices
from qverify.bounds import ties as module
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.bounds.ties import enumerable, ties
from qverify.budget import Deadline
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.layers import Relu
from qverify.network import Network
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.bounds import box_ends
from tests.support.networks import dense
from tests.support.tiny_files import all_outputs, radii_of, tiny_file

Array = np.ndarray


def bounds_at(family: Family, x: Array) -> tuple[BoundModel, Bounds]:
    model = BoundModel.of(family)
    return model, interval_bounds(model, *box_ends(model, family.box(x)))


@pytest.mark.parametrize("residual", [False, True], ids=["chain", "residual"])
@pytest.mark.parametrize("seed", range(8))
def test_what_all_runtimes_do_is_decided(seed: int, residual: bool) -> None:
    rng = np.random.default_rng(seed)
    network = tiny_file(rng, residual, relu=seed % 2 == 0)
    radii, x = radii_of(network, 0.05), rng.uniform(-1, 1, (8, 3))
    family = Family.of(network, radii)
    labels = network.evaluate(x).argmax(1)
    model, bounds = bounds_at(family, x)
    assert enumerable(model)
    found = ties(model, bounds, torch.tensor(labels), Deadline())
    verdicts = verify(network, x, labels, radii, Options(jobs=1))
    for i, label in enumerate(labels):
        every = all_outputs(family.network, family, x[i])
        truth = min(out[label] - out[j] for out in every for j in range(3) if j != label)
        proved = float(found.margins[i].min())
        assert proved <= truth and (proved > 0) == (truth > 0)
        if truth > 0:
            assert i not in found.leaves
        else:
            leaf = tuple(Fraction(v) for v in found.leaves[i][-1].tolist())
            assert leaf in every and min(leaf[label] - leaf[j] for j in range(3) if j != label) <= 0
        wrong = Status.MISCLASSIFIED if verdicts[i].method == "forward" else Status.FALSIFIED
        assert verdicts[i].status is (Status.VERIFIED if truth > 0 else wrong)
        recipe = verdicts[i].recipe
        if recipe is not None:
            witness = recipe.witness()
            own = family.with_activation(bounds.sample(i).activation)
            assert membership(own, witness.network, x[i], witness.input) == []


def test_intervals_alone_leave_some_of_these_open() -> None:
    """Else nothing is tried above: of samples that all runtimes answer right, some need the enumeration."""
    needed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = tiny_file(rng, False, relu=seed % 2 == 0)
        x = rng.uniform(-1, 1, (60, 3))
        labels = torch.tensor(network.evaluate(x).argmax(1))
        model, bounds = bounds_at(Family.of(network, radii_of(network, 0.05)), x)
        proved = (ties(model, bounds, labels, Deadline()).margins > 0).all(1)
        needed += int((proved & (interval_margins(model, bounds, labels) <= 0).any(1)).sum())
    assert needed >= 5


def test_too_many_nodes_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_FEWEST", 1)
    rng = np.random.default_rng(0)
    network = tiny_file(rng)
    x = rng.uniform(-1, 1, (8, 3))
    labels = torch.tensor(network.evaluate(x).argmax(1))
    model, bounds = bounds_at(Family.of(network, radii_of(network, 0.3)), x)
    found, open_ = ties(model, bounds, labels, Deadline()), (interval_margins(model, bounds, labels) <= 0).any(1)
    assert open_.any() and torch.isneginf(found.margins[open_]).all() and not found.leaves
    late = ties(model, bounds, labels, Deadline.after(0.0, threading.Event()))
    assert torch.isneginf(late.margins).all()


def test_only_files_are_enumerated(rng: np.random.Generator) -> None:
    network = tiny_file(rng)
    assert "ties" in choices.STAGES
    plain = Network((network.layers[0], dense(rng, "fc", 0, 3, 3), Relu("relu", (1,), (3,))), "net")
    for radii in (radii_of(network, 0.1), radii_of(network, 0.1).scaled(2.0)):
        assert enumerable(BoundModel.of(Family.of(network, radii)))
        assert not enumerable(BoundModel.of(Family.of(network, replace(radii, weight=0.01))))
    for radii in (Radii(weight=0.01), Radii(activation=0.01), Radii()):
        assert not enumerable(BoundModel.of(Family.of(plain, radii)))
