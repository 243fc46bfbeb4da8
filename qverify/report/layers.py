"""Unstable neurons of a case by layer: counted anew, as `qverify inspect` does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qverify import datasets
from qverify.analysis.unstable import Unstable, spread_out, unstable_neurons
from qverify.budget import Deadline
from qverify.errors import DataError, QVerifyError
from qverify.family.family import Family
from qverify.report.sources import Sources, clipping, same_radii
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qverify.runs.reading import StoredCase

WITHIN = 30.0
"""Seconds for one case; the means are over the samples that were counted by then."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Layers(Brief):
    """The unstable neurons of every activation of one case, means over `samples` samples; `missing` says why there are
    none.

    `rounded`: every rounding point, in words; `beyond`: what of the model goes beyond what was verified. `other_radii`:
    this version of qverify makes other radii of what the run was asked, and these were taken.
    """

    case: StoredCase
    samples: int
    relus: list[Unstable]
    missing: str = ""
    rounded: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
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
        said: dict[str, Any] = {
            "rounded": tuple(_rounded(Family.of(network, radii, clipping(case)))),
            "beyond": tuple(hints.of_family(network, radii, samples.x)),
        }
    except QVerifyError as error:
        return Layers(case=case, samples=0, relus=[], missing=f"Not counted: {str(error).rstrip('.')}.")
    if not counted.samples:
        return Layers(
            case=case,
            samples=0,
            relus=[],
            missing=f"Not counted: BP at every layer takes longer than {WITHIN:g} s for a few samples.",
            **said,
        )
    relus = list(counted.relus.values())
    return Layers(case=case, samples=counted.samples, relus=relus, other_radii=other, **said)


def _rounded(family: Family) -> Iterator[str]:
    """Every rounding point of a family: where, to which range, and how far off."""
    for i in family.network.dynamic:
        yield f"{family.network.layers[i].name}: to 256 values of a step that each sample's tensor brings along"
    names = {0: family.network.layers[0].name} | {i: family.network.layers[i].name for i in family.points}
    points = ({} if family.entry is None else {0: family.entry}) | dict(family.points)
    for i, point in points.items():
        step = f" in steps of {float(point.step.max()):.4g}" if (point.step > 0).all() else ""
        low, high, radius = float(point.low[0].min()), float(point.high[1].max()), float(point.radius.max())
        yield f"{names[i]}: to [{low:.4g}, {high:.4g}]{step}, by at most {radius:.4g}"
