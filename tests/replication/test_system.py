"""Bounds of systems in floating point: exact rationals lie within, also where everything cancels."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, MaxPool, Relu, Scale
from qverify.network import Network
from qverify.replication import system
from qverify.replication.pairs import difference_of, runtimes_of
from tests.support.networks import NETWORKS, RELU_NETWORKS, conv_taps, mlp, pool_taps


def exact(network: Network, x: Any) -> list[list[Fraction]]:
    """The values of every layer in exact arithmetic."""
    values: list[list[Fraction]] = []
    for layer in network.layers:
        if isinstance(layer, Input):
            values.append([Fraction(float(v)) for v in x])
            continue
        v = values[layer.inputs[0]]
        if isinstance(layer, Dense):
            rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            values.append([sum((Fraction(w) * a for w, a in zip(row, v, strict=True)), Fraction(b)) for row, b in rows])
        elif isinstance(layer, Conv):
            weight, bias = layer.weight, layer.bias
            taps = conv_taps(layer)
            each = len(taps) // len(bias)
            values.append(
                [
                    sum((Fraction(float(weight[k])) * v[i] for i, k in pairs), Fraction(float(bias[n // each])))
                    for n, pairs in enumerate(taps)
                ]
            )
        elif isinstance(layer, Scale):
            numbers = zip(layer.scale.tolist(), layer.shift.tolist(), v, strict=True)
            values.append([Fraction(s) * a + Fraction(t) for s, t, a in numbers])
        elif isinstance(layer, Relu):
            values.append([max(a, Fraction(0)) for a in v])
        elif isinstance(layer, Gather):
            every = [number for j in layer.inputs for number in values[j]]
            places = zip(layer.index.tolist(), layer.fill.tolist(), strict=True)
            values.append([every[i] if i >= 0 else Fraction(c) for i, c in places])
        elif isinstance(layer, MaxPool):
            values.append([max(v[i] for i in taps) for taps in pool_taps(layer)])
        else:
            assert isinstance(layer, Add)
            values.append([a + b for a, b in zip(v, values[layer.inputs[1]], strict=True)])
    return values


def cancelling(rng: np.random.Generator) -> Network:
    """Outputs that are tiny differences of huge numbers."""
    network = mlp(rng, 5, 12, 12, 4)
    last: Any = network.layers[-1]
    first: Any = network.layers[1]
    weight = np.array(last.weight)
    weight[:, 1::2] = -weight[:, ::2]
    doubled = np.repeat(first.weight[::2], 2, axis=0) * 1e9
    layers = list(network.layers)
    layers[1] = Dense("fc0", (0,), (12,), weight=doubled, bias=np.repeat(first.bias[::2], 2))
    layers[-1] = Dense("fc2", (4,), (4,), weight=weight * 1e7, bias=last.bias)
    return Network(tuple(layers))


@pytest.mark.parametrize("name", [*sorted(RELU_NETWORKS), "cancelling"])
def test_exact_values_lie_within(name: str) -> None:
    """At a point, where only rounding makes a bound wide, and in a box."""
    rng = np.random.default_rng(0)
    network = cancelling(rng) if name == "cancelling" else NETWORKS[name](rng)
    bounded = runtimes_of(network, {})
    for width in (0.0, 1e-3):
        x = rng.normal(size=network.input_size)
        leaf = torch.as_tensor(x - width), torch.as_tensor(x + width)
        boxes = bounded.bounds([leaf]).boxes
        for values, (lower, upper) in zip(exact(network, x), boxes, strict=True):
            for value, low, high in zip(values, lower.tolist(), upper.tolist(), strict=True):
                assert Fraction(low) <= value <= Fraction(high)


def test_rows_account_for_their_rounding() -> None:
    """Rows through layers without a kink, whose terms cancel: float64 is off both ways, and the bounds are not."""
    rng = np.random.default_rng(1)
    first, second = 1e6 * rng.normal(size=(30, 5)), rng.normal(size=(30, 30))
    third = np.linalg.lstsq((second @ first).T, rng.normal(size=(5, 4)), rcond=None)[0].T
    layers: list[Any] = [Input("x", (), (5,))]
    weights: list[Any] = [first, second, third]
    for k, weight in enumerate(weights):
        layers.append(Dense(f"fc{k}", (k,), (len(weight),), weight=weight, bias=np.zeros(len(weight))))
    network = Network(tuple(layers))
    bounded = runtimes_of(network, {})
    rows = torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)])
    for _ in range(20):
        x = rng.normal(size=5)
        found = bounded.bounds([(torch.as_tensor(x), torch.as_tensor(x))], refined=False)
        low = bounded.least(found, {3: rows}, 3).tolist()
        for i, value in enumerate(exact(network, x)[-1]):
            assert Fraction(low[i]) <= value <= -Fraction(low[4 + i])


@pytest.mark.parametrize("name", sorted(RELU_NETWORKS))
def test_the_difference_of_a_network_to_itself_is_0(name: str) -> None:
    rng = np.random.default_rng(0)
    network = NETWORKS[name](rng)
    bounded = difference_of(network, network, range(len(network.layers)), {})
    x = rng.normal(size=network.input_size)
    zero = torch.zeros(network.input_size, dtype=torch.float64)
    boxes = bounded.bounds([(torch.as_tensor(x - 1.0), torch.as_tensor(x + 1.0)), (zero, zero)]).boxes
    lower, upper = boxes[-1]
    assert bool((lower <= 0).all() and (upper >= 0).all()) and float((upper - lower).max()) < 1e-9


def test_a_node_that_costs_too_much_keeps_its_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last, whose bounds are what is asked."""
    rng = np.random.default_rng(0)
    network = mlp(rng, 4, 9, 9, 9, 3)
    leaf = torch.full((4,), -1.0, dtype=torch.float64), torch.full((4,), 1.0, dtype=torch.float64)
    bounded = runtimes_of(network, {})
    full, plain = bounded.bounds([leaf]).boxes, bounded.bounds([leaf], refined=False).boxes
    monkeypatch.setattr(system, "REFINED", 1.0)
    cheap = bounded.bounds([leaf]).boxes

    def widths(boxes: Any) -> list[float]:
        return [float((upper - lower).sum()) for lower, upper in boxes]

    assert widths(cheap)[3] == widths(plain)[3] > widths(full)[3]
    assert widths(full)[-1] <= widths(cheap)[-1] < widths(plain)[-1]
