"""Where bounds lose: which layer's lines miss most of what its activations give, in BP on a margin. Heuristic.

The estimate is that by which branching ranks neurons (`splits.candidates`), summed by layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qverify.bounds.backward_pass import Notes
from qverify.bounds.optimised import Choice, Quantities, bound_with
from qverify.bounds.splits import candidates, read_layers, targets

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.bounds.tensors import BoundModel, Bounds


@torch.no_grad()
def loosest(model: BoundModel, bounds: Bounds, labels: Tensor, lower: Tensor) -> list[str]:
    """For the lowest margin of each sample of `bounds` (N), by `lower` (N, C), the name of the activation layer whose
    lines lose most; empty where none does. labels (N,)."""
    where = read_layers(model)
    if not where:
        return [""] * len(bounds)
    light, last, notes = model.searching, len(model.network.layers) - 1, Notes()
    near, eye = bounds.to(light.dtype), torch.eye(model.network.output_size, dtype=light.dtype, device=model.device)
    rows = (eye[labels] - eye[lower.argmin(1)]).unsqueeze(1)
    bound_with(light, near, Quantities(rows={last: rows}), Choice(shares={}), notes)
    lost = candidates(light, near, notes.rows, notes.shares).gain.clamp(min=0.0).nan_to_num(0.0)
    readers: dict[int, str] = {}
    for index, source in targets(model).items():
        readers.setdefault(source, model.network.layers[index].name)
    sums = torch.stack([lost[:, some].sum(1) for some in where.values()], 1)
    names = [readers[source] for source in where]
    most = sums.max(1)
    return [
        names[i] if amount > 0 else "" for i, amount in zip(most.indices.tolist(), most.values.tolist(), strict=True)
    ]


def told(reason: str, layer: str) -> str:
    """A reason, and the layer that `loosest` named."""
    return f"{reason}; bounds lose most at {layer!r}" if layer and reason else reason
