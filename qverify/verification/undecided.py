"""Samples on their way through the cascade: the margins proved and attained of each, and the ones still open."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qverify.bounds.tensors import Bounds
from qverify.choices import BOUNDS
from qverify.text.brief import Brief
from qverify.verification.verdict import Status, Verdict

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.members import Recipe


@dataclass(eq=False, repr=False, kw_only=True)
class Batch(Brief):
    """Samples on their way through the cascade.

    `lower` (N, classes): margins proved, +inf in the label's own column. `attained` (N,): the worst margin attained, by
    the member of `recipes`, or by the network itself where there is none. `open`: positions of the undecided
    samples; `bounds`: on these, in this order. `seconds` (N,): spent on each. `cut`: a stage was ended by the clock.
    """

    start: int
    x: Array
    labels: Array
    predicted: Array
    lower: Array
    attained: Array
    seconds: Array
    open: Any
    recipes: dict[int, Recipe] = field(default_factory=dict)
    bounds: Any = None
    cut: bool = False

    def keep(self, mask: Any) -> None:
        """Close the open samples where `mask`, one entry an open sample, does not hold."""
        self.open = self.open[mask]
        if self.bounds is not None:
            self.bounds = self.bounds.take(torch.as_tensor(np.flatnonzero(mask), device=self.bounds.lower[0].device))

    def parts(self, size: int) -> list[Batch]:
        """The open samples in several batches, which share everything but `open`, `bounds` and `cut`."""
        places = np.arange(len(self.open)) // size
        return [self.part(places == place) for place in range(int(places.max(initial=-1)) + 1)]

    def part(self, mask: Any) -> Batch:
        """The open samples where `mask` holds, one entry an open sample; see `parts`."""
        part = replace(self)
        part.keep(mask)
        return part

    def join(self, parts: list[Batch]) -> None:
        """Take over the open samples of `parts`, in their order, and their bounds."""
        self.open = np.concatenate([part.open for part in parts])
        self.bounds = Bounds.concatenate([part.bounds for part in parts])
        self.cut = self.cut or any(part.cut for part in parts)

    def spent(self, began: float) -> None:
        """Share the time since `began` among the open samples."""
        self.seconds[self.open] += (time.perf_counter() - began) / max(1, len(self.open))

    def left(self, limit: float | None) -> float | None:
        """Seconds that the open samples have left together, each of `limit`; None for no limit."""
        return None if limit is None else float(np.maximum(0.0, limit - self.seconds[self.open]).sum())

    def verdict(self, sample: int, status: Status, method: str, **more: Any) -> Verdict:
        """The verdict on one sample, with the margins and seconds that it has here; `more`: other fields of
        `Verdict`."""
        return Verdict(
            index=self.start + sample,
            label=int(self.labels[sample]),
            predicted=int(self.predicted[sample]),
            status=status,
            margin_lower=float(self.lower[sample].min()),
            margin_upper=float(self.attained[sample]),
            method=method,
            seconds=float(self.seconds[sample]),
            recipe=self.recipes.get(sample),
            **more,
        )


def too_little(method: str, attacked: bool, dynamic: bool) -> str:
    """Why bounds are the last word on what they leave open, in words; `dynamic`: all that steps by tensor allow was
    tried."""
    if dynamic:
        return "bounds prove too little, and dynamic steps have neither members to search for nor an exact step"
    sought = "found" if attacked else "looked for"
    if method in BOUNDS:
        return f"method {method} proves too little and no failing member was {sought}; --method auto decides more"
    return f"bounds prove too little, no failing member was {sought}, and no exact program has smooth activations"
