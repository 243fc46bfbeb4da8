"""Small models and VNN-LIB queries about them, and the true answers, by linear programs over all patterns of Relus."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linprog

Matrices = list[tuple[Any, Any]]
Clauses = list[list[tuple[Any, float]]]
"""Comparisons `a . y <= b`, all of one clause to be met."""


def model(layers: Matrices, path: Path, double: bool = False) -> Path:
    """An ONNX file of Gemms with Relus between them; weights (n_out, n_in)."""
    kind, array = (TensorProto.DOUBLE, np.float64) if double else (TensorProto.FLOAT, np.float32)
    nodes, constants, x = [], [], "input"
    for k, (weight, bias) in enumerate(layers):
        constants += [numpy_helper.from_array(np.asarray(v, array), f"{n}{k}") for n, v in (("W", weight), ("b", bias))]
        nodes.append(helper.make_node("Gemm", [x, f"W{k}", f"b{k}"], [f"z{k}"], name=f"dense{k}", transB=1))
        x = f"z{k}"
        if k < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [x], [f"r{k}"], name=f"relu{k}"))
            x = f"r{k}"
    ends = [(np.shape(layers[0][0])[1], "input"), (np.shape(layers[-1][0])[0], x)]
    given, made = (helper.make_tensor_value_info(name, kind, [1, size]) for size, name in ends)
    graph = helper.make_graph(nodes, "g", [given], [made], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def text(low: Any, high: Any, clauses: Clauses) -> str:
    """A query of version 1.0: an input in a box, and some clause."""
    outputs = len(clauses[0][0][0])
    lines = [f"(declare-const X_{i} Real)" for i in range(len(low))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(outputs)]
    lines += [f"(assert (<= X_{i} {float(v)!r}))" for i, v in enumerate(high)]
    lines += [f"(assert (>= X_{i} {float(v)!r}))" for i, v in enumerate(low)]
    each = [" ".join(f"(<= (+ {_sum(a)}) {b!r})" for a, b in clause) for clause in clauses]
    return "\n".join([*lines, f"(assert (or {' '.join(f'(and {one})' for one in each)}))"])


def _sum(factors: Any) -> str:
    return " ".join(f"(* {float(a)!r} Y_{j})" for j, a in enumerate(factors))


@dataclass
class Drawn:
    """A random question, and the least that some clause can be violated by at an input of the box (<= 0: it is met)."""

    model: Path
    query: Path
    low: Any
    high: Any
    clauses: Clauses
    least: float


def drawn(seed: int, folder: Path) -> Drawn:
    """A random network of a few Relus with a random question, whose answer is about as often yes as no."""
    rng = np.random.default_rng(seed)
    sizes = [
        int(rng.integers(1, 4)),
        *rng.integers(2, 5, size=int(rng.integers(1, 3))).tolist(),
        int(rng.integers(1, 4)),
    ]
    layers: Matrices = [
        (
            (1.5 * rng.normal(size=(m, n)) / np.sqrt(n)).astype(np.float32).astype(np.float64),
            (0.3 * rng.normal(size=m)).astype(np.float32).astype(np.float64),
        )
        for n, m in itertools.pairwise(sizes)
    ]
    centre = rng.normal(size=sizes[0])
    reach = rng.uniform(0, 1.5, size=sizes[0]) * (rng.random(sizes[0]) < 0.9)
    low, high = np.round(centre - reach, 3), np.round(centre + reach, 3)
    y = rng.uniform(low, high, (500, sizes[0]))
    for k, (weight, bias) in enumerate(layers):
        y = y @ weight.T + bias
        y = np.maximum(y, 0.0) if k < len(layers) - 1 else y
    clauses = [[_comparison(rng, y) for _ in range(int(rng.integers(1, 4)))] for _ in range(int(rng.integers(1, 4)))]
    path, query = model(layers, folder / "drawn.onnx"), folder / "drawn.vnnlib"
    query.write_text(text(low, high, clauses))
    return Drawn(path, query, low, high, clauses, least_violation(layers, low, high, clauses))


def _comparison(rng: np.random.Generator, y: Any) -> tuple[Any, float]:
    """One that holds on few of the outputs y (N, n_out), or barely on none."""
    a = np.round(rng.normal(size=y.shape[1]), 2) * (rng.random(y.shape[1]) < 0.7)
    if not a.any():
        a[0] = 1.0
    values = y @ a
    limit = np.quantile(values, rng.choice([0, 0, 0.001, 0.05, 0.3])) + 0.1 * rng.normal() * (values.std() + 0.05)
    return a, round(float(limit), 3)


def least_violation(layers: Matrices, low: Any, high: Any, clauses: Clauses) -> float:
    """The minimum over box and clauses of `max a . y - b`, by a linear program for each pattern of Relus and clause."""
    best = np.inf
    count = sum(len(bias) for _, bias in layers[:-1])
    for pattern in itertools.product((0.0, 1.0), repeat=count):
        matrix, shift, rows, limits, first = np.eye(len(low)), np.zeros(len(low)), [], [], 0
        for weight, bias in layers[:-1]:
            matrix, shift = weight @ matrix, weight @ shift + bias
            active = np.array(pattern[first : first + len(bias)])
            first += len(bias)
            sign = 1.0 - 2.0 * active  # -1 where z >= 0
            rows += list(sign[:, None] * matrix)
            limits += list(-sign * shift)
            matrix, shift = matrix * active[:, None], shift * active
        matrix, shift = layers[-1][0] @ matrix, layers[-1][0] @ shift + layers[-1][1]
        for clause in clauses:
            own = [np.append(row, 0.0) for row in rows] + [np.append(a @ matrix, -1.0) for a, _ in clause]
            most = limits + [b - a @ shift for a, b in clause]
            box = [*zip(low, high, strict=True), (-1e3, 1e3)]
            found = linprog(np.append(np.zeros(len(low)), 1.0), A_ub=np.array(own), b_ub=most, bounds=box)
            best = min(best, found.fun if found.status == 0 else np.inf)
    return float(best)
