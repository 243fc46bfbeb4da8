"""Files of one function of integers in TFLite, all of which go through it; and LiteRT to run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit

from tests.support.tflite_models import RANGES, RELU6, WINDOW, Array, Graph

OPERATOR = {
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "leaky_relu": "LEAKY_RELU",
    "hard_swish": "HARD_SWISH",
    "gelu": "GELU",
}
TRUTH: dict[str, Callable[[Array, float], Array]] = {
    "sigmoid": lambda x, alpha: expit(x),
    "tanh": lambda x, alpha: np.tanh(x),
    "leaky_relu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "hard_swish": lambda x, alpha: x * np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x, alpha: x / 2 * (1 + erf(x / np.sqrt(2))),
}
FUNCTIONS = list(TRUTH)
_GRIDS: dict[str, dict[str, tuple[float, int]]] = {
    "sigmoid": {"INT8": (1 / 256, -128), "UINT8": (1 / 256, 0)},
    "tanh": {"INT8": (1 / 128, 0), "UINT8": (1 / 128, 128)},
}


@dataclass(frozen=True)
class Made:
    """Grids of what a function reads and of its output, numbers of float32, and its parameter."""

    kind: str
    step: float
    zero: int
    out_step: float
    out_zero: int
    alpha: float

    @property
    def low(self) -> int:
        return RANGES[self.kind][0]

    @property
    def high(self) -> int:
        return RANGES[self.kind][1]

    @property
    def numbers(self) -> Array:
        """What all integers stand for, (size,)."""
        return (np.arange(self.low, self.high + 1) - self.zero) * self.step


def made(name: str, kind: str, rng: np.random.Generator, reach: float = 30.0) -> Made:
    """Random grids: of a range up to `reach` wide, and of about what comes out."""
    low, high = RANGES[kind]
    width = np.exp(rng.uniform(np.log(0.3), np.log(reach)))
    zero = int(rng.choice([low, high, *rng.integers(low, high + 1, 2).tolist()]))
    step, alpha = float(np.float32(width / 255)), float(np.float32(rng.uniform(0.01, 0.7)))
    if name in _GRIDS:
        return Made(kind, step, zero, *_GRIDS[name][kind], alpha)
    y = TRUTH[name]((np.arange(low, high + 1) - zero) * step, alpha)
    least, most = min(0.0, y.min()), max(0.0, y.max())
    out_step = float(np.float32(max((most - least) / 255 * rng.uniform(0.8, 1.5), step / 120)))
    out_zero = int(np.clip(round(low - least / out_step), low, high))
    return Made(kind, step, zero, out_step, out_zero, alpha)


def content(name: str, case: Made) -> bytes:
    """The file."""
    size = case.high - case.low + 1
    graph = Graph(case.kind, (1, size), case.step, case.zero)
    options: dict[str, Any] = {"alpha": case.alpha} if name == "leaky_relu" else {}
    graph.add(OPERATOR[name], [0], graph.tensor(case.kind, (1, size), case.out_step, case.out_zero), **options)
    return graph.content()


def outputs(name: str, case: Made, resolver: str) -> Array:
    """The integers (size,) that LiteRT makes of all integers."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra tflite")
    interpreter = litert.Interpreter(
        model_content=content(name, case),
        experimental_op_resolver_type=getattr(litert.OpResolverType, resolver),
        num_threads=1,
    )
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], np.arange(case.low, case.high + 1).astype(given["dtype"])[None])
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].astype(np.float64))


def gated(rng: np.random.Generator, function: str, kind: str = "INT8", constants: bool = True) -> Graph:
    """A convolution, a function, a gate of squeeze and excite, a product with constants, a dense layer."""
    zero = 0 if kind == "INT8" else 128

    def tensor(shape: tuple[int, ...], step: float, at: int) -> int:
        return graph.tensor(kind, shape, step, at + zero)

    graph, weights = Graph(kind, (1, 4, 4, 2), 0.02, 3 + zero), "INT8" if kind == "INT8" else "UINT8"
    scales: Any = [0.01, 0.02, 0.03] if kind == "INT8" else 0.02
    middle = 0 if kind == "INT8" else 128
    kernel = graph.constant(weights, rng.integers(-120, 120, (3, 3, 3, 2)) + middle, scales, middle)
    unit = np.float32(0.02) * np.asarray(scales, np.float32)
    bias = graph.constant("INT32", [10, -20, 30], unit)
    conv, shape = tensor((1, 4, 4, 3), 0.04, -7), (1, 4, 4, 3)
    graph.add("CONV_2D", [0, kernel, bias], conv, **WINDOW, dilationHFactor=1, dilationWFactor=1)
    grids = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}
    made_by = tensor(shape, *grids.get(function, (0.03, -60)))
    graph.add(OPERATOR[function], [conv], made_by, **({"alpha": 0.2} if function == "leaky_relu" else {}))
    mean = tensor((1, 1, 1, 3), 0.02, -30)
    graph.add("MEAN", [made_by, graph.constant("INT32", [1, 2])], mean, keepDims=True)
    gate = tensor((1, 1, 1, 3), 1 / 256, -128)
    graph.add("LOGISTIC", [mean], gate)
    product = tensor(shape, 0.02, -60)
    graph.add("MUL", [gate, made_by], product, fusedActivationFunction=RELU6 if function == "tanh" else 0)
    factors = graph.constant(kind, np.asarray([30, -50, 100]) + zero, 0.01, zero)
    scaled = tensor(shape, 0.015, -10)
    if constants:
        graph.add("MUL", [product, factors], scaled)
    flat = tensor((1, 48), *((0.015, -10) if constants else (0.02, -60)))
    graph.add("RESHAPE", [scaled if constants else product, graph.constant("INT32", [1, 48])], flat)
    dense = graph.constant(weights, rng.integers(-90, 90, (4, 48)) + middle, 0.02, middle)
    graph.add("FULLY_CONNECTED", [flat, dense, -1], tensor((1, 4), 0.04, 5))
    return graph
