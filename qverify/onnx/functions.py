"""Functions local to a model, put in the place of the nodes that call them.

Which counts where a function is called as a standard operator, ONNX leaves to the runtime ("the behavior is defined by
the runtimes"), so that is refused. A function that nothing calls is harmless.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx
from onnx import checker, defs, inliner

from qverify.errors import ModelError, UnsupportedModel
from qverify.onnx.graph import DOMAINS
from qverify.onnx.order import captured
from qverify.text.shortened import first_line, listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DEEPEST, _MOST_NODES = 100, 1_000_000
_RUNTIMES = re.compile(r"(ai\.onnx|com\.microsoft|com\.ms)(\..*)?")
"""Domains whose operators runtimes have kernels for: ONNX's own, and those of onnxruntime."""

Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model without functions; itself if it calls none.

    Raises UnsupportedModel for functions that cannot be put in place, all at once, and ModelError if onnx cannot.
    """
    calls = _Calls(model)
    if not calls.called:
        return model
    if problems := calls.problems():
        raise UnsupportedModel(name, problems)
    copy = _completed(model)
    own = {name for node in model.graph.node if calls.key(node) not in calls.functions for name in node.output}
    try:
        flat = inliner.inline_local_functions(copy)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: its functions cannot be put in place ({first_line(error)}).") from error
    if left := [node for node in flat.graph.node if calls.key(node) in calls.functions]:
        raise ModelError(f"{name}: its function {quoted(left[0].op_type)} cannot be put in place; export without it.")
    _remove_unread(flat.graph, own)
    return flat


def _completed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy prepared for onnx's inliner, which sees neither to default attributes nor to functions of another opset.

    Those it leaves where they are. The checker has made sure that what they call means the same in the model's opset.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    version = max(entry.version for entry in model.opset_import if entry.domain in DOMAINS)
    functions = {_key(f.domain, f.name, f.overload): f for f in copy.functions}
    for part in (copy.graph, *copy.functions):
        for node in _with_inner(part.node):
            function = functions.get(_Calls.key(node))
            given = {attribute.name for attribute in node.attribute}
            defaults = [] if function is None else function.attribute_proto
            node.attribute.extend(default for default in defaults if default.name not in given)
    for entry in (entry for function in copy.functions for entry in function.opset_import):
        if entry.domain in DOMAINS:
            entry.version = version
    return copy


class _Calls:
    """The call graph of a model's functions. `called`: those that the graph reaches, each after those it calls."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.functions = {_key(f.domain, f.name, f.overload): f for f in model.functions}
        self.inner = {key: self._called_by(function.node) for key, function in self.functions.items()}
        self.circles: list[Key] = []
        self.first = self._called_by(model.graph.node)
        self.called = self._reached(self.first)

    @staticmethod
    def key(node: onnx.NodeProto) -> Key:
        return _key(node.domain, node.op_type, node.overload)

    def _called_by(self, nodes: Sequence[onnx.NodeProto]) -> list[Key]:
        return [key for node in _with_inner(nodes) if (key := self.key(node)) in self.functions]

    def _reached(self, first: list[Key]) -> list[Key]:
        """The functions that `first` reaches, each after those it calls; fills `circles`.

        Depth first, without recursion: a file may nest them as deep as it likes.
        """
        done, open_ = dict[Key, None](), dict[Key, None]()
        stack = [(key, False) for key in reversed(first)]
        while stack:
            key, finished = stack.pop()
            if finished:
                del open_[key]
                done[key] = None
            elif key in open_:
                self.circles.append(key)
            elif key not in done:
                open_[key] = None
                stack.append((key, True))
                stack.extend((inner, False) for inner in self.inner[key])
        return list(done)

    def problems(self) -> list[str]:
        """The reasons why the functions that are called cannot be put in place; none if they can."""
        if self.circles:
            return [f"function {quoted(self.circles[0][1])} calls itself; export the model without it"]
        found = []
        shadows = [key for key in self.called if _RUNTIMES.fullmatch(key[0]) or defs.has(key[1], key[0])]
        if names := [quoted(name) for _, name, _ in shadows]:
            found.append(
                f"functions called as operators that runtimes have of their own ({listed(names, 5)}), so that it is up "
                "to the runtime which counts; rename them"
            )
        depth, size = self._measured()
        if depth > _DEEPEST or size > _MOST_NODES:
            found.append(f"functions that call each other {depth} deep, {size} nodes in all; export without functions")
        return found

    def _measured(self) -> tuple[int, int]:
        """The depth of nesting, and the number of nodes in all, once in place; a smaller number beyond the limit."""
        depth, size = dict[Key, int](), dict[Key, int]()
        for key in self.called:
            inner = self.inner[key]
            depth[key] = 1 + max((depth[k] for k in inner), default=0)
            size[key] = min(10 * _MOST_NODES, len(self.functions[key].node) + sum(size[k] for k in inner))
        return max(depth.values()), sum(size[key] for key in self.first)


def _key(domain: str, name: str, overload: str) -> Key:
    return "" if domain in DOMAINS else domain, name, overload


def _with_inner(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_inner(graph.node)


def _remove_unread(graph: onnx.GraphProto, own: set[str]) -> None:
    """Remove nodes of functions whose outputs nobody reads, but leave the model's own nodes."""
    outputs = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(name in outputs or name in own for name in node.output):
            kept.append(node)
            outputs.update(name for name in (*node.input, *captured(node)) if name)
    if len(kept) < len(graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        del graph.node[:]
        graph.node.extend(nodes)
