"""ONNX operators that become dense layers, or convolutions of kernel 1: products with a constant matrix.

As in `operators.py`: a function consumes all of its node or raises `Refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Conv, Dense
from qverify.onnx.arithmetic import shifted
from qverify.onnx.gathers import Moved, gathered
from qverify.onnx.graph import Constant, NetworkBuilder, Node, Refusal, Shape, Tensor, Value
from qverify.onnx.grid import uncovered
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array


@dataclass(frozen=True, eq=False, repr=False)
class _Factor(Brief):
    """A constant matrix (m, k), and the steps that it is whole multiples of, if it is on a grid."""

    weight: Array
    grid: Array | None

    @staticmethod
    def of(node: Node, index: int, turn: Callable[[Array], Array]) -> _Factor:
        """Constant input `index`, brought to (m, k) by `turn`."""
        grid = node.grid(index)
        return _Factor(turn(node.numbers(index)), None if grid is None else turn(grid))

    def times(self, alpha: float) -> _Factor:
        """The matrix times a number."""
        grid = None if self.grid is None or alpha == 0.0 else abs(alpha) * self.grid
        return _Factor(alpha * self.weight, grid)


def _product(node: Node, builder: NetworkBuilder, x: Tensor, factor: _Factor, columns: int, shape: Shape) -> Tensor:
    """`weight @ X` with weight (m, k) and X the flat x seen as (k, columns): Dense, or Conv of kernel 1."""
    weight, grid = factor.weight, None if factor.grid is None else uncovered(factor.grid)
    rows, depth = weight.shape
    if x.size != depth * columns:
        raise Refusal(f"the constant of shape {weight.shape} does not fit the input of shape {x.shape}")
    if columns == 1:
        fields: dict[str, Any] = {"weight": weight, "bias": np.zeros(rows), "has_bias": False, "grid": grid}
        return builder.new(Dense, node.name, (x,), shape, **fields)
    fields = {"weight": weight[:, :, None, None], "bias": np.zeros(rows), "has_bias": False}
    fields["grid"] = None if grid is None else grid[:, :, None, None]
    return builder.new(Conv, node.name, (x,), shape, in_shape=(depth, 1, columns), **fields)


def _one_row(x: Tensor, rows: int) -> None:
    if rows != 1:
        raise Refusal(
            f"a dense layer is applied to {rows} rows at once (its input has shape {x.shape}); supported are rows "
            "behind a first axis of length 1: export with batch size 1 or a symbolic batch axis"
        )


def _one_constant(node: Node) -> bool:
    """True if the right factor is the constant, False if the left one is."""
    left, right = node.inputs[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal("it multiplies two computed tensors; one factor must be a constant")
    return isinstance(right, Constant)


def _matrix(value: Array, one: Callable[[Array], Array]) -> Array:
    """A constant factor as a matrix: leading axes of length 1 go, a vector is a row or a column."""
    if value.ndim < 2:
        return one(np.atleast_1d(value))
    if prod(value.shape[:-2]) != 1:
        raise Refusal(f"the constant has shape {value.shape}; supported is one matrix")
    return value.reshape(value.shape[-2:])


def matmul(node: Node, builder: NetworkBuilder) -> Value:
    constant_right = _one_constant(node)
    x, constant = (node.tensor(0), 1) if constant_right else (node.tensor(1), 0)
    axes = node.numbers(constant).ndim
    leading = (1,) * (max(len(x.shape), axes) - 2)
    if constant_right and prod(x.shape[:-1]) != 1:
        return _rows(node, builder, x)
    if constant_right:
        factor, columns = _Factor.of(node, 1, lambda value: _matrix(value, lambda v: v[:, None]).T), 1
        ends = ((1,) if len(x.shape) > 1 else ()) + ((len(factor.weight),) if axes > 1 else ())
    else:
        if prod(x.shape[:-2]) != 1:
            raise Refusal(f"the input of shape {x.shape} is a stack of matrices; supported is one matrix a sample")
        factor = _Factor.of(node, 0, lambda value: _matrix(value, lambda v: v[None, :]))
        columns = x.shape[-1] if len(x.shape) > 1 else 1
        ends = ((len(factor.weight),) if axes > 1 else ()) + ((columns,) if len(x.shape) > 1 else ())
    out = _product(node, builder, x, factor, columns, leading + ends)
    if not constant_right:
        builder.oddities.append((builder.layers[out.layer].name, _LEFT))
    return builder.uses(out, node.sources(0, 1))


def _rows(node: Node, builder: NetworkBuilder, x: Tensor) -> Value:
    """`x @ W` on every row of x (..., k): the rows as columns, one kernel of size 1 for all of them, and back."""
    factor = _Factor.of(node, 1, lambda value: _matrix(value, lambda v: v[:, None]).T)
    rows, depth = prod(x.shape[:-1]), x.shape[-1]
    if depth != factor.weight.shape[1]:
        raise Refusal(f"the constant of shape {factor.weight.shape[::-1]} does not fit the input of shape {x.shape}")
    if x.shape[0] != 1:
        _one_row(x, rows)  # a batch of fixed length, in all likelihood
    across = np.arange(x.size).reshape(rows, depth).T
    turned = gathered(builder, f"{node.name}/columns", Moved((x,), across, np.zeros(across.shape)))
    made = _product(node, builder, turned, factor, rows, (1, len(factor.weight), rows))
    builder.uses(made, node.sources(1))
    back = np.arange(made.size).reshape(-1, rows).T.reshape(*x.shape[:-1], -1)
    if node.numbers(1).ndim == 1:
        back = back[..., 0]
    return gathered(builder, f"{node.name}/rows", Moved((made,), back, np.zeros(back.shape)))


_LEFT = "its weight is the left factor, which is quantised along the other axis, or as an activation"


def gemm(node: Node, builder: NetworkBuilder) -> Value:
    """`alpha op(A) op(B) + beta C`; alpha and beta are folded into weight and bias."""
    ranks = [len(node.shape(0)), len(node.shape(1))]
    if ranks != [2, 2]:
        raise Refusal(f"its factors have {ranks} axes; both must be matrices")
    trans_a, trans_b = bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))
    if _one_constant(node):
        x = node.tensor(0)
        _one_row(x, x.shape[1 if trans_a else 0])
        factor, columns = _Factor.of(node, 1, lambda value: value if trans_b else value.T), 1
        shape = (1, len(factor.weight))
    else:
        x = node.tensor(1)
        factor = _Factor.of(node, 0, lambda value: value.T if trans_a else value)
        columns = x.shape[0 if trans_b else 1]
        if trans_b and min(x.shape) > 1:
            raise Refusal(f"transB on a computed matrix of shape {x.shape} is not supported; only on a vector")
        shape = (len(factor.weight), columns)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    out = _product(node, builder, x, factor.times(alpha), columns, shape)
    builder.uses(out, node.sources(0, 1))
    name = builder.layers[out.layer].name
    if not isinstance(node.inputs[1], Constant):
        builder.oddities.append((name, _LEFT))
    if node.has(2) and beta != 0.0 and (alpha, beta) != (1.0, 1.0):
        builder.oddities.append((name, f"its Gemm has alpha {alpha:g} and beta {beta:g}, with which biases go wrong"))
    if not node.has(2) or beta == 0.0:
        return out
    return shifted(node, builder, out, beta * node.numbers(2), node.sources(2))
