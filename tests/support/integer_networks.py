"""Small quantised networks by hand, and all that runtimes may make of them, in Python's integers and fractions.

Written from the specifications: TensorFlow Lite's `common.h` and `quantization_util.cc`, gemmlowp's `fixedpoint.h`, and
mathematics.md, section 18. Nothing of `qverify.runtimes` is in here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np

from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Relu, Rounding
from qverify.network import Network
from tests.support.networks import max_pool, pool_taps

Tensor = tuple[int, ...]
HALF = Fraction(1, 2)


# --- fixed point, from the specifications ---


def quantised(real: Fraction) -> tuple[int, int]:
    """QuantizeMultiplier: (q, shift) with q 2^(shift - 31) nearest to `real`."""
    shift = 0
    while real >= 1:
        real, shift = real / 2, shift + 1
    while real < HALF:
        real, shift = real * 2, shift - 1
    q = floor(real * 2**31 + HALF)
    if q == 2**31:
        q, shift = q // 2, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def single(x: int, q: int, shift: int) -> int:
    total = 31 - shift
    return floor(Fraction(x * q, 2**total) + HALF)


def high_half(x: int, q: int, shift: int) -> int:
    """SaturatingRoundingDoublingHighMul as gemmlowp writes it, with C's division towards 0."""
    product = (x << max(shift, 0)) * q
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    return int(nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31))


def halves_away(value: Fraction) -> int:
    """Rounded to nearest, ties away from 0."""
    return floor(value + HALF) if value >= 0 else -floor(-value + HALF)


def double(x: int, q: int, shift: int) -> int:
    """RoundingDivideByPOT: ties away from 0."""
    return halves_away(Fraction(high_half(x, q, shift), 2 ** max(-shift, 0)))


def double_upwards(x: int, q: int, shift: int) -> int:
    return floor(Fraction(high_half(x, q, shift), 2 ** max(-shift, 0)) + HALF)


FIXED = {"single": (single,), "double": (double, double_upwards)}


# --- what one stage may give ---


def between(value: Fraction, slack: Fraction) -> range:
    """The integers that a number within `slack` of `value` may be rounded to, ties either way."""
    return range(ceil(value - slack - HALF), floor(value + slack + HALF) + 1)


def clipped(values: Iterable[int], low: int, high: int) -> frozenset[int]:
    return frozenset(min(max(value, low), high) for value in values)


class Space:
    """All tensors that a runtime may compute, layer by layer, from integers `x`."""

    def __init__(self, network: Network, rules: tuple[str, ...]):
        self.network, self.rules = network, rules

    def outputs(self, x: Tensor) -> set[Tensor]:
        """Every tensor of outputs, in steps, that some choice of rules and entries gives."""
        states: set[tuple[Tensor | None, ...]] = {()}
        for i, layer in enumerate(self.network.layers):
            states = {(*state, made) for state in states for made in self._layer(i, layer, x, state)}
        found = {state[-1] for state in states}
        assert None not in found
        return found  # type: ignore[return-value]

    def _layer(self, i: int, layer: Layer, x: Tensor, state: Any) -> Iterable[Tensor | None]:
        if isinstance(layer, Rounding):
            return self._rounded(layer, x, state)
        if isinstance(layer, Relu) and state[layer.inputs[0]] is not None:
            return [tuple(max(v, 0) for v in state[layer.inputs[0]])]
        if isinstance(layer, Gather):
            return [tuple(state[layer.inputs[0]][j] for j in layer.index)]
        if isinstance(layer, MaxPool):
            return [tuple(max(state[layer.inputs[0]][j] for j in taps) for taps in pool_taps(layer))]
        if i == len(self.network.layers) - 1:
            return [tuple(self._sums(layer, state)[0])]
        return [None]  # an input, or what a rounding point takes up

    def _sums(self, layer: Any, state: Any) -> tuple[list[int], list[int]]:
        """The accumulators of a weighted layer, and the biases in them."""
        grid = np.broadcast_to(layer.grid, layer.weight.shape)
        weight = np.rint(layer.weight / grid)
        unit = self._step(layer.inputs[0]) * grid.reshape(len(grid), -1)[:, 0]
        bias = np.rint(layer.bias / unit)
        read = np.array([state[layer.inputs[0]]], dtype=np.float64)
        products = layer.apply(weight, read)[0] if isinstance(layer, Conv) else (read @ weight.T)[0]
        spread = np.repeat(bias, layer.size // len(bias))
        return [int(v) for v in products + spread], [int(v) for v in spread]

    def _step(self, i: int) -> float:
        layer: Any = self.network.layers[i]
        return float(layer.step[0]) if isinstance(layer, Rounding) else self._step(layer.inputs[0])

    def _rounded(self, point: Rounding, x: Tensor, state: Any) -> Iterable[Tensor]:
        step = float(point.step[0])
        low, high = round(point.low[0] / step), round(point.high[0] / step)
        source = point.inputs[0]
        layer: Any = self.network.layers[source]
        if isinstance(layer, Input):
            return [x]
        while isinstance(layer, Relu) and state[source] is None:
            source, low = layer.inputs[0], max(low, 0)
            layer = self.network.layers[source]
        if isinstance(layer, Add):
            ways = self._added(layer, step, state)
        elif isinstance(layer, Conv) and not layer.quantised:
            ways = self._averaged(layer, step, state)
        elif isinstance(layer, (Dense, Conv)):
            ways = self._scaled(layer, step, state)
        else:
            ways = self._copied(source, step, state)
        found: set[Tensor] = set()
        for entries in ways:
            found.update(itertools.product(*(sorted(clipped(entry, low, high)) for entry in entries)))
        return found

    def _copied(self, source: int, step: float, state: Any) -> list[list[Iterable[int]]]:
        real = Fraction(self._step(source)) / Fraction(step)
        return self._products([(v, 0, real, (real,)) for v in state[source]], real == 1)

    def _scaled(self, layer: Any, step: float, state: Any) -> list[list[Iterable[int]]]:
        grid = np.broadcast_to(layer.grid, layer.weight.shape).reshape(len(layer.weight), -1)[:, 0]
        terms = []
        for i, (acc, bias) in enumerate(zip(*self._sums(layer, state), strict=True)):
            unit = self._step(layer.inputs[0]) * float(grid[i * len(grid) // layer.size])
            reals = [Fraction(unit / step)]
            if len(set(grid.tolist())) == 1:
                reals.append(Fraction(float(np.float32(unit)) / step))
            terms.append((acc, bias, reals[0], tuple(reals)))
        return self._products(terms)

    def _products(self, terms: list[Any], exact: bool = False) -> list[list[Iterable[int]]]:
        """The ways to multiply accumulators with biases by real numbers, each with its variants for fixed point."""
        if exact:
            return [[(acc,) for acc, *_ in terms]]
        ways: list[list[Iterable[int]]] = []
        if "float32" in self.rules:
            ways.append(
                [
                    between(acc * real, Fraction(6, 2**24) * (abs(acc - bias) + abs(bias)) * real)
                    for acc, bias, real, _ in terms
                ]
            )
        for multiply, variant in itertools.product(self.fixed(), range(len(terms[0][3]))):
            ways.append([(multiply(acc, *quantised(reals[variant])),) for acc, _, _, reals in terms])
        return ways

    def fixed(self) -> list[Any]:
        """The products in fixed point that the rules name."""
        return [multiply for rule in self.rules for multiply in FIXED.get(rule, ())]

    def _added(self, layer: Add, step: float, state: Any) -> list[list[Iterable[int]]]:
        s, t = (self._step(i) for i in layer.inputs)
        pairs = list(zip(*(state[i] for i in layer.inputs), strict=True))
        m, n = Fraction(s) / Fraction(step), Fraction(t) / Fraction(step)
        ways: list[list[Iterable[int]]] = []
        if "float32" in self.rules:
            raw = Fraction(256, 2**24) * (m + n)
            slack = [Fraction(6, 2**24) * (abs(a) * m + abs(b) * n) + raw for a, b in pairs]
            ways.append([between(a * m + b * n, e) for (a, b), e in zip(pairs, slack, strict=True)])
            for bits in (20, 21):
                ratios = [Fraction(float(np.float32(u) / np.float32(step))) for u in (s, t)]
                shift = next(k for k in range(64) if max(ratios) * 2**k >= 2**bits)
                p, q = (round(ratio * 2**shift) for ratio in ratios)
                ways.append([between(Fraction(a * p + b * q, 2**shift), Fraction(0)) for a, b in pairs])
        twice = 2 * Fraction(max(s, t))
        first, second = quantised(Fraction(s) / twice), quantised(Fraction(t) / twice)
        output = quantised(twice / (2**20 * Fraction(step)))
        for multiply in self.fixed():
            scaled = [multiply(a << 20, *first) + multiply(b << 20, *second) for a, b in pairs]
            ways.append([(multiply(total, *output),) for total in scaled])
        return ways

    def _averaged(self, layer: Conv, step: float, state: Any) -> list[list[Iterable[int]]]:
        count = layer.fan_in
        read = np.array([state[layer.inputs[0]]], dtype=np.float64)
        sums = [int(v) for v in layer.apply(np.ones_like(layer.weight), read)[0]]
        signed = min(self.network.layers[layer.inputs[0]].low) < 0  # type: ignore[attr-defined]
        source: Any = self.network.layers[layer.inputs[0]]
        reach = count * round(max(-source.low[0], source.high[0]) / self._step(layer.inputs[0]))
        scale = Fraction(self._step(layer.inputs[0])) / Fraction(step)
        ways: list[list[Iterable[int]]] = []
        if scale == 1 or "float32" in self.rules or layer.positions > 1:
            relative = Fraction(0) if scale == 1 and "float32" not in self.rules else Fraction(count + 6, 2**24)
            ways.append([between(v * scale / count, relative * (reach if signed else v) * scale / count) for v in sums])
        q, shift = quantised(scale)
        more = min(count.bit_length() - 1, 32, 31 + shift)
        folded = (q << more) // count, shift - more
        for multiply in self.fixed() if layer.positions == 1 else []:  # MEAN
            ways.append([(multiply(v, *folded),) for v in sums])
            ways.append([(halves_away(Fraction(multiply(v, q, shift), count)),) for v in sums])
        return ways


# --- networks ---


class Maker:
    """A random quantised network, layer by layer."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], reach: int = 15):
        self.rng, self.reach = rng, reach
        self.layers: list[Layer] = [Input("input", (), shape)]
        self.rounded(0, 0.5, -reach)

    def rounded(self, source: int, step: float, low: int, high: int | None = None) -> int:
        """A rounding point behind a layer; its index."""
        self.layers.append(
            Rounding.on_grid(
                f"{self.layers[source].name}/rounded",
                source,
                self.layers[source].shape,
                step,
                (low, high or self.reach),
            )
        )
        return len(self.layers) - 1

    def step(self, i: int) -> float:
        layer: Any = self.layers[i]
        return float(layer.step[0]) if isinstance(layer, Rounding) else self.step(layer.inputs[0])

    def steps(self, outputs: int, channels: bool) -> np.ndarray:
        """Steps of weights: numbers of float32, often powers of two, so that ties are met."""
        count = outputs if channels else 1
        some = self.rng.choice([0.25, 0.125, 0.1, 0.07], size=count)
        return np.broadcast_to(some.astype(np.float32).astype(np.float64), (outputs,)).copy()

    def dense(self, source: int, outputs: int, channels: bool = False) -> int:
        inputs, grid = self.layers[source].size, self.steps(outputs, channels)
        weight = self.rng.integers(-5, 6, (outputs, inputs)) * grid[:, None]
        bias = self.rng.integers(-20, 21, outputs) * (self.step(source) * grid)
        name = f"dense{len(self.layers)}"
        self.layers.append(Dense(name, (source,), (outputs,), weight, bias, grid=grid[:, None]))
        return len(self.layers) - 1

    def conv(self, source: int, outputs: int, groups: int = 1, **how: Any) -> int:
        shape: Any = self.layers[source].shape
        grid = self.steps(outputs, True)
        weight = self.rng.integers(-5, 6, (outputs, shape[0] // groups, 2, 2)) * grid[:, None, None, None]
        bias = self.rng.integers(-20, 21, outputs) * (self.step(source) * grid)
        return self._convolved(source, weight, bias, groups=groups, grid=grid[:, None, None, None], **how)

    def average(self, source: int, size: int) -> int:
        channels = self.layers[source].shape[0]
        weight = np.full((channels, 1, size, size), 1 / size**2)
        return self._convolved(source, weight, np.zeros(channels), groups=channels, quantised=False)

    def _convolved(self, source: int, weight: np.ndarray, bias: np.ndarray, **how: Any) -> int:
        shape: Any = self.layers[source].shape
        pads, strides = how.get("pads", (0, 0, 0, 0)), how.get("strides", (1, 1))
        rows = (shape[1] + pads[0] + pads[2] - weight.shape[2]) // strides[0] + 1
        columns = (shape[2] + pads[1] + pads[3] - weight.shape[3]) // strides[1] + 1
        out = (len(weight), rows, columns)
        self.layers.append(Conv(f"conv{len(self.layers)}", (source,), out, weight, bias, shape, **how))
        return len(self.layers) - 1

    def largest(self, source: int, kernel: tuple[int, int], **how: Any) -> int:
        shape: Any = self.layers[source].shape
        self.layers.append(max_pool(f"pool{len(self.layers)}", source, shape, kernel, **how))
        return len(self.layers) - 1

    def moved(self, source: int, index: Any) -> int:
        whole = np.asarray(index)
        self.layers.append(
            Gather(f"moved{len(self.layers)}", (source,), whole.shape, whole.ravel(), np.zeros(whole.size))
        )
        return len(self.layers) - 1

    def add(self, first: int, second: int) -> int:
        self.layers.append(Add(f"add{len(self.layers)}", (first, second), self.layers[first].shape))
        return len(self.layers) - 1

    def relu(self, source: int) -> int:
        self.layers.append(Relu(f"relu{len(self.layers)}", (source,), self.layers[source].shape))
        return len(self.layers) - 1

    def network(self) -> Network:
        return Network(tuple(self.layers), "small")

    def sample(self) -> tuple[np.ndarray, Tensor]:
        """An input (1, n_in), on its grid, and its integers."""
        whole = self.rng.integers(-self.reach, self.reach + 1, prod(self.layers[0].shape))
        return whole[None] * self.step(1), tuple(int(v) for v in whole)
