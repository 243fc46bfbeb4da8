"""Bounds and verdicts held against what real runtimes give; counts, and a line for everything that is broken."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from qverify.bounds.refinement import backward_outputs, tightened_bounds
from qverify.bounds.tensors import Bounds
from qverify.family.radii import Radii
from qverify.network import Network
from qverify.verification.cascade import verdicts
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status

Array = np.ndarray
_SMALL = 4096
"""Neurons of all layers up to which BP is asked at every layer, if no kernel is shared."""
_WIDTHS = (7, 12, 12, 10, 8, 7, 9, 7)
_FEW = 2
"""Samples of others whose outputs BP bounds."""


@dataclass
class Tally:
    """What was done, by network, and what is broken."""

    files: Counter[str] = field(default_factory=Counter)
    inferences: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    verified: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line for every network and family, and one for all."""
        titles = zip(
            ("files", "inferences", "numbers", "verified", "of", "wrong", "outside", "s"), _WIDTHS, strict=True
        )
        head = " " * 32 + "".join(f"{title:>{width}}" for title, width in titles)
        keys = sorted({*self.files, *self.verified, *self.numbers})
        rows = [head, *(self._row(key, key) for key in keys)]
        return [*rows, self._row("all", None)]

    def _row(self, title: str, key: str | None) -> str:
        counts = (self.files, self.inferences, self.numbers, self.verified, self.asked, self.wrong, self.outside)
        n = [sum(c.values()) if key is None else c[key] for c in (*counts, self.seconds)]
        return f"{title:32}" + "".join(f"{value:{width}.0f}" for value, width in zip(n, _WIDTHS, strict=True))

    def judge_bounds(self, key: str, what: str, ends: tuple[Array, Array], values: Array) -> None:
        """Values (N, size) of a runtime lie between the ends (N, size)."""
        lower, upper = ends
        off = np.maximum(lower - values, values - upper)
        self.numbers[key] += off.size
        if (off > 0).any() or not np.isfinite(values).all():
            count = int((off > 0).sum())
            self.outside[key] += count
            at = np.unravel_index(int(off.argmax()), off.shape)
            self.broken.append(
                f"{what}: {count} of {off.size} outside, sample {at[0]} number {at[1]}: {values[at]:.9g} not in "
                f"[{lower[at]:.9g}, {upper[at]:.9g}]"
            )

    def judge_verdicts(self, key: str, what: str, sure: Array, labels: Array, answers: Array) -> None:
        """Samples marked in `sure` (N,) are answered right, without a tie, by the outputs (N, classes)."""
        own = answers[np.arange(len(labels)), labels]
        others = np.where(np.arange(answers.shape[1]) == labels[:, None], -np.inf, answers).max(1)
        wrong = np.nonzero(sure & ~(own > others))[0]
        self.wrong[key] += len(wrong)
        if len(wrong):
            self.broken.append(
                f"{what}: verified, answered wrong: samples {wrong[:5].tolist()} and {len(wrong)} in all"
            )


@dataclass
class Statement:
    """What qverify states about a family on samples x (N, ...): bounds by IBP and by BP on each layer, and which of the
    samples are verified."""

    setup: Setup
    ibp: Bounds
    bp: Bounds
    labels: Array
    sure: Array

    def ends(self, index: int) -> dict[str, tuple[Array, Array]]:
        """The bounds on layer `index` of the family's network, by method."""
        found = {"IBP": (self.ibp.lower[index].numpy(), self.ibp.upper[index].numpy())}
        return found | {"BP": (self.bp.lower[index].numpy(), self.bp.upper[index].numpy())}


def stated(network: Network, radii: Radii, x: Array) -> Statement:
    """Bounds and verdicts; the labels are the network's own answers.

    BP is asked at every layer, and for verdicts, of small networks without shared kernels; of others at the outputs of
    the first samples.
    """
    flat = network.flat(x)
    labels = network.evaluate(flat).argmax(1)
    setup = Setup(network, radii, Options())
    ibp = setup.intervals(flat)
    last = len(setup.family.network.layers) - 1
    small = sum(layer.size for layer in setup.family.network.layers) <= _SMALL and not setup.family.shares_weights
    if small:
        bp = tightened_bounds(setup.model, ibp)
        bp.lower[last], bp.upper[last] = backward_outputs(setup.model, bp)
    else:
        bp = Bounds(lower=[*ibp.lower], upper=[*ibp.upper], activation=ibp.activation)
        few = backward_outputs(setup.model, ibp.take(slice(_FEW)))
        bp.lower[last], bp.upper[last] = (
            torch.cat([part, ends[_FEW:]]) for part, ends in zip(few, (ibp.lower[last], ibp.upper[last]), strict=True)
        )
    options = Options(method="bp" if small else "ibp", attack=False, seconds=None)
    found = verdicts(network, flat, labels, radii, options)
    sure = np.array([verdict.status is Status.VERIFIED for verdict in found])
    return Statement(setup, ibp, bp, labels, sure)


class Clock:
    """Adds the seconds of a block to a tally."""

    def __init__(self, tally: Tally, key: str) -> None:
        self.tally, self.key = tally, key

    def __enter__(self) -> None:
        torch.set_num_threads(1)
        self.start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.tally.seconds[self.key] += time.monotonic() - self.start  # type: ignore[assignment]
