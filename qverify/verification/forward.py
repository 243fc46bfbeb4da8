"""The first stage: the trained network on samples, and the member without errors, by forward passes in float64."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import DataError
from qverify.family.members import Recipe
from qverify.network import margins
from qverify.verification.positions import Positions
from qverify.verification.undecided import Batch

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.verification.setup import Setup


def forwarded(setup: Setup, start: int, x: Array, labels: Array, seconds: Array) -> tuple[Batch, Any]:
    """Samples x (N, n_in) with labels (N,), numbered from `start`, of which `seconds` (N,) were spent on each before,
    as a batch that is all open; and a mask (N,) of those that the network itself misclassifies. Raises DataError.
    """
    began = time.perf_counter()
    outputs, count = setup.network.evaluate(x), np.arange(len(x))
    lower = np.full(outputs.shape, -np.inf)
    lower[count, labels] = np.inf
    own, attained = margins(outputs, labels), margins(setup.centre(x), labels)
    if not np.isfinite(outputs).all():
        raise DataError("The network's outputs overflow on these samples; check the scale of the data.")
    wrong = own <= 0
    batch = Batch(
        start=start,
        x=x,
        labels=labels,
        predicted=outputs.argmax(1),
        lower=lower,
        attained=np.where(wrong, own, attained),
        seconds=seconds,
        open=count,
    )
    batch.spent(began)
    for sample in np.flatnonzero((attained <= 0) & ~wrong).tolist():  # the member without errors fails already
        x_hat = setup.family.centre(x[sample : sample + 1])[0]
        choice = Positions.middle(setup.model, 1).choice(0)
        family, label = setup.family, int(labels[sample])
        batch.recipes[sample] = Recipe(family=family, x=x[sample], x_hat=x_hat, label=label, choice=choice)
    return batch, wrong
