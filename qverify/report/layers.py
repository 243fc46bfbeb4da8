"""Unstable neurons of a case by layer: counted anew, as `qverify inspect` does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify import datasets
from qverify.analysis.unstable import Unstable, spread_out, unstable_neurons
from qverify.budget import Deadline
from qverify.errors import DataError, QVerifyError
from qverify.report.sources import Sources, clipping, same_radii
from qverify.text.brief import Brief
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.runs.reading import StoredCase

WITHIN = 30.0
"""Seconds for one case; the means are over the samples that were counted by then."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Layers(Brief):
    """The unstable neurons of every Relu of one case, means over `samples` samples; `missing` says why there are none.

    `other_radii`: this version of qverify makes other radii of what the run was asked, and these were taken.
    """

    case: StoredCase
    samples: int
    relus: list[Unstable]
    missing: str = ""
    other_radii: bool = False


def layers_of(cases: Sequence[StoredCase], sources: Sources, tell: Callable[[str], None]) -> list[Layers]:
    """The unstable neurons by layer, for each case; `tell` hears how far the counting is."""
    found = []
    for number, case in enumerate(cases, start=1):
        if len(cases) > 1:
            tell(f"unstable neurons: case {number} of {len(cases)}")
        found.append(_layers(case, sources))
    return found


def _layers(case: StoredCase, sources: Sources) -> Layers:
    indices = [row.index for row in case.rows]
    chosen = [indices[k] for k in spread_out(len(indices))]
    if not chosen:
        return Layers(case=case, samples=0, relus=[], missing="Not counted: no sample is decided.")
    try:
        network, samples = sources.network(case), sources.samples(case)
        if chosen[-1] >= len(samples):
            raise DataError("some rows do not fit the data set")
        x, _ = datasets.fit(samples, network)
        radii = sources.radii(case)
        deadline = Deadline.after(WITHIN, threading.Event())
        counted = unstable_neurons(network, radii, x[chosen], Options(clip=clipping(case)), deadline)
        other = not same_radii(case, network, radii)
    except QVerifyError as error:
        return Layers(case=case, samples=0, relus=[], missing=f"Not counted: {str(error).rstrip('.')}.")
    if not counted.samples:
        return Layers(
            case=case,
            samples=0,
            relus=[],
            missing=f"Not counted: BP at every layer takes longer than {WITHIN:g} s for a few samples.",
        )
    return Layers(case=case, samples=counted.samples, relus=list(counted.relus.values()), other_radii=other)
