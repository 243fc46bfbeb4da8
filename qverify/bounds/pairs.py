"""Margins of pairs, a sample and a rival, by optimised BP and under the assumption of a counterexample. Sound.

Shapes: N samples, C classes, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.optimised import Assumption, Effort, Quantities, rows_at_once, searched
from qverify.bounds.shrinking import chorded, empty, shrunk_under, targets

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline

NEURONS = Effort(steps=2, length=0.5, decay=0.8)
"""Of a search for the interval of a neuron, for all members; measured: more steps hardly tighten it."""
_ASSUMED = Effort(steps=3, length=0.7, decay=0.7)
_MARGINS = Effort(steps=20, length=0.25, decay=0.98)
_WORTH = 0.03
"""The share of a margin by which a round has to lift it, or it is the last."""
_HOPE = 2.0
"""How many times what the gains of the rounds to come add up to, if they go on to shrink as they did, a round has to
reach: measured, gains of pairs that get there soon grow or hardly shrink."""
_LIMIT = 1e-6
"""The margin assumed of a counterexample at most, in units of the bound that is known."""
_PASSES = 30
"""Forward passes that a round costs for each end of a neuron (measured: 20 to 30)."""
MOST = 3e11
"""Multiplications of a round, of one sample, above which none is begun: about 15 s of one core."""


def affordable(model: BoundModel, bounds: Bounds) -> Tensor:
    """Mask (N,) of the samples for which a round of bounds on neurons pays: there are few enough of them, or they are
    cheap enough."""
    ends = [2 * chorded(model, bounds, i).sum(1) for i in targets(model)]
    if not ends:
        return torch.zeros(len(bounds), dtype=torch.bool, device=model.device)
    return torch.stack(ends).sum(0) * float(_PASSES * model.operations) <= MOST


def optimised_margins(
    model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor, deadline: Deadline | None = None
) -> Tensor:
    """Lower bounds (N, C) on the margins: those of `lower` (N, C), and where it is not positive optimised BP's if these
    are better. labels (N,). Sound if `lower` is; where the deadline passes, the rest is as in `lower`."""
    result = lower.clone()
    samples, rivals = torch.nonzero(lower <= 0, as_tuple=True)
    step = rows_at_once(model, len(model.network.layers) - 1)
    for start in range(0, len(samples), step):
        if deadline is not None and deadline.passed():
            break
        some, rival = samples[start : start + step], rivals[start : start + step]
        found = _margins(model, bounds.take(some), _rows(model, labels[some], rival), deadline)
        result[some, rival] = torch.maximum(result[some, rival], found)
    return result


def assumed_margins(
    model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor, deadline: Deadline | None = None
) -> Tensor:
    """Lower bounds (N, C) on the margins, by rounds of bounds on neurons under the assumption that the margin of a pair
    is at most a small positive number: none below `lower` (N, C). labels (N,). Sound if `lower` is.

    Of each sample the lowest margin first, and the next one only if that is positive: they all have to be.
    """
    result = lower.clone()
    waiting = _Rounds.begin(model, bounds, labels, result, torch.nonzero((lower <= 0).any(1)).squeeze(1))
    while len(waiting.samples) and not (deadline is not None and deadline.passed()):
        done = waiting.round(result, deadline)
        again = done[(result[done] <= 0).any(1)]
        waiting.join(_Rounds.begin(model, bounds, labels, result, again))
    return result


class _Rounds:
    """Pairs under way: samples and rivals (P,), their bounds under the assumption, and the margins by these (P,), with
    what the last round gained."""

    def __init__(
        self, model: BoundModel, samples: Tensor, rivals: Tensor, bounds: Bounds, assumed: Assumption, margin: Tensor
    ):
        self.model, self.samples, self.rivals = model, samples, rivals
        self.bounds, self.assumed, self.margin = bounds, assumed, margin
        self.gain = torch.full_like(margin, torch.inf)

    @staticmethod
    def begin(model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor, samples: Tensor) -> _Rounds:
        """The lowest margins of some samples."""
        margin, rivals = lower[samples].min(1)
        assumed = Assumption(rows=_rows(model, labels[samples], rivals), limit=_LIMIT * margin.abs())
        return _Rounds(model, samples, rivals, bounds.take(samples), assumed, margin)

    def round(self, result: Tensor, deadline: Deadline | None) -> Tensor:
        """One round for all, whose margins go to `result` (N, C); the samples (K,) of those that are proved. Pairs that
        are proved, or gain too little, are dropped."""
        limit = self.assumed.limit
        self.bounds = shrunk_under(self.model, self.bounds, self.assumed, _ASSUMED, deadline)
        found = _margins(self.model, self.bounds, self.assumed.rows, deadline)
        # No member meets the assumption: the margin is above its limit, but for the rounding of a product.
        none = empty(self.bounds) | (found > limit)
        # Else those that meet it have this margin, and the others one above the limit.
        proved = torch.where(none, limit / 2.0, torch.minimum(found, limit / 2.0))
        result[self.samples, self.rivals] = torch.maximum(result[self.samples, self.rivals], proved)
        done, gain, before = self.samples[none], found - self.margin, self.margin
        shrinks = gain / self.gain  # 0 after the first round, of which nothing can be said
        to_come = _HOPE * gain * shrinks / (1.0 - shrinks)
        hopeful = (shrinks <= 0) | (shrinks >= 1) | (to_come >= -found)
        self.margin, self.gain = torch.maximum(found, before), gain
        self._keep(~none & hopeful & (gain >= _WORTH * before.abs()))
        return done

    def _keep(self, mask: Tensor) -> None:
        chosen = torch.nonzero(mask).squeeze(1)
        self.samples, self.rivals = self.samples[chosen], self.rivals[chosen]
        self.margin, self.gain = self.margin[chosen], self.gain[chosen]
        self.bounds, self.assumed = self.bounds.take(chosen), self.assumed.take(chosen)

    def join(self, more: _Rounds) -> None:
        """Go on with these as well."""
        if not len(more.samples):
            return
        self.samples, self.rivals = torch.cat([self.samples, more.samples]), torch.cat([self.rivals, more.rivals])
        self.bounds = type(self.bounds).concatenate([self.bounds, more.bounds])
        self.margin, self.gain = torch.cat([self.margin, more.margin]), torch.cat([self.gain, more.gain])
        self.assumed = self.assumed.join(more.assumed)


def _rows(model: BoundModel, labels: Tensor, rivals: Tensor) -> Tensor:
    """Rows (P, C), `y_label - y_rival`."""
    eye = torch.eye(model.network.output_size, dtype=model.dtype, device=model.device)
    return eye[labels] - eye[rivals]


def _margins(model: BoundModel, bounds: Bounds, rows: Tensor, deadline: Deadline | None) -> Tensor:
    """Lower bounds (P,) on `rows . output`, rows (P, C)."""
    last = len(model.network.layers) - 1
    asked = Quantities(rows={last: rows.unsqueeze(1)})
    return searched(model, bounds, asked, _MARGINS, deadline)[0].squeeze(1)
