"""VNN-LIB 2.0, read by the standard's own parser, the package `vnnlib` (the extra `qverify[vnnlib]`).

Supported are queries about one network with one output, of type real as its inputs are, limits on single inputs, and
linear comparisons of outputs. What else the standard has is refused in a sentence.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qverify.errors import PackageMissing, UsageError
from qverify.properties.formula import All, Formula, Some, Variable
from qverify.properties.sums import Sum, added, compared, multiplied, number, subtracted
from qverify.text.shortened import first_line, quoted, shortened
from qverify.vnnlib.query import Query, Tensor

if TYPE_CHECKING:
    from types import ModuleType

REAL = "Real"
_LONGEST = 200


def parse(text: str, source: str) -> Query:
    """The query in a text. Raises UsageError, and PackageMissing without the extra."""
    try:
        import vnnlib
    except ImportError as error:
        raise PackageMissing(
            f"{source} is a query of VNN-LIB 2.0, which the package vnnlib reads, and it cannot be imported"
            f" ({first_line(error)}); pip install 'qverify[vnnlib]'."
        ) from error
    try:
        found = vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise UsageError(f"{source}: {_reason(error)}; correct the query.") from error
    return _Reader(vnnlib, source, found).query()


def _reason(error: Exception) -> str:
    """What the parser complains of, in a few words with the line."""
    try:
        (first, *_) = json.loads(str(error))["errors"]
        line, message, hint = first["line"], first["message"], first["hint"]
        return f"line {line}: {message} {quoted(first['offendingSymbol'])} ({hint.rstrip('.')})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return shortened(first_line(error), _LONGEST)


class _Reader:
    """Walks through what the parser made; `ast` is its module."""

    def __init__(self, ast: ModuleType, source: str, found: Any):
        self.ast, self.source, self.found = ast, source, found
        self.begins: dict[str, int] = {}
        self.signs = {
            ast.LessEqual: "<=",
            ast.GreaterEqual: ">=",
            ast.LessThan: "<",
            ast.GreaterThan: ">",
            ast.Equal: "==",
            ast.NotEqual: "!=",
        }

    def query(self) -> Query:
        """The query, if it is of the supported kind. Raises UsageError."""
        network = self._network()
        inputs, begin = [], 0
        for given in network.inputs:
            inputs.append(replace(self._tensor(given), begin=begin))
            begin += inputs[-1].size
        self.begins = {tensor.name: tensor.begin for tensor in inputs}
        (made,) = network.outputs
        parts = tuple(self._formula(one.expr) for one in self.found.assertions)
        return Query(
            version="2.0",
            network=network.name,
            inputs=tuple(inputs),
            output=self._tensor(made),
            formula=All(parts),
        )

    def _network(self) -> Any:
        networks = self.found.networks
        if len(networks) != 1:
            names = ", ".join(quoted(network.name) for network in networks)
            raise self._refused(f"{len(networks)} networks ({names})", "one network")
        (network,) = networks
        if network.hidden:
            raise self._refused(
                f"the hidden node {quoted(network.hidden[0].name)}", "comparisons of inputs and outputs"
            )
        if len(network.outputs) != 1 or not network.inputs:
            names = ", ".join(quoted(one.name) for one in network.outputs)
            raise self._refused(
                f"{len(network.inputs)} inputs and {len(network.outputs)} outputs ({names})", "inputs and one output"
            )
        return network

    def _tensor(self, declared: Any) -> Tensor:
        kind = declared.dtype.name
        if kind != REAL:
            raise UsageError(
                f"{self.source}: {declared.name} is declared {_written(kind)}, which qverify cannot analyse soundly:"
                " its proofs are about real arithmetic; declare it real to consent to that."
            )
        return Tensor(
            name=declared.name, type="real", shape=tuple(declared.shape), onnx_name=declared.onnx_name or None
        )

    def _refused(self, what: str, supported: str) -> UsageError:
        return UsageError(f"{self.source}: the query has {what}; supported is {supported}.")

    # -- formulas ---------------------------------------------------------------------------------

    def _formula(self, node: Any) -> Formula:
        ast = self.ast
        if isinstance(node, (ast.And, ast.Or)):
            parts = tuple(map(self._formula, node.args))
            return All(parts) if isinstance(node, ast.And) else Some(parts)
        sign = self.signs.get(type(node))
        if sign is None:
            raise self._refused(f"{quoted(shortened(str(node), 60))}", "comparisons joined by and, or")
        return compared(sign, self._sum(node.lhs), self._sum(node.rhs))

    def _sum(self, node: Any) -> Sum:
        ast = self.ast
        if isinstance(node, ast.Var):
            return self._variable(node)
        if isinstance(node, (ast.Float, ast.Literal)):
            return Sum.number(number(node.lexeme, f"{self.source}, line {getattr(node, 'line', '?')},"))
        if isinstance(node, ast.Negate):
            return subtracted([self._sum(node.expr)])
        if isinstance(node, ast.Plus):
            return added([self._sum(one) for one in node.args])
        if isinstance(node, ast.Minus):
            return subtracted([self._sum(one) for one in (node.head, *node.rest)])
        if isinstance(node, ast.Multiply):
            return multiplied([self._sum(one) for one in node.args], f"{self.source}: {shortened(str(node), 60)}")
        raise self._refused(f"{quoted(shortened(str(node), 60))}", "sums of numbers and variables by +, - and *")

    def _variable(self, node: Any) -> Sum:
        index = 0
        for place, length in zip(node.indices, node.shape, strict=True):
            index = index * length + place
        kinds = {self.ast.SymbolKind.Input: False, self.ast.SymbolKind.Output: True}
        if node.kind not in kinds:
            raise self._refused(f"the hidden node {quoted(node.name)}", "comparisons of inputs and outputs")
        begin = 0 if kinds[node.kind] else self.begins[node.name]
        return Sum.variable(Variable(kinds[node.kind], begin + index))


def _written(kind: str) -> str:
    """A type as queries write it: F32 is float32."""
    for short, long in (("BF", "bfloat"), ("F", "float"), ("I", "int"), ("U", "uint")):
        if kind.startswith(short) and kind[len(short) :].isdigit():
            return long + kind[len(short) :]
    return kind
