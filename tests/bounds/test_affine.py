"""Linear maps of layers as tensors, against sums over taps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qverify.bounds.affine import Affine
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense
from tests.support.networks import NETWORKS, conv_taps, mlp, random_radii


def matrix(layer: Dense | Conv, kernel: np.ndarray) -> np.ndarray:
    """The layer's map with another kernel, (n_out, n_in), entry by entry."""
    if isinstance(layer, Dense):
        return kernel
    found = np.zeros((layer.size, int(np.prod(layer.in_shape))))
    for number, pairs in enumerate(conv_taps(layer)):
        channel = number // (layer.size // len(layer.bias))
        for source, (_, k, i, j) in pairs:
            found[number, source] += kernel[channel, k, i, j]
    return found


def affine_layers(name: str, rng: np.random.Generator) -> list[Affine]:
    network = NETWORKS[name](rng)
    model = BoundModel.of(Family.of(network, random_radii(network, rng)))
    return list(model.affine.values())


@pytest.mark.parametrize("name", ["dense", "conv_attributes", "conv_conv", "conv_pool"])
def test_a_layer_is_its_matrix(name: str, rng: np.random.Generator) -> None:
    for affine in affine_layers(name, rng):
        kernel = rng.normal(size=affine.weight.shape)
        full = matrix(affine.layer, kernel)
        x, rows = rng.normal(size=(3, full.shape[1])), rng.normal(size=(2, 4, full.shape[0]))
        tensor = torch.as_tensor(kernel)
        np.testing.assert_allclose(affine.apply(tensor, torch.as_tensor(x)), x @ full.T, atol=1e-12)
        np.testing.assert_allclose(affine.transpose(tensor, torch.as_tensor(rows)), rows @ full, atol=1e-12)
        radius = matrix(affine.layer, affine.radius.numpy())
        found = affine.transpose_radius(torch.as_tensor(rows).abs()).expand(2, 4, full.shape[1])
        np.testing.assert_allclose(found, abs(rows) @ radius, atol=1e-12)
        whole = affine.weight.abs() + affine.radius  # padding counts as well: an allowance may be too large
        assert (affine.mass.numpy() >= matrix(affine.layer, whole.numpy()).sum(1) - 1e-12).all()


@pytest.mark.parametrize("name", ["conv_attributes", "conv_conv"])
def test_patches_and_their_adjoint(name: str, rng: np.random.Generator) -> None:
    """<patches(x), c> = <x, scatter(c)> for all x and c; and a kernel on patches is the layer."""
    for affine in affine_layers(name, rng):
        layer = affine.layer
        if not isinstance(layer, Conv):
            continue
        x = torch.as_tensor(rng.normal(size=(2, int(np.prod(layer.in_shape)))))
        patches = affine.patches(x)
        assert patches[0].numel() == affine.unfolded
        columns = torch.as_tensor(rng.normal(size=(2, layer.groups, layer.fan_in, layer.positions)))
        left = (patches * columns.transpose(2, 3)).sum((1, 2, 3))
        np.testing.assert_allclose(left, (x * affine.scatter(columns)).sum(1), atol=1e-12)
        kernel = affine.weight.reshape(layer.groups, -1, layer.fan_in)
        outputs = torch.einsum("ngpk,gck->ngcp", patches, kernel).reshape(2, -1)
        np.testing.assert_allclose(outputs, affine.apply(affine.weight, x), atol=1e-12)


def test_rows_that_are_even_and_layers_that_are_exact(rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 5, 3)
    per_row = Radii(layers={"fc0": {"weight": np.arange(5.0)}})
    first, second = BoundModel.of(Family.of(network, per_row)).affine.values()
    assert first.even_rows and not first.exact and second.exact and not first.shares_kernel
    uneven = Radii(layers={"fc0": {"weight": rng.random((5, 4))}})
    assert not BoundModel.of(Family.of(network, uneven)).affine[1].even_rows


def test_a_kernel_without_a_layer_of_its_own_keeps_the_geometry(rng: np.random.Generator) -> None:
    (affine,) = [a for a in affine_layers("conv_attributes", rng) if isinstance(a.layer, Conv)][:1]
    other = Affine(
        layer=affine.layer,
        weight=2 * affine.weight,
        radius=affine.radius,
        bias=affine.bias,
        bias_radius=affine.bias_radius,
    )
    x = torch.as_tensor(rng.normal(size=(2, int(np.prod(affine.layer.in_shape)))))  # type: ignore[union-attr]
    np.testing.assert_allclose(other.apply(other.weight, x), 2 * affine.apply(affine.weight, x), atol=1e-12)
    channel = torch.arange(len(affine.bias))
    assert affine.spread(channel).reshape(len(channel), -1).eq(channel[:, None]).all()
