"""Small float models with activations other than Relu, products of branches and gates, for the quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.support.toolchain import Array, model

ACTIVATIONS: dict[str, list[tuple[str, str, str, dict[str, Any]]]] = {
    "LeakyRelu": [("LeakyRelu", "z", "a", {"alpha": 0.1})],
    "PRelu": [("PRelu", "z slope", "a", {})],
    "Sigmoid": [("Sigmoid", "z", "a", {})],
    "Tanh": [("Tanh", "z", "a", {})],
    "Elu": [("Elu", "z", "a", {"alpha": 0.8})],
    "Softplus": [("Softplus", "z", "a", {})],
    "HardSigmoid": [("HardSigmoid", "z", "a", {"alpha": 0.25, "beta": 0.4})],
    "HardSwish": [("HardSwish", "z", "a", {})],
    "hard swish": [("HardSigmoid", "z", "h", {"alpha": 1 / 6, "beta": 0.5}), ("Mul", "z h", "a", {})],
    "silu": [("Sigmoid", "z", "h", {}), ("Mul", "z h", "a", {})],
    "gelu": [
        ("Div", "z root", "h1", {}),
        ("Erf", "h1", "h2", {}),
        ("Add", "h2 one", "h3", {}),
        ("Mul", "z h3", "h4", {}),
        ("Mul", "h4 half", "a", {}),
    ],
    "clip": [("Clip", "z low high", "a", {})],
    "mish": [("Softplus", "z", "h1", {}), ("Tanh", "h1", "h2", {}), ("Mul", "z h2", "a", {})],
}
CONSTANTS = {"slope": 0.2, "root": np.sqrt(2.0), "one": 1.0, "half": 0.5, "low": -0.5, "high": 1.0}


def nodes_of(name: str, source: str, out: str) -> list[onnx.NodeProto]:
    """The nodes of an activation, from `source` to `out`."""
    own = {"z": source, "a": out}
    made = []
    for number, (kind, inputs, output, attributes) in enumerate(ACTIVATIONS[name]):
        names = [own.get(n, n if n in CONSTANTS else f"{out}_{n}") for n in inputs.split()]
        end = own.get(output, f"{out}_{output}")
        made.append(helper.make_node(kind, names, [end], name=f"{out}_{kind.lower()}{number}", **attributes))
    return made


def constants_of(*names: str) -> dict[str, Any]:
    used = {n for name in names for _, inputs, _, _ in ACTIVATIONS[name] for n in inputs.split()}
    return {n: CONSTANTS[n] for n in CONSTANTS if n in used}


def _numbers(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1))


def dense(
    rng: np.random.Generator, names: list[str], width: int = 6, entry: int = 4, classes: int = 3
) -> onnx.ModelProto:
    """Gemm, activation, Gemm, activation, ..., Gemm."""
    nodes, source, before = [], "x", entry
    constants = constants_of(*names)
    for k, name in enumerate(names, start=1):
        nodes.append(helper.make_node("Gemm", [source, f"W{k}", f"b{k}"], [f"z{k}"], name=f"fc{k}", transB=1))
        nodes += nodes_of(name, f"z{k}", f"a{k}")
        constants |= {f"W{k}": 2.0 * _numbers(rng, width, before), f"b{k}": 0.3 * rng.normal(size=width)}
        source, before = f"a{k}", width
    nodes.append(helper.make_node("Gemm", [source, "W", "b"], ["y"], name="fc", transB=1))
    constants |= {"W": 2.0 * _numbers(rng, classes, before), "b": 0.3 * rng.normal(size=classes)}
    return model(nodes, constants, (entry,), classes)


def gated(rng: np.random.Generator, name: str, gate: str = "Sigmoid") -> onnx.ModelProto:
    """A convolution and its activation, a squeeze-and-excite gate on it, and a dense layer."""
    nodes = [helper.make_node("Conv", ["x", "K1", "k1"], ["c1"], name="conv1", pads=[1, 1, 1, 1])]
    nodes += nodes_of(name, "c1", "r1")
    nodes += [
        helper.make_node("GlobalAveragePool", ["r1"], ["g"], name="mean"),
        helper.make_node("Conv", ["g", "K2", "k2"], ["c2"], name="conv2"),
        *nodes_of(gate, "c2", "s2"),
        helper.make_node("Mul", ["r1", "s2"], ["m"], name="gated"),
        helper.make_node("Flatten", ["m"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "W", "b"], ["y"], name="fc", transB=1),
    ]
    constants = {
        "K1": 2.0 * _numbers(rng, 3, 2, 3, 3),
        "k1": 0.3 * rng.normal(size=3),
        "K2": 2.0 * _numbers(rng, 3, 3, 1, 1),
        "k2": 0.3 * rng.normal(size=3),
        "W": 3.0 * _numbers(rng, 4, 48),
        "b": 0.3 * rng.normal(size=4),
    }
    return model(nodes, constants | constants_of(name, gate), (2, 4, 4), 4)
