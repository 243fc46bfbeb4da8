"""The hash of a network: pairs that differ in one attribute only, for every attribute of every layer type."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from qverify.activations.layer import Activation
from qverify.errors import InternalError
from qverify.fingerprint import encoding, fingerprint
from qverify.gather import Gather
from qverify.layers import (
    Add,
    BatchNorm,
    Conv,
    Dense,
    DynamicRounding,
    Input,
    Layer,
    MaxPool,
    Product,
    Relu,
    Rounding,
    Scale,
)
from qverify.network import Network
from qverify.parts import Part
from tests.support.networks import conv, dense, known_layers, mlp, scale

RNG = np.random.default_rng(3)
ZEROS = np.zeros((2, 1, 2, 1))
EXAMPLES: dict[type[Layer], Any] = {
    Input: Input("x", (), (4, 6)),
    Dense: dense(RNG, "d", 0, 4, 4),
    Conv: conv(RNG, "c", 0, (2, 4, 6), (2, 1, 2, 2), groups=2),
    Scale: scale(RNG, "s", 0, 4),
    Relu: Relu("r", (0,), (4,), offset=np.zeros(4)),
    Add: Add("a", (0, 1), (4,)),
    Product: Product("p", (0, 1), (4,)),
    Activation: Activation(
        "f", (0,), (4,), function="clip", parameters=(np.zeros(4), np.ones(4)), offset=np.full(4, 0.25)
    ),
    MaxPool: MaxPool("m", (0,), (2, 2, 3), (2, 4, 6), (2, 2), (2, 2)),
    Gather: Gather("g", (0, 1), (4,), index=np.array([3, -1, 0, 2]), fill=np.array([0.0, 1.0, 0.0, 0.0])),
    DynamicRounding: DynamicRounding("q", (0,), (4,)),
    Rounding: Rounding(
        *("q", (0,), (4,)),
        step=np.full(4, 0.5),
        low=np.full(4, -1.0),
        high=np.full(4, 2.0),
        dead=np.zeros(4),
        offset=np.zeros(4),
    ),
}
OTHER: dict[str, Any] = {
    "name": "other",
    "inputs": (2, 3),
    "strides": (1, 2),
    "dilations": (2, 1),
    "pads": (0, 1, 0, 0),
    "groups": 1,
    "has_bias": False,
    "quantised": False,
    "offset": None,
    "grid": np.ones((1, 1)),
    "parts": (Part("a", (1,)), Part("b", (2,))),
    "kernel": True,
    "function": "hard_sigmoid",
}


def changed(layer: Any, name: str) -> list[Any]:
    """Values of this field that are near the one it has, each another one."""
    value = getattr(layer, name)
    if isinstance(value, np.ndarray):
        moved = value.copy()
        last = moved.reshape(-1)[-1]
        moved.reshape(-1)[-1] = np.nextafter(last, 9.0) if moved.dtype.kind == "f" else last + 1
        other = np.int64 if moved.dtype.kind == "f" else np.float64
        return [moved, moved[::-1].copy(), value.reshape(1, *value.shape), value.view(other)]
    if name == "parameters":
        return [value[::-1], value[:1], (value[0] + 0.5, value[1])]
    if name in ("shape", "in_shape"):
        return [shape for shape in ((*value, 1), value[:-1], value[::-1]) if shape != value]
    return [OTHER[name]]


def differing(kind: type[Layer]) -> list[tuple[str, Any]]:
    return [(field.name, value) for field in fields(kind) for value in changed(EXAMPLES[kind], field.name)]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_attribute_counts(kind: type[Any]) -> None:
    """Set past the checks of the constructor: what could never be built must not collide either."""
    layer = EXAMPLES[kind]
    found = {encoding(layer)}
    cases = differing(kind)
    for name, value in cases:
        other = replace(layer)
        object.__setattr__(other, name, value)
        found.add(encoding(other))
        assert encoding(other, (name,)) == encoding(layer, (name,))
    assert len(found) == 1 + len(cases)
    assert encoding(replace(layer)) == encoding(layer)


def test_the_examples_are_all_layer_types() -> None:
    own = {kind for kind in Layer.__subclasses__() if kind.__module__.startswith("qverify.")}
    assert set(EXAMPLES) == own


def image(kernel: tuple[int, int]) -> Network:
    """Kernels (2, 1) and (1, 2) of the same numbers give the same output shape here, with stride 2 and pad 1."""
    first = Conv("c", (0,), (1, 3, 3), np.ones((1, 1, *kernel)), np.zeros(1), (1, 4, 4), (2, 2), (1, 1, 1, 1))
    return Network((Input("x", (), (1, 4, 4)), first, Relu("r", (1,), (1, 3, 3)), dense(RNG, "d", 2, 2, 9)))


def test_the_shape_of_a_kernel_counts() -> None:
    last = image((2, 1)).layers[3]
    prints = {fingerprint(image(kernel).with_layers({3: last})) for kernel in ((2, 1), (1, 2))}
    assert len(prints) == 2


def test_all_of_a_network_counts_but_what_is_for_people(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    norm = BatchNorm("n", "fc0", known_layers(network)[1], np.ones(4), np.zeros(4), np.zeros(4), np.ones(4))
    others = [
        replace(network, added_biases=("fc0",)),
        replace(network, oddities=(("fc0", "why"),)),
        replace(network, composed=("fc0",)),
        replace(network, batchnorms=(norm,)),
        replace(network, batchnorms=(replace(norm, before=None),)),
        replace(network, batchnorms=(replace(norm, mean=np.full(4, 5e-324)),)),
        mlp(rng, 3, 4, 2),
    ]
    assert len({fingerprint(n) for n in (network, *others)}) == 1 + len(others)
    assert fingerprint(replace(network, source="elsewhere", notes=("a note",))) == fingerprint(network)
    assert {field.name for field in fields(Network)} == {
        "layers", "source", "notes", "added_biases", "batchnorms", "oddities", "composed"
    }  # fmt: skip


def test_what_cannot_be_encoded_is_no_hash(rng: np.random.Generator) -> None:
    layer = replace(mlp(rng, 2, 2).layers[1])
    object.__setattr__(layer, "name", object())
    with pytest.raises(InternalError, match="has no encoding"):
        encoding(layer)
