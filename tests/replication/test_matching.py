"""Which layers of a file stand for which of the network, and where another model departs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.errors import ModelError
from qverify.layers import Add, BatchNorm, Conv, Input, Relu, Rounding
from qverify.network import Network
from qverify.replication.matching import match
from tests.support.networks import NETWORKS, RELU_NETWORKS, conv_of, dense, mlp, relu
from tests.support.quantised import quantised, rounding


def pair(name: str, **more: Any) -> tuple[Network, Network]:
    rng = np.random.default_rng(0)
    network = NETWORKS[name](rng)
    return network, quantised(network, rng.normal(size=(30, network.input_size)), **more)


def renamed(network: Network) -> Network:
    """The same with names that say nothing."""
    return Network(tuple(replace(layer, name=f"n{i}") for i, layer in enumerate(network.layers)), source="file")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", sorted(RELU_NETWORKS))
def test_values_of_matched_layers_are_close(name: str, fused: bool) -> None:
    """At 16 bits every layer of the file gives what the layer gives that it stands for, names or none."""
    network, file = pair(name, bits=16, fused=fused)
    x = np.random.default_rng(1).normal(size=(20, network.input_size))
    x = np.clip(x, *[end[0] for end in (file.layers[1].low, file.layers[1].high)])  # type: ignore[attr-defined]
    for other in (file, renamed(file)):
        found = match(network, other)
        assert found.layers == match(network, file).layers and found.trained is network
        values, rounded = network.evaluate_all(x), other.evaluate_all(x)
        for j, i in enumerate(found.layers):
            near = abs(values[i] - rounded[j]) < 0.01
            fused_ahead = isinstance(network.layers[i], Relu) and not isinstance(other.layers[j], (Relu, Rounding))
            assert fused_ahead or near.mean() > 0.8, other.layers[j].name


def test_branches_of_equal_shape_go_by_name_and_else_by_weights() -> None:
    rng = np.random.default_rng(0)
    stem, left, right = dense(rng, "stem", 0, 4, 3), dense(rng, "left", 1, 4, 4), dense(rng, "right", 1, 4, 4)
    layers = (Input("x", (), (3,)), stem, left, right, Add("add", (2, 3), (4,)))
    network = Network(layers)
    turned = Network((*layers[:2], replace(right, name="a"), replace(left, name="b"), Add("add", (2, 3), (4,))))
    assert match(network, turned).layers == (0, 1, 3, 2, 4)
    swapped = Network((*layers[:2], replace(right, name="left"), replace(left, name="right"), Add("add", (2, 3), (4,))))
    assert match(network, swapped).layers == (0, 1, 2, 3, 4)


def folded() -> tuple[Network, Network]:
    """A convolution with a BatchNormalization folded into it, and a file that keeps the two apart."""
    rng = np.random.default_rng(0)
    before = conv_of("conv", 0, (2, 3, 3), rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3))
    norm = {
        "scale": rng.normal(size=3),
        "offset": rng.normal(size=3),
        "mean": rng.normal(size=3),
        "deviation": rng.random(3) + 1,
    }
    factor = norm["scale"] / norm["deviation"]
    weight = before.weight * factor[:, None, None, None]
    shift = norm["offset"] - norm["mean"] * factor
    whole = replace(before, weight=weight, bias=factor * before.bias + shift)
    x = Input("x", (), (2, 3, 3))
    network = Network((x, whole, relu("relu", 1, whole)), batchnorms=(BatchNorm("bn", "conv", before, **norm),))
    values = np.random.default_rng(1).normal(size=(50, 12))
    point = rounding("conv.q", 1, before.shape, values, 16)
    normed = Conv(
        "bn", (2,), before.shape, weight=factor.reshape(-1, 1, 1, 1), bias=shift, in_shape=(3, 2, 2), groups=3
    )
    last = Rounding.on_grid("bn.q", 3, before.shape, 0.001, (0, 65535))
    return network, Network((x, before, point, normed, last), source="file")


def test_a_batchnormalization_is_taken_apart_where_the_file_has_it() -> None:
    network, file = folded()
    found = match(network, file)
    assert [layer.name for layer in found.trained.layers] == ["x", "conv/before bn", "conv", "relu"]
    assert found.layers == (0, 1, 1, 2, 3)
    x = np.random.default_rng(2).normal(size=(5, 18))
    assert found.trained.evaluate(x) == pytest.approx(network.evaluate(x))
    plain = Network((*file.layers[:1], network.layers[1], *[rounding("q", 1, (3, 2, 2), x, 8)]))
    with pytest.raises(ModelError, match="ends without Relu 'relu'"):
        match(network, plain)


def test_a_file_of_another_model_departs_at_a_layer() -> None:
    rng = np.random.default_rng(0)
    network = mlp(rng, 4, 7, 5, 3)
    x = rng.normal(size=(10, 4))
    others: list[tuple[Network, str]] = [
        (mlp(rng, 5, 7, 5, 3), r"it reads \(5,\) and the network \(4,\)"),
        (mlp(rng, 4, 7, 6, 3), r"behind 'relu0' it has Dense 'fc1' 6 x 7, and the network has Dense 'fc1' 5 x 7"),
        (mlp(rng, 4, 7, 5), r"it ends without"),
        (mlp(rng, 4, 7, 5, 3, 3), r"behind 'fc2' it has Dense 'fc3' 3 x 3, and the network has nothing"),
    ]
    for other, why in others:
        file = quantised(other, rng.normal(size=(10, other.input_size)))
        with pytest.raises(
            ModelError, match=rf"^file is no integer file of mlp: .*{why}.*; give the file that was made"
        ):
            match(network, file)
    without = list(quantised(network, x, fused=False).layers)
    i = next(i for i, layer in enumerate(without) if isinstance(layer, Relu))
    kept: list[Any] = [
        replace(la, inputs=tuple(s - (s >= i) for s in la.inputs)) for la in without[:i] + without[i + 1 :]
    ]
    kept[i] = replace(kept[i], low=-kept[i].high)  # else it is the Relu itself
    with pytest.raises(ModelError, match="it has Dense 'fc1' 5 x 7, and the network has Relu 'relu0' 7"):
        match(network, Network(tuple(kept), source="file"))
