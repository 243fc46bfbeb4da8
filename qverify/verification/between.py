"""Members by where every activation lies between its two ends: what an attack descends over. Heuristic.

An activation that alone reads a dense layer takes any value between `relu(lo - ...)` and `relu(hi) + r`, the ends that
(1) and (2) give it for what the layers before it give. As one variable that position has no dead gradient: a neuron
that is off may be turned on by it, which the position in (1) does not do while z stays below 0. `placed` turns such
positions into those of (1) and of the error, of which a member is made.

Here the offset of an activation, in [-1, 1], is the position between its ends; that of a dense layer that it alone
reads is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qverify.family.points import lower_end, upper_end
from qverify.layers import Relu, Rounding
from qverify.text.brief import Brief
from qverify.verification.member_pass import layer_outputs

if TYPE_CHECKING:
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.verification.positions import Positions

Ends = tuple[Tensor, Tensor]


@dataclass(eq=False, repr=False)
class BetweenEnds(Brief):
    """A forward pass of members; what is not done here is as in `member_pass`. `neuron`, `offset`: the positions that
    make the same members, filled where `place` is set."""

    model: BoundModel
    bounds: Bounds
    positions: Positions
    place: bool = False
    ends: dict[int, Ends] = field(default_factory=dict)
    neuron: dict[int, Tensor] = field(default_factory=dict)
    offset: dict[int, Tensor] = field(default_factory=dict)

    def run(self) -> Tensor:
        """Outputs (N, n_out), differentiable."""
        values: list[Tensor] = []
        for i, layer in enumerate(self.model.network.layers):
            values.append(self._layer(i, layer, [values[j] for j in layer.inputs]))
        return values[-1]

    def _layer(self, index: int, layer: object, x: list[Tensor]) -> Tensor:
        if index in self.model.fused:
            affine = self.model.affine[index]
            centre = affine.apply(affine.weight, x[0]) + affine.bias
            wide = affine.apply_radius(x[0].abs()) + affine.bias_radius
            self.ends[index] = centre - wide, centre + wide
            return centre
        if isinstance(layer, (Relu, Rounding)):
            return self._between(index, layer, x[0])
        return layer_outputs(self.model, self.bounds, self.positions, index, x)

    def _between(self, index: int, layer: Relu | Rounding, z: Tensor) -> Tensor:
        (source,) = layer.inputs
        low, high = self.ends.get(source, (z, z))
        radius = self.bounds.activation[index]
        share = (self.positions.offset[index] + 1.0) / 2.0
        if isinstance(layer, Relu):
            least, most, free = (low - radius).clamp(min=0), high.clamp(min=0) + radius, radius
        else:
            point = self.model.points[index]
            smooth = replace(point, step=torch.zeros_like(point.step))
            least, most = lower_end(torch, smooth, radius, low, 0.0), upper_end(torch, smooth, radius, high, 0.0)
            free = point.freedom(torch, radius)
        y: Tensor = least + share * (most - least)
        if self.place:
            self._placed(index, source, y, (low, high), free)
        if isinstance(layer, Rounding):
            step = self.model.points[index].step
            if bool((step > 0).any()):
                safe = torch.where(step > 0, step, torch.ones_like(step))
                y = y + torch.where(step > 0, torch.round(y.detach() / safe) * safe - y.detach(), torch.zeros_like(y))
        return y

    def _placed(self, index: int, source: int, y: Tensor, ends: Ends, free: Tensor) -> None:
        """The positions in (1) and of the error that give y: z as near to y as may be, and the error what is left."""
        low, high = ends
        z, safe = torch.minimum(torch.maximum(y, low), high), torch.where(free > 0, free, torch.ones_like(free))
        if index in self.model.points:
            offset = (y - z) / safe
        else:  # where it is 0, as low as may be
            z = torch.where(y > 0, z, low)
            offset = torch.where(y > 0, (y - z.clamp(min=0)) / safe, -torch.ones_like(y))
        self.offset[index] = offset.clamp(-1.0, 1.0)
        if source in self.ends and source in self.positions.neuron:
            width = torch.where(high > low, high - low, torch.ones_like(low))
            self.neuron[source] = (2.0 * (z - low) / width - 1.0).clamp(-1.0, 1.0)


def placed(model: BoundModel, bounds: Bounds, positions: Positions) -> Positions:
    """The positions in (1) and of errors that make the members at `positions` between ends."""
    walk = BetweenEnds(model, bounds, positions, place=True)
    with torch.no_grad():
        walk.run()
    return replace(positions, neuron={**positions.neuron, **walk.neuron}, offset={**positions.offset, **walk.offset})
