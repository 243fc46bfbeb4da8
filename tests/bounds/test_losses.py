"""Where bounds lose: at the layer that is the only one to lose anything, by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qverify.bounds.losses import loosest, told
from qverify.bounds.refinement import tightened_bounds
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options


def network(first: float, second: float) -> Network:
    """Two hidden layers of two, whose neurons lie around `first` and `second`."""
    turn = np.array([[1.0, 1.0], [1.0, -1.0]])
    layers = (
        Input("x", (), (2,)),
        Dense("fc0", (0,), (2,), weight=turn, bias=np.full(2, first)),
        Relu("relu0", (1,), (2,)),
        Dense("fc1", (2,), (2,), weight=turn, bias=np.array([second - 2.0 * max(first, 0.0), second])),
        Relu("relu1", (3,), (2,)),
        Dense("fc2", (4,), (2,), weight=-turn, bias=np.zeros(2)),
    )
    return Network(layers, source="made")


@pytest.mark.parametrize(("first", "second", "layer"), [(0.0, 9.0, "relu0"), (9.0, 0.0, "relu1"), (9.0, 9.0, "")])
def test_the_layer_that_alone_loses_is_named(first: float, second: float, layer: str) -> None:
    setup = Setup(network(first, second), Radii(input=0.5), Options(jobs=1))
    bounds = tightened_bounds(setup.model, setup.intervals(np.zeros((1, 2))))
    for label in (0, 1):
        lower = torch.full((1, 2), -1.0, dtype=torch.float64)
        lower[0, label] = torch.inf
        (found,) = loosest(setup.model, bounds, torch.tensor([label]), lower)
        assert found in (layer, "") and (found or label or not layer)
    assert told("time limit", found).startswith("time limit")


def test_nothing_is_said_where_nothing_is_lost() -> None:
    assert told("time limit", "") == "time limit" and told("", "relu0") == ""
    assert told("time limit", "relu0") == "time limit; bounds lose most at 'relu0'"
