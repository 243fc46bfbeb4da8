"""Intervals of neurons shrunk by optimised BP, for all members or for those that would be counterexamples. Sound.

Bounded are, of the fused layers, the two ends of the upper end `hi` of (1), and of others the output itself: what the
lines at an activation are chosen by. Only of neurons where that matters (`chorded`).

Shapes: N problems, each with its own bounds; T neurons of all layers asked for, in a row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from qverify.bounds.crops import cut
from qverify.bounds.curves import bends
from qverify.bounds.interval import interval_step
from qverify.bounds.optimised import Assumption, Effort, Quantities, rows_at_once, searched
from qverify.bounds.splits import targets

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline

Ends = tuple[Tensor, Tensor]


def shrunk(model: BoundModel, bounds: Bounds, effort: Effort, deadline: Deadline | None = None) -> Bounds:
    """Bounds for all members, layer by layer, each by those of the layers before it. Nested in `bounds`."""
    new = replace(bounds, lower=bounds.lower[:1], upper=bounds.upper[:1], least_high=dict(bounds.least_high))
    readers = {source: i for i, source in targets(model).items()}
    for index in range(1, len(model.network.layers)):
        _propagate(model, new, bounds, index)
        if index in readers and not (deadline is not None and deadline.passed()):
            wanted = chorded(model, new, readers[index])
            _take_in(model, new, index, _own_ends(model, new, index, wanted, effort, deadline))
    return new


def shrunk_outputs(model: BoundModel, bounds: Bounds, effort: Effort, deadline: Deadline | None = None) -> Ends:
    """Lower and upper bounds (N, n_out) on every output, none outside of `bounds`. Sound for the members of these."""
    last = len(model.network.layers) - 1
    wanted = torch.ones(len(bounds), model.network.output_size, dtype=torch.bool, device=model.device)
    low, high = _own_ends(model, bounds, last, wanted, effort, deadline)
    return torch.maximum(bounds.lower[last], low), torch.minimum(bounds.upper[last], high)


def _own_ends(
    model: BoundModel, bounds: Bounds, index: int, wanted: Tensor, effort: Effort, deadline: Deadline | None
) -> Ends:
    """`_ends` of one layer for all members; in an image by what each neuron sees of it."""
    low = torch.full(wanted.shape, -torch.inf, dtype=model.dtype, device=model.device)
    high = -low
    for part, own, last, place in cut(model, bounds, index, wanted, deadline):
        low[place], high[place] = _ends(part, own, {last: wanted[place]}, effort, None, deadline)[last]
    return low, high


def shrunk_under(
    model: BoundModel,
    bounds: Bounds,
    assumed: Assumption,
    effort: Effort,
    deadline: Deadline | None = None,
) -> Bounds:
    """Bounds for the members that meet an assumption, all layers by those that there were. Nested in `bounds`.

    Empty intervals, `empty`, say that there is no such member.
    """
    wanted = {source: chorded(model, bounds, i) for i, source in targets(model).items()}
    found = _ends(model, bounds, wanted, effort, assumed, deadline)
    new = replace(bounds, lower=bounds.lower[:1], upper=bounds.upper[:1], least_high=dict(bounds.least_high))
    for index in range(1, len(model.network.layers)):
        _propagate(model, new, bounds, index)
        if index in found:
            _take_in(model, new, index, found[index])
    return new


def empty(bounds: Bounds) -> Tensor:
    """Mask (N,) of the problems with an interval that holds no number."""
    ends = [(low > high).any(1) for low, high in zip(bounds.lower, bounds.upper, strict=True)]
    ends += [(low > bounds.upper[i]).any(1) for i, low in bounds.least_high.items()]
    return torch.stack(ends).any(0)


def _propagate(model: BoundModel, new: Bounds, bounds: Bounds, index: int) -> None:
    """IBP from the layers before, intersected with `bounds`; appends to `new`."""
    low, high = interval_step(model, new, index)
    new.lower.append(torch.maximum(low, bounds.lower[index]))
    new.upper.append(torch.minimum(high, bounds.upper[index]))


def _take_in(model: BoundModel, bounds: Bounds, index: int, found: Ends) -> None:
    """Intersect the intervals of one layer with those found."""
    low, high = found
    bounds.upper[index] = torch.minimum(bounds.upper[index], high)
    if index not in model.fused:
        bounds.lower[index] = torch.maximum(bounds.lower[index], low)
        return
    before = bounds.least(index)
    bounds.least_high[index] = torch.maximum(torch.maximum(before, bounds.lower[index]), low)


def chorded(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """Mask (N, n) of the neurons of an activation whose lines depend on the intervals of what they read: an upper end
    that is not convex between them, or a lower end that is not concave."""
    if index in model.curves:
        return bends(model, bounds, index)
    source = model.network.layers[index].inputs[0]
    least, upper = bounds.least(source), bounds.upper[source]
    if index not in model.points:
        return (least < 0) & (upper > 0)
    point, radius = model.points[index], bounds.activation[index]
    first = point.low[1] - radius
    last = torch.where(point.low[1] == 0, torch.maximum(first, point.dead), first)
    saturates = point.high[0] + radius
    found: Tensor = (least < last) & (upper > first) | (bounds.lower[source] < saturates) & (upper > saturates)
    return found


def open_neurons(model: BoundModel, bounds: Bounds) -> Tensor:
    """How many neurons (N,) of all activations those are; some activation has to read a layer."""
    return torch.stack([chorded(model, bounds, i).sum(1) for i in targets(model)]).sum(0)


def _ends(
    model: BoundModel,
    bounds: Bounds,
    wanted: dict[int, Tensor],
    effort: Effort,
    assumed: Assumption | None,
    deadline: Deadline | None,
) -> dict[int, Ends]:
    """Lower and upper bounds (N, n) on the wanted neurons of some layers, infinite where none was found or wanted.

    Piece by piece: problems with similar numbers of neurons share one, so little is padded.
    """
    if not wanted:
        return {}
    mask = torch.cat(list(wanted.values()), 1)
    low = torch.full(mask.shape, -torch.inf, dtype=model.dtype, device=model.device)
    high, counts = -low, mask.sum(1)
    last = max(wanted) if assumed is None else len(model.network.layers) - 1
    capacity = max(1, rows_at_once(model, last) // 2)
    order = torch.argsort(counts)
    order = order[counts[order] > 0]
    while len(order):
        step = max(1, capacity // int(counts[order[0]]))
        most = int(counts[order[:step]].max())
        chunk = order[: max(1, min(step, capacity // most))]
        order = order[len(chunk) :]
        neurons = torch.argsort(mask[chunk].to(torch.int8), dim=1, descending=True, stable=True)
        own = bounds.take(chunk)
        for some in torch.split(neurons[:, : int(counts[chunk].max())], max(1, capacity // len(chunk)), dim=1):
            if deadline is not None and deadline.passed():
                break
            asked = _both_ends(model, wanted, some, None if assumed is None else assumed.take(chunk))
            both, _ = searched(model, own, asked, effort, deadline)
            both = torch.where(mask[chunk].gather(1, some).repeat(1, 2), both, -torch.inf)
            count = some.shape[1]
            low[chunk] = low[chunk].scatter_reduce(1, some, both[:, :count], "amax")
            high[chunk] = high[chunk].scatter_reduce(1, some, -both[:, count:], "amin")
    found, first = {}, 0
    for i, neurons in wanted.items():
        last = first + neurons.shape[1]
        found[i], first = (low[:, first:last], high[:, first:last]), last
    return found


def _both_ends(model: BoundModel, wanted: dict[int, Tensor], neurons: Tensor, assumed: Assumption | None) -> Quantities:
    """The neurons (B, S) and, after them, the negated ones; numbered through all wanted layers."""
    rows: dict[int, Tensor] = {}
    high: dict[int, Tensor] = {}
    first = 0
    for index, mask in wanted.items():
        size = mask.shape[1]
        inside = (neurons >= first) & (neurons < first + size)
        if bool(inside.any()):
            one = F.one_hot((neurons - first).clamp(0, size - 1), size) * inside.unsqueeze(2)
            (high if index in model.fused else rows)[index] = torch.cat([one, -one], 1).to(model.dtype)
        first += size
    return Quantities(rows=rows, high=high, assumed=assumed)
