"""Sizes of programs, before any is made: upper bounds from shapes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.layers import Conv, Dense, MaxPool

if TYPE_CHECKING:
    from qverify.family.family import Family


def count_coefficients(family: Family) -> int:
    """The number of coefficients in the relational program, two rows an output of an affine layer, seven for what each
    window of a pool sees, and four rows a product of branches; with padding."""
    layers = family.network.layers
    pools = 7 * sum(la.windows.size for la in layers if isinstance(la, MaxPool))
    products = 12 * sum(layers[i].size for i in family.network.products)
    return pools + products + 2 * family.network.multiplications


def count_products(family: Family) -> int:
    """The number of products of variables in the bilinear program; with padding."""
    layers = [family.network.layers[i] for i in family.weight]
    gates = sum(family.network.layers[i].size for i in family.network.products)
    return gates + sum(la.size * la.fan_in for la in layers if isinstance(la, (Dense, Conv)))
