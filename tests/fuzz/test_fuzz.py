"""The fuzzer: random networks, members and integer files against the product's answers (fuzz/ says how)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.fuzz.exact import evaluate, rational
from tests.fuzz.families import paper
from tests.fuzz.judge import Tally
from tests.fuzz.members import Search, outputs
from tests.fuzz.models import KINDS, case
from tests.fuzz.plans import FOLDS, plan
from tests.fuzz.run import fuzz, one_round
from tests.support.toolchain import outputs as run_in_onnxruntime


@pytest.mark.parametrize("kind", KINDS)
def test_its_forward_passes_agree(kind: str, rng: np.random.Generator) -> None:
    """Operator by operator in rationals, as sums with norms folded or not, and onnxruntime."""
    for _ in range(6):
        made = case(rng, kind)
        exact = evaluate(made.model, made.x[0])
        size = max(1.0, float(max(abs(exact))))
        (answer,) = run_in_onnxruntime(made.model, made.x[:1], False)
        assert (abs(exact.astype(float) - answer) <= 1e-4 * size).all()
        for fold in FOLDS:
            read = plan(made.model, fold)
            search = Search(paper(read, 8, False, None), rng)
            still = {key: np.zeros(shape) for key, shape in search.shapes().items()}
            out = outputs(search.family, rational(made.x[0]).ravel(), still)
            assert (abs(out - exact) <= (0 if read.rational else 1e-30)).all()


def test_no_verdict_is_broken() -> None:
    """A short run: every scheme and kind."""
    tally = fuzz(seed=0, verdicts=60)
    assert tally.broken == []
    assert tally.total("verified") > 8 and tally.total("falsified") > 8


@pytest.mark.slow
def test_no_verdict_is_broken_in_two_minutes() -> None:
    tally = fuzz(seed=1, seconds=120)
    print("\n".join(tally.lines()))
    assert tally.broken == []
    assert tally.total() > 300
    assert sum(tally.files.values()) > 100


@pytest.mark.parametrize("seed", [(77, 35)])
def test_rounds_that_broke_once(seed: tuple[int, int]) -> None:
    """A channel of zeros, which onnxruntime's quantiser stores as -128 beside the zero point -128."""
    tally = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one_round(seed, tally)
    assert tally.broken == [] and tally.total() > 0
