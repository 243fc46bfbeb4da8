"""The nodes of a model, each after those it reads: ONNX asks for such an order, and not every writer gives one."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import onnx

from qverify.errors import ModelError
from qverify.onnx.graph import label

if TYPE_CHECKING:
    from collections.abc import Iterator


def in_order(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with its nodes sorted, and as far as possible in the order they had; itself if they are sorted.

    Raises ModelError if nodes read each other's outputs in a circle.
    """
    nodes = list(model.graph.node)
    order = _order(nodes)
    if len(order) < len(nodes):
        left = next(node for i, node in enumerate(nodes) if i in _circle(nodes, set(order)))
        raise ModelError(f"{name}: {label(left)} reads what is made from its own output; export the model again.")
    if order == sorted(order):
        return model
    sorted_model = onnx.ModelProto()
    sorted_model.CopyFrom(model)
    del sorted_model.graph.node[:]
    sorted_model.graph.node.extend(nodes[i] for i in order)
    return sorted_model


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """The names that graphs inside a node (If, Loop, Scan) read, their own among them."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from captured(inner)
            yield from (output.name for output in graph.output)


def _order(nodes: list[onnx.NodeProto]) -> list[int]:
    """Indices of the nodes that can be sorted, each the smallest that may come next (Kahn's algorithm)."""
    reads = _reads(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    for i, sources in enumerate(reads):
        for source in sources:
            readers[source].append(i)
    open_inputs = [len(sources) for sources in reads]
    ready = [i for i, count in enumerate(open_inputs) if count == 0]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            open_inputs[reader] -= 1
            if open_inputs[reader] == 0:
                heapq.heappush(ready, reader)
    return order


def _reads(nodes: list[onnx.NodeProto]) -> list[set[int]]:
    """For every node the indices of those it reads; what no node makes is there from the start, or is refused later."""
    makers = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    return [{makers[name] for name in (*node.input, *captured(node)) if name in makers} for node in nodes]


def _circle(nodes: list[onnx.NodeProto], sorted_: set[int]) -> set[int]:
    """Indices of the nodes on one circle among those that cannot be sorted: going backwards ends in one."""
    reads = _reads(nodes)
    path, seen = [], set[int]()
    at = min(set(range(len(nodes))) - sorted_)
    while at not in seen:
        seen.add(at)
        path.append(at)
        at = min(reads[at] - sorted_)
    return set(path[path.index(at) :])
