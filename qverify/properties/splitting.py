"""Branch and bound over boxes of inputs: bounds on every box, descent in those left open, and these in two halves.

For networks of few inputs whose boxes are large. Sound: a box is closed by margins proved for all of it, and halves
share the number they meet at. Which input is halved is heuristic: that whose halves have the best bounds together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qverify.bounds.interval import OutOfTime, interval_bounds
from qverify.bounds.refinement import backward_margins, tightened_bounds
from qverify.bounds.tensors import Bounds
from qverify.text.brief import Brief
from qverify.verification.attack import attack

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.budget import Deadline
    from qverify.family.members import Recipe
    from qverify.verification.setup import Setup

_BOXES = 64
"""Boxes worked on together."""
_TRIED = 8
"""Inputs of each box that are halved to see which is best: those of the widest ranges, in units of the first box's."""
_CANDIDATES = 4
"""Failing members of one round that are looked at."""


@dataclass(eq=False, repr=False)
class Boxes(Brief):
    """Boxes `lower <= x <= upper`, (B, n_in) each."""

    lower: Tensor
    upper: Tensor

    def __len__(self) -> int:
        return len(self.lower)

    def take(self, chosen: Tensor | slice) -> Boxes:
        """Some of them."""
        return Boxes(self.lower[chosen], self.upper[chosen])

    def join(self, more: Boxes) -> Boxes:
        """These and more."""
        return Boxes(torch.cat([self.lower, more.lower]), torch.cat([self.upper, more.upper]))


@dataclass(eq=False, repr=False, kw_only=True)
class Split(Brief):
    """What became of the boxes: `found` a member that was confirmed, else `open` are not decided; `count` were looked
    at. `stuck`: how many of them are too narrow to be halved."""

    found: bool = False
    open: int = 0
    stuck: int = 0
    count: int = 0


@dataclass(eq=False, repr=False)
class Splitting(Brief):
    """The search over boxes of one property. `confirmed` judges a failing member; the search ends if it says yes."""

    setup: Setup
    confirmed: Callable[[Recipe], bool]
    result: Split = field(default_factory=Split)

    def run(self, boxes: Boxes, deadline: Deadline) -> Split:
        """Look at these boxes until all are closed, a member is confirmed, or the deadline passes."""
        self._unit = (boxes.upper - boxes.lower).amax(0)
        while len(boxes) and not self.result.found:
            size = min(len(boxes), max(1, min(_BOXES, self.setup.chunk)))
            now, boxes = boxes.take(slice(len(boxes) - size, None)), boxes.take(slice(0, len(boxes) - size))
            try:
                halves = self._round(now, deadline)
            except OutOfTime:
                halves = now
            boxes = boxes.join(halves)
            if deadline.passed():
                break
        self.result.open = 0 if self.result.found else len(boxes) + self.result.stuck
        return self.result

    def _round(self, boxes: Boxes, deadline: Deadline) -> Boxes:
        """The halves of the boxes that are still open after bounds and descent."""
        model = self.setup.model
        self.result.count += len(boxes)
        bounds = interval_bounds(model, boxes.lower, boxes.upper, deadline)
        margin = self._margins(bounds, deadline)
        boxes, bounds, margin = self._open(boxes, bounds, margin)
        if not len(boxes):
            return boxes
        bounds = tightened_bounds(model, bounds, deadline)
        boxes, bounds, margin = self._open(boxes, bounds, torch.maximum(margin, self._margins(bounds, deadline)))
        if not len(boxes) or self._failing(bounds, margin, deadline):
            return boxes
        return self._halved(boxes, bounds, deadline)

    def _margins(self, bounds: Bounds, deadline: Deadline) -> Tensor:
        return backward_margins(self.setup.model, bounds, self._labels(bounds), deadline)

    def _labels(self, bounds: Bounds) -> Tensor:
        return torch.zeros(len(bounds), dtype=torch.int64, device=self.setup.model.device)

    def _open(self, boxes: Boxes, bounds: Bounds, margin: Tensor) -> tuple[Boxes, Bounds, Tensor]:
        """The boxes of which some margin (B, classes) is not proved, the worst last; class 0 has none."""
        worst = margin[:, 1:].amin(1)
        order = torch.argsort(worst, descending=True)
        left = order[~(worst[order] > 0)]
        return boxes.take(left), bounds.take(left), margin[left]

    def _failing(self, bounds: Bounds, margin: Tensor, deadline: Deadline) -> bool:
        """Whether descent in these boxes finds a failing member that is confirmed."""
        setup = self.setup
        found = attack(setup.model, bounds, self._labels(bounds), margin, deadline=deadline)
        order = torch.argsort(found.margin)[:_CANDIDATES].tolist()
        for place in order:
            if float(found.margin[place]) > 0:
                break
            x = ((bounds.lower[0][place] + bounds.upper[0][place]) / 2.0).cpu().numpy()
            recipe = found.recipe(setup.own_family(bounds, place), x, 0, place)
            if self.confirmed(recipe):
                self.result.found = True
                return True
        return False

    # -- halves -----------------------------------------------------------------------------------

    def _halved(self, boxes: Boxes, bounds: Bounds, deadline: Deadline) -> Boxes:
        """The two halves of every box, at the input whose halves have the best bounds."""
        width = boxes.upper - boxes.lower
        middle = boxes.lower + width / 2.0
        splittable = (middle > boxes.lower) & (middle < boxes.upper)
        self.result.stuck += int((~splittable.any(1)).sum())
        chosen = splittable.any(1)
        boxes, width, splittable = boxes.take(chosen), width[chosen], splittable[chosen]
        if not len(boxes):
            return boxes
        relative = torch.where(splittable, width / torch.where(self._unit > 0, self._unit, 1.0), -1.0)
        tried = relative.topk(min(_TRIED, relative.shape[1]), dim=1).indices
        best = self._best(boxes, bounds.take(chosen), tried, splittable, deadline) if tried.shape[1] > 1 else tried[:, 0]
        left, right = halves(boxes, best)
        return left.join(right)

    def _best(
        self, boxes: Boxes, bounds: Bounds, tried: Tensor, splittable: Tensor, deadline: Deadline
    ) -> Tensor:
        """Of the inputs `tried` (B, k) of each box the best (B,) to halve."""
        count, scores = len(boxes), []
        for place in range(tried.shape[1]):
            inputs = tried[:, place]
            both = torch.zeros(count, dtype=boxes.lower.dtype, device=boxes.lower.device)
            for half in halves(boxes, inputs):
                own = _within(interval_bounds(self.setup.model, half.lower, half.upper, deadline), bounds)
                both = both + self._margins(own, deadline)[:, 1:].clamp(max=0.0).sum(1)
            allowed = splittable.gather(1, inputs[:, None]).squeeze(1)
            scores.append(torch.where(allowed, both, -torch.inf))
        score = torch.stack(scores, 1)
        return tried.gather(1, score.argmax(1, keepdim=True)).squeeze(1)


def halves(boxes: Boxes, inputs: Tensor) -> tuple[Boxes, Boxes]:
    """Every box cut in the middle of one of its inputs (B,); together they hold all of it."""
    where = inputs[:, None]
    low, high = boxes.lower.gather(1, where), boxes.upper.gather(1, where)
    middle = low + (high - low) / 2.0
    return (
        Boxes(boxes.lower, boxes.upper.scatter(1, where, middle)),
        Boxes(boxes.lower.scatter(1, where, middle), boxes.upper),
    )


def _within(own: Bounds, outer: Bounds) -> Bounds:
    """The bounds of boxes, and of larger ones around them: both hold."""
    return Bounds(
        lower=[torch.maximum(a, b) for a, b in zip(own.lower, outer.lower, strict=True)],
        upper=[torch.minimum(a, b) for a, b in zip(own.upper, outer.upper, strict=True)],
        activation=own.activation,
    )


def boxes_of(setup: Setup, ends: list[tuple[np.ndarray, np.ndarray]]) -> Boxes:  # type: ignore[type-arg]
    """Boxes given by their ends (n_in,), as tensors."""
    return Boxes(*(setup.model.tensor(np.stack([end[side] for end in ends])) for side in (0, 1)))
