"""An affine layer with its radii as tensors, and the linear maps that it is: forward, backward, unfolded.

Shapes: N samples, S rows. Tensors between layers are flat, as in `qverify.network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from qverify.budget import PIECE
from qverify.layers import Conv, Dense
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from torch import Tensor


def _direct() -> Any:
    """Convolutions as plain sums of products: cuDNN may pick Winograd or FFT, which round by another law."""
    return torch.backends.cudnn.flags(enabled=False)


@dataclass(eq=False, repr=False, kw_only=True)
class Affine(Brief):
    """A `Dense` or `Conv` layer with its radii as tensors; kernels keep the layer's own shape.

    `radius` and `bias_radius` are zero tensors where the layer is exact; `fixed`: no quantiser touches it. `memory`:
    bytes for temporary tensors. `coarse`: the errors of a shared kernel are bounded with less work (kernels.py).
    """

    layer: Dense | Conv
    weight: Tensor
    radius: Tensor
    bias: Tensor
    bias_radius: Tensor
    memory: int = PIECE
    fixed: bool = False
    coarse: bool = False

    @cached_property
    def exact(self) -> bool:
        """No radius anywhere in the kernel."""
        return not bool((self.radius != 0).any())

    @cached_property
    def mass(self) -> Tensor:
        """Sums (n_out,) of `|w| + R` per output, the scale of its rounding errors."""
        return self.spread((self.weight.detach().abs() + self.radius.detach()).flatten(1).sum(1))

    @cached_property
    def even_rows(self) -> bool:
        """The radius is the same for all that one output sums: along each row, or in a kernel."""
        rows = self.radius.detach().flatten(1)
        return bool((rows == rows[:, :1]).all())

    @property
    def is_conv(self) -> bool:
        return isinstance(self.layer, Conv)

    @property
    def shares_kernel(self) -> bool:
        """Several positions use one kernel (mathematics.md, section 6)."""
        return isinstance(self.layer, Conv) and self.layer.positions > 1

    @property
    def terms(self) -> int:
        """Number of products that one output sums (and of positions, for the sums over them)."""
        return self.layer.fan_in + (self.layer.positions if isinstance(self.layer, Conv) else 0)

    @property
    def unfolded(self) -> int:
        """Floats of one sample's `patches`; 0 for a dense layer."""
        layer = self.layer
        return layer.positions * layer.fan_in * layer.groups if isinstance(layer, Conv) else 0

    @property
    def entries(self) -> int:
        """Kernel entries whose errors several positions share."""
        return self.radius.numel() if self.shares_kernel and not self.exact else 0

    def spread(self, channel: Tensor) -> Tensor:
        """Numbers (n_out,) per output from numbers (c_out,) per channel."""
        return channel.repeat_interleave(self.layer.positions) if isinstance(self.layer, Conv) else channel

    def pad(self, x: Tensor) -> Tensor:
        """Padded images (N, c_in, h, w) of inputs (N, n_in); convolutions only."""
        layer: Any = self.layer
        top, left, bottom, right = layer.pads
        return F.pad(x.reshape(-1, *layer.in_shape), (left, right, top, bottom))

    def apply(self, kernel: Tensor, x: Tensor) -> Tensor:
        """Outputs (N, n_out) of the linear map with `kernel`, without a bias, for inputs x (N, n_in)."""
        layer = self.layer
        if isinstance(layer, Dense):
            return x @ kernel.T
        with _direct():
            out = F.conv2d(self.pad(x), kernel, None, layer.strides, 0, layer.dilations, layer.groups)
        return out.reshape(len(x), layer.size)

    def transpose(self, kernel: Tensor, rows: Tensor) -> Tensor:
        """Rows (..., n_in) that the transposed map makes of `rows` (..., n_out)."""
        layer = self.layer
        if isinstance(layer, Dense):
            return rows @ kernel
        flat = rows.reshape(-1, *layer.out_shape)
        top, left, bottom, right = layer.pads
        channels, height, width = layer.in_shape
        size = (len(flat), channels, height + top + bottom, width + left + right)
        with _direct():
            image: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
                size, kernel, flat, layer.strides, 0, layer.dilations, layer.groups
            )
        image = image[:, :, top : top + height, left : left + width]
        return image.reshape(*rows.shape[:-1], channels * height * width)

    def transpose_radius(self, size: Tensor) -> Tensor:
        """`transpose(radius, size)`: (..., n_out) -> (..., n_in), or (..., 1) where the radius is the same all along a
        row, as per-tensor and per-channel radii are: then the product with a matrix is one with a vector."""
        return size @ self.radius[:, :1] if self.even_rows and not self.is_conv else self.transpose(self.radius, size)

    def apply_radius(self, size: Tensor) -> Tensor:
        """`apply(radius, size)`, (N, n_in) -> (N, n_out): a sum where the radius is the same all along a row."""
        if self.even_rows and not self.is_conv:
            return size.sum(1, keepdim=True) * self.radius[:, 0]
        return self.apply(self.radius, size)

    def patches(self, x: Tensor) -> Tensor:
        """Inputs (N, groups, positions, fan_in) that each output position reads, of x (N, n_in); convolutions only."""
        layer: Any = self.layer
        columns = F.unfold(self.pad(x), layer.weight.shape[2:], layer.dilations, 0, layer.strides)
        return columns.reshape(len(x), layer.groups, layer.fan_in, layer.positions).transpose(2, 3)

    def scatter(self, columns: Tensor) -> Tensor:
        """Inputs (N, n_in) that the adjoint of `patches` makes of `columns` (N, groups, fan_in, positions)."""
        layer: Any = self.layer
        top, left, bottom, right = layer.pads
        _, height, width = layer.in_shape
        padded = (height + top + bottom, width + left + right)
        flat = columns.reshape(len(columns), -1, layer.positions)
        image = F.fold(flat, padded, layer.weight.shape[2:], layer.dilations, 0, layer.strides)
        return image[:, :, top : top + height, left : left + width].reshape(len(columns), -1)
