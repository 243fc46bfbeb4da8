"""The stage `ties` for integer files: what ties leave open, runtime by runtime (bounds/ties.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qverify.bounds.ties import ties
from qverify.family.members import Recipe
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from qverify.arrays import Array
    from qverify.budget import Deadline
    from qverify.verification.setup import Setup
    from qverify.verification.undecided import Batch


@dataclass(frozen=True, eq=False, repr=False)
class Numbers(Brief):
    """A `Choice` of the trained weights, and of `values[i]` (size,) for what activation or rounding point i gives."""

    values: Mapping[int, Array]

    def weights(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        return layer.weight, layer.bias

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        return self.values[index] - value


def tied_margins(setup: Setup, batch: Batch, labels: Tensor, deadline: Deadline) -> Tensor:
    """Margins (N, classes) proved of the open samples, -inf where too many nodes are left. A runtime that answers wrong
    is made and evaluated, and kept in the batch if it does."""
    found = ties(setup.model, batch.bounds, labels, deadline)
    for position, values in found.leaves.items():
        sample = int(batch.open[position])
        family, x = setup.own_family(batch.bounds, position), batch.x[sample]
        taken = {i: values[i].cpu().numpy() for i in family.activation}
        x_hat, label = family.centre(x[None])[0], int(batch.labels[sample])
        recipe = Recipe(family=family, x=x, x_hat=x_hat, label=label, choice=Numbers(taken))
        if (margin := recipe.witness().margin) < batch.attained[sample]:
            batch.recipes[sample], batch.attained[sample] = recipe, margin
    return found.margins
