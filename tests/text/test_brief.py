"""`repr` of whatever holds arrays, networks or modules is short: it ends in logs, notebooks and tracebacks."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qverify
from qverify import datasets
from qverify.analysis.layers import single_layers
from qverify.analysis.sweeps import by_bits
from qverify.family.family import Family
from qverify.family.steps import Quantiser
from qverify.layers import Add, Conv, Dense, Input, Relu, Scale
from qverify.network import Network
from qverify.runs.given import Given
from qverify.runs.problem import FamilyProblem
from qverify.text.brief import Brief
from qverify.training.live_family import RangeFamily, live_family
from qverify.training.live_network import LiveNetwork
from qverify.training.loop import Training
from qverify.training.settings import Settings
from qverify.verification.setup import Setup
from qverify.workers.tasks import Setting
from tests.support.paths import DIGITS

MOST = 500
LARGE = re.compile(
    r"\b(Array|Tensor|ndarray|Network|Layer|Family|Samples|Module|BatchNorm|NodeProto|Mapping|dict|list)\b"
)
SMALL = {"Given", "TrainGiven", "Download", "Files", "Operator", "Refusals", "Tensor", "Function"}
"""Dataclasses with such words in their fields that stay small: what a user typed, sentences, shapes."""


def dataclasses_of_qverify() -> Iterator[type[Any]]:
    for module in pkgutil.walk_packages(qverify.__path__, "qverify."):
        for one in vars(importlib.import_module(module.name)).values():
            if isinstance(one, type) and dataclasses.is_dataclass(one) and one.__module__ == module.name:
                yield one


def test_every_dataclass_that_may_be_large_has_a_brief_repr() -> None:
    found = list(dataclasses_of_qverify())
    large = [one for one in found if LARGE.search(" ".join(str(field.type) for field in dataclasses.fields(one)))]
    assert len(found) > 80 and len(large) > 40
    assert [one.__name__ for one in large if one.__repr__ is not Brief.__repr__ and one.__name__ not in SMALL] == []  # type: ignore[comparison-overlap]
    assert [one.__name__ for one in found if issubclass(one, Brief) and one.__repr__ is not Brief.__repr__] == []


@pytest.fixture(scope="module")
def objects() -> Any:
    network, samples = qverify.load(DIGITS), datasets.load("digits")
    radii = qverify.Radii.from_bits(6, "channel", network=network, calibration=samples.x)
    verdicts = qverify.verify(network, samples.x[:12], samples.y[:12], qverify.Radii.from_bits(6))
    (falsified, *_) = [verdict for verdict in verdicts if verdict.status is qverify.Status.FALSIFIED]
    options = qverify.Options(method="bp")
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    training = Training.of(module, (8, 8), Quantiser(8), Settings(epochs=1, batch_size=100))
    training.run(datasets.load_train("digits"))
    live = LiveNetwork.trace(module, (8, 8))
    setup = Setup(network, radii, options)
    bounds = setup.intervals(samples.x[:2].reshape(2, -1))
    problem = FamilyProblem.of(Given(model=DIGITS, data="digits", bits=6), network, samples)
    ones = np.ones(4)
    layers = [
        Input("i", (), (1, 2, 2)),
        Conv("c", (0,), (4, 2, 2), np.ones((4, 1, 3, 3)), ones, (1, 2, 2), pads=(1, 1, 1, 1)),
        Scale("s", (1,), (4, 2, 2), np.ones(16), np.ones(16)),
        Relu("r", (2,), (4, 2, 2), np.ones(16)),
        Add("a", (2, 3), (4, 2, 2)),
        Dense("d", (4,), (3,), np.ones((3, 16)), np.ones(3)),
    ]
    large = Network(tuple(layers), "x" * 5000, ("a note",) * 2000)
    return [
        *[verdicts, falsified, falsified.recipe, falsified.recipe.choice, falsified.witness(), options],  # type: ignore[union-attr]
        *[network, *network.layers, large, *layers, samples, radii, radii.kernel, *radii.kernel.layers],  # type: ignore[union-attr]
        *[setup.family, setup.model, bounds, problem, single_layers(network, radii)[0], by_bits([6])[0]],
        *[training, live, live_family(live, Quantiser(8, "channel")), Setting(radii, options), Quantiser(8)],
        *qverify.worst_case_discrepancy(network, samples.x[:1], radii),
        Family.of(network, radii),
    ]


def test_real_objects_are_short(objects: Any) -> None:
    verdicts, *others = objects
    assert len(repr(verdicts)) < MOST * len(verdicts)
    kinds = {type(one).__name__ for one in others}
    named = {"Verdict", "Witness", "Recipe", "Network", "Radii", "Family", "Samples", "Training", "FamilyProblem"}
    assert named <= kinds
    assert any(isinstance(one, RangeFamily) for one in others)
    for one in others:
        text = repr(one)
        assert len(text) < MOST and "\n" not in text, text
        assert text.startswith(f"{type(one).__name__}("), text


def test_what_is_shown(objects: Any) -> None:
    shown = {type(one).__name__: repr(one) for one in objects[1:]}
    assert "x=ndarray (599, 8, 8) float64" in shown["Samples"] and "y=ndarray (599,) int64" in shown["Samples"]
    assert "status=Status.FALSIFIED, margin_lower=-" in shown["Verdict"] and "recipe=Recipe(...)" in shown["Verdict"]
    assert "weight=ndarray (3, 16) float64" in shown["Dense"] and "name='d'" in shown["Dense"]
    assert "module=Sequential(...)" in shown["LiveNetwork"]


def test_an_object_that_is_half_made_and_one_full_of_text_have_a_repr() -> None:
    half = object.__new__(Network)
    assert repr(half).startswith("Network(layers=None, ")
    radii = qverify.Radii(torch.ones(3, 4), np.float32(2.5), layers={"a": {"weight": 1}}, convention="é\x1b[31m" * 999)
    text = repr(radii)
    assert "input=Tensor (3, 4) torch.float32, weight=" in text and "2.5" in text
    assert len(text) < MOST and text.isprintable() and "layers=dict of 1" in text
