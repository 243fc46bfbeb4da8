"""What violates a property: a formula of linear comparisons over inputs and outputs, in exact rationals.

`Linear` is one comparison, `All` and `Some` join formulas. `holds` judges a concrete assignment without a tolerance;
`conjunctions` is the disjunctive normal form.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from qverify.errors import UsageError
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 5_000_000
"""Comparisons in all conjunctions together that are worked on."""


class Variable(NamedTuple):
    """One number that the network reads, or one that it gives; `place` counts flat, in C order."""

    output: bool
    place: int


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Brief):
    """`sum of terms <= limit`, or `<` where it is strict. Without terms it is true or false by itself."""

    terms: Mapping[Variable, Fraction]
    limit: Fraction
    strict: bool = False

    def compare(self, total: Fraction) -> bool:
        """Whether it holds where the terms add up to `total`."""
        return total < self.limit if self.strict else total <= self.limit


@dataclass(frozen=True, eq=False, repr=False)
class All(Brief):
    """Every part holds."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Some(Brief):
    """Some part holds."""

    parts: tuple[Formula, ...]


Formula = Linear | All | Some


def holds(formula: Formula, x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
    """Whether a formula holds for the inputs x and the outputs y, in exact arithmetic."""
    if isinstance(formula, Linear):
        total = sum(((y if v.output else x)[v.place] * c for v, c in formula.terms.items()), Fraction(0))
        return formula.compare(total)
    return (all if isinstance(formula, All) else any)(holds(part, x, y) for part in formula.parts)


def conjunctions(formula: Formula) -> list[tuple[Linear, ...]]:
    """The disjunctive normal form: lists of comparisons, one of which holds entirely if and only if the formula does.

    Comparisons without terms are decided and gone. Raises UsageError where it would be too large.
    """
    if isinstance(formula, Linear):
        if formula.terms:
            return [(formula,)]
        return [()] if formula.compare(Fraction(0)) else []
    if isinstance(formula, Some):
        some = [one for part in formula.parts for one in conjunctions(part)]
        _check(sum(map(len, some)))
        return some
    parts = [conjunctions(part) for part in formula.parts]
    if not all(parts):
        return []
    found = [tuple(one for part in parts if len(part) == 1 for one in part[0])]
    for part in (part for part in parts if len(part) > 1):
        _check(sum(map(len, found)) * len(part) + sum(map(len, part)) * len(found))
        found = [one + more for one in found for more in part]
    return found


def _check(comparisons: int) -> None:
    if comparisons > MOST:
        raise UsageError(
            f"The query says the same in {comparisons} comparisons once its alternatives are written out, more than"
            f" {MOST}; split it into several queries."
        )
