"""A member below a margin that was proved ends the run; one within what a forward pass rounds does not."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.errors import InternalError
from qverify.family.radii import Radii
from qverify.network import margins
from qverify.verification import contradictions
from qverify.verification.contradictions import refuse_contradiction, refuse_contradictions
from qverify.verification.setup import Setup
from qverify.verification.undecided import Batch
from qverify.verification.verdict import Options
from tests.support.networks import mlp


@pytest.fixture
def setup(rng: np.random.Generator) -> Setup:
    return Setup(mlp(rng, 4, 6, 3), Radii(weight=0.01), Options())


def batch(setup: Setup, rng: np.random.Generator) -> Batch:
    """Four samples, of which the first is decided; the proved margins are those attained, so nothing is left over."""
    x = rng.normal(size=(4, 4))
    outputs = setup.network.evaluate(x)
    labels = outputs.argmax(1)
    lower = outputs[np.arange(4), labels][:, None] - outputs
    lower[np.arange(4), labels] = np.inf
    found = Batch(
        start=0,
        x=x,
        labels=labels,
        predicted=labels,
        lower=lower,
        attained=margins(outputs, labels),
        seconds=np.zeros(4),
        open=np.arange(1, 4),
    )
    found.bounds = setup.intervals(x[1:])
    return found


def test_what_agrees_passes(setup: Setup, rng: np.random.Generator) -> None:
    refuse_contradictions(setup, batch(setup, rng))


@pytest.mark.parametrize("limit", [contradictions._SMALL, 0], ids=["gain", "no gain"])
@pytest.mark.parametrize("sample", [1, 2, 3])
def test_a_member_below_the_bound_is_an_internal_error(
    sample: int, limit: int, setup: Setup, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contradictions, "_SMALL", limit)
    wrong = batch(setup, rng)
    wrong.attained[sample] -= 1e-3
    with pytest.raises(InternalError, match="below the bound"):
        refuse_contradictions(setup, wrong)
    for position, open_sample in enumerate(wrong.open):
        if open_sample == sample:
            with pytest.raises(InternalError, match="below the bound"):
                refuse_contradiction(setup, wrong, position)
        else:
            refuse_contradiction(setup, wrong, position)


def test_what_a_forward_pass_rounds_is_no_contradiction(setup: Setup, rng: np.random.Generator) -> None:
    near = batch(setup, rng)
    near.attained -= 1e-14
    refuse_contradictions(setup, near)


def test_decided_samples_are_not_looked_at(setup: Setup, rng: np.random.Generator) -> None:
    wrong = batch(setup, rng)
    wrong.attained[0] -= 1.0
    refuse_contradictions(setup, wrong)
