"""A formula as cases: a box of inputs each, and clauses of comparisons on outputs, one of which is to be met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import UsageError
from qverify.properties.formula import Formula, Linear, conjunctions
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from fractions import Fraction

    from qverify.arrays import Array

Clause = tuple[Linear, ...]
"""Comparisons on outputs that are to hold together."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Case(Brief):
    """Inputs in `lower <= x <= upper`, exact; violated where the outputs meet all of some clause. A clause without
    comparisons is met by every output."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    clauses: tuple[Clause, ...]

    def box(self) -> tuple[Array, Array]:
        """The smallest box of floats (n_in,) that holds that of the case."""
        return rounded(self.lower, -1), rounded(self.upper, 1)


def rounded(numbers: tuple[Fraction, ...], side: int, kind: Any = np.float64) -> Array:
    """The nearest numbers of a float type at or below (side -1), or at or above (1) some rationals. Exact."""
    found = np.array([kind(float(number)) for number in numbers], dtype=kind)
    towards = kind(side * np.inf)
    for place, number in enumerate(numbers):
        while side * (type(number)(float(found[place])) - number) < 0:
            found[place] = np.nextafter(found[place], towards)
        while side * (type(number)(float(before := np.nextafter(found[place], -towards))) - number) >= 0:
            found[place] = before
    return found


def cases(formula: Formula, inputs: int, name: Callable[[int], str]) -> list[Case]:
    """The cases of a formula over so many inputs, which `name` calls by their index.

    Raises UsageError where an input has no lower or no upper limit, where comparisons tie inputs to each other or to
    outputs, and where no input at all meets them.
    """
    boxes: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[Clause]] = {}
    empty = ""
    for conjunction in conjunctions(formula):
        low: dict[int, Fraction] = {}
        high: dict[int, Fraction] = {}
        clause: list[Linear] = []
        for one in conjunction:
            if _is_limit(one, name):
                _tighten(one, low, high)
            else:
                clause.append(one)
        _refuse_open(low, high, inputs, name)
        crossed = next((i for i in range(inputs) if low[i] > high[i]), None)
        if crossed is not None:
            empty = empty or f"{name(crossed)} >= {_shown(low[crossed])} and <= {_shown(high[crossed])}"
            continue
        box = tuple(low[i] for i in range(inputs)), tuple(high[i] for i in range(inputs))
        boxes.setdefault(box, []).append(tuple(clause))
    if not boxes:
        why = f"it wants {empty}" if empty else "a comparison of numbers in it is false"
        raise UsageError(f"No input meets the query, whatever the network: {why}; correct its assertions.")
    return [Case(lower=low, upper=high, clauses=tuple(own)) for (low, high), own in boxes.items()]


def _is_limit(one: Linear, name: Callable[[int], str]) -> bool:
    """Whether a comparison limits one input; False for one on outputs. Raises UsageError for others."""
    inputs = [v.place for v in one.terms if not v.output]
    if not inputs:
        return False
    if len(one.terms) > 1:
        other = f"the input {name(inputs[1])}" if len(inputs) > 1 else "an output"
        raise UsageError(
            f"A comparison ties the input {name(inputs[0])} to {other}; supported are limits on single inputs and"
            " linear comparisons of outputs."
        )
    return True


def _tighten(one: Linear, low: dict[int, Fraction], high: dict[int, Fraction]) -> None:
    ((variable, factor),) = one.terms.items()
    limit, index = one.limit / factor, variable.place
    if factor > 0:
        high[index] = min(limit, high.get(index, limit))
    else:
        low[index] = max(limit, low.get(index, limit))


def _refuse_open(
    low: Mapping[int, Fraction], high: Mapping[int, Fraction], inputs: int, name: Callable[[int], str]
) -> None:
    for side, ends in (("lower", low), ("upper", high)):
        missing = [i for i in range(inputs) if i not in ends]
        if missing:
            more = f", and {len(missing) - 1} more inputs have none" if len(missing) > 1 else ""
            raise UsageError(
                f"The input {name(missing[0])} has no {side} limit{more}; every input needs both, so add them."
            )


def _shown(number: Fraction) -> str:
    return f"{float(number):.17g}"
