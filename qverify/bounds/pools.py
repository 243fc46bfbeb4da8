"""Lines around a MaxPool, for inputs within bounds [l, u] (mathematics.md, section 4.4).

Sound up to rounding, which the caller allows for.

The largest number under a window is at least each of them: below, that with the largest lower end. Above, with j the
number of the largest upper end and c the largest that the others or l_j can be,

    y <= max(x_j, c) <= c + (u_j - c) (x_j - l_j) / (u_j - l_j),

which is x_j itself where that is certain to be the largest.

Shapes: B samples, n outputs, windows of k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qverify.text.brief import Brief


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PoolLines(Brief):
    """`y >= x[below]` and `y <= slope x[above] + intercept`, all (B, n); `reach`: the largest |x| under each window."""

    below: Tensor
    above: Tensor
    slope: Tensor
    intercept: Tensor
    reach: Tensor


def pool_lines(windows: Tensor, lower: Tensor, upper: Tensor) -> PoolLines:
    """The lines; windows (n, k), ends (B, n_in). Differentiable in the ends."""
    low, high = lower[:, windows], upper[:, windows]
    below, above = (_chosen(windows, ends) for ends in (low, high))
    others = high.masked_fill(windows == above.unsqueeze(2), -torch.inf).amax(2)
    least, most = lower.gather(1, above), upper.gather(1, above)
    floor = torch.maximum(others, least)
    width = most - least
    slope = ((most - floor) / torch.where(width > 0, width, torch.ones_like(width))).clamp(0.0, 1.0)
    # Given the slope, what either end of the convex max(x_j, c) needs.
    intercept = torch.maximum(floor - slope * least, most - slope * most)
    reach = torch.maximum(low.abs(), high.abs()).amax(2)
    return PoolLines(below=below, above=above, slope=slope, intercept=intercept, reach=reach)


def undecided(windows: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Mask (B, n_in): numbers that may be the largest under a window where another one may be so too."""
    low, high = lower[:, windows], upper[:, windows]
    best = windows == _chosen(windows, low).unsqueeze(2)
    rivals = (high > low.amax(2, keepdim=True)) & ~best
    wanted = (rivals | best) & rivals.any(2, keepdim=True)
    places = windows.flatten().expand(len(lower), -1)
    found = torch.zeros_like(lower).scatter_reduce(1, places, wanted.flatten(1).to(lower.dtype), "amax")
    return found > 0


def _chosen(windows: Tensor, ends: Tensor) -> Tensor:
    """(B, n): the inputs where these ends (B, n, k) of windows are largest."""
    return windows.expand(len(ends), -1, -1).gather(2, ends.argmax(2, keepdim=True)).squeeze(2)
