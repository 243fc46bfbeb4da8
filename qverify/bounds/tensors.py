"""A quantised family as tensors: what the bounds compute with, on any device.

Shapes: N samples (or B of a chunk), S rows (specifications) per sample. Tensors between layers are flat,
as in `qverify.network`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from qverify.arrays import Array
from qverify.bounds.sample import SampleBounds
from qverify.budget import PIECE
from qverify.family.batchnorm import Saturation
from qverify.family.family import Family
from qverify.family.kernels import Kernel
from qverify.layers import Conv, Dense, Scale
from qverify.network import Network
from qverify.rounding import Allowances
from qverify.text.brief import Brief


def _direct() -> Any:
    """Convolutions as plain sums of products: cuDNN may pick Winograd or FFT, which round by another law."""
    return torch.backends.cudnn.flags(enabled=False)


@dataclass(eq=False, repr=False)
class Affine(Brief):
    """A `Dense` or `Conv` layer with its radii as tensors; kernels keep the layer's own shape.

    `radius` and `bias_radius` are zero tensors where the layer is exact. `memory`: bytes for temporary tensors.
    """

    layer: Dense | Conv
    weight: Tensor
    radius: Tensor
    bias: Tensor
    bias_radius: Tensor
    memory: int = PIECE

    @cached_property
    def exact(self) -> bool:
        """No radius anywhere in the kernel."""
        return not bool((self.radius != 0).any())

    @cached_property
    def mass(self) -> Tensor:
        """(n_out,): the sum of `|w| + R` per output, the scale of its rounding errors."""
        return self.spread((self.weight.detach().abs() + self.radius.detach()).flatten(1).sum(1))

    @cached_property
    def even_rows(self) -> bool:
        """The radius is the same all along each row of a dense layer."""
        return isinstance(self.layer, Dense) and bool((self.radius == self.radius.detach()[:, :1]).all())

    @property
    def is_conv(self) -> bool:
        return isinstance(self.layer, Conv)

    @property
    def terms(self) -> int:
        """How many products one output sums (and positions, for the sums over them)."""
        return self.layer.fan_in + (self.layer.positions if isinstance(self.layer, Conv) else 0)

    @property
    def unfolded(self) -> int:
        """Floats of what all output positions look at; 0 for a dense layer."""
        layer = self.layer
        return layer.positions * layer.fan_in * layer.groups if isinstance(layer, Conv) else 0

    def spread(self, channel: Tensor) -> Tensor:
        """(c_out,) -> (n_out,): one number per channel to one per output."""
        return channel.repeat_interleave(self.layer.positions) if isinstance(self.layer, Conv) else channel

    def pad(self, x: Tensor) -> Tensor:
        """(N, n_in) -> padded images; convolutions only."""
        layer: Any = self.layer
        top, left, bottom, right = layer.pads
        return F.pad(x.reshape(-1, *layer.in_shape), (left, right, top, bottom))

    def forward(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The linear map with `kernel`, no bias: (N, n_in) -> (N, n_out)."""
        layer = self.layer
        if isinstance(layer, Dense):
            return x @ kernel.T
        with _direct():
            out = F.conv2d(self.pad(x), kernel, None, layer.strides, 0, layer.dilations, layer.groups)
        return out.reshape(len(x), layer.size)

    def transpose(self, kernel: Tensor, rows: Tensor) -> Tensor:
        """The transposed map: (..., n_out) -> (..., n_in)."""
        layer = self.layer
        if isinstance(layer, Dense):
            return rows @ kernel
        flat = rows.reshape(-1, *layer.out_shape)
        top, left, bottom, right = layer.pads
        channels, height, width = layer.in_shape
        size = (len(flat), channels, height + top + bottom, width + left + right)
        with _direct():
            image = conv2d_input(size, kernel, flat, layer.strides, 0, layer.dilations, layer.groups)
        image = image[:, :, top : top + height, left : left + width]
        return image.reshape(*rows.shape[:-1], channels * height * width)

    def transpose_radius(self, size: Tensor) -> Tensor:
        """`transpose(radius, size)`: (..., n_out) -> (..., n_in), or (..., 1) where the radius is the same all along a
        row, as per-tensor and per-channel radii are: then the product with a matrix is one with a vector."""
        return size @ self.radius[:, :1] if self.even_rows else self.transpose(self.radius, size)

    def patches(self, x: Tensor) -> Tensor:
        """(N, n_in) -> (N, groups, positions, fan_in); convolutions only."""
        layer: Any = self.layer
        columns = F.unfold(self.pad(x), layer.weight.shape[2:], layer.dilations, 0, layer.strides)
        return columns.reshape(len(x), layer.groups, layer.fan_in, layer.positions).transpose(2, 3)

    def scatter(self, columns: Tensor) -> Tensor:
        """The adjoint of `patches`: (N, groups, fan_in, positions) -> (N, n_in)."""
        layer: Any = self.layer
        top, left, bottom, right = layer.pads
        _, height, width = layer.in_shape
        padded = (height + top + bottom, width + left + right)
        flat = columns.reshape(len(columns), -1, layer.positions)
        image = F.fold(flat, padded, layer.weight.shape[2:], layer.dilations, 0, layer.strides)
        return image[:, :, top : top + height, left : left + width].reshape(len(columns), -1)


@dataclass(frozen=True, eq=False, repr=False)
class Cut(Brief):
    """A `batchnorm.Saturation` as tensors; `source` is a layer index."""

    source: int
    low: Tensor
    high: Tensor
    gain: Tensor
    drift: Tensor
    straight: bool

    @staticmethod
    def of(cut: Saturation, source: int, tensor: Callable[[Any], Tensor]) -> Cut:
        """With its numbers as tensors."""
        return Cut(source, tensor(cut.low), tensor(cut.high), tensor(cut.gain), tensor(cut.drift), cut.straight)

    def widening(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(N, size): what it adds to the radius of its Relu, where the layer cut off has these bounds (N, size)."""
        raised = self.low - lower
        if self.straight:  # from a Relu that gives at least max(lower, 0) to what the cut leaves
            raised = torch.minimum(raised, self.low + self.drift - lower.clamp(min=0))
        return self.gain * torch.maximum(upper - self.high, raised).clamp(min=0)


@dataclass(eq=False, repr=False)
class BoundModel(Brief):
    """A family with all its numbers on one device and in one type.

    `affine[i]`, `scale[i] = (scale, shift)`, `activation[i]` (size,), `ceiling[i]` and `cuts[i]` by layer index. With
    float64 and rounding enabled, every bound computed from it is sound in floating point.
    """

    network: Network
    affine: dict[int, Affine]
    scale: dict[int, tuple[Tensor, Tensor]]
    activation: dict[int, Tensor]
    ceiling: dict[int, float]
    rounding: Allowances
    device: torch.device
    dtype: torch.dtype
    cuts: dict[int, tuple[Cut, ...]] = field(default_factory=dict)
    zero_exact: bool = False
    kernel: Kernel | None = None
    memory: int = PIECE

    @staticmethod
    def of(family: Family, device: str | torch.device = "cpu", memory: int = PIECE) -> BoundModel:
        """For verification: float64 with rounding allowances. `memory`: bytes for temporary tensors, roughly."""
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
                affine[i] = Affine(layer, weight, radius, bias, bias_radius, memory)
            elif isinstance(layer, Scale):
                scale[i] = (tensor(layer.scale), tensor(layer.shift))
        activation = {i: tensor(radius) for i, radius in family.activation.items()}
        rounding, where, network = Allowances(dtype), torch.device(device), family.network
        index = {layer.name: i for i, layer in enumerate(network.layers)}
        cuts = {
            i: tuple(Cut.of(cut, index[cut.source], tensor) for cut in own) for i, own in family.saturations.items()
        }
        return BoundModel(
            network,
            affine,
            scale,
            activation,
            dict(family.ceiling),
            rounding,
            where,
            dtype,
            cuts=cuts,
            zero_exact=family.zero_exact,
            kernel=family.kernel,
            memory=memory,
        )

    @property
    def per_sample(self) -> set[int]:
        """The Relus whose activation radius depends on the sample, because the scheme clips or keeps 0."""
        return set(self.activation) if self.zero_exact else {*self.ceiling, *self.cuts}

    def tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    @cached_property
    def widest(self) -> int:
        """Floats that the largest tensor of one row or sample takes; convolutions unfold theirs."""
        return max([layer.size for layer in self.network.layers] + [a.unfolded for a in self.affine.values()])

    @cached_property
    def operations(self) -> int:
        """Multiplications of one forward pass."""
        return sum(a.layer.size * a.layer.fan_in for a in self.affine.values()) + 1


@dataclass(eq=False, repr=False)
class Bounds(Brief):
    """Bounds on every layer's output for N samples: `lower[i]`, `upper[i]` (N, size).

    `activation[i]`: the activation radii in force, (size,), or (N, size) where the scheme clips.
    """

    lower: list[Tensor]
    upper: list[Tensor]
    activation: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.lower[0])

    def take(self, samples: Any) -> Bounds:
        """The same for a subset of samples (a slice, or an index tensor)."""
        activation = {i: (r if r.ndim == 1 else r[samples]) for i, r in self.activation.items()}
        return Bounds([t[samples] for t in self.lower], [t[samples] for t in self.upper], activation)

    def sample(self, index: int) -> SampleBounds:
        """One sample's bounds as numpy arrays."""

        def numpy(tensor: Tensor) -> Array:
            return np.asarray(tensor.detach().cpu().numpy())

        activation = {i: numpy(r if r.ndim == 1 else r[index]) for i, r in self.activation.items()}
        return SampleBounds([numpy(t[index]) for t in self.lower], [numpy(t[index]) for t in self.upper], activation)

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
        return Bounds(lower, upper, activation)
