"""Steps of BP that searches take over and over, with gradients written out: fewer passes over the same numbers.

The values are those of `backward.py` without allowances for rounding, so nothing is proved with them. Torch would find
the same gradients from the formulas, by two to three times the passes over memory, which is what a search's time goes
into. Lines and boxes are constants here: no gradient goes to what they were made of.

Shapes: B samples, S rows each, n numbers of a layer; lines and boxes are (B, 1, n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from qverify.bounds.lines import ReluLines


def relu_rows(a: Tensor, share: Tensor, lines: ReluLines) -> tuple[Tensor, Tensor]:
    """Rows a (B, S, n) on a Relu with these shares (B, S or 1, n) of its steep lines: the rows on what it reads, and
    the constants (B, S)."""
    found: tuple[Tensor, Tensor] = _ReluRows.apply(  # type: ignore[no-untyped-call]
        a, share, lines.free, lines.active, lines.slope, lines.lift, lines.radius
    )
    return found


def input_rows(c: Tensor, e: Tensor, box: tuple[Tensor, ...], inside: Tensor | None) -> Tensor:
    """The minimum (B, S) of `c x - e |x|` over a box: rows c (B, S, n), e (B, S, n or 1); middle and half width of the
    box, and the same of |x| at its ends. `inside` (B, 1, n): 1 for intervals with 0 in them, where the minimum may lie
    if e is negative, else 0; None if e is not."""
    found: Tensor = _InputRows.apply(c, e, inside, *box)  # type: ignore[no-untyped-call]
    return found


def above(x: Tensor) -> Tensor:
    """1 where x > 0, else 0, in the type of x: torch is many times slower with masks of another type."""
    return torch.gt(x.detach(), 0, out=torch.empty_like(x))


def rows_where(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Rows (B, S, ...) of `one` where a mask (B, S) holds, else of `other`. Torch is slow at masks of numbers."""
    chosen = torch.nonzero(mask, as_tuple=True)
    return other.index_put(chosen, one[chosen])


def dot(a: Tensor, one: Tensor) -> Tensor:
    """(B, S, n), or (B, S, 1) where all n are the same, and (B, 1, n): the products (B, S)."""
    if a.shape[2] == 1:
        return a.squeeze(2) * one.sum(2)
    return (a * one).sum(2) if a.shape[1] == 1 else torch.matmul(a, one.transpose(1, 2)).squeeze(2)


class _ReluRows(torch.autograd.Function):
    """Forward `a alpha` where a > 0, else `a slope`; constants `- radius a alpha`, else `lift a`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, share: Tensor, *lines: Tensor) -> tuple[Tensor, Tensor]:
        free, active, slope, lift, radius = lines
        alpha = torch.addcmul(active, share, free)
        steep, negative = a.clamp(min=0).mul_(alpha), a.clamp(max=0)
        ctx.save_for_backward(a, alpha, *lines)
        ctx.shared = share.shape
        constant = dot(negative, lift) - dot(steep, radius)
        return steep.addcmul_(negative, slope), constant

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        on_rows, on_constant = grads
        a, alpha, free, _, slope, lift, radius = ctx.saved_tensors
        each = on_constant.unsqueeze(2)
        steep = torch.addcmul(on_rows, each, radius, value=-1.0)
        found: list[Any] = [None] * 7
        if ctx.needs_input_grad[1]:
            on_share = a.clamp(min=0).mul_(steep).mul_(free)
            found[1] = on_share if on_share.shape == ctx.shared else on_share.sum_to_size(ctx.shared)
        if ctx.needs_input_grad[0]:
            flat = torch.addcmul(on_rows * slope, each, lift)
            found[0] = flat.lerp_(steep.mul_(alpha), above(a))
        return tuple(found)


class _InputRows(torch.autograd.Function):
    """`c middle - e size - |c half - e skew|`, at most 0 where e < 0 inside, summed."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, e: Tensor, inside: Tensor | None, *box: Tensor) -> Tensor:
        middle, half, size, skew = box
        apart = torch.addcmul(c * half, e, skew, value=-1.0)
        ctx.single, taken = e.shape[2] == 1, None
        if inside is None:
            found = dot(c, middle) - dot(e, size) - apart.abs().sum(2)
        else:
            least = torch.addcmul(c * middle, e, size, value=-1.0).sub_(apart.abs())
            taken = 1.0 - above(least).mul_(inside).mul_(above(-e))
            found = least.mul_(taken).sum(2)
        ctx.save_for_backward(apart.sgn_(), taken, *box)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        side, taken, middle, half, size, skew = ctx.saved_tensors
        each = grads[0].unsqueeze(2)
        found: list[Any] = [None] * 7
        if ctx.needs_input_grad[1]:
            if ctx.single and taken is None:
                on_e = (dot(side, skew) - size.sum(2)).unsqueeze(2)
            else:
                on_e = torch.addcmul(-size, side, skew)
                on_e = on_e if taken is None else on_e.mul_(taken)
                on_e = on_e.sum(2, keepdim=True) if ctx.single else on_e
            found[1] = each * on_e
        if ctx.needs_input_grad[0]:
            on_c = torch.addcmul(middle, side, half, value=-1.0).mul_(each)
            found[0] = on_c if taken is None else on_c.mul_(taken)
        return tuple(found)
