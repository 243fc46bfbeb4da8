"""Positions of members in a quantised family, as tensors: the variables of an attack (mathematics.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.family.members import PositionChoice
from qverify.layers import Conv, Dense
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.tensors import BoundModel, Bounds


@dataclass(eq=False, repr=False, kw_only=True)
class Positions(Brief):
    """Positions of N members in the family: every tensor has a leading axis N and entries in [-1, 1].

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
        """All zeros: the network without errors, on the centre of the input box."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=model.dtype, device=model.device)

        layers = model.network.layers
        quantised = model.quantised
        dense = [i for i in quantised if isinstance(layers[i], Dense)]
        conv = [i for i in quantised if isinstance(layers[i], Conv)]
        return Positions(
            entry=zeros(model.network.input_size),
            neuron={i: zeros(layers[i].size) for i in dense},
            kernel={i: zeros(*model.affine[i].weight.shape) for i in conv},
            bias={i: zeros(len(model.affine[i].bias)) for i in conv},
            offset={i: zeros(layers[i].size) for i in model.activation},
        )

    @staticmethod
    def of(model: BoundModel, choice: PositionChoice, x_hat: Array, bounds: Bounds) -> Positions:
        """The position of one member with input x_hat (n_in,), as a batch of one; `bounds` of that sample."""

        def batch(group: dict[int, Array]) -> dict[int, Tensor]:
            return {i: model.tensor(values)[None] for i, values in group.items()}

        low, high = bounds.lower[0], bounds.upper[0]
        width = torch.where(high > low, high - low, 1.0)
        return Positions(
            entry=(2.0 * (model.tensor(x_hat)[None] - low) / width - 1.0).clamp(-1.0, 1.0),
            neuron=batch(choice.neuron),
            kernel=batch(choice.kernel),
            bias=batch(choice.bias),
            offset=batch(choice.offsets),
        )

    def named(self) -> dict[tuple[str, int], Tensor]:
        """All tensors, by field and layer index."""
        entry = {("entry", 0): self.entry}
        return entry | {(name, i): t for name in _BY_LAYER for i, t in getattr(self, name).items()}

    @staticmethod
    def of_named(tensors: dict[tuple[str, int], Tensor]) -> Positions:
        """The inverse of `named`."""
        groups = {name: {i: t for (own, i), t in tensors.items() if own == name} for name in _BY_LAYER}
        return Positions(entry=tensors["entry", 0], **groups)

    def zip_map(self, function: Callable[..., Tensor], *others: Positions) -> Positions:
        """The same structure, each tensor replaced by `function` of it and of those in its place in `others`."""
        groups = {
            name: {i: function(t, *[getattr(one, name)[i] for one in others]) for i, t in getattr(self, name).items()}
            for name in _BY_LAYER
        }
        return Positions(entry=function(self.entry, *[one.entry for one in others]), **groups)

    def map(self, function: Callable[[Tensor], Tensor]) -> Positions:
        """The same structure, each tensor replaced by `function` of it."""
        return self.zip_map(function)

    def take(self, samples: Any) -> Positions:
        """A subset of the members (a slice, or an index tensor)."""
        return self.map(lambda t: t[samples])

    @staticmethod
    def concatenate(parts: list[Positions]) -> Positions:
        """Several batches in a row; at least one."""
        return parts[0].zip_map(lambda *tensors: torch.cat(tensors), *parts[1:])

    def gradient_signs(self, of: Tensor) -> Positions:
        """Signs of the gradient of a scalar computed from these positions; 0 where it does not depend on one."""
        named = self.named()
        gradients = torch.autograd.grad(of, list(named.values()), allow_unused=True)
        pairs = zip(named.items(), gradients, strict=True)
        return Positions.of_named({key: torch.zeros_like(t) if g is None else g.sign() for (key, t), g in pairs})

    def moved(self, step: float, signs: Positions) -> Positions:
        """A step against these signs, within [-1, 1]."""
        return self.zip_map(lambda t, sign: (t - step * sign).clamp(-1.0, 1.0), signs)

    def choice(self, sample: int) -> PositionChoice:
        """One member of the batch, as numpy, for `realise`."""

        def numpy(group: dict[int, Tensor]) -> dict[int, Array]:
            return {i: t[sample].detach().cpu().numpy() for i, t in group.items()}

        return PositionChoice(
            neuron=numpy(self.neuron), kernel=numpy(self.kernel), bias=numpy(self.bias), offsets=numpy(self.offset)
        )


_BY_LAYER = ("neuron", "kernel", "bias", "offset")
"""The fields of `Positions` that have a tensor a layer."""
