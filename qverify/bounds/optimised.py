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
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline

_COPIES = 24
"""Tensors of the size of all layers that one row takes in a search: shares, their moments, gradients, what is kept."""
_PASSES = 8
"""Forward passes that a step of a search costs for each row."""
_BETA = (0.9, 0.999)
"""Of Adam's two moments."""
_STARTS = (-2.0, -1.0, 0.0, 1.0)
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
    (B, S, n) each, under an assumption or none."""

    rows: dict[int, Tensor] = field(default_factory=dict)
    high: dict[int, Tensor] = field(default_factory=dict)
    assumed: Assumption | None = None

    def to(self, dtype: torch.dtype) -> Quantities:
        """The same in another type."""
        assumed = self.assumed
        if assumed is not None:
            assumed = Assumption(rows=assumed.rows.to(dtype), limit=assumed.limit.to(dtype))
        return Quantities(
            rows={i: t.to(dtype) for i, t in self.rows.items()},
            high={i: t.to(dtype) for i, t in self.high.items()},
            assumed=assumed,
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Choice(Brief):
    """What a search chooses: shares (B, S, n) by activation, and the logarithms `weight` (B, S) of the multipliers of
    the assumption if there is one. Any numbers will do: shares are clipped to [0, 1] where they are used.
    """

    shares: dict[int, Tensor]
    weight: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Choice:
        """The same in another type."""
        shares = {i: t.to(dtype) for i, t in self.shares.items()}
        return Choice(shares=shares, weight=None if self.weight is None else self.weight.to(dtype))


def bound_with(
    model: BoundModel, bounds: Bounds, asked: Quantities, choice: Choice, used: dict[int, Tensor] | None = None
) -> Tensor:
    """Lower bounds (B, S) on what is asked, with the lines and multipliers of a choice. Sound, if `model` allows for
    rounding and `bounds` hold, for members that meet the assumption; -inf where they overflow."""
    rows, shares = dict(asked.rows), {i: share.clamp(0.0, 1.0) for i, share in choice.shares.items()}
    if asked.assumed is None or choice.weight is None:
        return combined_bound(model, bounds, rows, asked.high, shares, used)
    last, gamma = len(model.network.layers) - 1, choice.weight.exp()
    own = gamma.unsqueeze(2) * asked.assumed.rows.unsqueeze(1)
    rows[last] = rows[last] + own if last in rows else own
    found = combined_bound(model, bounds, rows, asked.high, shares, used)
    taken = gamma * asked.assumed.limit.unsqueeze(1)
    # The rows are exact if those of the assumption are 1, 0 and -1. Rounded are this product, the sum and what is here.
    return found - taken - 8.0 * model.rounding.unit * (found.abs() + taken.abs()) - model.rounding.tiny


def searched(
    model: BoundModel,
    bounds: Bounds,
    asked: Quantities,
    effort: Effort,
    deadline: Deadline | None = None,
) -> tuple[Tensor, Choice]:
    """Lower bounds (B, S) on what is asked, and the choice that gives them, searched for row by row; -inf where they
    overflow. Sound."""
    light, near, question = model.searching, bounds.to(torch.float32), asked.to(torch.float32)
    choice = _first_choice(light, near, question)
    ascent = _Ascent(choice)
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
            found = bound_with(model, bounds, asked, Choice(shares={}, weight=now), used)
        used = {i: t.expand(*weight.shape, t.shape[2]) for i, t in used.items()}
        if best is None:
            best, shares, weight = found, used, now
            continue
        better = found > best
        best, weight = torch.where(better, found, best), torch.where(better, now, weight)
        shares = {i: torch.where(better.unsqueeze(2), t, shares[i]) for i, t in used.items()}
    return Choice(shares=shares, weight=weight if asked.assumed is not None else None)


class _Ascent:
    """Adam on the sum of bounds, each row by itself, which remembers the best choice of each."""

    def __init__(self, start: Choice):
        self._indices = sorted(start.shares)
        tensors = [start.shares[i] for i in self._indices] + ([] if start.weight is None else [start.weight])
        self._tensors = [t.detach().clone().requires_grad_(True) for t in tensors]
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
        return self._as_choice(self._tensors)

    def best(self) -> Choice:
        return self._as_choice(self._best)

    def _as_choice(self, tensors: list[Tensor]) -> Choice:
        shares = dict(zip(self._indices, tensors, strict=False))
        return Choice(shares=shares, weight=tensors[-1] if len(tensors) > len(shares) else None)

    def keep(self, bound: Tensor) -> None:
        """Remember the choice of the rows whose bounds (B, S) are better than before."""
        better = torch.ones_like(bound, dtype=torch.bool) if self._bound is None else bound > self._bound
        if self._bound is None:
            self._bound = bound
        self._bound = torch.where(better, bound, self._bound)
        for best, now in zip(self._best, self._tensors, strict=True):
            mask = better if now.ndim == 2 else better.unsqueeze(2)
            best.copy_(torch.where(mask, now.detach(), best))

    def climb(self, bound: Tensor, length: float) -> None:
        """One step up."""
        self._count += 1
        gradients = torch.autograd.grad(bound.sum(), self._tensors, allow_unused=True)
        for tensor, first, second, gradient in zip(self._tensors, self._first, self._second, gradients, strict=True):
            if gradient is None:
                continue
            first.lerp_(gradient, 1.0 - _BETA[0])
            second.mul_(_BETA[1]).addcmul_(gradient, gradient, value=1.0 - _BETA[1])
            scale = (second / (1.0 - _BETA[1] ** self._count)).sqrt_().add_(1e-8)
            with torch.no_grad():
                tensor.addcdiv_(first, scale, value=length / (1.0 - _BETA[0] ** self._count))
                if tensor.ndim == 3:
                    tensor.clamp_(0.0, 1.0)


def rows_at_once(model: BoundModel, last: int) -> int:
    """Rows over layer `last` and those before that one search takes, at least 1: few enough for memory and deadline."""
    sizes = []
    for i, layer in enumerate(model.network.layers[: last + 1]):
        affine, windows = model.affine.get(i), model.windows.get(i)
        sizes.append(layer.size + (affine.unfolded if affine is not None else 0))
        sizes.append(windows.numel() if windows is not None else 0)
    return model.rows_that_fit(_COPIES, sum(sizes), _PASSES)
