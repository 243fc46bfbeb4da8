"""Attack: concrete worst members of the family, by batched descent (mathematics.md, section 5). Heuristic.

The relational variables make falsification cheap. Per sample, the descent runs over the position
`t` in [-1, 1] of every dense neuron in its range (1), `z = W x + b + t (R |x| + r_b)`; over the kernel
itself, `W + d R`, for convolutions, because a kernel is shared by all positions; over the activation
offsets and over the input box, or over where activations lie between their two ends (`between`). Every evaluation is a
real member. `Positions` keeps where it ended, and
`Positions.choice` turns it into a witness through `members.realise`, which evaluates it afresh by a
plain forward pass. Nothing here ever proves anything: a failed attack means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.pairs import MARGINS
from qverify.budget import Deadline
from qverify.family.members import Recipe
from qverify.moved import former_names
from qverify.text.brief import Brief
from qverify.verification.between import BetweenEnds, placed
from qverify.verification.guides import feared
from qverify.verification.member_pass import input_at, member_outputs
from qverify.verification.positions import Positions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.arrays import Array
    from qverify.bounds.optimised import Effort
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.family.family import Family

__getattr__ = former_names(__name__, {"forward": "qverify.verification.member_pass:member_outputs"})


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How an attack goes. `starts` of a sample: from the middle, one against the hardest rival as it changes, the rest
    against single rivals; if `guided`, all against single rivals that may win, from where bounds fear these (guides.py)
    by the usual lines, or by those that a search of this `effort` finds. `steps` of each: the `first` one, and what the
    next ones are of those before; 2 is from one end of a position to the other."""

    starts: int
    steps: int
    first: float
    shrinks: float
    guided: bool = False
    effort: Effort | None = None


QUICK = Pace(starts=4, steps=12, first=2.0, shrinks=0.9)
"""Breaks what breaks easily: on both published reference models 8 such steps break as many samples as 100 do."""
FIRST = replace(QUICK, starts=1)
"""Where a guided attack follows, which breaks more than further starts from the middle do."""
GUIDED = Pace(starts=2, steps=12, first=0.3, shrinks=0.8, guided=True)
"""Of 24 samples that were left to the exact step by attacks from the middle, 21 of which fail, such starts break 20."""
THOROUGH = replace(GUIDED, starts=1, steps=30, shrinks=0.92, effort=MARGINS)
"""For a few samples, at the rival that is the hardest by their bounds."""
SLOW = Pace(starts=10, steps=100, first=0.1, shrinks=0.98)
"""Long steps end at corners at once. Of samples that these leave, and branch and bound in 10 s, short ones broke 9 of
23 in 0.03 s each; more or random starts, and more steps, hardly broke more."""
_LEAST_STEP = 0.02
_COPIES, _PASSES = 12, 4
"""Tensors of the size of all layers that a descent holds per sample, and forward passes that a step costs."""
_TOGETHER = 256
"""Descents that go on side by side at most, though the first to succeed would have spared a sample the others."""
_CLEAR = {torch.float64: 1e-9, torch.float32: 1e-5}
"""A margin below 0 by this much, relative to the outputs, that was computed in this type stays there when the member is
evaluated afresh."""


@dataclass(eq=False, repr=False, kw_only=True)
class Attack(Brief):
    """The worst members found: `margin` (N,) by a float64 forward pass, and where they lie.

    `lower`, `upper` (N, n_in): the input box of each sample.
    """

    margin: Tensor
    positions: Positions
    lower: Tensor
    upper: Tensor

    @staticmethod
    def nothing(model: BoundModel, bounds: Bounds) -> Attack:
        """No members found yet for the samples of `bounds`."""
        return Attack(
            margin=torch.full((len(bounds),), torch.inf, dtype=model.dtype, device=model.device),
            positions=Positions.middle(model, len(bounds)),
            lower=bounds.lower[0],
            upper=bounds.upper[0],
        )

    def recipe(self, family: Family, x: Array, label: int, sample: int) -> Recipe:
        """The recipe of the member found for one sample x (n_in,)."""
        entry = input_at(self.positions.entry[sample], self.lower[sample], self.upper[sample])
        return Recipe(
            family=family,
            x=x,
            x_hat=entry.detach().cpu().numpy(),
            label=label,
            choice=self.positions.choice(sample),
        )

    def keep_worse(self, samples: Tensor, margin: Tensor, positions: Positions) -> None:
        """Take over, of the members at `positions` of these samples, those whose margins are below the ones here."""
        worse = margin < self.margin[samples]
        where = samples[worse]
        self.margin[where] = margin[worse]
        new = positions.named()
        for key, kept in self.positions.named().items():
            kept[where] = new[key].detach()[worse]


def attack(
    model: BoundModel,
    bounds: Bounds,
    labels: Tensor,
    rivals: Tensor,
    start: Positions | None = None,
    deadline: Deadline | None = None,
    pace: Pace | None = None,
) -> Attack:
    """The worst members found, by descent on their margins. Heuristic: it proves nothing, and each is a true member.

    `bounds`: IBP of the samples (N), for the input box and activation radii. `rivals` (N, classes): lower
    bounds on the margins; the starts after the first aim at the lowest ones. `start`: positions to
    descend from first, else the middle. A sample is left alone as soon as its margin is clearly negative, so that
    the member found for it fails, and is seldom the worst there is. `pace`: else `QUICK`. Where the deadline passes,
    what was found by then counts; inf where nothing was.
    """
    deadline = deadline or Deadline()
    parts: list[Attack] = []
    step = _samples_at_once(model)
    for begin in range(0, len(labels), step):
        some = slice(begin, begin + step)
        first = None if start is None else start.take(some)
        given = bounds.take(some), labels[some], rivals[some]
        parts.append(_attack_chunk(model, *given, first, deadline, pace or QUICK))
    return Attack(
        margin=torch.cat([part.margin for part in parts]),
        positions=Positions.concatenate([part.positions for part in parts]),
        lower=bounds.lower[0],
        upper=bounds.upper[0],
    )


def _samples_at_once(model: BoundModel) -> int:
    """Samples that fit into the memory together."""
    sizes = [layer.size for layer in model.network.layers] + model.unfolded
    return model.rows_that_fit(_COPIES, sum(sizes), _PASSES)


def _attack_chunk(
    model: BoundModel,
    bounds: Bounds,
    labels: Tensor,
    rivals: Tensor,
    start: Positions | None,
    deadline: Deadline,
    pace: Pace,
) -> Attack:
    """`attack` on samples that fit into the memory together."""
    found = Attack.nothing(model, bounds)
    targets = [None] if start is not None else _targets(model, rivals, pace)
    for number, target in enumerate(targets):
        unbroken = found.margin > 0
        if pace.guided and target is not None:
            unbroken &= ~(rivals.gather(1, target[:, None]).squeeze(1) > 0)
        open_ = torch.nonzero(unbroken, as_tuple=True)[0]
        if not len(open_) or deadline.passed():
            break
        left = targets[number:]
        if number and not pace.guided and len(open_) * len(left) <= min(_TOGETHER, _samples_at_once(model)):
            single = torch.stack([one for one in left if one is not None], 1)[open_]
            sides = _side_by_side(model, bounds.take(open_), labels[open_], single, deadline, pace)
            for margin, positions in sides:
                still = found.margin[open_] > 0  # as if they had gone on one by one
                found.keep_worse(open_[still], margin[still], positions.take(still))
            break
        aim = None if target is None else target[open_]
        if start is not None:
            first = start.take(open_)
        elif pace.guided and aim is not None:
            first = feared(model, bounds.take(open_), labels[open_], aim, pace.effort, deadline)
        else:
            first = Positions.middle(model, len(open_))
        under_way = _Descent(
            samples=open_,
            positions=first,
            bounds=bounds.of_input().take(open_),
            labels=labels[open_],
            target=aim,
            between=start is None,
        )
        _descend(model, under_way, found, deadline, pace)
    return found


def _targets(model: BoundModel, rivals: Tensor, pace: Pace) -> list[Tensor | None]:
    """What each start aims at: None for the hardest rival as it changes, or single rivals (N,), lowest bounds first."""
    single = min(pace.starts - (not pace.guided), model.network.output_size - 1)
    order = rivals.argsort(1)
    return [None] * (not pace.guided) + [order[:, i] for i in range(single)]


def _side_by_side(
    model: BoundModel, bounds: Bounds, labels: Tensor, rivals: Tensor, deadline: Deadline, pace: Pace
) -> Iterator[tuple[Tensor, Positions]]:
    """The worst members of samples (N) that descents from the middle find, one at each of the `rivals` (N, K): for one
    rival after the other the margins (N,) and where they lie."""
    count, each = rivals.shape
    sample = torch.arange(count, device=model.device).repeat_interleave(each)
    found = Attack.nothing(model, bounds.take(sample))
    under_way = _Descent(
        samples=torch.arange(len(sample), device=model.device),
        positions=Positions.middle(model, len(sample)),
        bounds=bounds.of_input().take(sample),
        labels=labels[sample],
        target=rivals.reshape(-1),
        between=True,
    )
    _descend(model, under_way, found, deadline, pace)
    for one in range(each):
        yield found.margin[one::each], found.positions.take(slice(one, None, each))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Descent(Brief):
    """N samples under descent: their places among all `samples` (N,), where their members lie, bounds on the input and
    labels (N,).

    `target` (N,): the rivals aimed at; None for the hardest one as it changes. `between`: positions are between ends.
    """

    samples: Tensor
    positions: Positions
    bounds: Bounds
    labels: Tensor
    target: Tensor | None
    between: bool

    def take(self, chosen: Tensor) -> _Descent:
        """The same for a subset of them."""
        return _Descent(
            samples=self.samples[chosen],
            positions=self.positions.take(chosen),
            bounds=self.bounds.take(chosen),
            labels=self.labels[chosen],
            target=None if self.target is None else self.target[chosen],
            between=self.between,
        )

    def to(self, dtype: torch.dtype) -> _Descent:
        """The same in another type."""
        return replace(self, positions=self.positions.map(lambda t: t.to(dtype)), bounds=self.bounds.to(dtype))

    def outputs(self, model: BoundModel, positions: Positions) -> Tensor:
        """Those (N, n_out) of the members at these positions."""
        if not self.between:
            return member_outputs(model, self.bounds, positions)
        return BetweenEnds(model, self.bounds, positions).run()


def _descend(model: BoundModel, descent: _Descent, found: Attack, deadline: Deadline, pace: Pace) -> None:
    """Sign-gradient descent with a shrinking step; members that are worse than those in `found` go there. Between ends
    it goes on in float32: what it finds is placed, and evaluated, in float64."""
    searching = model.searching if descent.between else model
    bounds, descent = descent.bounds, descent.to(searching.dtype)
    step, best, clear = pace.first, _Best(descent), _CLEAR[searching.dtype]
    for number in range(pace.steps + 1):
        positions = descent.positions.map(lambda t: t.detach().requires_grad_(True))
        output, labels = descent.outputs(searching, positions), descent.labels
        own = output.gather(1, labels[:, None])
        margins = (own - output).scatter(1, labels[:, None], torch.inf)
        worst = margins.detach().amin(1)
        best.take_in(descent.samples, worst, positions)
        open_ = torch.nonzero(worst >= -clear * output.detach().abs().amax(1), as_tuple=True)[0]
        if number == pace.steps or not len(open_) or deadline.passed():
            break
        aim = margins.amin(1) if descent.target is None else margins.gather(1, descent.target[:, None]).squeeze(1)
        signs = positions.gradient_signs(aim.sum())
        with torch.no_grad():
            descent = replace(descent, positions=positions.moved(step, signs)).take(open_)
        step = max(_LEAST_STEP, step * pace.shrinks)
    best.tell(model, bounds, found)


class _Best:
    """The worst member of each of some samples on one descent, by what that computed; `tell` evaluates it."""

    def __init__(self, descent: _Descent):
        self._descent = descent
        self._margin = torch.full(descent.labels.shape, torch.inf, dtype=descent.positions.entry.dtype)
        self._margin = self._margin.to(descent.labels.device)
        self._positions = descent.positions.map(torch.clone)

    def take_in(self, samples: Tensor, margin: Tensor, positions: Positions) -> None:
        """Margins (N,) of some of the samples."""
        where = torch.searchsorted(self._descent.samples, samples)
        lower = margin < self._margin[where]
        where = where[lower]
        self._margin[where] = margin[lower]
        self._positions.zip_map(partial(_put, where, lower), positions)

    def tell(self, model: BoundModel, bounds: Bounds, found: Attack) -> None:
        """Hand the members to `found`, each by what a forward pass says of it; `bounds` on the input of the samples."""
        descent, margin = self._descent, self._margin.to(model.dtype)
        members = self._positions.map(model.tensor)
        if descent.between:
            members = placed(model, bounds, members)
            with torch.no_grad():
                output = member_outputs(model, bounds, members)
            own = output.gather(1, descent.labels[:, None])
            true = (own - output).scatter(1, descent.labels[:, None], torch.inf).amin(1)
            margin = torch.where(margin.isfinite(), true, margin)
        found.keep_worse(descent.samples, margin, members)


def _put(where: Tensor, chosen: Tensor, kept: Tensor, new: Tensor) -> Tensor:
    kept[where] = new.detach()[chosen]
    return kept
