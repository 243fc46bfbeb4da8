"""What BP is asked for: margins, outputs, and bounds on every layer, piece by piece within memory and time. Sound.

`backward` has the bounds on single rows; here rows are made, and shared out over passes that fit into the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.bounds.backward import backward_bound
from qverify.bounds.crops import cut
from qverify.bounds.curves import bends
from qverify.bounds.interval import interval_margins, interval_step
from qverify.bounds.lines import kinks
from qverify.bounds.pools import undecided
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.layers import DynamicRounding, Input, Layer, Relu, Rounding

if TYPE_CHECKING:
    from qverify.budget import Deadline


def _capacity(model: BoundModel) -> int:
    """Rows, samples times rows each, of one pass: ten tensors of the widest layer each, three products a weight."""
    return model.rows_that_fit(10, model.widest, 3)


def _in_pieces(model: BoundModel, bounds: Bounds, rows: Tensor, deadline: Deadline | None) -> Tensor:
    """`backward_bound` on rows (B, S, n_out) over the network's outputs, piece by piece; -inf where time was up."""
    last, capacity = len(model.network.layers) - 1, _capacity(model)
    found = torch.full(rows.shape[:2], -torch.inf, dtype=model.dtype, device=model.device)
    samples, width = max(1, capacity // rows.shape[1]), min(rows.shape[1], capacity)
    for start in range(0, len(rows), samples):
        chunk = slice(start, start + samples)
        for first in range(0, rows.shape[1], width):
            if deadline is not None and deadline.passed():
                return found
            some = slice(first, first + width)
            found[chunk, some] = backward_bound(model, bounds.take(chunk), last, rows[chunk, some])
    return found


def backward_margins(model: BoundModel, bounds: Bounds, labels: Tensor, deadline: Deadline | None = None) -> Tensor:
    """Lower bounds (N, classes) on `y_label - y_j`: BP with the given intermediate bounds, intersected with IBP's.

    Where the deadline passes, those of IBP.
    """
    eye = torch.eye(model.network.output_size, dtype=model.dtype, device=model.device)
    margin = _in_pieces(model, bounds, eye[labels].unsqueeze(1) - eye, deadline)
    return torch.maximum(margin, interval_margins(model, bounds, labels))


def backward_outputs(model: BoundModel, bounds: Bounds, deadline: Deadline | None = None) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (N, n_out) on every output: BP, intersected with `bounds`. Sound.

    Where the deadline passes, those of `bounds`.
    """
    last = len(model.network.layers) - 1
    everything = torch.ones(len(bounds), model.network.output_size, dtype=torch.bool, device=model.device)
    return _refined(model, bounds, last, everything, deadline)


def _refined(
    model: BoundModel, bounds: Bounds, index: int, wanted: Tensor, deadline: Deadline | None
) -> tuple[Tensor, Tensor]:
    """BP on the outputs of layer `index` marked in `wanted` (N, size), intersected with what `bounds` holds.

    Piece by piece; where the deadline passes, the rest stays as it is.
    """
    lower, upper = bounds.lower[index].clone(), bounds.upper[index].clone()
    for part, own, last, place in cut(model, bounds, index, wanted, deadline):
        lower[place], upper[place] = _refined_whole(part, own, last, wanted[place], deadline)
    return lower, upper


def _refined_whole(
    model: BoundModel, bounds: Bounds, index: int, wanted: Tensor, deadline: Deadline | None
) -> tuple[Tensor, Tensor]:
    """The same, with rows over all of the network."""
    lower, upper = bounds.lower[index].clone(), bounds.upper[index].clone()
    counts, capacity = wanted.sum(1), _capacity(model) // 2
    order = torch.argsort(counts)  # similar numbers of rows share a chunk, so little is padded
    start = 0
    while start < len(order):
        step = max(1, capacity // (int(counts[order[start]]) + 1))
        most = int(counts[order[min(start + step, len(order)) - 1]])
        if not most:
            start += step
            continue
        step = min(step, max(1, capacity // most))
        chunk = order[start : start + step]
        start += step
        # The marked neurons first, then padding, whose bounds are dropped: a sample's result must not depend
        # on the samples it shares a chunk with.
        neurons = torch.argsort(wanted[chunk].to(torch.int8), dim=1, descending=True, stable=True)[:, :most]
        own = bounds.take(chunk)
        for some in torch.split(neurons, max(1, capacity // len(chunk)), dim=1):
            if deadline is not None and deadline.passed():
                return lower, upper
            rows = torch.nn.functional.one_hot(some, wanted.shape[1]).to(model.dtype)
            both, count = backward_bound(model, own, index, torch.cat([rows, -rows], 1)), some.shape[1]
            padding = ~wanted[chunk].gather(1, some)
            low = both[:, :count].masked_fill(padding, -torch.inf)
            high = -both[:, count:].masked_fill(padding, -torch.inf)
            lower[chunk] = lower[chunk].scatter_reduce(1, some, low, "amax")
            upper[chunk] = upper[chunk].scatter_reduce(1, some, high, "amin")
    return lower, upper


def unstable(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """Mask (N, size) of the unstable neurons of an activation or rounding point: the ends of what it gives have a kink
    within the bounds on what enters it, or are curved there, so that they need a binary or a relaxation."""
    (source,) = model.network.layers[index].inputs
    radius = bounds.activation[index]
    if index in model.curves:
        return bends(model, bounds, index)
    if index in model.points:
        return kinks(model.points[index], radius, (bounds.lower[source], bounds.upper[source]))
    return (bounds.upper[source] > 0) & (bounds.lower[source] < radius)


def tightened_bounds(model: BoundModel, bounds: Bounds, deadline: Deadline | None = None) -> Bounds:
    """Bounds on every layer by BP: those on unstable pre-activations, on what may be the largest under a window, and on
    factors, refined in order, intervals propagated from there.

    Each layer uses the refined bounds of the layers before it. Nested in `bounds`, sound; where the deadline passes,
    the rest is as in `bounds`.
    """
    layers = model.network.layers
    new = Bounds(lower=[bounds.lower[0]], upper=[bounds.upper[0]], activation=dict(bounds.activation))
    readers: dict[int, list[int]] = {}
    for i in (*_dynamic_without_relu(model), *model.network.relus, *model.curves, *model.points, *model.windows):
        readers.setdefault(layers[i].inputs[0], []).append(i)
    for i in model.network.products:
        for source in layers[i].inputs:
            readers.setdefault(source, []).append(i)
    for index in range(1, len(layers)):
        if deadline is not None and deadline.passed():
            new.lower.append(bounds.lower[index])
            new.upper.append(bounds.upper[index])
            continue
        low, high = interval_step(model, new, index)
        new.lower.append(torch.maximum(low, bounds.lower[index]))
        new.upper.append(torch.minimum(high, bounds.upper[index]))
        first_affine = all(_of_input(layers, j) for j in layers[index].inputs)  # IBP is exact there
        if index in readers and not first_affine:
            wanted = torch.stack([_wanted(model, new, index, i) for i in readers[index]]).any(0)
            new.lower[index], new.upper[index] = _refined(model, new, index, wanted, deadline)
    return new


def _dynamic_without_relu(model: BoundModel) -> list[int]:
    """Indices of the dynamic rounding points that stand behind no Relu: what enters that is refined there."""
    layers = model.network.layers
    return [i for i in model.network.dynamic if not isinstance(layers[layers[i].inputs[0]], Relu)]


def _wanted(model: BoundModel, bounds: Bounds, index: int, target: int) -> Tensor:
    """Mask (N, size) of the outputs of layer `index`, which activation `target` reads, whose bounds are refined."""
    if target in model.network.products:
        return bounds.upper[index] > bounds.lower[index]
    if model.dynamic is None:
        return _loose(model, bounds, target)
    # A dynamic rounding point takes its step from all of them, but for what a Relu makes 0.
    lower, upper = bounds.lower[index], bounds.upper[index]
    return (upper > lower) & ((upper > 0) | (target not in model.network.relus))


def _loose(model: BoundModel, bounds: Bounds, index: int) -> Tensor:
    """Mask (N, n) of what an activation or a MaxPool reads whose bounds matter to its lines."""
    if index not in model.windows:
        return unstable(model, bounds, index)
    (source,) = model.network.layers[index].inputs
    return undecided(model.windows[index], bounds.lower[source], bounds.upper[source])


def _of_input(layers: tuple[Layer, ...], index: int) -> bool:
    """Whether a layer is the input, rounded or not."""
    layer = layers[index]
    return isinstance(layer, Input) or (
        isinstance(layer, (Rounding, DynamicRounding)) and isinstance(layers[layer.inputs[0]], Input)
    )
