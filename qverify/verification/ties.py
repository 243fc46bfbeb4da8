"""The stage `ties` for integer files: what ties leave open, runtime by runtime (bounds/ties.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.bounds.ties import ties
from qverify.exact.witness import Explicit
from qverify.family.members import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.budget import Deadline
    from qverify.verification.setup import Setup
    from qverify.verification.undecided import Batch


def tied_margins(setup: Setup, batch: Batch, labels: Tensor, deadline: Deadline) -> Tensor:
    """Margins (N, classes) proved of the open samples, -inf where too many nodes are left. A runtime that answers wrong
    is made and evaluated, and kept in the batch if it does."""
    found = ties(setup.model, batch.bounds, labels, deadline)
    for position, values in found.leaves.items():
        sample = int(batch.open[position])
        family, x = setup.own_family(batch.bounds, position), batch.x[sample]
        taken = {i: values[i].cpu().numpy() for i in family.activation}
        x_hat, label = family.centre(x[None])[0], int(batch.labels[sample])
        recipe = Recipe(family=family, x=x, x_hat=x_hat, label=label, choice=Explicit({}, taken))
        if (margin := recipe.witness().margin) < batch.attained[sample]:
            batch.recipes[sample], batch.attained[sample] = recipe, margin
    return found.margins
