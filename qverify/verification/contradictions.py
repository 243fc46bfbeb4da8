"""Contradictions between the margins proved and attained of a sample: something is broken, and the run must end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.decide import Known, rule
from qverify.exact.gain import gain

if TYPE_CHECKING:
    from qverify.verification.setup import Setup
    from qverify.verification.undecided import Batch

_SMALL = 5_000_000
"""Weights times positions up to which the layers are at hand as matrices without a second thought."""


def refuse_contradictions(setup: Setup, batch: Batch) -> None:
    """Raise InternalError if a member of any open sample lies below a margin that was proved for all members."""
    for position in np.flatnonzero(_crossing(batch, batch.open)).tolist():
        refuse_contradiction(setup, batch, position)


def refuse_contradiction(setup: Setup, batch: Batch, position: int) -> None:
    """Raise InternalError if a member of the open sample at `position` lies below a margin that was proved for all.

    Forward passes round: a margin attained may lie below one proved by as much as they can be off (`decide.rule`).
    """
    sample = int(batch.open[position])
    if not _crossing(batch, sample):
        return
    worst = int(batch.lower[sample].argmin())
    row = np.zeros(batch.lower.shape[1])
    row[batch.labels[sample]], row[worst] = 1.0, -1.0
    known = Known(float(batch.lower[sample, worst]), float(batch.attained[sample]))
    scale = math.inf
    if setup.model.operations <= _SMALL:
        scale = gain(setup.maps, batch.bounds.sample(position), row).magnitudes
    rule(known, scale)


def _crossing(batch: Batch, samples: Any) -> Any:
    """The margin attained lies below the smallest one proved; for one sample or an array of them."""
    return batch.lower[samples].min(-1) > batch.attained[samples]
