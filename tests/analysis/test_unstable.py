"""Counts of unstable neurons, by loops over corners and by members drawn at random; and which samples are counted."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify import datasets
from qverify.analysis import unstable
from qverify.analysis.unstable import Counted, spread_out, unstable_neurons
from qverify.bounds.refinement import tightened_bounds
from qverify.budget import Deadline
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.verification.verdict import Options
from tests.support.commands import answer, qverify
from tests.support.networks import Array, conv, dense, mlp, relu, sample_members
from tests.support.paths import DIGITS

RADII = Radii(input=0.03, weight=0.04, bias=0.02, activation=0.05)


def ranges(weight: Array, bias: Array, ends: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """What each neuron can be, every product taken at the corners of its own."""
    found = []
    for row, constant in zip(weight, bias, strict=True):
        low, high = constant - RADII.bias, constant + RADII.bias
        for w, x in zip(row, ends, strict=True):
            corners = [v * u for v in (w - RADII.weight, w + RADII.weight) for u in (*x, min(max(0.0, x[0]), x[1]))]
            low, high = low + min(corners), high + max(corners)
        found.append((low, high))
    return found


def counted(network: Network, x: Array) -> list[list[int]]:
    """Unstable neurons of each Relu for one sample: z or z - r changes sign; the layers are a chain."""
    ends, counts = [(v - RADII.input, v + RADII.input) for v in x], []
    for layer in network.layers[1:]:
        if isinstance(layer, Dense):
            ends = ranges(layer.weight, layer.bias, ends)
        else:
            counts.append(sum(high > 0 and low < RADII.activation for low, high in ends))
            ends = [(max(low - RADII.activation, 0.0), max(high, 0.0) + RADII.activation) for low, high in ends]
    return counts


def test_counts_by_interval_bounds(rng: np.random.Generator) -> None:
    network = mlp(rng, 6, 20, 15, 3)
    x = rng.normal(size=(21, 6))
    found = unstable_neurons(network, RADII, x, Options("ibp"))
    expected = np.mean([counted(network, one) for one in x], axis=0)
    assert found.samples == 21 and list(found.relus) == [2, 4]
    assert [one.ibp for one in found.relus.values()] == pytest.approx(expected.tolist(), abs=1e-12)
    assert 1.0 < expected[0] < 19.0
    assert [(one.name, one.size, one.bp) for one in found.relus.values()] == [("relu0", 20, None), ("relu1", 15, None)]


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_counts_after_bp_lie_between_what_members_show_and_interval_bounds(kind: str, rng: np.random.Generator) -> None:
    if kind == "dense":
        network = mlp(rng, 6, 20, 15, 12, 3)
    else:
        first = conv(rng, "c", 0, (1, 5, 5), (3, 1, 3, 3))
        second = conv(rng, "d", 2, first.shape, (4, 3, 2, 2))
        layers = (Input("x", (), (1, 5, 5)), first, relu("r", 1, first), second, relu("s", 3, second))
        network = Network((*layers, dense(rng, "out", 4, 3, second.size)))
    radii = Radii(input=0.04, weight=0.01, bias=0.01, activation=0.02)
    x, family = rng.normal(size=(5, network.input_size)), Family.of(network, radii)
    found = unstable_neurons(network, radii, x, Options("bp"))
    assert found.samples == 5
    for index, one in found.relus.items():
        (source,) = network.layers[index].inputs
        seen = []
        for sample in x:
            z = np.concatenate([sample_members(family, sample, rng, 200, corner)[source] for corner in (True, False)])
            seen.append(int(((z.max(0) > 0) & (z.min(0) < 0.02)).sum()))
        assert one.bp is not None and np.mean(seen) <= one.bp <= one.ibp <= one.size
    assert any(one.bp < one.ibp for one in found.relus.values() if one.bp is not None)


def test_means_are_over_the_first_samples_that_were_through(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mlp(rng, 6, 20, 3)
    x = rng.normal(size=(40, 6))
    stop, heard = threading.Event(), []

    def tell(count: int) -> None:
        heard.append(count)
        if count >= 16:
            stop.set()

    found = unstable_neurons(network, RADII, x, Options("bp"), Deadline.after(None, stop), tell)
    assert (found.samples, heard) == (16, [8, 16])
    assert found == unstable_neurons(network, RADII, x[:16], Options("bp"))
    assert unstable_neurons(network, RADII, x, Options("bp"), Deadline.after(0.0, threading.Event())) == Counted(0, {})


# --- which samples ---


@given(st.integers(0, 100_000))
def test_samples_are_evenly_spaced(count: int) -> None:
    chosen = spread_out(count)
    if count <= 200:
        assert chosen == list(range(count))
        return
    assert len(chosen) == 200 and chosen[0] == 0 and chosen[-1] < count
    gaps = {b - a for a, b in zip(chosen, [*chosen[1:], count], strict=True)}
    assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """The samples that the command hands over for counting."""
    seen: list[Array] = []
    before: Any = unstable.unstable_neurons

    def hear(network: Any, radii: Any, x: Array, *more: Any) -> Counted:
        seen.append(x)
        found: Counted = before(network, radii, x, *more)
        return found

    monkeypatch.setattr("qverify.cli.inspect.unstable_neurons", hear)
    return seen


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((), [k * 599 // 200 for k in range(200)]), (("--samples", 300), range(300)), (("--samples", "7:9"), range(7, 9))],
)
def test_inspect_counts_on_some_samples_unless_told_which(
    asked: tuple[Any, ...], expected: list[int] | range, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looked_at(monkeypatch)
    found = answer("inspect", DIGITS, "--data", "digits", "--bits", 8, "--method", "ibp", *asked)
    samples, network = datasets.load("digits"), onnx_io.load(DIGITS)
    assert len(seen) == 1 and (seen[0] == samples.x.reshape(599, -1)[list(expected)]).all()
    assert found["samples"] == len(expected)
    counts = unstable_neurons(network, Radii.from_bits(8), seen[0], Options("ibp")).relus
    assert [found["layers"][i]["unstable_ibp"] for i in counts] == [one.ibp for one in counts.values()]
    shown = qverify("inspect", DIGITS, "--data", "digits", "--bits", 8, "--method", "ibp", *asked)
    assert f"the mean over {len(expected)} samples" in " ".join(shown.stdout.split())


def test_inspect_stops_at_its_time_limit_and_says_on_how_many_it_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tightened_bounds

    def slow(*given: Any) -> Any:
        time.sleep(0.3)
        return before(*given)

    monkeypatch.setattr(unstable, "tightened_bounds", slow)
    began = time.monotonic()
    found = qverify("inspect", DIGITS, "--data", "digits", "--bits", 8, "--timeout", 1, "--json")
    assert found.exit_code == 0 and time.monotonic() - began < 10.0
    said = [line for line in found.stderr.splitlines() if "are counted on" in line]
    (sentence,) = said
    number = int(sentence.split("are counted on ")[1].split(" of ")[0])
    assert sentence.endswith(f"{number} of 200 samples; a longer --timeout gives more.")
    assert 8 <= number <= 32 and number % 8 == 0 and f'"samples": {number},' in found.stdout


def test_inspect_without_time_for_one_sample() -> None:
    found = qverify("inspect", DIGITS, "--data", "digits", "--bits", 8, "--timeout", 1e-9)
    assert found.exit_code == 0 and "Unstable neurons" not in found.stdout and "dense1" in found.stdout
    assert "no sample was through in time: unstable neurons are not counted" in found.stderr


def test_inspect_counts_nothing_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looked_at(monkeypatch)
    for less in ((), ("--bits", 8), ("--data", "digits")):
        assert "unstable" not in qverify("inspect", DIGITS, *less).stdout.lower()
    assert seen == []
    monkeypatch.setattr(unstable, "tightened_bounds", None)  # BP at every layer is not for --method ibp
    assert "unstable_ibp" in str(answer("inspect", DIGITS, "--data", "digits", "--bits", 8, "--method", "ibp"))


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_inspect_refuses_a_time_limit_that_is_none(limit: str) -> None:
    found = qverify("inspect", DIGITS, "--data", "digits", "--bits", 8, "--timeout", limit)
    assert found.exit_code == 2 and "The time limit is " in found.stderr and "give a number above 0" in found.stderr
