"""Where a lower bound of BP on a margin is attained: starts of an attack (mathematics.md, section 5). Heuristic.

A pass of BP replaces every activation by a line, below it where its row is positive and above it where negative, and
ends at that corner of the input box which the last row picks. The member that takes the lower ends of activations of
positive rows, the upper ones of the others, and that corner, is the worst as far as the lines tell: where they lose
little, it fails, or a descent from it soon does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qverify.bounds.optimised import Choice, margin_of, noted, rows_at_once, searched
from qverify.bounds.pairs import margin_rows
from qverify.verification.positions import Positions

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.bounds.optimised import Effort
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.budget import Deadline


def feared(
    model: BoundModel,
    bounds: Bounds,
    labels: Tensor,
    rivals: Tensor,
    effort: Effort | None = None,
    deadline: Deadline | None = None,
) -> Positions:
    """The positions, between ends (between.py), where bounds on the margins of labels (N,) over rivals (N,) are
    attained, for the samples of `bounds` (N). `effort`: of a search for better lines than the usual ones, which ends
    when the deadline passes."""
    step = rows_at_once(model, len(model.network.layers) - 1)
    every = [slice(start, start + step) for start in range(0, max(1, len(bounds)), step)]
    parts = []
    for some in every:
        rows = margin_rows(model, labels[some], rivals[some])
        parts.append(_feared(model, bounds.take(some), rows, effort, deadline))
    return Positions.concatenate(parts)


def _feared(
    model: BoundModel, bounds: Bounds, margin: Tensor, effort: Effort | None, deadline: Deadline | None
) -> Positions:
    """`feared` of so many samples as one pass takes, with rows `margin` (N, C)."""
    asked = margin_of(model, margin)
    choice = Choice(shares={}) if effort is None else searched(model, bounds, asked, effort, deadline)[1]
    notes = noted(model.searching, bounds.to(torch.float32), asked.to(torch.float32), choice)
    rows = {i: -a.squeeze(1).sign().to(model.dtype) for i, a in notes.rows.items()}
    middle = Positions.middle(model, len(bounds))
    return replace(
        middle,
        entry=rows.get(0, middle.entry),
        neuron={i: rows.get(i, t) for i, t in middle.neuron.items()},
        offset={i: rows.get(i, t) for i, t in middle.offset.items()},
    )
