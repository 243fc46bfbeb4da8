"""The oracle of members, held against the definition of a family and convolutions of torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qverify.activations.layer import Activation
from qverify.family.family import Family
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, MaxPool, Product, Relu
from qverify.network import Network
from tests.support.networks import (
    NETWORKS,
    conv_taps,
    convolve,
    inputs,
    pool_taps,
    random_radii,
    sample_member,
    sample_members,
    samples,
    unit_inputs,
)

Array = np.ndarray
CONVOLUTIONS = [name for name in NETWORKS if "conv" in name]


def by_torch(layer: Conv, weight: Array, x: Array) -> Array:
    """The sums of a convolution without its bias, (M, n_out), for inputs x (M, n_in) and one kernel."""
    top, left, bottom, right = layer.pads
    image = F.pad(torch.as_tensor(x.reshape(-1, *layer.in_shape)), (left, right, top, bottom))
    more: dict[str, Any] = {"stride": layer.strides, "dilation": layer.dilations, "groups": layer.groups}
    return (
        F.conv2d(image, torch.as_tensor(np.broadcast_to(weight, layer.weight.shape).copy()), **more).flatten(1).numpy()
    )


def sums(layer: Dense | Conv, weight: Array, bias: Array, x: Array) -> Array:
    if isinstance(layer, Dense):
        return np.asarray(x @ np.broadcast_to(weight, layer.weight.shape).T + bias)
    offsets = np.repeat(np.broadcast_to(bias, layer.bias.shape), layer.size // len(layer.bias))
    return np.asarray(by_torch(layer, weight, x) + offsets)


def excesses(family: Family, x: Array, values: list[Array]) -> tuple[float, list[Array]]:
    """By how much the members' values (M, size) break the definition of the family, layer by layer; and the share
    of its radius, at most 1, that each layer's values use."""
    worst, used = [np.abs(values[0] - x) - family.input], []
    for i, layer in enumerate(family.network.layers[1:], start=1):
        source = [values[j] for j in layer.inputs]
        if isinstance(layer, Dense | Conv):
            centre = sums(layer, layer.weight, layer.bias, source[0])
            reach = sums(layer, family.weight.get(i, np.zeros(1)), family.bias.get(i, np.zeros(1)), np.abs(source[0]))
        elif isinstance(layer, Relu):
            centre = np.maximum(source[0], 0)
            reach = np.broadcast_to(family.activation[i], centre.shape)
            worst.append(-values[i])
        elif isinstance(layer, Activation):
            # What is clipped to the range of the function is off by less.
            centre, reach = layer.curve.value(source[0]), np.broadcast_to(family.activation[i], source[0].shape)
            worst.append(np.abs(values[i] - layer.curve.limited(values[i])))
        elif isinstance(layer, MaxPool):
            layer_max = [source[0][:, taps].max(axis=1) for taps in pool_taps(layer)]
            centre, reach = np.stack(layer_max, axis=1), np.zeros(layer.size)
        elif isinstance(layer, Gather):
            whole = np.concatenate([*source, np.zeros_like(source[0])], axis=1)
            centre, reach = np.take(whole, layer.index, axis=1) + layer.fill, np.zeros(layer.size)
        elif isinstance(layer, Add):
            centre, reach = source[0] + source[1], np.zeros(layer.size)
        elif isinstance(layer, Product):
            centre, reach = source[0] * source[1], np.zeros(layer.size)
        else:
            per_channel: Any = layer
            centre, reach = source[0] * per_channel.scale + per_channel.shift, np.zeros(layer.size)
        off = np.abs(values[i] - centre)
        worst.append(off - reach)
        with np.errstate(invalid="ignore", divide="ignore"):
            used.append(np.where(reach > 1e-9, off / reach, 0.0))
    return max(float(array.max()) for array in worst), used


def setting(name: str) -> tuple[Network, Family, np.random.Generator]:
    rng = np.random.default_rng(3)
    network = NETWORKS[name](rng)
    return network, Family.of(network, random_radii(network, rng)), rng


@pytest.mark.parametrize("corner", [True, False], ids=["corner", "inside"])
@pytest.mark.parametrize("name", NETWORKS)
def test_sampled_members_lie_in_the_family(name: str, corner: bool) -> None:
    """By its definition, given the values of the layers before: |W' v + b' - (W v + b)| <= R |v| + r, and so on."""
    network, family, rng = setting(name)
    for x in inputs(network, rng):
        values = sample_members(family, x, rng, 60, corner)
        assert [v.shape for v in values] == [(60, layer.size) for layer in network.layers]
        assert excesses(family, x, values)[0] < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_corners_use_the_radii_in_full(name: str) -> None:
    network, family, rng = setting(name)
    x = inputs(network, rng)[0]
    used = excesses(family, x, sample_members(family, x, rng, 200, True))[1]
    for layer, share in zip(network.layers[1:], used, strict=True):
        if isinstance(layer, Dense) and layer.quantised:
            assert (share.max(0)[share.max(0) > 0] > 1 - 1e-9).all()


@pytest.mark.parametrize("part", ["input", "weight", "bias", "activation"])
def test_members_of_a_larger_family_are_seen(part: str) -> None:
    _, family, rng = setting("residual")
    x = inputs(family.network, rng)[0]
    values = sample_members(family, x, rng, 60, True)
    own = getattr(family, part)
    less = {i: 0.9 * r for i, r in own.items()} if isinstance(own, dict) else 0.9 * own
    assert excesses(replace(family, **{part: less}), x, values)[0] > 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_without_radii_the_only_member_is_the_network(name: str) -> None:
    network, _, rng = setting(name)
    family = Family.of(network, random_radii(network, rng, 0.0))
    for x in inputs(network, rng):
        for corner in (True, False):
            np.testing.assert_allclose(
                sample_member(family, x, rng, corner)[-1], network.evaluate(x[None])[0], atol=1e-12
            )


def test_clipped_members_stay_in_range() -> None:
    rng = np.random.default_rng(4)
    network = NETWORKS["dense"](rng)
    family = Family.of(network, random_radii(network, rng), (0.0, 1.0))
    for x in unit_inputs(network, rng):
        first = sample_members(family, x, rng, 60, True)[0]
        assert first.min() >= 0 and first.max() <= 1 and (np.abs(first - x) <= family.input + 1e-15).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_random_radii_are_radii(name: str) -> None:
    """None negative, none above the size asked for, and of the shape of what they are about."""
    kinds: set[Any] = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        network = NETWORKS[name](rng)
        radii = random_radii(network, rng, 0.25)
        stated = [(radii.input, network.input_shape)]
        for layer in network.layers:
            own = radii.layers.get(layer.name, {})
            shapes = {"activation": layer.shape}
            if isinstance(layer, Dense | Conv):
                shapes = {"weight": layer.weight.shape, "bias": layer.bias.shape}
                assert bool(own) is layer.quantised
            stated += [(radius, shapes[part]) for part, radius in own.items()]
        for radius, shape in stated:
            array = np.asarray(radius)
            assert array.shape in ((), shape[:1], shape) and array.min() >= 0 and array.max() <= 0.25
            kinds |= {"zero"} if not array.any() else {array.ndim}
    assert {"zero", 0, 1} <= kinds


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_those_of_torch(name: str) -> None:
    network, _, rng = setting(name)
    for layer in network.layers:
        if isinstance(layer, Conv):
            x = rng.normal(size=(3, int(np.prod(layer.in_shape))))
            weight, bias = (np.repeat(part[None], 3, 0) for part in (layer.weight, layer.bias))
            got = convolve(layer, weight, bias, x)
            np.testing.assert_allclose(got, sums(layer, layer.weight, layer.bias, x), atol=1e-12)
            assert len(conv_taps(layer)) == layer.size == got.shape[1]


def test_inputs_are_as_they_say(rng: np.random.Generator) -> None:
    network = NETWORKS["conv_pool"](rng)
    mixed, negative, positive, zero, _, small = inputs(network, rng)
    assert mixed.min() < 0 < mixed.max() and negative.max() < 0 < positive.min() and small.min() >= 0
    assert not zero.any()
    unit = unit_inputs(network, rng)
    assert unit.min() == 0 and unit.max() == 1 and unit.shape == (4, network.input_size)


def test_labels_are_right_but_the_last(rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    x, labels = samples(network, rng, 8)
    assert (network.evaluate(x).argmax(1) == labels).tolist() == [True] * 7 + [False]
