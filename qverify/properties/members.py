"""Whether a candidate is a member of the family that satisfies a formula: judged in exact rationals, without a
tolerance, on the outputs of a plain forward pass in float64."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from qverify.family.members import membership
from qverify.properties.formula import Formula, holds

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.properties.decide import Candidate


def satisfies(candidate: Candidate, formula: Formula, reach: Array) -> bool:
    """Whether a candidate's input is in the box of its case, the member in the family, and input and outputs meet the
    formula. reach (n_in,): how far the quantised input may be from the input."""
    case, family = candidate.case, candidate.family
    if family is not None:
        family = replace(family, input=reach)  # it was made for the whole box
        if membership(family, candidate.member, candidate.input, candidate.entry):
            return False
    x = [Fraction(float(number)) for number in candidate.input]
    x = [min(max(number, low), high) for number, low, high in zip(x, case.lower, case.upper, strict=True)]
    return holds(formula, x, [Fraction(float(number)) for number in candidate.outputs])
