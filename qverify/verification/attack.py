"""Attack: concrete worst members of the family, by batched descent (mathematics.md, section 5). Heuristic.

The relational variables make falsification cheap. Per sample, the descent runs over the position
`t` in [-1, 1] of every dense neuron in its range (1), `z = W x + b + t (R |x| + r_b)`; over the kernel
itself, `W + d R`, for convolutions, because a kernel is shared by all positions; over the activation
offsets and over the input box. Every evaluation is a real member. `Positions` keeps where it ended, and
`Positions.choice` turns it into a witness through `members.realise`, which evaluates it afresh by a
plain forward pass. Nothing here ever proves anything: a failed attack means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qverify.arrays import Array
from qverify.bounds.tensors import Affine, BoundModel, Bounds
from qverify.budget import Deadline, pieces
from qverify.family.family import Family
from qverify.family.members import PositionChoice, Recipe
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu, Scale
from qverify.text.brief import Brief

STEPS = 12
"""Descent steps per start; on both published reference models 8 steps break as many samples as 100 do."""
STARTS = 4
"""Starts per sample: one against the hardest rival as it changes, the rest against single rivals."""
_CLEAR = 1e-9
"""A margin below 0 by this much, relative to the outputs, stays there when the member is evaluated afresh."""


@dataclass(eq=False, repr=False)
class Positions(Brief):
    """Where N members lie in the family: every tensor has a leading axis N and entries in [-1, 1].

    `entry` (N, n_in) is the position in the input box; `neuron[i]` (N, size) of dense layers; `kernel[i]`
    (N, *kernel) and `bias[i]` (N, c_out) of convolutions; `offset[i]` (N, size) of activations.
    """

    entry: Tensor
    neuron: dict[int, Tensor] = field(default_factory=dict)
    kernel: dict[int, Tensor] = field(default_factory=dict)
    bias: dict[int, Tensor] = field(default_factory=dict)
    offset: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def middle(model: BoundModel, count: int) -> Positions:
        """All zeros: the trained network itself, on the centre of the input box."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=model.dtype, device=model.device)

        layers = model.network.layers
        quantised = model.network.weighted
        dense = [i for i in quantised if isinstance(layers[i], Dense)]
        conv = [i for i in quantised if isinstance(layers[i], Conv)]
        return Positions(
            zeros(model.network.input_size),
            {i: zeros(layers[i].size) for i in dense},
            {i: zeros(*model.affine[i].weight.shape) for i in conv},
            {i: zeros(len(model.affine[i].bias)) for i in conv},
            {i: zeros(layers[i].size) for i in model.network.relus},
        )

    @staticmethod
    def of(model: BoundModel, choice: PositionChoice, x_hat: Array, bounds: Bounds) -> Positions:
        """The position of one member with input x_hat (n_in,), as a batch of one; `bounds` of that sample."""

        def batch(group: dict[int, Array]) -> dict[int, Tensor]:
            return {i: model.tensor(values)[None] for i, values in group.items()}

        low, high = bounds.lower[0], bounds.upper[0]
        width = torch.where(high > low, high - low, 1.0)
        entry = (2.0 * (model.tensor(x_hat)[None] - low) / width - 1.0).clamp(-1.0, 1.0)
        return Positions(entry, *(batch(g) for g in (choice.neuron, choice.kernel, choice.bias, choice.offsets)))

    def tensors(self) -> list[Tensor]:
        groups = (self.neuron, self.kernel, self.bias, self.offset)
        return [self.entry, *(t for group in groups for t in group.values())]

    def map(self, function: Callable[[Tensor], Tensor]) -> Positions:
        """The same structure with every tensor replaced."""

        def each(group: dict[int, Tensor]) -> dict[int, Tensor]:
            return {i: function(t) for i, t in group.items()}

        return Positions(function(self.entry), each(self.neuron), each(self.kernel), each(self.bias), each(self.offset))

    def choice(self, sample: int) -> PositionChoice:
        """One member of the batch, as numpy, for `realise`."""
        one = self.map(lambda t: t[sample])

        def numpy(group: dict[int, Tensor]) -> dict[int, Array]:
            return {i: t.detach().cpu().numpy() for i, t in group.items()}

        return PositionChoice(numpy(one.neuron), numpy(one.kernel), numpy(one.bias), numpy(one.offset))


@dataclass(eq=False, repr=False)
class Attack(Brief):
    """The worst members found: `margin` (N,) by a float64 forward pass, and where they lie."""

    margin: Tensor
    positions: Positions
    lower: Tensor
    upper: Tensor

    def recipe(self, family: Family, x: Array, label: int, sample: int) -> Recipe:
        """How to make the member found for one sample; x (n_in,) is that sample."""
        entry = _entry(self.positions.entry[sample], self.lower[sample], self.upper[sample])
        return Recipe(family, x, entry.detach().cpu().numpy(), label, self.positions.choice(sample))


def _entry(position: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return lower + (position + 1.0) * 0.5 * (upper - lower)


def forward(model: BoundModel, bounds: Bounds, positions: Positions) -> Tensor:
    """Outputs (N, n_out) of the members at `positions`: a true forward pass, differentiable."""
    values: list[Tensor] = []
    for i, layer in enumerate(model.network.layers):
        values.append(FORWARD[type(layer)](_Pass(model, bounds, positions, i), [values[j] for j in layer.inputs]))
    return values[-1]


@dataclass(frozen=True, eq=False, repr=False)
class _Pass(Brief):
    """One layer of a forward pass of members."""

    model: BoundModel
    bounds: Bounds
    positions: Positions
    index: int

    def input(self, _: list[Tensor]) -> Tensor:
        return _entry(self.positions.entry, self.bounds.lower[0], self.bounds.upper[0])

    def affine(self, x: list[Tensor]) -> Tensor:
        return _affine(self.model.affine[self.index], self.index, x[0], self.positions)

    def scale(self, x: list[Tensor]) -> Tensor:
        scale, shift = self.model.scale[self.index]
        return scale * x[0] + shift

    def relu(self, x: list[Tensor]) -> Tensor:
        return (x[0].clamp(min=0) + self.positions.offset[self.index] * self.bounds.activation[self.index]).clamp(min=0)

    def add(self, x: list[Tensor]) -> Tensor:
        return x[0] + x[1]


FORWARD: dict[type[Layer], Callable[[_Pass, list[Tensor]], Tensor]] = {
    Input: _Pass.input,
    Dense: _Pass.affine,
    Conv: _Pass.affine,
    Scale: _Pass.scale,
    Relu: _Pass.relu,
    Add: _Pass.add,
}


def _affine(affine: Affine, index: int, x: Tensor, positions: Positions) -> Tensor:
    if index in positions.neuron:
        centre = affine.forward(affine.weight, x) + affine.bias
        return centre + positions.neuron[index] * (affine.forward(affine.radius, x.abs()) + affine.bias_radius)
    if index not in positions.kernel:
        return affine.forward(affine.weight, x) + affine.spread(affine.bias)
    layer: Any = affine.layer
    kernel = affine.weight + positions.kernel[index] * affine.radius
    kernel = kernel.reshape(len(x), layer.groups, -1, layer.fan_in)
    z = torch.einsum("ngpk,ngck->ngcp", affine.patches(x), kernel).reshape(len(x), -1, layer.positions)
    return (z + (affine.bias + positions.bias[index] * affine.bias_radius).unsqueeze(2)).reshape(len(x), -1)


def attack(
    model: BoundModel,
    bounds: Bounds,
    labels: Tensor,
    rivals: Tensor,
    start: Positions | None = None,
    deadline: Deadline | None = None,
) -> Attack:
    """Search for members that misclassify: the smallest margin found per sample.

    `bounds`: IBP of the samples (N), for the input box and activation radii. `rivals` (N, classes): lower
    bounds on the margins; the starts after the first aim at the lowest ones. `start`: positions to
    descend from first, else the middle. A sample is left alone as soon as its margin is clearly negative, so that
    the member found for it fails, and is seldom the worst there is. Where the deadline passes, what was found by then
    counts; inf where nothing was.
    """
    deadline = deadline or Deadline()
    parts: list[Attack] = []
    step = _chunk(model)
    for begin in range(0, len(labels), step):
        chunk = slice(begin, begin + step)
        first = None if start is None else start.map(lambda t, c=chunk: t[c])  # type: ignore[misc]
        parts.append(_attack(model, (bounds.take(chunk), labels[chunk], rivals[chunk]), first, deadline))
    trees = [p.positions for p in parts]
    joined = {
        name: {i: torch.cat([getattr(t, name)[i] for t in trees]) for i in getattr(trees[0], name)}
        for name in ("neuron", "kernel", "bias", "offset")
    }
    positions = Positions(torch.cat([t.entry for t in trees]), **joined)
    margin = torch.cat([p.margin for p in parts])
    return Attack(margin, positions, bounds.lower[0], bounds.upper[0])


def _chunk(model: BoundModel) -> int:
    sizes = [layer.size for layer in model.network.layers] + [a.unfolded for a in model.affine.values()]
    return pieces(12 * sum(sizes), 4 * model.operations, model.memory)


def _attack(
    model: BoundModel, question: tuple[Bounds, Tensor, Tensor], start: Positions | None, deadline: Deadline
) -> Attack:
    bounds, labels, rivals = question
    order = rivals.argsort(1)
    lower, upper = bounds.lower[0], bounds.upper[0]
    count = len(labels)
    best = Attack(torch.full((count,), torch.inf, dtype=model.dtype), Positions.middle(model, count), lower, upper)
    best.margin = best.margin.to(model.device)
    starts = 1 if start is not None else min(STARTS, model.network.output_size)
    for number in range(starts):
        open_ = torch.nonzero(best.margin > 0, as_tuple=True)[0]
        if not len(open_) or deadline.passed():
            break
        target = None if number == 0 else order[open_, number - 1]
        begin = start if start is not None and number == 0 else Positions.middle(model, count)
        begin = begin.map(lambda t, o=open_: t[o])  # type: ignore[misc]
        _descend(model, (bounds.take(open_), labels[open_], target), begin, (best, open_), deadline)
    return best


def _descend(
    model: BoundModel,
    question: tuple[Bounds, Tensor, Tensor | None],
    positions: Positions,
    result: tuple[Attack, Tensor],
    deadline: Deadline,
) -> None:
    """Sign-gradient descent with a shrinking step; better members go into `result` at its indices."""
    bounds, labels, target = question
    best, indices = result
    step = 1.0
    for number in range(STEPS + 1):
        positions = positions.map(lambda t: t.detach().requires_grad_(True))
        output = forward(model, bounds, positions)
        own = output.gather(1, labels[:, None])
        margins = (own - output).scatter(1, labels[:, None], torch.inf)
        worst = margins.detach().amin(1)
        _keep((best, indices), worst, positions)
        open_ = torch.nonzero(worst >= -_CLEAR * output.detach().abs().amax(1), as_tuple=True)[0]
        if number == STEPS or not len(open_) or deadline.passed():
            break
        aim = margins.amin(1) if target is None else margins.gather(1, target[:, None]).squeeze(1)
        gradients = torch.autograd.grad(aim.sum(), positions.tensors(), allow_unused=True)
        moves = iter(
            torch.zeros_like(t) if g is None else g.sign() for g, t in zip(gradients, positions.tensors(), strict=True)
        )
        with torch.no_grad():
            moved = [(t - step * m).clamp(-1.0, 1.0) for t, m in zip(positions.tensors(), moves, strict=True)]
        replacement = iter(t[open_] for t in moved)
        positions = positions.map(lambda _, r=replacement: next(r))  # type: ignore[misc]
        bounds, labels, indices = bounds.take(open_), labels[open_], indices[open_]
        target = None if target is None else target[open_]
        step = max(0.02, step * 0.85)


def _keep(result: tuple[Attack, Tensor], margin: Tensor, positions: Positions) -> None:
    best, indices = result
    better = margin < best.margin[indices]
    where = indices[better]
    best.margin[where] = margin[better]
    for kept, new in zip(best.positions.tensors(), positions.tensors(), strict=True):
        kept[where] = new.detach()[better]
