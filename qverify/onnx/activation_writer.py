"""Activations other than Relu as ONNX nodes.

In float32 the operator of opset 17, where there is one; Gelu by its definition. In float64, for which onnxruntime lacks
many of these, by Exp, Log, Abs and arithmetic; an error function by Erf in float32, so that this one alone is off by
1e-7 or so.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.activations.layer import Activation


class Writer(Protocol):
    """The model being written (writer.py)."""

    double: bool

    def constant(self, name: str, values: Any) -> str:
        """An initializer; returns its name."""

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """The node that gives a layer's output."""

    def step(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node on the way to it."""

    def cast(self, x: str, name: str, double: bool) -> str:
        """A Cast to float64 or float32."""


class _Steps:
    """The nodes of one layer: `last` writes the layer's own, unless an error is added behind it."""

    def __init__(self, writer: Writer, layer: Activation, shape: tuple[int, ...]):
        self.writer, self.layer, self.shape = writer, layer, shape

    def of(self, word: str, values: Any) -> str:
        """A constant: one number, or one an element."""
        array = np.asarray(values, dtype=np.float64)
        if array.ndim:
            array = array.reshape(-1)[:1].reshape(()) if (array == array.flat[0]).all() else array.reshape(self.shape)
        return self.writer.constant(f"{self.layer.name}.{word}", array)

    def step(self, kind: str, word: str, *inputs: str, **attributes: Any) -> str:
        return self.writer.step(kind, list(inputs), f"{self.layer.name}/{word}", **attributes)

    def last(self, kind: str, *inputs: str, **attributes: Any) -> str:
        if self.layer.offset is not None:
            return self.step(kind, "exact", *inputs, **attributes)
        return self.writer.node(kind, list(inputs), self.layer.name, **attributes)

    def limited(self, y: str) -> str:
        """What an error leaves of the range of the function."""
        if self.layer.offset is None:
            return y
        y = self.step("Add", "moved", y, self.of("offset", self.layer.offset))
        low, high = self.layer.curve.function.ends(np, *self.layer.parameters)
        size = (self.layer.size,)
        largest = float(np.finfo(np.float64 if self.writer.double else np.float32).max)
        ends = [np.clip(np.broadcast_to(end, size), -largest, largest) for end in (low, high)]
        raised = self.step("Max", "raised", y, self.of("lowest", ends[0]))
        return self.writer.node("Min", [raised, self.of("highest", ends[1])], self.layer.name)


def write_activation(writer: Writer, layer: Activation, x: str, shape: tuple[int, ...]) -> str:
    """Write the nodes of a layer that reads `x` of this shape; returns the name of its output."""
    steps = _Steps(writer, layer, shape)
    tables = [_DEFINED] if writer.double else [_OPERATORS, _DEFINED]
    make = next(table[layer.function] for table in tables if layer.function in table)
    return steps.limited(make(steps, x, *layer.parameters))


def _uniform(*parameters: Any) -> bool:
    return all((p == p[0]).all() for p in parameters)


def _leaky(s: _Steps, x: str, slope: Any) -> str:
    if not s.writer.double and _uniform(slope):
        return s.last("LeakyRelu", x, alpha=float(slope[0]))
    if not s.writer.double:
        return s.last("PRelu", x, s.writer.constant(f"{s.layer.name}.slope", slope.reshape(s.shape)))
    zero = s.of("zero", 0.0)
    above = s.step("Max", "above", x, zero)
    below = s.step("Mul", "below", s.step("Min", "negative", x, zero), s.of("slope", slope))
    return s.last("Add", above, below)


def _between(s: _Steps, x: str, low: Any, high: Any) -> str:
    return s.last("Min", s.step("Max", "above", x, s.of("low", low)), s.of("high", high))


def _clip(s: _Steps, x: str, low: Any, high: Any) -> str:
    if _uniform(low, high):
        return s.last("Clip", x, s.of("low", low), s.of("high", high))
    return s.step(
        "Min", "below", s.last("Max", x, s.of("low", low)), s.of("high", high)
    )  # `load` calls both as the first


def _sloped(s: _Steps, x: str, slope: Any, shift: Any) -> str:
    return s.step("Add", "shifted", s.step("Mul", "sloped", x, s.of("slope", slope)), s.of("shift", shift))


def _hard_sigmoid(s: _Steps, x: str, slope: Any, shift: Any) -> str:
    if not s.writer.double and _uniform(slope, shift):
        return s.last("HardSigmoid", x, alpha=float(slope[0]), beta=float(shift[0]))
    return _between(s, _sloped(s, x, slope, shift), 0.0, 1.0)


def _small(s: _Steps, x: str) -> str:
    """exp(-|x|)."""
    return s.step("Exp", "small", s.step("Mul", "minus", s.step("Abs", "size", x), s.of("minus_one", -1.0)))


def _sigmoid_of(s: _Steps, x: str) -> tuple[str, str]:
    """Numerator and denominator of the sigmoid."""
    small, one = _small(s, x), s.of("one", 1.0)
    positive = s.step("Greater", "positive", x, s.of("nought", 0.0))
    return s.step("Where", "share", positive, one, small), s.step("Add", "whole", small, one)


def _tanh(s: _Steps, x: str) -> str:
    share, whole = _sigmoid_of(s, s.step("Mul", "twice", x, s.of("two", 2.0)))
    doubled = s.step("Mul", "doubled", s.step("Div", "sigmoid", share, whole), s.of("factor", 2.0))
    return s.last("Add", doubled, s.of("less", -1.0))


def _softplus(s: _Steps, x: str) -> str:
    log = s.step("Log", "log", s.step("Add", "more", _small(s, x), s.of("one", 1.0)))
    return s.last("Add", s.step("Max", "above", x, s.of("zero", 0.0)), log)


def _softplus_threshold(s: _Steps, x: str, threshold: Any) -> str:
    if s.writer.double:
        log = s.step("Log", "log", s.step("Add", "more", _small(s, x), s.of("one", 1.0)))
        soft = s.step("Add", "soft", s.step("Max", "above", x, s.of("zero", 0.0)), log)
    else:
        soft = s.step("Softplus", "soft", x)
    return s.last("Where", s.step("Greater", "beyond", x, s.of("threshold", threshold)), x, soft)


def _exponential(s: _Steps, x: str, alpha: Any, gamma: Any, rate: Any) -> str:
    """gamma x above 0, gamma alpha (exp(rate x) - 1) below."""
    zero = s.of("zero", 0.0)
    below = s.step("Mul", "rated", s.step("Min", "negative", x, zero), s.of("rate", rate))
    less = s.step("Add", "less", s.step("Exp", "power", below), s.of("less_one", -1.0))
    above = s.step("Mul", "up", s.step("Max", "above", x, zero), s.of("gamma", gamma))
    return s.last("Add", above, s.step("Mul", "down", less, s.of("alpha", gamma * alpha)))


def _elu(s: _Steps, x: str, alpha: Any) -> str:
    if not s.writer.double and _uniform(alpha):
        return s.last("Elu", x, alpha=float(alpha[0]))
    return _exponential(s, x, alpha, 0.0 * alpha + 1.0, 0.0 * alpha + 1.0)


def _celu(s: _Steps, x: str, alpha: Any) -> str:
    if not s.writer.double and _uniform(alpha):
        return s.last("Celu", x, alpha=float(alpha[0]))
    return _exponential(s, x, alpha, 0.0 * alpha + 1.0, 1.0 / alpha)


def _selu(s: _Steps, x: str, alpha: Any, gamma: Any) -> str:
    if not s.writer.double and _uniform(alpha, gamma):
        return s.last("Selu", x, alpha=float(alpha[0]), gamma=float(gamma[0]))
    return _exponential(s, x, alpha, gamma, 0.0 * alpha + 1.0)


def _erf_of(s: _Steps, x: str) -> str:
    if not s.writer.double:
        return s.step("Erf", "erf", x)
    single = s.writer.cast(x, f"{s.layer.name}/single", False)
    return s.writer.cast(s.step("Erf", "erf", single), f"{s.layer.name}/double", True)


def _gelu(s: _Steps, x: str) -> str:
    error = _erf_of(s, s.step("Mul", "scaled", x, s.of("root", 1.0 / sqrt(2.0))))
    share = s.step("Mul", "half", s.step("Add", "plus", error, s.of("one", 1.0)), s.of("halved", 0.5))
    return s.last("Mul", x, share)


def _gelu_tanh(s: _Steps, x: str) -> str:
    square = s.step("Mul", "square", x, x)
    inner = s.step("Add", "inner", s.step("Mul", "cubic", square, s.of("third", 0.044715)), s.of("unit", 1.0))
    bent = s.step("Mul", "bent", s.step("Mul", "times", x, inner), s.of("bend", 2.0 * sqrt(2.0 / pi)))
    share, whole = _sigmoid_of(s, bent)
    return s.last("Mul", x, s.step("Div", "part", share, whole))


def _silu(s: _Steps, x: str) -> str:
    if not s.writer.double:
        return s.last("Mul", x, s.step("Sigmoid", "sigmoid", x))
    share, whole = _sigmoid_of(s, x)
    return s.last("Mul", x, s.step("Div", "part", share, whole))


def _hard_swish(s: _Steps, x: str) -> str:
    shifted = _sloped(s, x, 1.0 / 6.0, 0.5)
    share = s.step("Min", "share", s.step("Max", "above", shifted, s.of("low", 0.0)), s.of("high", 1.0))
    return s.last("Mul", x, share)


def _softsign(s: _Steps, x: str) -> str:
    return s.last("Div", x, s.step("Add", "whole", s.step("Abs", "size", x), s.of("one", 1.0)))


def _sqrt(s: _Steps, x: str, low: Any) -> str:
    """`load` calls both nodes as the first."""
    return s.step("Sqrt", "root", s.last("Max", x, s.of("low", low)))


def _rsqrt(s: _Steps, x: str, low: Any) -> str:
    return s.step("Div", "inverse", s.of("one", 1.0), _sqrt(s, x, low))


_OPERATORS: dict[str, Callable[..., str]] = {
    "sigmoid": lambda s, x: s.last("Sigmoid", x),
    "tanh": lambda s, x: s.last("Tanh", x),
    "softplus": lambda s, x: s.last("Softplus", x),
    "softsign": lambda s, x: s.last("Softsign", x),
    "erf": lambda s, x: s.last("Erf", x),
    "hard_swish": lambda s, x: s.last("HardSwish", x),
    "clip": _clip,
}
"""Operators that onnxruntime has in float32 and we know no other way to write for it."""
_DEFINED: dict[str, Callable[..., str]] = {
    "leaky_relu": _leaky,
    "abs": lambda s, x: s.last("Abs", x),
    "clip": _between,
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid": lambda s, x: s.last("Div", *_sigmoid_of(s, x)),
    "tanh": _tanh,
    "softplus": _softplus,
    "softplus_threshold": _softplus_threshold,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "exp": lambda s, x: s.last("Exp", x),
    "softsign": _softsign,
    "erf": lambda s, x: s.last("Add", _erf_of(s, x), s.of("none", 0.0)),
    "hard_swish": _hard_swish,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
}
"""Those that float32 has by the operator too, or by its definition."""
