"""Answers about runtimes, against all that runtimes may compute (brute force) on small networks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qverify.errors import DataError, InternalError, UsageError
from qverify.layers import Dense
from qverify.network import Network
from qverify.runtimes import decide
from qverify.runtimes.decide import RuntimeAnswer, RuntimeOptions, same_on_runtimes
from qverify.runtimes.search import Found, Search
from qverify.runtimes.witness import Choice
from tests.support.integer_networks import Maker, Space
from tests.support.marks import mostly_slow

RULES = ("float32", "single", "double")


def two_layers(rng: np.random.Generator) -> Maker:
    made = Maker(rng, (3,))
    hidden = made.rounded(made.dense(1, 3), 0.5, 0)
    made.rounded(made.dense(hidden, 3, channels=True), 1.0, -15)
    return made


def signed(rng: np.random.Generator) -> Maker:
    """Hidden tensors that may be negative, a Relu on integers, and accumulators as outputs."""
    made = Maker(rng, (3,))
    hidden = made.rounded(made.dense(1, 3, channels=True), 0.75, -9)
    again = made.rounded(made.relu(hidden), 0.5, -9)
    made.dense(again, 2)
    return made


def residual(rng: np.random.Generator) -> Maker:
    made = Maker(rng, (3,))
    hidden = made.rounded(made.dense(1, 3), 0.25, -15)
    total = made.rounded(made.add(1, hidden), float(np.float32(rng.choice([1.0, 0.6]))), 0)
    made.rounded(made.dense(total, 3), 1.5, -15)
    return made


def convolutional(rng: np.random.Generator) -> Maker:
    made = Maker(rng, (1, 3, 3))
    hidden = made.rounded(made.relu(made.conv(1, 2)), 0.5, -15)
    pooled = made.rounded(made.average(hidden, 2), 0.5, 0)
    made.rounded(made.dense(pooled, 3, channels=True), 0.5, -15)
    return made


def maxima(rng: np.random.Generator) -> Maker:
    """Maxima of the input, and of a convolution, with padding; then again over all positions, before the last layer."""
    made = Maker(rng, (1, 3, 3))
    hidden = made.rounded(made.relu(made.conv(made.largest(1, (2, 1)), 2)), 0.5, -15)
    pooled = made.largest(hidden, (1, 2), pads=(0, 1, 0, 0))
    made.rounded(made.dense(made.rounded(pooled, 0.75, -15), 3, channels=True), 0.5, -15)
    return made


def depthwise(rng: np.random.Generator) -> Maker:
    made = Maker(rng, (2, 2, 2))
    hidden = made.rounded(made.conv(1, 2, groups=2, pads=(0, 0, 1, 1), strides=(2, 2)), 0.5, -15)
    pooled = made.rounded(made.average(hidden, 1), 0.75, -15)
    made.rounded(made.dense(pooled, 2), 0.5, -15)
    return made


def deep(rng: np.random.Generator) -> Maker:
    made = Maker(rng, (3,))
    hidden = made.rounded(made.dense(1, 4), 2.0, -15)
    hidden = made.rounded(made.dense(hidden, 4, channels=True), 4.0, -15)
    hidden = made.rounded(made.dense(hidden, 3), 8.0, 0)
    made.rounded(made.dense(hidden, 3, channels=True), 8.0, -15)
    return made


def clipped(rng: np.random.Generator) -> Maker:
    """Outputs that often lie at the same end of their range: then the first of them is the answer."""
    made = Maker(rng, (3,))
    hidden = made.rounded(made.dense(1, 3), 1.0, -15)
    made.rounded(made.dense(hidden, 4), 0.5, -2, 2)
    return made


def moved(rng: np.random.Generator) -> Maker:
    """A tensor cut and turned, some of it twice, on the grid that it has, before and behind a layer."""
    made = Maker(rng, (4,))
    first = made.moved(1, [3, 1, 0, 1])
    hidden = made.rounded(made.dense(first, 4), 0.75, 0)
    made.rounded(made.dense(made.relu(made.moved(hidden, [2, 0, 2])), 3, channels=True), 0.5, -15)
    return made


NETWORKS = (two_layers, signed, residual, convolutional, maxima, depthwise, deep, clipped, moved)


def draw(make: Callable[[np.random.Generator], Maker], seed: int) -> tuple[Network, np.ndarray, tuple[int, ...]]:
    """A network, and of some samples the one whose class is closest to another."""
    made = make(np.random.default_rng(seed))
    network, samples = made.network(), [made.sample() for _ in range(40)]

    def gap(sample: tuple[np.ndarray, tuple[int, ...]]) -> float:
        best = np.sort(network.evaluate(sample[0])[0])
        return float(best[-1] - best[-2])

    return network, *min(samples, key=gap)


def first_largest(outputs: tuple[int, ...]) -> int:
    return outputs.index(max(outputs))


@pytest.mark.parametrize(
    "rules", mostly_slow([RULES, ("float32",), ("single",), ("double",), ("single", "double")]), ids="-".join
)
@pytest.mark.parametrize("make", mostly_slow(NETWORKS, 5), ids=lambda make: make.__name__)
def test_answers_are_those_of_brute_force(make: Callable[[np.random.Generator], Maker], rules: tuple[str, ...]) -> None:
    statuses: Counter[str] = Counter()
    for seed in range(40 if len(rules) == 3 else 12):
        network, x, whole = draw(make, seed)
        space = Space(network, rules).outputs(whole)
        classes = {first_largest(outputs) for outputs in space}
        (answer,) = same_on_runtimes(network, x, RuntimeOptions(rules=rules, jobs=1))
        assert answer.status == ("same" if len(classes) == 1 else "differs"), seed
        assert answer.predicted in classes
        step = network.layers[-1].step[0] if hasattr(network.layers[-1], "step") else None
        if step is not None:
            every = np.array(sorted(space)) * step
            assert (answer.lower <= every.min(0)).all() and (every.max(0) <= answer.upper).all()
            assert (every.min(0) <= answer.attained_lower).all() and (answer.attained_upper <= every.max(0)).all()
        for assignment in answer.witness or ():
            assert step is None or tuple(round(v / step) for v in assignment.outputs) in space
            assert assignment.predicted in classes
        statuses[answer.status] += 1
    assert statuses["same"] > 1
    assert statuses["differs"] > 2 or len(rules) < 3


@pytest.mark.parametrize("make", mostly_slow(NETWORKS, 4), ids=lambda make: make.__name__)
def test_ranges_are_those_of_brute_force(make: Callable[[np.random.Generator], Maker]) -> None:
    moved = 0
    for seed in range(25):
        network, x, whole = draw(make, seed)
        space = np.array(sorted(Space(network, RULES).outputs(whole)))
        (answer,) = same_on_runtimes(network, x, RuntimeOptions(jobs=1, ranges=True))
        last: Any = network.layers[-1]
        unit = last.step[0] if hasattr(last, "step") else last.grid.flat[0] * network.layers[last.inputs[0]].step[0]
        for found, expected in (
            (answer.lower, space.min(0)),
            (answer.upper, space.max(0)),
            (answer.attained_lower, space.min(0)),
            (answer.attained_upper, space.max(0)),
        ):
            np.testing.assert_array_equal(np.rint(found / unit), expected)
        moved += len(space) > 1
    assert moved > 5


def test_outputs_of_more_than_24_bits_are_compared_exactly() -> None:
    """Two accumulators above 2^24 that float32 does not tell apart: of equal ones the first would be the class."""
    made = Maker(np.random.default_rng(0), (2,), reach=2**15)
    weight = np.array([[511.0, 1.0], [511.0, 1.0]])
    bias = np.array([2.0**24 - 2**20 + 2**12, 2.0**24 - 2**20 + 2**12 + 1])
    made.layers.append(Dense("dense", (1,), (2,), weight, bias * 0.5, grid=np.array([[1.0]])))
    (answer,) = same_on_runtimes(made.network(), np.array([[1024.0, 512.0]]))
    assert (answer.status, answer.predicted) == ("same", 1)
    assert (answer.lower * 2).tolist() == (bias + 511 * 2048 + 1024).tolist() == (answer.upper * 2).tolist()
    assert np.float32(answer.lower[0] * 2) == np.float32(answer.lower[1] * 2)


def test_small_batches_and_jobs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _ = draw(depthwise, 5)
    x = np.concatenate([depthwise(np.random.default_rng(seed)).sample()[0] for seed in range(40)])
    at_once = same_on_runtimes(network, x, RuntimeOptions(jobs=2))
    monkeypatch.setattr(decide, "_CHUNK", 3)
    monkeypatch.setattr("qverify.runtimes.search._BATCH", 1)
    monkeypatch.setattr("qverify.runtimes.search._FIXED", 1)
    told: list[RuntimeAnswer] = []
    apart = same_on_runtimes(network, x, RuntimeOptions(jobs=1), told.append)
    assert [answer.index for answer in at_once] == list(range(40)) == [answer.index for answer in told]
    assert [(a.status, a.predicted) for a in at_once] == [(a.status, a.predicted) for a in apart]
    assert {a.status for a in apart} == {"same", "differs"}


def test_a_sample_without_time_stays_unknown_with_its_bounds() -> None:
    seed, (network, x, whole) = next(
        (seed, drawn) for seed in range(99) if searched(drawn := draw(depthwise, seed)) == "differs"
    )
    (answer,) = same_on_runtimes(network, x, RuntimeOptions(seconds=1e-9))
    assert answer.status == "unknown" and answer.witness is None, seed
    every = np.array(sorted(Space(network, RULES).outputs(whole))) * network.layers[-1].step[0]  # type: ignore[attr-defined]
    assert (answer.lower <= every.min(0)).all() and (every.max(0) <= answer.upper).all()


def searched(drawn: tuple[Network, np.ndarray, tuple[int, ...]]) -> str | None:
    """The status of a sample on which the rules by themselves agree; None for others."""
    network, x, _ = drawn
    classes = {same_on_runtimes(network, x, RuntimeOptions(rules=(rule,)))[0].predicted for rule in RULES}
    return same_on_runtimes(network, x)[0].status if len(classes) == 1 else None


def test_a_run_that_is_stopped_gives_what_it_has() -> None:
    network, x, _ = draw(two_layers, 1)
    stop = threading.Event()

    def tell(_: RuntimeAnswer) -> None:
        stop.set()

    found = same_on_runtimes(network, np.repeat(x, 100, axis=0), RuntimeOptions(jobs=1), tell, stop)
    assert 1 <= len(found) < 100


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rules": ("half",)}, "has no 'half'"),
        ({"rules": ()}, "is empty"),
        ({"seconds": 0.0}, "above 0"),
        ({"seconds": float("nan")}, "above 0"),
        ({"jobs": -1}, "number of jobs"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RuntimeOptions(**given)


def test_rules_are_put_in_order_and_named_once() -> None:
    assert RuntimeOptions(rules=("double", "float32", "double")).rules == ("float32", "double")


def test_wrong_samples_are_refused() -> None:
    network, x, _ = draw(two_layers, 0)
    with pytest.raises(DataError):
        same_on_runtimes(network, x[:, :2])
    with pytest.raises(DataError):
        same_on_runtimes(network, np.full_like(x, np.nan))


def test_a_witness_that_does_not_hold_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = next(drawn for seed in range(99) if searched(drawn := draw(depthwise, seed)) == "differs")

    def wrong(self: Search, *_: Any) -> Found:
        self.found.witness = tuple(Choice(0, ((0, 99),)) for _ in self.engine.stages)
        return self.found

    monkeypatch.setattr(Search, "run", wrong)
    with pytest.raises(InternalError, match="cannot give"):
        same_on_runtimes(drawn[0], drawn[1])
