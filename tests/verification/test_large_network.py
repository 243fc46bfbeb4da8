"""Time limits and stops on a network of 20,480 Relus, by the clock on the wall."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.analysis.factors import largest_factors
from qverify.analysis.grid import Grid
from qverify.family.radii import Radii
from qverify.layers import Input
from qverify.network import Network, margins
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status, Verdict
from tests.support.networks import Array, conv, dense, known_layers, relu


@pytest.fixture(scope="module")
def large() -> tuple[Network, Array, Array]:
    rng = np.random.default_rng(3)
    same: dict[str, Any] = {"pads": (1, 1, 1, 1)}
    first = conv(rng, "c1", 0, (3, 32, 32), (8, 3, 3, 3), **same)
    second = conv(rng, "c2", 2, first.shape, (8, 8, 3, 3), **same)
    third = conv(rng, "c3", 4, second.shape, (16, 8, 3, 3), strides=(2, 2), **same)
    layers = [Input("x", (), (3, 32, 32)), first, relu("r1", 1, first), second, relu("r2", 3, second)]
    network = Network((*layers, third, relu("r3", 5, third), dense(rng, "out", 6, 10, third.size)))
    assert sum(layer.size for layer in known_layers(network) if type(layer).__name__ == "Relu") == 20_480
    x = rng.random((2, 3 * 32 * 32))
    return network, x, network.evaluate(x).argmax(1)


TINY = 2e-3
HARD = Radii(TINY, TINY, TINY, TINY)
SLACK = 6.0
"""Seconds: the promise is 2, on a machine that has nothing else to do."""


def never_wrong(network: Network, x: Array, label: int, verdict: Verdict) -> None:
    """Against members drawn by a forward pass: the corners that push every kernel one way."""
    assert verdict.margin_lower <= verdict.margin_upper
    nominal = network.evaluate(x[None])
    assert verdict.margin_lower <= margins(nominal, np.array([label]))[0]
    for sign in (-1.0, 1.0):
        moved = [
            replace(layer, weight=layer.weight + sign * TINY, bias=layer.bias + sign * TINY)
            if hasattr(layer, "weight")
            else layer
            for layer in known_layers(network)
        ]
        member = Network(tuple(moved)).evaluate(x[None] + sign * TINY)
        assert verdict.margin_lower <= margins(member, np.array([label]))[0] + 1e-9


@pytest.mark.parametrize("method", ["auto", "exact"])
def test_a_large_network_ends_in_time(method: str, large: tuple[Network, Array, Array]) -> None:
    network, x, y = large
    began = time.monotonic()
    (verdict,) = verify(network, x[:1], y[:1], HARD, Options(method=method, seconds=1.5, jobs=1, attack=False))
    assert time.monotonic() - began < 1.5 + SLACK
    if method == "exact" or verdict.status is Status.UNKNOWN:  # its sign may be known in time, the margin is not
        assert verdict.limit == 1.5 and verdict.detail.startswith("time limit")
    assert verdict.seconds < 1.5 + SLACK and np.isfinite(verdict.margin_lower)
    never_wrong(network, x[0], y[0], verdict)


@pytest.mark.slow
def test_the_discrepancy_of_a_large_network_ends_in_time(large: tuple[Network, Array, Array]) -> None:
    network, x, _ = large
    began = time.monotonic()
    (found,) = worst_case_discrepancy(network, x[:1], HARD, Options("exact", seconds=1.5, jobs=1))
    assert time.monotonic() - began < 1.5 + SLACK
    assert not found.complete and np.isfinite(found.worst)


def test_a_stop_is_heard_within_a_stage(large: tuple[Network, Array, Array]) -> None:
    network, x, y = large
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    began = time.monotonic()
    ways = Options(method="exact", seconds=None, jobs=1, attack=False)
    assert verify(network, x[:1], y[:1], HARD, ways, None, stop) == []
    assert time.monotonic() - began < 1.0 + SLACK


@pytest.mark.slow
def test_a_radius_of_a_large_network_ends_in_time(large: tuple[Network, Array, Array]) -> None:
    """The limit is for one factor; there are a dozen of them at most, and three stages."""
    network, x, y = large
    grid = Grid(max_factor=1.0, precision=1.0)
    began = time.monotonic()
    (found,) = largest_factors(network, x[:1], y[:1], HARD, grid, Options(seconds=1.0, jobs=1, attack=False))
    assert time.monotonic() - began < 4 * grid.halvings * (1.0 + 1.0) + SLACK
    assert found.upper is None or found.factor < found.upper
