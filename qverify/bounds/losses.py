"""Where bounds lose: which layer's lines miss most of what its activations give, in BP on a margin. Heuristic.

The estimate is that by which branching ranks neurons (`splits.candidates`), summed by layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qverify.bounds.optimised import Choice, margin_of, noted, rows_at_once
from qverify.bounds.pairs import margin_rows
from qverify.bounds.splits import candidates, read_layers, targets

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.bounds.tensors import BoundModel, Bounds


def loosest(model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor) -> list[str]:
    """For the lowest margin of each sample of `bounds` (N), by `lower` (N, C), the name of the activation layer whose
    lines lose most; empty where none does. labels (N,)."""
    where = read_layers(model)
    if not where:
        return [""] * len(bounds)
    rows = margin_rows(model.searching, labels, lower.argmin(1))
    every = torch.arange(len(bounds), device=model.device)
    pieces = torch.split(every, rows_at_once(model, len(model.network.layers) - 1))
    lost = torch.cat([_lost(model.searching, bounds.take(some).to(torch.float32), rows[some]) for some in pieces])
    sums = torch.stack([lost[:, some].sum(1) for some in where.values()], 1)
    readers = {source: model.network.layers[index].name for index, source in reversed(targets(model).items())}
    names = [readers[source] for source in where]
    amounts, places = (t.tolist() for t in sums.max(1))
    return [names[i] if amount > 0 else "" for i, amount in zip(places, amounts, strict=True)]


def _lost(model: BoundModel, bounds: Bounds, rows: Tensor) -> Tensor:
    """What lines lose (B, T) at the neurons that activations read, on margins with rows (B, C)."""
    notes = noted(model, bounds, margin_of(model, rows), Choice(shares={}))
    return candidates(model, bounds, notes.rows, notes.shares).gain.clamp(min=0.0).nan_to_num(0.0)


def told(reason: str, layer: str) -> str:
    """A reason, and the layer that `loosest` named."""
    return f"{reason}; bounds lose most at {layer!r}" if layer and reason else reason
