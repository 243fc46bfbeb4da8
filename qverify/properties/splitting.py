"""Branch and bound over boxes of inputs: bounds on every box, descent in those left open, and these in two halves.

For networks of few inputs whose boxes are large. Sound: a box is closed by margins proved for all of it, and halves
share the number they meet at; what holds on a box holds on its halves. Which input is halved is heuristic: that whose
halves have the best bounds together.
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
from qverify.errors import InternalError
from qverify.text.brief import Brief
from qverify.verification.attack import attack
from qverify.verification.positions import Positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.budget import Deadline
    from qverify.family.members import Recipe
    from qverify.verification.setup import Setup

_BOXES = 64
"""Boxes worked on together."""
_TRIED = 8
"""Inputs of each box that are halved to see which is best: those of the widest ranges, in units of the first boxes'."""
_CANDIDATES = 4
"""Failing members of one round that are looked at."""
_SAMPLES = 16
"""Inputs drawn in every box that is open, and how many boxes, those where these come nearest to failing, are descended
in."""
_REFUSED = 200
"""Failing members that may be refused: no box that has one can ever be closed, so the search is given up."""
_FIRST = 256
"""Times as many inputs are drawn in the boxes that are given, shared out among them."""
_GIVEN = 1024
"""Boxes of those that are given that are begun with together."""
_CROSSING = 1e-9
"""As in exact/decide.py: the error granted to a float64 forward pass."""
_SHARE = 0.3
"""Share of the memory that bounds of open boxes may take."""


@dataclass(eq=False, repr=False, kw_only=True)
class Split(Brief):
    """What became of the boxes: `found` a member that was confirmed, else `open` are not decided; `count` were looked
    at. `stuck`: how many of them are too narrow to be halved; `refused`: failing members that were not confirmed;
    `full`: open boxes took the memory. `proved`: the least margin proved of a box that was closed, `attained`: that of
    the member."""

    found: bool = False
    open: int = 0
    stuck: int = 0
    count: int = 0
    refused: int = 0
    full: bool = False
    proved: float = np.inf
    attained: float = np.inf

    @property
    def given_up(self) -> bool:
        """Too many failing members were refused."""
        return self.refused >= _REFUSED


@dataclass(eq=False, repr=False)
class Splitting(Brief):
    """The search over boxes of one property: a box is the input's range in the bounds on all layers that are known for
    it. `confirmed` judges a failing member; the search ends if it says yes."""

    setup: Setup
    confirmed: Callable[[Recipe], bool]
    result: Split = field(default_factory=Split)

    def __post_init__(self) -> None:
        self._random = torch.Generator().manual_seed(0)

    def run(self, ends: list[tuple[Array, Array]], deadline: Deadline) -> Split:
        """Look at the boxes with these ends (n_in,), and their halves, until all are closed, a member is confirmed, or
        the deadline passes."""
        model = self.setup.model
        lower, upper = (model.tensor(np.stack([end[side] for end in ends])) for side in (0, 1))
        self._unit, self._drawn = (upper - lower).amax(0), _SAMPLES * max(1, _FIRST // len(ends))
        for start in range(0, len(ends), _GIVEN):
            some = slice(start, start + _GIVEN)
            left = self._search(lower[some], upper[some], deadline)
            if left or self.result.found:
                self.result.open = 0 if self.result.found else left + max(0, len(ends) - start - _GIVEN)
                break
        self.result.open += 0 if self.result.found else self.result.stuck
        return self.result

    def _search(self, lower: Tensor, upper: Tensor, deadline: Deadline) -> int:
        """Look at boxes (B, n_in) and their halves; how many are left, beside those that are stuck."""
        try:
            boxes = interval_bounds(self.setup.model, lower, upper, deadline)
        except OutOfTime:
            return len(lower)
        room = int(_SHARE * self.setup.memory / (16 * sum(layer.size for layer in self.setup.model.network.layers)))
        while len(boxes) and not (self.result.found or self.result.given_up or deadline.passed()):
            self.result.full = len(boxes) > max(room, _GIVEN)
            if self.result.full:
                break
            size = min(len(boxes), _BOXES, self.setup.chunk)
            now, boxes = boxes.take(slice(len(boxes) - size, None)), boxes.take(slice(0, len(boxes) - size))
            try:
                parts = self._round(now, deadline)
            except OutOfTime:
                parts = [now]
            boxes = Bounds.concatenate([boxes, *parts])
        return len(boxes)

    def _round(self, boxes: Bounds, deadline: Deadline) -> list[Bounds]:
        """The halves of the boxes that are still open after bounds and descent."""
        drawn = _SAMPLES if self.result.count else self._drawn
        self.result.count += len(boxes)
        boxes = tightened_bounds(self.setup.model, boxes, deadline)
        margin = self._margins(boxes, deadline)
        worst = margin[:, 1:].amin(1)  # class 0 has no margin
        self._closed(worst)
        order = torch.argsort(worst, descending=True)  # the worst are looked at first
        left = order[~(worst[order] > 0)]
        boxes, margin = boxes.take(left), margin[left]
        if not len(boxes) or self._failing(boxes, margin, drawn, deadline):
            return [boxes]
        return self._halved(boxes, deadline)

    def _closed(self, worst: Tensor) -> None:
        """Take note of the margins of boxes (...) that are above 0: these are closed."""
        above = worst[worst > 0]
        if above.numel():
            self.result.proved = min(self.result.proved, float(above.min()))

    def _margins(self, bounds: Bounds, deadline: Deadline) -> Tensor:
        return backward_margins(self.setup.model, bounds, self._labels(bounds), deadline)

    def _labels(self, bounds: Bounds) -> Tensor:
        return torch.zeros(len(bounds), dtype=torch.int64, device=self.setup.model.device)

    # -- failing members --------------------------------------------------------------------------

    def _failing(self, boxes: Bounds, margin: Tensor, drawn: int, deadline: Deadline) -> bool:
        """Whether descent in the likeliest of these boxes finds a failing member that is confirmed."""
        setup = self.setup
        chosen, start = self._start(boxes, drawn)
        few = boxes.take(chosen)
        found = attack(setup.model, few, self._labels(few), margin[chosen], start, deadline)
        _refuse_contradictions(margin[chosen], found.margin)
        for place in torch.argsort(found.margin)[:_CANDIDATES].tolist():
            if float(found.margin[place]) > 0:
                break
            middle = ((few.lower[0][place] + few.upper[0][place]) / 2.0).cpu().numpy()
            if self.confirmed(found.recipe(setup.own_family(few, place), middle, 0, place)):
                self.result.found, self.result.attained = True, float(found.margin[place])
                return True
            self.result.refused += 1
        return False

    def _start(self, boxes: Bounds, drawn: int) -> tuple[Tensor, Positions]:
        """The boxes where inputs drawn at random come nearest to failing, and these inputs."""
        low, high = boxes.lower[0].unsqueeze(1), boxes.upper[0].unsqueeze(1)
        shares = torch.rand(len(boxes), drawn, low.shape[2], generator=self._random, dtype=low.dtype).to(low.device)
        x = (low + (high - low) * shares).flatten(0, 1).cpu().numpy()
        outputs = self.setup.family.network.evaluate(x).reshape(len(boxes), drawn, -1)
        worst = (outputs[:, :, :1] - outputs[:, :, 1:]).min(2)
        likely = np.argsort(worst.min(1))[:_SAMPLES]
        chosen = torch.as_tensor(likely, device=low.device)
        start = Positions.middle(self.setup.model, len(likely))
        start.entry = 2.0 * shares[chosen, torch.as_tensor(worst[likely].argmin(1), device=low.device)] - 1.0
        return chosen, start

    # -- halves -----------------------------------------------------------------------------------

    def _halved(self, boxes: Bounds, deadline: Deadline) -> list[Bounds]:
        """The halves of every box, at the input whose halves have the best bounds; without those that are closed."""
        low, high = boxes.lower[0], boxes.upper[0]
        middle = low + (high - low) / 2.0
        splittable = (middle > low) & (middle < high)
        chosen = splittable.any(1)
        self.result.stuck += int((~chosen).sum())
        boxes, splittable = boxes.take(chosen), splittable[chosen]
        if not len(boxes):
            return []
        width = boxes.upper[0] - boxes.lower[0]
        relative = torch.where(splittable, width / torch.where(self._unit > 0, self._unit, 1.0), -1.0)
        tried = relative.topk(min(_TRIED, relative.shape[1]), dim=1).indices
        scores, margins = [], []
        for inputs in tried.unbind(1):
            both = [self._margins(self._half(boxes, inputs, side, deadline), deadline)[:, 1:] for side in (0, 1)]
            allowed = splittable.gather(1, inputs[:, None]).squeeze(1)
            score = torch.cat(both, 1).clamp(max=0.0).sum(1)
            scores.append(torch.where(allowed, score, -torch.inf))
            margins.append(torch.stack([margin.amin(1) for margin in both]))
        best = torch.stack(scores, 1).argmax(1)
        inputs = tried.gather(1, best[:, None]).squeeze(1)
        worst = torch.stack(margins, 2).gather(2, best.expand(2, -1).unsqueeze(2)).squeeze(2)
        self._closed(worst)
        halves = [self._half(boxes, inputs, side, deadline) for side in (0, 1)]
        return [half.take(~(worst[side] > 0)) for side, half in enumerate(halves)]

    def _half(self, boxes: Bounds, inputs: Tensor, side: int, deadline: Deadline) -> Bounds:
        """The lower (side 0) or upper halves of boxes, each cut in the middle of one of its inputs (B,), with bounds by
        IBP and those of the whole box."""
        where = inputs[:, None]
        low, high = boxes.lower[0].gather(1, where), boxes.upper[0].gather(1, where)
        middle = low + (high - low) / 2.0
        lower = boxes.lower[0] if side == 0 else boxes.lower[0].scatter(1, where, middle)
        upper = boxes.upper[0] if side == 1 else boxes.upper[0].scatter(1, where, middle)
        own = interval_bounds(self.setup.model, lower, upper, deadline)
        return Bounds(
            lower=[torch.maximum(a, b) for a, b in zip(own.lower, boxes.lower, strict=True)],
            upper=[torch.minimum(a, b) for a, b in zip(own.upper, boxes.upper, strict=True)],
            activation=own.activation,
        )


def _refuse_contradictions(proved: Tensor, attained: Tensor) -> None:
    """Raise InternalError where a member has a margin (B,) below those proved for its box (B, classes)."""
    if bool((proved[:, 1:].amin(1) > attained + _CROSSING * (1.0 + attained.abs())).any()):
        raise InternalError(
            "A concrete member lies below a bound that was proved for its box. Please report this with model and query;"
            " nothing of this run may be trusted."
        )
