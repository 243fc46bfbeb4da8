"""A quantised family as tensors on any device, and bounds on its layers.

Shapes: N samples (or B of a chunk), S rows (specifications) per sample. Tensors between layers are flat,
as in `qverify.network`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.affine import Affine
from qverify.bounds.cut import Cut
from qverify.bounds.sample import SampleBounds
from qverify.budget import PIECE, pieces
from qverify.gather import Gather
from qverify.layers import Conv, Dense, MaxPool, Relu, Rounding, Scale
from qverify.rounding import Allowances
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.activations.curve import Curve
    from qverify.arrays import Array
    from qverify.family.family import Family
    from qverify.family.kernels import Kernel
    from qverify.family.points import Point
    from qverify.network import Network

T = TypeVar("T")


@dataclass(eq=False, repr=False, kw_only=True)
class BoundModel(Brief):
    """A family with all its numbers on one device and in one type.

    `affine[i]`, `scale[i] = (scale, shift)`, `activation[i]` (size,), `points[i]`, `cuts[i]` and `curves[i]`, of
    activations other than Relu, by layer index. With
    float64 and rounding enabled, every bound computed from it is sound in floating point. `dynamic`: the rule of its
    dynamic rounding points, if it has some. `cropped`: the crops of it that were made (crops.py), by layer.
    """

    network: Network
    affine: dict[int, Affine]
    scale: dict[int, tuple[Tensor, Tensor]]
    activation: dict[int, Tensor]
    rounding: Allowances
    device: torch.device
    dtype: torch.dtype
    points: dict[int, Point] = field(default_factory=dict)
    cuts: dict[int, tuple[Cut, ...]] = field(default_factory=dict)
    curves: dict[int, Curve] = field(default_factory=dict)
    kernel: Kernel | None = None
    dynamic: str | None = None
    memory: int = PIECE
    cropped: dict[int, Any] = field(default_factory=dict, init=False)

    @staticmethod
    def of(family: Family, device: str | torch.device = "cpu", memory: int = PIECE) -> BoundModel:
        """The tensors of a family for verification: float64 with rounding allowances.

        `memory`: bytes for temporary tensors, roughly.
        """
        memory = min(memory, PIECE)
        dtype = torch.float64

        def tensor(array: Any) -> Tensor:
            return torch.tensor(array, dtype=dtype, device=device)

        affine, scale = {}, {}
        for i, layer in enumerate(family.network.layers):
            if isinstance(layer, (Dense, Conv)):
                weight, bias = tensor(layer.weight), tensor(layer.bias)
                exact = i not in family.weight
                radius = torch.zeros_like(weight) if exact else tensor(family.weight[i])
                bias_radius = torch.zeros_like(bias) if exact else tensor(family.bias[i])
                affine[i] = Affine(
                    layer=layer,
                    weight=weight,
                    radius=radius,
                    bias=bias,
                    bias_radius=bias_radius,
                    memory=memory,
                    fixed=exact,
                )
            elif isinstance(layer, Scale):
                scale[i] = (tensor(layer.scale), tensor(layer.shift))
        activation = {i: tensor(radius) for i, radius in family.activation.items()}
        rounding, where, network = Allowances(dtype), torch.device(device), family.network
        index = {layer.name: i for i, layer in enumerate(network.layers)}
        cuts = {
            i: tuple(Cut.of(cut, index[cut.source], tensor) for cut in own) for i, own in family.saturations.items()
        }
        return BoundModel(
            network=network,
            affine=affine,
            scale=scale,
            activation=activation,
            rounding=rounding,
            device=where,
            dtype=dtype,
            points={i: point.mapped(tensor) for i, point in family.points.items()},
            cuts=cuts,
            curves=curves_of(network, tensor),
            kernel=family.kernel,
            dynamic=family.dynamic,
            memory=memory,
        )

    @property
    def quantised(self) -> tuple[int, ...]:
        """Indices of the layers whose weights may move; the others are exact."""
        return tuple(i for i, affine in self.affine.items() if not affine.fixed)

    @property
    def shared_radii(self) -> dict[int, Tensor]:
        """The radii of the activations and rounding points that have the same one for all samples."""
        own = self.cuts.keys() | {i for i, point in self.points.items() if point.summed is not None}
        return {i: radius for i, radius in self.activation.items() if i not in own}

    @cached_property
    def fused(self) -> frozenset[int]:
        """Indices of the dense layers that one Relu or rounding point reads and nothing else: a bound on this then
        needs the upper end of what it reads, or the lower end, and never both (mathematics.md, section 4.3)."""
        layers = self.network.layers
        readers = [[i for i, layer in enumerate(layers) if j in layer.inputs] for j in range(len(layers))]
        alone = {j for j, own in enumerate(readers) if len(own) == 1 and isinstance(layers[own[0]], (Relu, Rounding))}
        return frozenset(j for j in alone if isinstance(layers[j], Dense))

    @cached_property
    def windows(self) -> dict[int, Tensor]:
        """The windows (size, k) of every MaxPool, by index."""
        layers = enumerate(self.network.layers)
        return {i: torch.tensor(la.windows, device=self.device) for i, la in layers if isinstance(la, MaxPool)}

    @cached_property
    def gathers(self) -> dict[int, tuple[Tensor, Tensor]]:
        """The index and the constants (size,) of every Gather."""
        layers = enumerate(self.network.layers)
        return {
            i: (torch.tensor(la.index, device=self.device), self.tensor(np.array(la.fill)))
            for i, la in layers
            if isinstance(la, Gather)
        }

    def gathered(self, index: int, read: list[Tensor]) -> Tensor:
        """What Gather `index` makes of its producers' numbers, (N, n) each: (N, size)."""
        picked, fill = self.gathers[index]
        return torch.where(picked < 0, fill, torch.cat(read, 1)[:, picked])

    @cached_property
    def searching(self) -> BoundModel:
        """The same in float32 without allowances: to search with, not to prove."""
        dtype = torch.float32

        def single(tensor: Tensor) -> Tensor:
            return tensor.to(dtype)

        affine = {
            i: replace(
                own,
                weight=single(own.weight),
                radius=single(own.radius),
                bias=single(own.bias),
                bias_radius=single(own.bias_radius),
            )
            for i, own in self.affine.items()
        }
        return replace(
            self,
            affine=affine,
            scale={i: (single(scale), single(shift)) for i, (scale, shift) in self.scale.items()},
            activation={i: single(radius) for i, radius in self.activation.items()},
            points={i: point.mapped(single) for i, point in self.points.items()},
            curves={i: curve.mapped(single, torch) for i, curve in self.curves.items()},
            rounding=Allowances(dtype, enabled=False),
            dtype=dtype,
        )

    def tensor(self, array: Any) -> Tensor:
        """An array on the device and in the type of the model."""
        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    @cached_property
    def widest(self) -> int:
        """Floats that the largest tensor of one row or sample takes; convolutions unfold theirs."""
        return max([layer.size for layer in self.network.layers] + self.unfolded)

    @property
    def unfolded(self) -> list[int]:
        """Floats of what the windows of each convolution and pool look at in one sample."""
        pools = [layer.windows.size for layer in self.network.layers if isinstance(layer, MaxPool)]
        return [a.unfolded for a in self.affine.values()] + pools

    @cached_property
    def operations(self) -> int:
        """Multiplications of one forward pass."""
        return sum(a.layer.size * a.layer.fan_in for a in self.affine.values()) + 1

    def rows_that_fit(self, copies: int, floats: int, passes: int) -> int:
        """Rows or samples worked on at once, at least 1: each takes `copies` tensors of `floats` floats, and costs
        `passes` forward passes."""
        return pieces(copies * floats, passes * self.operations, self.memory)


def curves_of(network: Network, tensor: Callable[[Any], Tensor]) -> dict[int, Curve]:
    """The activations other than Relu as tensors, by layer index."""
    layers = enumerate(network.layers)
    return {i: layer.curve.mapped(tensor, torch) for i, layer in layers if isinstance(layer, Activation)}


@dataclass(eq=False, repr=False, kw_only=True)
class Bounds(Brief):
    """Bounds on every layer's output for N samples: `lower[i]`, `upper[i]` (N, size).

    `activation[i]`: the activation radii in force, (size,), or (N, size) where the scheme clips and at dynamic rounding
    points; where these compute in float32, every layer has one, of what that gets wrong. `least_high[i]`
    (N, size): lower bounds on the upper end of what layer i may give, `W x + R |x| + b + r_b`, where they were sought;
    only of `BoundModel.fused` layers. At least `lower[i]`.
    """

    lower: list[Tensor]
    upper: list[Tensor]
    activation: dict[int, Tensor]
    least_high: dict[int, Tensor] = field(default_factory=dict)
    _made: dict[Any, tuple[tuple[Any, ...], Any]] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.lower[0])

    def once(self, key: Any, made_of: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made again only if one of `made_of` is not the object that it was: many passes go over the
        same bounds."""
        kept = self._made.get(key)
        if kept is None or not all(one is other for one, other in zip(kept[0], made_of, strict=True)):
            kept = self._made[key] = made_of, make()
        found: T = kept[1]
        return found

    def least(self, index: int) -> Tensor:
        """Lower bounds (N, size) on the upper end of layer `index`, where they were sought, else on what it gives."""
        return self.least_high.get(index, self.lower[index])

    def take(self, samples: Any) -> Bounds:
        """The bounds of a subset of samples (a slice, or an index tensor)."""
        activation = {i: (r if r.ndim == 1 else r[samples]) for i, r in self.activation.items()}
        return Bounds(
            lower=[t[samples] for t in self.lower],
            upper=[t[samples] for t in self.upper],
            activation=activation,
            least_high={i: t[samples] for i, t in self.least_high.items()},
        )

    def of_input(self) -> Bounds:
        """Those on the input alone, with the activation radii: what a forward pass of members needs."""
        return Bounds(lower=self.lower[:1], upper=self.upper[:1], activation=self.activation)

    def to(self, dtype: torch.dtype) -> Bounds:
        """The same numbers in another type, rounded to nearest: bounds no more, unless it is the same type."""
        return Bounds(
            lower=[t.to(dtype) for t in self.lower],
            upper=[t.to(dtype) for t in self.upper],
            activation={i: t.to(dtype) for i, t in self.activation.items()},
            least_high={i: t.to(dtype) for i, t in self.least_high.items()},
        )

    def sample(self, index: int) -> SampleBounds:
        """One sample's bounds as numpy arrays."""

        def numpy(tensor: Tensor) -> Array:
            return np.asarray(tensor.detach().cpu().numpy())

        activation = {i: numpy(r if r.ndim == 1 else r[index]) for i, r in self.activation.items()}
        return SampleBounds(
            lower=[numpy(t[index]) for t in self.lower],
            upper=[numpy(t[index]) for t in self.upper],
            activation=activation,
            least_high={i: numpy(t[index]) for i, t in self.least_high.items()},
        )

    @staticmethod
    def concatenate(parts: list[Bounds]) -> Bounds:
        """Bounds of several batches in a row; at least one."""
        count = len(parts[0].lower)
        activation = {
            i: (r if r.ndim == 1 else torch.cat([p.activation[i] for p in parts]))
            for i, r in parts[0].activation.items()
        }
        lower = [torch.cat([p.lower[i] for p in parts]) for i in range(count)]
        upper = [torch.cat([p.upper[i] for p in parts]) for i in range(count)]
        # Where one batch has none, its own lower bounds serve.
        sought = sorted({i for p in parts for i in p.least_high})
        least_high = {i: torch.cat([p.least(i) for p in parts]) for i in sought}
        return Bounds(lower=lower, upper=upper, activation=activation, least_high=least_high)
