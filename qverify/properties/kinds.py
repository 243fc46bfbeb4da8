"""Properties of a network's outputs, of named kinds, each stated by what violates it.

top-k      the label is among the k largest outputs
margin     the label's output is above every other by more than a number
distance   every output is near that of the network itself, or a target
formula    some alternative of linear comparisons of outputs holds
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from qverify.errors import DataError, UsageError
from qverify.kinds import described, expected, is_number, is_whole
from qverify.properties.cases import Clause
from qverify.properties.expressions import LABEL, comparisons
from qverify.properties.formula import All, Linear, Some, Variable, conjunctions
from qverify.text.brief import Brief
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.properties.decide import Candidate

MOST = 1_000
"""Clauses of a property."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Subject(Brief):
    """What a property is asked about: the inputs in `lower <= x <= upper` (n_in,), which a sample has both.

    `label` is None, and so is `target` (numbers for outputs, in their order), where there is none.
    """

    lower: Array
    upper: Array
    label: int | None = None
    target: Array | None = None

    @property
    def is_point(self) -> bool:
        """It is one input."""
        return bool((self.lower == self.upper).all())

    @property
    def middle(self) -> Array:
        """An input (n_in,) of it: the only one, or the middle of the box."""
        return self.lower if self.is_point else self.lower + (self.upper - self.lower) / 2.0

    def labelled(self, outputs: int) -> int:
        """The label. Raises DataError where there is none, or no such output."""
        if self.label is None:
            raise DataError("The property is about labels, and the data have none; add them as the array y.")
        if self.label >= outputs:
            raise DataError(f"A label is {self.label}, but the network has {outputs} outputs; labels count from 0.")
        return self.label


class Property(ABC):
    """A property on one subject, of numbers that follow from the outputs: of these themselves, if nothing is said."""

    @abstractmethod
    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """What violates it, one of these in full. `values`: those of the network itself in the middle of the subject.
        Raises UsageError, and DataError where the subject lacks what the property is about."""

    @abstractmethod
    def words(self) -> str:
        """The property in words."""

    def met(self) -> str:
        """In a word or two what is true of a subject that has it."""
        return "holds"

    def values(self, x: Array, outputs: Array) -> Array:
        """The numbers that comparisons are about, of an input (n_in,) and the outputs (n_out,) for it."""
        return outputs

    def extended(self, network: Network, radii: Radii, subject: Subject) -> tuple[Network, Radii]:
        """The network with layers behind it that give these numbers, and its radii. Raises UsageError."""
        return network, radii

    def judged(self, candidate: Candidate) -> Array:
        """These numbers for a member of the family of that network, and its input."""
        return candidate.outputs


def as_stated(number: float) -> str:
    """A number in as few digits as tell it from all others."""
    return repr(float(number)).removesuffix(".0")


def _refuse_below_0(value: object, what: str) -> None:
    if not is_number(value) or not 0 <= value < float("inf"):  # type: ignore[operator]
        raise UsageError(f"{what} is {described(value)}; give a number from 0.")


def above(first: int, second: int, by: Fraction = Fraction(0)) -> Linear:
    """`y_first >= y_second + by`."""
    return Linear({Variable(True, second): Fraction(1), Variable(True, first): Fraction(-1)}, -by)


def at_least(output: int, number: Fraction, strict: bool = False) -> Linear:
    """`y_output >= number`, or `>` where strict."""
    return Linear({Variable(True, output): Fraction(-1)}, -number, strict)


def at_most(output: int, number: Fraction, strict: bool = False) -> Linear:
    """`y_output <= number`, or `<` where strict."""
    return Linear({Variable(True, output): Fraction(1)}, number, strict)


@dataclass(frozen=True)
class TopK(Property):
    """The label is among the k largest outputs: fewer than k others are as large. Violated where k others are."""

    k: int

    def __post_init__(self) -> None:
        if not is_whole(self.k) or self.k < 1:
            raise UsageError(f"k is {described(self.k)}; give a whole number from 1.")

    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """See `Property`. Raises UsageError where k classes of so many can be chosen in too many ways."""
        label = subject.labelled(len(values))
        others = [j for j in range(len(values)) if j != label]
        if self.k > len(others):
            raise UsageError(f"Among {len(values)} outputs the label is always in the top {self.k}; give a smaller k.")
        if comb(len(others), self.k) > MOST:
            raise UsageError(
                f"Top {self.k} of {len(values)} outputs has more than {MOST} alternatives; take a smaller k."
            )
        return tuple(tuple(above(j, label) for j in some) for some in combinations(others, self.k))

    def words(self) -> str:
        """See `Property`."""
        return f"the label is among the top {self.k}"


@dataclass(frozen=True)
class Margin(Property):
    """The label's output is above every other by more than `margin`."""

    margin: float

    def __post_init__(self) -> None:
        _refuse_below_0(self.margin, "The margin")

    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """See `Property`."""
        label, least = subject.labelled(len(values)), -Fraction(self.margin)
        if len(values) < 2:
            raise UsageError("The network has 1 output, so there is no other; state a formula, or a distance.")
        return tuple((above(j, label, least),) for j in range(len(values)) if j != label)

    def words(self) -> str:
        """See `Property`."""
        return f"the label is above every other output by more than {as_stated(self.margin)}"


@dataclass(frozen=True)
class Distance(Property):
    """Every output, or those of `outputs`, is less than `distance + relative |r|` from its reference r: what the
    network itself gives in float64, or a target, which the data have for each of these outputs."""

    distance: float = 0.0
    outputs: tuple[int, ...] | None = None
    relative: float = 0.0
    targets: bool = False

    def __post_init__(self) -> None:
        _refuse_below_0(self.distance, "The distance")
        _refuse_below_0(self.relative, "The relative distance")
        if not (self.distance or self.relative):
            raise UsageError("The distance is 0; give one above 0, or a relative one.")
        if self.outputs is not None and not (self.outputs and all(is_whole(i) and i >= 0 for i in self.outputs)):
            raise UsageError(f"The outputs are {described(self.outputs)}; give a tuple of their numbers, from 0 on.")

    def met(self) -> str:
        """See `Property`."""
        return "within tolerance"

    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """See `Property`. Raises UsageError for an output that the network has not, and for boxes without targets."""
        chosen = range(len(values)) if self.outputs is None else self.outputs
        if any(i >= len(values) for i in chosen):
            raise UsageError(f"The property names output {max(chosen)}, but the network has {len(values)}, from 0 on.")
        references = self._targets(subject, len(chosen)) if self.targets else [values[i] for i in chosen]
        if not self.targets and not subject.is_point:
            raise UsageError(
                "The network's own outputs differ from input to input of a box; ask about samples, or give targets."
            )
        found = list[Clause]()
        for i, reference in zip(chosen, references, strict=True):
            own = Fraction(float(reference))
            reach = Fraction(self.distance) + Fraction(self.relative) * abs(own)
            found += [(at_most(i, own - reach),), (at_least(i, own + reach),)]
        return tuple(found)

    def _targets(self, subject: Subject, count: int) -> list[float]:
        if subject.target is None:
            raise DataError("The property is about targets, and the data have none; add them as the array y.")
        if len(subject.target) != count:
            raise DataError(
                f"The data have {len(subject.target)} targets a sample, but the property is about {count} outputs; name"
                " as many in its key outputs."
            )
        return list(map(float, subject.target))

    def words(self) -> str:
        """See `Property`."""
        which = "every output" if self.outputs is None else f"output {listed(list(map(str, self.outputs)))}"
        relative = f"{as_stated(self.relative)} |{'target' if self.targets else 'own'}|" if self.relative else ""
        absolute = as_stated(self.distance) if self.distance or not relative else ""
        reach = " + ".join(part for part in (absolute, relative) if part)
        whose = "its target" if self.targets else "the network's own"
        return f"{which} is less than {reach} from {whose}"


@dataclass(frozen=True)
class Holds(Property):
    """Some alternative holds: all comparisons in one of `alternatives`, texts such as `y[0] - y[1] >= 0.5`, or
    `y[label] > y[3]` (expressions.py). `classes`: names of the outputs, in their order, or none.

    Raises UsageError for text that is no linear comparison of outputs, and for alternatives that no outputs meet.
    """

    alternatives: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...] = ()
    where: str = field(default="The formula", compare=False, repr=False)
    stated: tuple[Clause, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for one in (self.alternatives, *(self.alternatives if isinstance(self.alternatives, tuple) else ())):
            expected(one, tuple, f"{self.where}: what holds", 'tuples of texts, such as (("y[0] >= 0.5",),)')
        for text in (*self.classes, *(text for texts in self.alternatives for text in texts)):
            expected(text, str, f"{self.where}: a comparison or class", "text")
        if not self.alternatives or not all(self.alternatives):
            raise UsageError(f"{self.where} has an alternative without comparisons; write all = [...] with some.")
        if len(set(self.classes)) < len(self.classes) or "label" in self.classes:
            raise UsageError(f"{self.where} names two classes alike, or one `label`; give each a name of its own.")
        stated = []
        for texts in self.alternatives:
            clause = [one for text in texts for one in comparisons(text, self.where, self.classes)]
            if (apart := _contradiction(clause)) is not None:
                raise UsageError(f"{self.where}: no outputs meet {' and '.join(texts[:4])}: {apart}; correct them.")
            stated.append(tuple(clause))
        object.__setattr__(self, "stated", tuple(stated))
        self._violations(0)

    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """See `Property`. Raises UsageError for an output that the network has not."""
        most = max(v.place for clause in self.stated for one in clause for v in one.terms)
        if most >= len(values):
            raise UsageError(
                f"{self.where} names output {most}, but the network has {len(values)}, from 0 to {len(values) - 1}."
            )
        if self.classes and len(self.classes) != len(values):
            raise UsageError(
                f"{self.where} names {len(self.classes)} classes, but the network has {len(values)} outputs."
            )
        named = any(v.place == LABEL for clause in self.stated for one in clause for v in one.terms)
        return self._violations(subject.labelled(len(values)) if named else 0)

    def _violations(self, label: int) -> tuple[Clause, ...]:
        """The clauses of `not (some alternative)`: one comparison of every alternative fails."""
        choices, count = [[_contrary(_placed(one, label)) for one in clause] for clause in self.stated], 1
        for one in choices:
            count *= len(one)
        if count > MOST:
            raise UsageError(
                f"{self.where} has {count} ways to fail, the product of its alternatives' comparisons, more than"
                f" {MOST}; state fewer."
            )
        return tuple(conjunctions(All(tuple(Some(tuple(one)) for one in choices))))

    def words(self) -> str:
        """See `Property`."""
        return " or ".join(
            f"({' and '.join(texts)})" if len(texts) > 1 and len(self.alternatives) > 1 else " and ".join(texts)
            for texts in self.alternatives
        )


def _contrary(one: Linear) -> Linear:
    """`not (terms <= limit)`."""
    return Linear({v: -c for v, c in one.terms.items()}, -one.limit, not one.strict)


def _placed(one: Linear, label: int) -> Linear:
    """A comparison with the output of the label in its place."""
    terms: dict[Variable, Fraction] = {}
    for variable, factor in one.terms.items():
        own = variable._replace(place=label) if variable.place == LABEL else variable
        terms[own] = terms.get(own, Fraction(0)) + factor
    return Linear({v: c for v, c in terms.items() if c}, one.limit, one.strict)


def _contradiction(clause: list[Linear]) -> str | None:
    """Why two comparisons of the same sum exclude each other; None if no two do. Others are not looked for."""
    most: dict[tuple[tuple[Variable, Fraction], ...], tuple[Fraction, bool]] = {}
    for one in clause:
        size = abs(min(one.terms.items())[1])
        terms = tuple(sorted((v, c / size) for v, c in one.terms.items()))
        limit = one.limit / size, not one.strict  # the smaller of two is the tighter
        most[terms] = min(limit, most.get(terms, limit))
    for terms, (high, closed) in most.items():
        opposite = most.get(tuple((v, -c) for v, c in terms))
        if opposite is None or terms[0][1] < 0:
            continue
        low, both = -opposite[0], closed and opposite[1]
        if low > high or (low == high and not both):
            return f"the same sum is to be at most {float(high):g} and at least {float(low):g}"
    return None


def itself(wanted: Property, subject: Subject, outputs: Array) -> bool:
    """Whether the network itself, which gives `outputs` (n_out,) in float64 in the middle, has the property there."""
    values = wanted.values(subject.middle, outputs)
    exact = [Fraction(float(number)) for number in values]
    for clause in wanted.clauses(subject, values):
        sums = [sum((exact[v.place] * c for v, c in one.terms.items()), Fraction(0)) for one in clause]
        if all(one.compare(total) for one, total in zip(clause, sums, strict=True)):
            return False
    return True
