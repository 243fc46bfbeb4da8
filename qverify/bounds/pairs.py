"""Margins of pairs, a sample and a rival, by optimised BP and under the assumption of a counterexample. Sound.

Shapes: N samples, C classes, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.optimised import Assumption, Effort, margin_of, rows_at_once, searched
from qverify.bounds.shrinking import empty, open_neurons, shrunk, shrunk_outputs, shrunk_under
from qverify.bounds.splits import targets
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline

NEURONS = Effort(steps=2, length=0.5, decay=0.8)
"""Of a search for the interval of a neuron, for all members; measured: more steps hardly tighten it."""
_ASSUMED = Effort(steps=3, length=0.7, decay=0.7)
MARGINS = Effort(steps=10, length=0.4, decay=0.93)
"""Of a search for a margin."""
_OF_NEURONS = 0.5
"""The share of the time that neurons have, before outputs."""
_WORTH = 0.03
"""The share of a margin by which a round has to lift it, or it is the last."""
_HOPE = 2.0
"""How many times what the gains of the rounds to come add up to, if they go on to shrink as they did, a round has to
reach: measured, gains of pairs that get there soon grow or hardly shrink."""
_LIMIT = 1e-6
"""The margin assumed of a counterexample at most, in units of the bound that is known."""
_LEAST = 1e-200
"""That margin, where the bound that is known is 0: a proof has to lift it."""
_PASSES = 30
"""Forward passes that a round costs for each end of a neuron (measured: 20 to 30)."""
MOST = 3e11
"""Multiplications for the intervals of all neurons of a sample, above which these are not begun: about 15 s of one core
where rows are over the whole network, some of that in images."""
MOST_OF_ROUND = 5e10
"""The same of a round, in which all rows are over the whole network."""


def cost(model: BoundModel, bounds: Bounds) -> Tensor:
    """Multiplications (N,) that optimised BP on the neurons of each sample takes: whether it pays."""
    return 2.0 * open_neurons(model, bounds) * float(_PASSES * model.operations)


def optimised_bounds(model: BoundModel, bounds: Bounds, deadline: Deadline | None = None) -> Bounds:
    """Optimised BP on the neurons of each sample for which it pays (`MOST`), then on the outputs of all. Nested in
    `bounds` (N), sound; where the deadline passes, the rest is as in `bounds`."""
    few = torch.zeros(len(bounds), dtype=torch.bool, device=model.device)
    if targets(model):
        few = cost(model, bounds) <= MOST
    order = torch.cat([torch.nonzero(few).squeeze(1), torch.nonzero(~few).squeeze(1)])
    parts = [bounds.take(some) for some in torch.split(order, [int(few.sum()), int((~few).sum())])]
    if len(parts[0]):
        parts[0] = shrunk(model, parts[0], NEURONS, deadline and deadline.share(_OF_NEURONS))
    new = type(bounds).concatenate(parts).take(torch.argsort(order))
    new.lower[-1], new.upper[-1] = shrunk_outputs(model, new, MARGINS, deadline)
    return new


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
        found = _margins(model, bounds.take(some), margin_rows(model, labels[some], rival), deadline)
        result[some, rival] = torch.maximum(result[some, rival], found)
    return result


def assumed_margins(
    model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor, deadline: Deadline | None = None
) -> Tensor:
    """Lower bounds (N, C) on the margins, by rounds of bounds on neurons under the assumption that the margin of a pair
    is at most a small positive number: none below `lower` (N, C). labels (N,). Sound if `lower` is.

    Of each sample the lowest margin first, and the next one only if that is positive: they all have to be.
    """
    rounds = Rounds(model, bounds, labels, lower.clone())
    rounds.begin(torch.nonzero((lower <= 0).any(1)).squeeze(1))
    rounds.run(deadline)
    return rounds.lower


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pairs(Brief):
    """P pairs of a sample and a rival, by their numbers (P,): `bounds` (P) that hold for the members whose margin,
    `rows . output` with rows (P, C), is at most `limit` (P,), and `margin` (P,), what these prove of it."""

    samples: Tensor
    rivals: Tensor
    bounds: Bounds
    assumed: Assumption
    margin: Tensor

    @property
    def rows(self) -> Tensor:
        """(P, C): `y_label - y_rival`."""
        return self.assumed.rows

    @property
    def limit(self) -> Tensor:
        """(P,)."""
        return self.assumed.limit

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, chosen: Tensor) -> Pairs:
        """Some of them."""
        return Pairs(
            samples=self.samples[chosen],
            rivals=self.rivals[chosen],
            bounds=self.bounds.take(chosen),
            assumed=self.assumed.take(chosen),
            margin=self.margin[chosen],
        )

    def join(self, more: Pairs) -> Pairs:
        """These and more."""
        return Pairs(
            samples=torch.cat([self.samples, more.samples]),
            rivals=torch.cat([self.rivals, more.rivals]),
            bounds=type(self.bounds).concatenate([self.bounds, more.bounds]),
            assumed=self.assumed.join(more.assumed),
            margin=torch.cat([self.margin, more.margin]),
        )


class Rounds:
    """Pairs of the samples of `bounds` (N) with labels (N,), taken through rounds while these pay. `lower` (N, C): the
    margins proved; `stuck`: the pairs that rounds do no more for, None while there are none. Not `pays`: no rounds."""

    def __init__(self, model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor, pays: bool = True):
        self.model, self.bounds, self.labels, self.lower, self.pays = model, bounds, labels, lower, pays
        self.stuck: Pairs | None = None
        self._waiting: Pairs | None = None
        self._gain = lower.new_zeros(0)

    def begin(self, samples: Tensor) -> None:
        """Take the lowest margins of some samples (K,) on."""
        if not len(samples):
            return
        margin, rivals = self.lower[samples].min(1)
        limit = (_LIMIT * margin.abs()).clamp(min=_LEAST)
        pairs = Pairs(
            samples=samples,
            rivals=rivals,
            bounds=self.bounds.take(samples),
            assumed=Assumption(rows=margin_rows(self.model, self.labels[samples], rivals), limit=limit),
            margin=margin,
        )
        self._waiting = pairs if self._waiting is None else self._waiting.join(pairs)
        self._gain = torch.cat([self._gain, torch.full_like(margin, torch.inf)])

    def run(self, deadline: Deadline | None = None) -> None:
        """Rounds until none is left that pays: of samples whose margin is proved, the next rival follows."""
        while self._waiting is not None and len(self._waiting):
            if not self.pays or (deadline is not None and deadline.passed()):
                self._set_aside(self._waiting)
                self._waiting = None
                self._gain = self._gain[:0]
                return
            done = self._round(self._waiting, deadline)
            self.begin(done[(self.lower[done] <= 0).any(1)])

    def take_stuck(self) -> Pairs | None:
        """The pairs in `stuck`, which are there no more."""
        stuck, self.stuck = self.stuck, None
        return stuck

    def prove(self, pairs: Pairs, proved: Tensor) -> None:
        """Take in lower bounds (P,) on the margins of pairs, proved for the members within their limits."""
        known = torch.minimum(proved, pairs.limit / 2.0)  # those of the others are above the limit
        here = pairs.samples, pairs.rivals
        self.lower[here] = torch.maximum(self.lower[here], known)

    def _round(self, pairs: Pairs, deadline: Deadline | None) -> Tensor:
        """One round for all; the samples (K,) of those that are proved. The others wait on, or are stuck."""
        bounds, found, none = _after_round(self.model, pairs, deadline)
        self.prove(pairs, torch.where(none, torch.inf, found))
        gain, before = found - pairs.margin, pairs.margin
        shrinks = gain / self._gain  # 0 after the first round, of which nothing can be said
        to_come = _HOPE * gain * shrinks / (1.0 - shrinks)
        hopeful = (shrinks <= 0) | (shrinks >= 1) | (to_come >= -found)
        pairs = replace(pairs, bounds=bounds, margin=torch.maximum(found, before))
        again = ~none & hopeful & (gain >= _WORTH * before.abs())
        self._set_aside(pairs.take(torch.nonzero(~none & ~again).squeeze(1)))
        chosen = torch.nonzero(again).squeeze(1)
        self._waiting, self._gain = pairs.take(chosen), gain[chosen]
        return pairs.samples[none]

    def _set_aside(self, pairs: Pairs) -> None:
        if len(pairs):
            self.stuck = pairs if self.stuck is None else self.stuck.join(pairs)


def tightened(model: BoundModel, pairs: Pairs, deadline: Deadline | None = None) -> Pairs:
    """Pairs after a round, without those of which it proves that no member is within the limit."""
    if not len(pairs):
        return pairs
    bounds, found, none = _after_round(model, pairs, deadline)
    pairs = replace(pairs, bounds=bounds, margin=torch.maximum(found, pairs.margin))
    return pairs.take(torch.nonzero(~none).squeeze(1))


def _after_round(model: BoundModel, pairs: Pairs, deadline: Deadline | None) -> tuple[Bounds, Tensor, Tensor]:
    """What a round finds: bounds on neurons and margins (P,), and a mask (P,) of the pairs with no member within the
    limit: their margins are above it, but for the rounding of a product."""
    bounds = shrunk_under(model, pairs.bounds, pairs.assumed, _ASSUMED, deadline)
    found = _margins(model, bounds, pairs.rows, deadline)
    return bounds, found, empty(bounds) | (found > pairs.limit)


def margin_rows(model: BoundModel, labels: Tensor, rivals: Tensor) -> Tensor:
    """Rows (P, C), `y_label - y_rival`."""
    eye = torch.eye(model.network.output_size, dtype=model.dtype, device=model.device)
    return eye[labels] - eye[rivals]


def _margins(model: BoundModel, bounds: Bounds, rows: Tensor, deadline: Deadline | None) -> Tensor:
    """Lower bounds (P,) on `rows . output`, rows (P, C)."""
    return searched(model, bounds, margin_of(model, rows), MARGINS, deadline)[0].squeeze(1)
