"""Positions of members as tensors: the structure survives whatever is done to them, tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.verification.member_pass import member_outputs
from qverify.verification.positions import Positions
from tests.support.networks import NETWORKS, inputs, random_radii


@pytest.fixture(params=["dense", "conv_conv", "residual", "scaled_input"])
def model(request: pytest.FixtureRequest, rng: np.random.Generator) -> BoundModel:
    network = NETWORKS[request.param](rng)
    return BoundModel.of(Family.of(network, random_radii(network, rng)))


def drawn(model: BoundModel, count: int, seed: int) -> Positions:
    generator = torch.Generator().manual_seed(seed)
    middle = Positions.middle(model, count)
    return middle.map(lambda t: 2.0 * torch.rand(t.shape, generator=generator, dtype=t.dtype) - 1.0)


def same(a: Positions, b: Positions) -> bool:
    first, second = a.named(), b.named()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_every_quantised_tensor_has_its_place(model: BoundModel) -> None:
    named, network = drawn(model, 3, 1).named(), model.network
    assert named["entry", 0].shape == (3, network.input_size)
    assert {i for name, i in named if name in ("neuron", "kernel")} == set(network.weighted)
    assert {i for name, i in named if name == "offset"} == set(network.relus)
    assert all(t.shape[0] == 3 for t in named.values())
    for (name, i), t in named.items():
        shape = (
            {"kernel": model.affine[i].weight.shape, "bias": model.affine[i].bias.shape} if i in model.affine else {}
        )
        assert t.shape[1:] == shape.get(name, (network.layers[i].size,))


def test_names_and_back(model: BoundModel) -> None:
    positions = drawn(model, 4, 2)
    assert same(Positions.of_named(positions.named()), positions)


def test_zip_map_meets_tensors_of_one_place(model: BoundModel) -> None:
    a, b, c = (drawn(model, 4, seed) for seed in (1, 2, 3))
    found = a.zip_map(lambda x, y, z: x + 2 * y - z, b, c)
    for key, tensor in found.named().items():
        assert torch.equal(tensor, a.named()[key] + 2 * b.named()[key] - c.named()[key])
    reordered = Positions.of_named(dict(reversed(list(b.named().items()))))  # the order of layers does not matter
    assert same(a.zip_map(torch.minimum, reordered), a.zip_map(torch.minimum, b))


def test_parts_in_a_row_are_the_whole(model: BoundModel) -> None:
    whole = drawn(model, 7, 3)
    assert same(Positions.concatenate([whole.take(slice(0, 3)), whole.take(slice(3, 7))]), whole)
    chosen = torch.tensor([5, 0, 2])
    assert same(whole.take(chosen).take(slice(1, 2)), whole.take(slice(0, 1)))


def test_signs_of_the_gradient_by_finite_differences(model: BoundModel, rng: np.random.Generator) -> None:
    """And 0 for tensors that the scalar does not depend on."""
    network = model.network
    x = inputs(network, rng)[:2]
    radius = torch.full((2, network.input_size), 0.1, dtype=torch.float64)
    bounds = interval_bounds(model, model.tensor(x) - radius, model.tensor(x) + radius)
    positions = drawn(model, 2, 4).map(lambda t: (0.5 * t).requires_grad_(True))
    weights = torch.as_tensor(rng.normal(size=(2, network.output_size)))

    def value(at: Positions) -> torch.Tensor:
        return (member_outputs(model, bounds, at) * weights).sum()

    signs = positions.gradient_signs(value(positions)).named()
    checked = 0
    for key, tensor in positions.named().items():
        for place in np.ndindex(*tensor.shape):
            moved = {k: t.detach().clone() for k, t in positions.named().items()}
            moved[key][place] += 1e-6
            up = float(value(Positions.of_named(moved)))
            moved[key][place] -= 2e-6
            slope = (up - float(value(Positions.of_named(moved)))) / 2e-6
            if abs(slope) > 1e-4:
                assert signs[key][place] == np.sign(slope), (key, place)
                checked += 1
    assert checked > 20
    alone = positions.gradient_signs(positions.entry.sum()).named()
    assert all(bool((t == (1.0 if key == ("entry", 0) else 0.0)).all()) for key, t in alone.items())


def test_a_step_stays_in_the_family(model: BoundModel) -> None:
    positions, signs = drawn(model, 3, 5), drawn(model, 3, 6).map(torch.sign)
    moved = positions.moved(0.7, signs)
    for key, tensor in moved.named().items():
        expected = np.clip(positions.named()[key].numpy() - 0.7 * signs.named()[key].numpy(), -1, 1)
        np.testing.assert_array_equal(tensor.numpy(), expected)


def test_a_member_goes_to_numpy_and_comes_back(model: BoundModel, rng: np.random.Generator) -> None:
    x = inputs(model.network, rng)[:3]
    bounds = interval_bounds(model, model.tensor(x) - 0.1, model.tensor(x) + 0.1)
    positions = drawn(model, 3, 7)
    low, high = bounds.lower[0][1], bounds.upper[0][1]
    x_hat = (low + 0.5 * (positions.entry[1] + 1.0) * (high - low)).numpy()
    again = Positions.of(model, positions.choice(1), x_hat, bounds.take(slice(1, 2)))
    for key, tensor in again.named().items():
        np.testing.assert_allclose(tensor[0], positions.named()[key][1], atol=1e-12)
