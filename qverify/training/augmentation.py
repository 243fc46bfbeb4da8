"""Distorted training images: small random turns, shears, scalings and shifts, one of its own for every image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_TURN, _SCALE, _SHEAR, _SHIFT = 0.26, 0.15, 0.2, 0.1
"""Half-widths at amount 1: 15 degrees, 15 %, 0.2, and a twentieth of the image (grid units: the image is 2 wide)."""

_FAINT = 0.02
"""A pixel nearer to 0 than this is made 0, as nearly all pixels outside a digit are: the fringes of resampling would be
the only ones whose interval has 0 inside but not in its middle, and that is what IBP is slow at."""


def distorted(x: Tensor, amount: float) -> Tensor:
    """Images (N, h, w) or (N, c, h, w), bilinearly resampled, with 0 outside. Other shapes as they are.

    Random numbers from torch's global generator; `amount` 0 draws none.
    """
    if not amount or x.ndim not in (3, 4):
        return x

    def drawn(half_width: float) -> Tensor:
        return (2.0 * torch.rand(len(x), device=x.device) - 1.0) * half_width * amount

    turn, wide, high = drawn(_TURN), 1.0 + drawn(_SCALE), 1.0 + drawn(_SCALE)
    first = torch.stack([wide * turn.cos(), -wide * turn.sin() + drawn(_SHEAR), drawn(_SHIFT)], 1)
    second = torch.stack([high * turn.sin(), high * turn.cos(), drawn(_SHIFT)], 1)
    images = x if x.ndim == 4 else x.unsqueeze(1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    found = F.grid_sample(images, grid, align_corners=False).reshape(x.shape)
    return found.masked_fill(found.abs() < _FAINT, 0.0)
