"""The search of one sample against corners enumerated and the definition, and its ends by hand."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.errors import ModelTooLarge
from qverify.exact.decide import Ruling
from qverify.exact.loaded import Loaded
from qverify.exact.maps import Maps
from qverify.exact.search import Search, SearchedSample, SearchSettings
from qverify.family.family import Family
from tests.support.networks import inputs, mlp, random_radii
from tests.support.programs import (
    ALL,
    corner_minimum,
    difference,
    optimum,
    relational,
    sample_bounds,
)


def search(family: Family, x: np.ndarray, label: int, **settings: Any) -> Search:
    bounds = sample_bounds(family, x)
    case = SearchedSample(family=family, x=x, label=label, bounds=bounds, lower=np.full(len(bounds.lower[-1]), -np.inf))
    return Search(Maps(family), SearchSettings(solver="highs", **settings), case)


def tiny_without_input(seed: int) -> tuple[Family, np.ndarray, np.ndarray]:
    """A family of one hidden layer without an input radius, a sample, and its worst margins by enumeration."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, 2, 2, 3)
    family = Family.of(network, replace(random_radii(network, rng, 0.2), input=0.0))
    x = inputs(network, rng)[seed % 6]
    label = int(network.evaluate(x[None])[0].argmax())
    rows = np.eye(3)[label] - np.eye(3)
    margins = [np.inf if j == label else corner_minimum(network, family, x[None], rows[j]) for j in range(3)]
    return family, x, np.array(margins)


@pytest.mark.parametrize("seed", range(12))
def test_worst_margins_are_those_of_the_corners(seed: int) -> None:
    family, x, truth = tiny_without_input(seed)
    label, worst = int(np.isinf(truth).argmax()), float(truth.min())
    found = search(family, x, label, early=False)
    assert found.decide() is (Ruling.HOLDS if worst > 0.0 else Ruling.BROKEN)
    assert found.attained >= worst - 1e-9, "a member"
    if worst > 0.0:  # else the first failing member ends it
        assert found.attained == pytest.approx(worst, abs=1e-6)
    rivals = np.arange(3) != label
    assert (found.lower[rivals] <= truth[rivals] + 1e-9).all()
    assert found.lower[truth.argmin()] == pytest.approx(worst, abs=1e-6) or worst <= 0.0
    quick = search(family, x, label)
    assert quick.decide() is found.decide()
    assert quick.attained >= worst - 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_the_minimum_of_any_row(seed: int) -> None:
    family, x, _ = tiny_without_input(seed)
    row = np.random.default_rng(seed).normal(size=3)
    truth = corner_minimum(family.network, family, x[None], row)
    found = search(family, x, 0, early=False)
    known = found.minimum(row)
    found.close()
    assert known.lower <= truth + 1e-9 and known.upper >= truth - 1e-9
    assert found.answered(known) and known.upper - known.lower < 1e-6


@pytest.mark.parametrize("name", ["signed_hidden", "relu_on_input"])
def test_chords_that_matter_get_sign_binaries(name: str, rng: np.random.Generator) -> None:
    """The minimum over chords alone is below that of the definition, which the search reaches."""
    network, below = ALL[name](rng), 0
    family = Family.of(network, random_radii(network, rng, 0.3))
    for x in inputs(network, rng):
        row = difference(network)
        truth, relaxed = optimum(relational(family, x), row), optimum(relational(family, x, chord=True), row)
        found = search(family, x, 0, early=False)
        known = found.minimum(row)
        found.close()
        assert known.lower == pytest.approx(truth, abs=1e-6) == known.upper
        below += relaxed < truth - 1e-6
    assert below or name != "signed_hidden"


def test_binaries_that_a_licence_does_not_admit_cost_no_answer(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """What was proved before them stands, for this row and the next; a program too large from the start is refused."""
    network, session = ALL["signed_hidden"](rng), Loaded.session

    def limited(self: Loaded, relax: bool, least: int = 1) -> Any:
        found = session(self, relax)
        if not relax and sum(name.startswith("sign") for name in found[0].builder.blocks) >= least:
            raise ModelTooLarge("too large for the licence")
        return found

    monkeypatch.setattr(Loaded, "session", limited)
    family, refused = Family.of(network, random_radii(network, rng, 0.3)), 0
    for x in inputs(network, rng):
        found = search(family, x, 0, early=False)
        for row in (difference(network), -difference(network)):
            truth, chord = optimum(relational(family, x), row), optimum(relational(family, x, chord=True), row)
            known = found.minimum(row)
            assert chord - 1e-6 <= known.lower <= truth + 1e-9 and known.upper >= truth - 1e-9
            refused += found.detail == "too large for the licence"
        found.close()
    assert refused
    monkeypatch.setattr(Loaded, "session", lambda self, relax: limited(self, relax, 0))
    with pytest.raises(ModelTooLarge):
        search(family, inputs(network, rng)[0], 0, early=False).minimum(difference(network))


def test_a_failure_within_leaves_no_cleared_program(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Bounds of the program whose points are clear of jumps are none of the family."""
    network = ALL["dense"](rng)
    family = Family.of(network, random_radii(network, rng))
    loaded = search(family, inputs(network, rng)[0], 0)._loaded

    def fails() -> None:
        with loaded.cleared(1e-3):
            assert loaded.session(True)[0].clear == 1e-3  # type: ignore[union-attr]
            raise ModelTooLarge("no licence")

    with pytest.raises(ModelTooLarge):
        fails()
    assert loaded.session(True)[0].clear == 0.0  # type: ignore[union-attr]
    loaded.close()


def test_a_stop_and_a_limit_leave_it_open() -> None:
    tiny = (tiny_without_input(seed) for seed in range(12))
    family, x, truth = next(one for one in tiny if 0.0 < one[2].min() < 0.5)
    label = int(np.isinf(truth).argmax())
    stop = threading.Event()
    stop.set()
    settings: dict[str, Any]
    for settings in ({"stop": stop}, {"seconds": 0.0}, {"memory": 1}):
        found = search(family, x, label, **settings)
        assert found.decide() is Ruling.OPEN and found.detail
        assert (found.lower[np.arange(3) != label] <= truth.min() + 1e-9).all()


def test_the_first_member_is_the_network_itself() -> None:
    family, x, truth = tiny_without_input(1)
    label = int(np.isinf(truth).argmax())
    output = family.network.evaluate(x[None])[0]
    found = search(family, x, label)
    assert found.attained == min(output[label] - output[j] for j in range(3) if j != label)
    rivals = np.arange(3) != label
    assert (found.upper[rivals] == output[label] - output[rivals]).all()
    assert found.recipe is None and found.scope == "exact"
