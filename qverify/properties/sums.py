"""Linear expressions as they are read from text, and comparisons of them, in exact rationals: every number counts as it
is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.properties.formula import All, Formula, Linear, Some, Variable
from qverify.text.brief import Brief
from qverify.text.shortened import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = Fraction(10) ** 30
"""The largest number that may be stated: products of such still are float64, and sums float32."""
_EXPONENT = re.compile(r"[eE][+-]?0*([0-9]+)$")
_DIGITS = 3
"""Of an exponent."""
_SHOWN = 8


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Brief):
    """A linear expression `terms + constant`."""

    terms: dict[Variable, Fraction]
    constant: Fraction

    @staticmethod
    def number(value: Fraction) -> Sum:
        """A constant."""
        return Sum({}, value)

    @staticmethod
    def variable(variable: Variable) -> Sum:
        """A variable by itself."""
        return Sum({variable: Fraction(1)}, Fraction(0))

    def times(self, factor: Fraction) -> Sum:
        """A multiple of it."""
        return Sum({v: c * factor for v, c in self.terms.items()}, self.constant * factor)

    def plus(self, other: Sum) -> Sum:
        """The sum of both."""
        terms = dict(self.terms)
        for variable, factor in other.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) + factor
        return Sum(terms, self.constant + other.constant)


def added(parts: Sequence[Sum]) -> Sum:
    """The sum of all."""
    terms: dict[Variable, Fraction] = {}
    for part in parts:
        for variable, factor in part.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) + factor
    return Sum(terms, sum((part.constant for part in parts), Fraction(0)))


def subtracted(parts: Sequence[Sum]) -> Sum:
    """The first less the others; of one alone its negative, as in `(- x)`."""
    if len(parts) == 1:
        return parts[0].times(Fraction(-1))
    return parts[0].plus(added(parts[1:]).times(Fraction(-1)))


def multiplied(parts: Sequence[Sum], where: str) -> Sum:
    """The product of all, one of which at most has variables. Raises UsageError, which names the place."""
    found, factor = Sum.number(Fraction(1)), Fraction(1)
    some = [part for part in parts if part.terms]
    if len(some) > 1:
        raise UsageError(f"{where} multiplies variables; supported are linear comparisons: multiply by numbers only.")
    for part in parts:
        if part.terms:
            found = part
        else:
            factor *= part.constant
    return found.times(factor)


def compared(sign: str, left: Sum, right: Sum) -> Formula:
    """`left sign right` for one of `<= >= < > == !=`."""
    if sign in (">=", ">"):
        return compared({">=": "<=", ">": "<"}[sign], right, left)
    if sign == "==":
        return All((compared("<=", left, right), compared("<=", right, left)))
    if sign == "!=":
        return Some((compared("<", left, right), compared("<", right, left)))
    apart = left.plus(right.times(Fraction(-1)))
    terms = {variable: factor for variable, factor in apart.terms.items() if factor}
    return Linear(terms, -apart.constant, strict=sign == "<")


def number(text: str, where: str) -> Fraction:
    """A number exactly as it is written, at most `LARGEST`. Raises UsageError, which names the place."""
    exponent = _EXPONENT.search(text)
    if exponent is not None and len(exponent[1]) > _DIGITS:  # which would take ages to be written out
        raise UsageError(
            f"{where} has {quoted(text[: _SHOWN * 4])}, an exponent of no number of a network; correct it."
        )
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{where} has {quoted(text[: _SHOWN * 4])} where a number is wanted; correct it.") from None
    if abs(found) > LARGEST:
        raise UsageError(
            f"{where} has {quoted(text[: _SHOWN * 4])}, beyond {float(LARGEST):g}, where networks overflow; state a "
            "smaller limit."
        )
    return found
