"""Positions between the ends of activations are those of true members, and no gradient of theirs is dead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.verification import attack
from qverify.verification.between import BetweenEnds, placed
from qverify.verification.member_pass import member_outputs
from qverify.verification.positions import Positions
from tests.support.networks import NETWORKS, inputs, random_radii


def drawn(model: BoundModel, count: int, seed: int) -> Positions:
    generator = torch.Generator().manual_seed(seed)
    middle = Positions.middle(model, count)
    return middle.map(lambda t: 2.0 * torch.rand(t.shape, generator=generator, dtype=t.dtype) - 1.0)


@pytest.mark.parametrize("name", ["dense", "conv_conv", "residual", "scaled_input", "conv_pool", "add_last"])
def test_they_are_those_of_true_members(name: str, rng: np.random.Generator) -> None:
    """A plain forward pass of the members that are placed gives what the pass between ends says."""
    network = NETWORKS[name](rng)
    x, family = inputs(network, rng), Family.of(network, random_radii(network, rng, 0.05))
    model = BoundModel.of(family)
    low, high = family.box(x)
    bounds = interval_bounds(model, model.tensor(low), model.tensor(high))
    for seed in range(5):
        positions = drawn(model, len(x), seed)
        said = BetweenEnds(model, bounds, positions).run()
        members = placed(model, bounds, positions)
        assert all(bool((t.abs() <= 1.0).all()) for t in members.named().values())
        assert torch.allclose(member_outputs(model, bounds, members), said, rtol=1e-9, atol=1e-9)


def test_a_neuron_that_is_off_is_turned_on() -> None:
    """z lies in [-1.5, 0.5] around a centre of -0.5: its true gradient is 0 there, and the member that fails turns it
    on."""
    layers = (
        Input("x", (), (1,)),
        Dense("z", (0,), (1,), np.array([[1.0]]), np.array([-1.5])),
        Relu("r", (1,), (1,)),
        Dense("y", (2,), (2,), np.array([[-1.0], [1.0]]), np.array([0.2, 0.0])),
    )
    network = Network(layers)
    family = Family.of(network, Radii(layers={"z": {"bias": 1.0}}))
    model = BoundModel.of(family)
    one = model.tensor(np.array([[1.0]]))
    bounds = interval_bounds(model, one, one)
    found = attack.attack(model, bounds, torch.tensor([0]), torch.zeros(1, 2, dtype=model.dtype))
    assert float(found.margin) < 0.0
