"""A Gather in bounds: numbers, intervals and rows moved as they are (mathematics.md, section 4.5). Sound.

Intervals are exact. Backward, the coefficients of all outputs that are one number are summed, which alone is rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.bounds.backward_pass import BackwardPass
    from qverify.bounds.tensors import BoundModel, Bounds


def gather_interval(model: BoundModel, bounds: Bounds, index: int) -> tuple[Tensor, Tensor]:
    """IBP through Gather `index`: its ends (N, size) are those of what it reads."""
    sources = model.network.layers[index].inputs
    lower, upper = ([ends[i] for i in sources] for ends in (bounds.lower, bounds.upper))
    return model.gathered(index, lower), model.gathered(index, upper)


def gather_rows(state: BackwardPass, index: int, a: Tensor) -> None:
    """BP through Gather `index`: rows a (B, S, size) on it become rows on its producers."""
    layer: Any = state.model.network.layers[index]
    picked, fill = state.model.gathers[index]
    sizes = [state.model.network.layers[source].size for source in layer.inputs]
    read = torch.nonzero(picked >= 0).squeeze(1)
    rows = torch.zeros(*a.shape[:2], sum(sizes), dtype=a.dtype, device=a.device)
    rows = rows.index_add(2, picked[read], a[:, :, read])
    for source, part in zip(layer.inputs, torch.split(rows, sizes, 2), strict=True):
        state.add(source, part)
    state.constant = state.constant + a @ fill
    if not state.tracks:
        return
    ends = [torch.maximum(state.bounds.lower[i].abs(), state.bounds.upper[i].abs()) for i in layer.inputs]
    reach = torch.where(picked < 0, fill.abs(), torch.cat(ends, 1)[:, picked]) + state.model.rounding.tiny
    mass = (a.abs() @ reach.unsqueeze(2)).squeeze(2) + state.constant.abs()
    for source in layer.inputs:
        state.err(mass, layer.repeats + layer.size, source)
