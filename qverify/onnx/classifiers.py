"""ONNX operators around classifiers: what scales their inputs, and what makes a label or a map of their scores.

As in `operators.py`: a function consumes all of its node or raises `Refusal`. A label is what the largest score says,
so nothing is left of the nodes that make it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from qverify.layers import Scale
from qverify.onnx.graph import Logits, NetworkBuilder, Node, Refusal, Tensor, Value


def argmax(node: Node, builder: NetworkBuilder) -> Value:
    """An ArgMax over all outputs, dropped where nothing but other shapes and types follow."""
    x = node.view(0)
    axis = node.axis(node.attributes.get("axis", 0), len(x.shape))
    if x.shape[axis] != x.size:
        raise Refusal(f"ArgMax over axis {axis} of shape {x.shape}; supported is one over all outputs")
    if node.attributes.get("select_last_index", 0):
        raise Refusal("it takes the last of equal outputs; qverify, as most runtimes, takes the first")
    builder.notes.append(f"{node.name}: ArgMax dropped; outputs are the scores of the classes.")
    return _scores(node, x, label=True)


def class_names(node: Node, builder: NetworkBuilder) -> Value:
    """An ArrayFeatureExtractor: the names of classes, by the number of one."""
    x = node.view(1)
    if x.logits is None or not x.logits.label:
        raise Refusal("it picks entries by a computed index; supported is the class that an ArgMax gives")
    return x


def zip_map(node: Node, builder: NetworkBuilder) -> Value:
    """A ZipMap: the scores under the names of their classes."""
    x = node.view(0)
    if len(x.shape) != 2 or prod(x.shape[:1]) != 1:
        raise Refusal(f"its input has shape {x.shape} at batch 1; supported is (1, classes)")
    return _scores(node, x)


def scaler(node: Node, builder: NetworkBuilder) -> Value:
    """A Scaler: `(x - offset) scale`, one number each or one a feature."""
    x = node.tensor(0)
    offset, scale = (
        np.asarray(node.attributes.get(name, [default]), dtype=np.float64)
        for name, default in (("offset", 0.0), ("scale", 1.0))
    )
    features = x.shape[-1]
    if {len(offset), len(scale)} - {1, features}:
        raise Refusal(f"offset and scale have {len(offset)} and {len(scale)} entries for {features} features")
    repeats = x.size // features
    offset, scale = (np.tile(np.broadcast_to(array, features), repeats) for array in (offset, scale))
    return builder.new(Scale, node.name, (x,), x.shape, scale=scale, shift=-offset * scale)


def _scores(node: Node, x: Tensor, label: bool = False) -> Tensor:
    """`x`, which stands for what the node makes of it."""
    logits = x.logits or Logits(node.proto.input[0], x.integers)
    return replace(x, logits=replace(logits, label=label or logits.label))
