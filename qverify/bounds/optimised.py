"""BP with optimised lines, and under the assumption that a counterexample exists (mathematics.md, section 4.3). Sound.

At an activation any mixture of its steep and its flat line holds, so the shares of the steep ones may be chosen freely
for each row that is bounded: Adam ascends the bounds, in float32 and without allowances, and what it finds is
evaluated once by a pass of `backward` in float64 with all of them. Whatever the search does, the bound holds.

Under the assumption `margin <= delta` of one rival, with any multiplier `gamma >= 0`,

    quantity >= min ( quantity + gamma (margin - delta) ),

which the same pass bounds. Intervals that hold under an assumption that no member meets may be empty: then every
margin is above delta. So may the margin be by the shrunk intervals. Each pair of a sample and a rival is a problem of
its own.

Shapes: B problems in a chunk, S rows each; n numbers of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.backward import combined_bound
from qverify.bounds.backward_pass import Notes
from qverify.bounds.fused import rows_where
from qverify.bounds.splits import Splits, multiplied
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline

_COPIES = 24
"""Tensors of the size of all layers that one row takes in a search: shares, their moments, gradients, what is kept."""
_PASSES = 8
"""Forward passes that a step of a search costs for each row."""
_BETA = (0.9, 0.999)
"""Of Adam's two moments."""
_MULTIPLIERS = 1.0
"""How much longer the steps of multipliers of splits are, in their units."""
_STARTS = (-2.0, 0.0)
"""Logarithms of the multipliers of the assumption that a search may start from: the best with the usual lines."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """A search: so many steps of Adam, of this length at first, which shrinks by a factor every step."""

    steps: int
    length: float
    decay: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Assumption(Brief):
    """`rows . output <= limit`: rows (B, n_out) of 1, 0 and -1, limit (B,)."""

    rows: Tensor
    limit: Tensor

    def take(self, chosen: Tensor) -> Assumption:
        """That of some problems."""
        return Assumption(rows=self.rows[chosen], limit=self.limit[chosen])

    def join(self, more: Assumption) -> Assumption:
        """That of these problems and more."""
        return Assumption(rows=torch.cat([self.rows, more.rows]), limit=torch.cat([self.limit, more.limit]))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Quantities(Brief):
    """What is bounded from below: the sum of `rows[i] . output of layer i` and `high[i] . upper end of layer i`,
    (B, S, n) each, under an assumption or none, and on the subproblems of splits or on the whole."""

    rows: dict[int, Tensor] = field(default_factory=dict)
    high: dict[int, Tensor] = field(default_factory=dict)
    assumed: Assumption | None = None
    splits: Splits | None = None

    def to(self, dtype: torch.dtype) -> Quantities:
        """The same in another type."""
        assumed = self.assumed
        if assumed is not None:
            assumed = Assumption(rows=assumed.rows.to(dtype), limit=assumed.limit.to(dtype))
        return Quantities(
            rows={i: t.to(dtype) for i, t in self.rows.items()},
            high={i: t.to(dtype) for i, t in self.high.items()},
            assumed=assumed,
            splits=None if self.splits is None else self.splits.to(dtype),
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Choice(Brief):
    """What a search chooses: shares (B, S, n) by activation, the logarithms `weight` (B, S) of the multipliers of the
    assumption if there is one, and multipliers (B, S, D) of splits if there are any. Any numbers will do: shares are
    clipped to [0, 1] and multipliers at 0 where they are used.
    """

    shares: dict[int, Tensor]
    weight: Tensor | None = None
    multipliers: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Choice:
        """The same in another type."""
        return self.mapped(lambda t: t.to(dtype))

    def tensors(self) -> list[Tensor]:
        """All of them, shares by layer first."""
        return [self.shares[i] for i in sorted(self.shares)] + [
            t for t in (self.weight, self.multipliers) if t is not None
        ]

    def of_tensors(self, tensors: list[Tensor]) -> Choice:
        """A choice of the same parts, of other `tensors()`."""
        parts = iter(tensors)
        return Choice(
            shares={i: next(parts) for i in sorted(self.shares)},
            weight=None if self.weight is None else next(parts),
            multipliers=None if self.multipliers is None else next(parts),
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Choice:
        """Every tensor replaced by `function` of it."""
        return Choice(
            shares={i: function(t) for i, t in self.shares.items()},
            weight=None if self.weight is None else function(self.weight),
            multipliers=None if self.multipliers is None else function(self.multipliers),
        )


def bound_with(
    model: BoundModel, bounds: Bounds, asked: Quantities, choice: Choice, notes: Notes | None = None
) -> Tensor:
    """Lower bounds (B, S) on what is asked, with the lines and multipliers of a choice. Sound, if `model` allows for
    rounding and `bounds` hold, for members that meet the assumption and the splits; -inf where they overflow."""
    shares = {i: share.clamp(0.0, 1.0) for i, share in choice.shares.items()}
    rows, high = dict(asked.rows), dict(asked.high)
    constant: Tensor | float = 0.0
    if asked.splits is not None and choice.multipliers is not None and asked.splits.depth:
        own, own_high, constant = multiplied(model, bounds, asked.splits, choice.multipliers.clamp(min=0.0))
        _add(rows, own)
        _add(high, own_high)
    if asked.assumed is None or choice.weight is None:
        found = combined_bound(model, bounds, rows, high, shares, notes) + constant
        return found - 4.0 * model.rounding.unit * found.abs() if model.rounding.enabled else found
    last, gamma = len(model.network.layers) - 1, choice.weight.exp()
    _add(rows, {last: gamma.unsqueeze(2) * asked.assumed.rows.unsqueeze(1)})
    found = combined_bound(model, bounds, rows, high, shares, notes) + constant
    taken = gamma * asked.assumed.limit.unsqueeze(1)
    # The rows are exact if those of the assumption are 1, 0 and -1. Rounded are this product, the sum and what is here.
    return found - taken - 8.0 * model.rounding.unit * (found.abs() + taken.abs()) - model.rounding.tiny


@torch.no_grad()
def noted(model: BoundModel, bounds: Bounds, asked: Quantities, choice: Choice) -> Notes:
    """What is noted of the pass of `bound_with`."""
    notes = Notes()
    bound_with(model, bounds, asked, choice, notes)
    return notes


def margin_of(model: BoundModel, rows: Tensor) -> Quantities:
    """`rows . output` of each problem, rows (B, n_out)."""
    return Quantities(rows={len(model.network.layers) - 1: rows.unsqueeze(1)})


def _add(rows: dict[int, Tensor], more: dict[int, Tensor]) -> None:
    for i, own in more.items():
        rows[i] = rows[i] + own if i in rows else own


def searched(
    model: BoundModel,
    bounds: Bounds,
    asked: Quantities,
    effort: Effort,
    deadline: Deadline | None = None,
    start: Choice | None = None,
) -> tuple[Tensor, Choice]:
    """Lower bounds (B, S) on what is asked, and the choice that gives them, searched for row by row; -inf where they
    overflow. Sound. `start`: the choice to begin with, in float32, else the usual lines."""
    light, near, question = model.searching, bounds.to(torch.float32), asked.to(torch.float32)
    ascent = _Ascent(_first_choice(light, near, question) if start is None else start)
    steps = effort.steps if ascent.free else 0
    for step in range(steps + 1):
        found = bound_with(light, near, question, ascent.choice())
        if 2 * step >= steps:  # bounds rise: those of the first half are hardly the best
            ascent.keep(found.detach())
        if step == steps or (deadline is not None and deadline.passed()):
            break
        ascent.climb(found, effort.length * effort.decay**step)
    best = ascent.best()
    with torch.no_grad():
        proved = bound_with(model, bounds, asked, best.to(model.dtype))
    return torch.where(proved.isfinite(), proved, -torch.inf), best


def _first_choice(model: BoundModel, bounds: Bounds, asked: Quantities) -> Choice:
    """The usual shares, and of some multipliers the best with these."""
    some = next(iter((*asked.rows.values(), *asked.high.values())))
    best: Tensor | None = None
    shares: dict[int, Tensor] = {}
    weight = torch.zeros(some.shape[:2], dtype=some.dtype, device=some.device)
    for start in _STARTS if asked.assumed is not None else (0.0,):
        used: dict[int, Tensor] = {}
        now = torch.full_like(weight, start)
        with torch.no_grad():
            found = bound_with(model, bounds, asked, Choice(shares={}, weight=now), Notes(shares=used))
        used = {i: t.expand(*weight.shape, t.shape[2]) for i, t in used.items()}
        if best is None:
            best, shares, weight = found, used, now
            continue
        better = found > best
        best, weight = torch.where(better, found, best), torch.where(better, now, weight)
        shares = {i: rows_where(better, t, shares[i]) for i, t in used.items()}
    return Choice(shares=shares, weight=weight if asked.assumed is not None else None)


class _Ascent:
    """Adam on the sum of bounds, each row by itself, which remembers the best choice of each."""

    def __init__(self, start: Choice):
        self._parts = start
        self._tensors = [t.detach().clone().requires_grad_(True) for t in start.tensors()]
        shares, weight = len(start.shares), start.weight is not None
        self._limits = [(0.0, 1.0)] * shares + [(-torch.inf, torch.inf)] * weight + [(0.0, torch.inf)]
        self._pace = [1.0] * (shares + weight) + [_MULTIPLIERS]
        self._best = [t.detach().clone() for t in self._tensors]
        self._first = [torch.zeros_like(t) for t in self._best]
        self._second = [torch.zeros_like(t) for t in self._best]
        self._bound: Tensor | None = None
        self._count = 0

    @property
    def free(self) -> bool:
        """Whether there is anything to choose."""
        return bool(self._tensors)

    def choice(self) -> Choice:
        return self._parts.of_tensors(self._tensors)

    def best(self) -> Choice:
        return self._parts.of_tensors(self._best)

    def keep(self, bound: Tensor) -> None:
        """Remember the choice of the rows whose bounds (B, S) are better than before."""
        better = torch.ones_like(bound, dtype=torch.bool) if self._bound is None else bound > self._bound
        if self._bound is None:
            self._bound = bound
        self._bound = torch.where(better, bound, self._bound)
        self._best = [
            rows_where(better, now.detach(), best) for best, now in zip(self._best, self._tensors, strict=True)
        ]

    def climb(self, bound: Tensor, length: float) -> None:
        """One step up."""
        self._count += 1
        gradients = torch.autograd.grad(bound.sum(), self._tensors, allow_unused=True)
        moments = zip(self._tensors, self._first, self._second, gradients, strict=True)
        for (tensor, first, second, gradient), ends, pace in zip(moments, self._limits, self._pace, strict=False):
            if gradient is None:
                continue
            first.lerp_(gradient, 1.0 - _BETA[0])
            second.mul_(_BETA[1]).addcmul_(gradient, gradient, value=1.0 - _BETA[1])
            scale = (second / (1.0 - _BETA[1] ** self._count)).sqrt_().add_(1e-8)
            with torch.no_grad():
                tensor.addcdiv_(first, scale, value=pace * length / (1.0 - _BETA[0] ** self._count))
                tensor.clamp_(*ends)


def rows_at_once(model: BoundModel, last: int) -> int:
    """Rows over layer `last` and those before that one search takes, at least 1: few enough for memory and deadline."""
    sizes = []
    for i, layer in enumerate(model.network.layers[: last + 1]):
        affine, windows = model.affine.get(i), model.windows.get(i)
        sizes.append(layer.size + (affine.unfolded + affine.entries if affine is not None else 0))
        sizes.append(windows.numel() if windows is not None else 0)
    return model.rows_that_fit(_COPIES, sum(sizes), _PASSES)
