"""Properties of a network's outputs on samples, over a quantised family: named kinds, each stated by what violates it.

top-k      the label is among the k largest outputs
margin     the label's output is above every other by more than a number
distance   every output is within a distance of that of the network itself
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qverify.budget import Deadline
from qverify.errors import UsageError
from qverify.family.radius_arrays import radius_array
from qverify.files.toml import read_toml
from qverify.kinds import is_number
from qverify.properties.cases import Case, Clause
from qverify.properties.decide import Answer, Candidate, Question, decide
from qverify.properties.formula import All, Linear, Some, Variable
from qverify.properties.members import satisfies
from qverify.text.escapes import shown
from qverify.text.shortened import listed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.verification.verdict import Options

MOST = 1_000
"""Clauses of a property."""
STATUSES = ("holds", "violated", "unknown")
_STATUS = {Answer.UNSAT: "holds", Answer.SAT: "violated", Answer.UNKNOWN: "unknown", Answer.TIMED_OUT: "unknown"}


class Property(Protocol):
    """A property of the outputs on one sample."""

    def clauses(self, label: int, outputs: Array) -> tuple[Clause, ...]:
        """What violates it, one of these in full; label, and the outputs (n_out,) of the network itself."""
        ...

    def words(self) -> str:
        """The property in words."""
        ...


def _above(first: int, second: int, by: Fraction = Fraction(0)) -> Linear:
    """`y_first >= y_second + by`."""
    return Linear({Variable(True, second): Fraction(1), Variable(True, first): Fraction(-1)}, -by)


@dataclass(frozen=True)
class TopK:
    """The label is among the k largest outputs: fewer than k others are as large. Violated where k others are."""

    k: int

    def clauses(self, label: int, outputs: Array) -> tuple[Clause, ...]:
        """See `Property`. Raises UsageError where k classes of so many can be chosen in too many ways."""
        others = [j for j in range(len(outputs)) if j != label]
        if self.k > len(others):
            raise UsageError(f"Among {len(outputs)} outputs the label is always in the top {self.k}; give a smaller k.")
        if comb(len(others), self.k) > MOST:
            raise UsageError(
                f"Top {self.k} of {len(outputs)} outputs has more than {MOST} alternatives; take a smaller k."
            )
        return tuple(tuple(_above(j, label) for j in some) for some in combinations(others, self.k))

    def words(self) -> str:
        """See `Property`."""
        return f"the label is among the top {self.k}"


@dataclass(frozen=True)
class Margin:
    """The label's output is above every other by more than `margin`."""

    margin: float

    def clauses(self, label: int, outputs: Array) -> tuple[Clause, ...]:
        """See `Property`."""
        least = -Fraction(self.margin)
        return tuple((_above(j, label, least),) for j in range(len(outputs)) if j != label)

    def words(self) -> str:
        """See `Property`."""
        return f"the label is above every other output by more than {self.margin:g}"


@dataclass(frozen=True)
class Distance:
    """Every output, or those of `outputs`, is less than `distance` from that of the network itself in float64."""

    distance: float
    outputs: tuple[int, ...] | None = None

    def clauses(self, label: int, outputs: Array) -> tuple[Clause, ...]:
        """See `Property`. Raises UsageError for an output that the network has not."""
        chosen = range(len(outputs)) if self.outputs is None else self.outputs
        if any(i >= len(outputs) for i in chosen):
            raise UsageError(f"The property names output {max(chosen)}, but the network has {len(outputs)}, from 0 on.")
        reach, found = Fraction(self.distance), list[Clause]()
        for i in chosen:
            own, one = Fraction(float(outputs[i])), Variable(True, i)
            found += [(Linear({one: Fraction(1)}, own - reach),), (Linear({one: Fraction(-1)}, -own - reach),)]
        return tuple(found)

    def words(self) -> str:
        """See `Property`."""
        which = "every output" if self.outputs is None else f"output {listed(list(map(str, self.outputs)))}"
        return f"{which} is less than {self.distance:g} from the network's own"


def read_property(path: str) -> TopK | Margin | Distance:
    """The property that a TOML file states. Raises UsageError."""
    content = read_toml(path, "property file", UsageError)
    kind = content.pop("property", None)
    keys = {"top-k": {"k"}, "margin": {"margin"}, "distance": {"distance", "outputs"}}
    if kind not in keys:
        raise UsageError(
            f"{path} states no property {shown(kind)}; write property = one of {', '.join(map(repr, keys))}."
        )
    if unknown := sorted(content.keys() - keys[kind]):
        raise UsageError(
            f"{path}: {shown(unknown[0])} is no key of {kind}; its keys are {', '.join(sorted(keys[kind]))}."
        )
    if kind == "top-k":
        return TopK(_whole(content, "k", path))
    value: Any = content.get(kind)
    if not is_number(value) or not (value >= 0 if kind == "margin" else value > 0):
        raise UsageError(
            f"{path}: {kind} is {shown(value)}; give a number {'from' if kind == 'margin' else 'above'} 0."
        )
    if kind == "margin":
        return Margin(float(value))
    outputs = content.get("outputs")
    if outputs is None:
        return Distance(float(value))
    if not isinstance(outputs, list) or not outputs or not all(type(i) is int and i >= 0 for i in outputs):
        raise UsageError(f"{path}: outputs is {shown(outputs)}; give a list of numbers of outputs, from 0 on.")
    return Distance(float(value), tuple(outputs))


def _whole(content: dict[str, Any], key: str, path: str) -> int:
    value = content.get(key)
    if type(value) is not int or value < 1:
        raise UsageError(f"{path}: {key} is {shown(value)}; give a whole number from 1.")
    return value


@dataclass(frozen=True, kw_only=True)
class PropertyRow:
    """The answer for one sample: `holds` for all members of the family, `violated` by one, or `unknown`."""

    index: int
    label: int
    status: str
    seconds: float
    detail: str = ""


def decide_samples(
    network: Network,
    x: Array,
    labels: Any,
    radii: Radii,
    wanted: Property,
    options: Options,
    tell: Callable[[PropertyRow], None],
    stop: threading.Event,
) -> None:
    """Tell a row for each of the samples x (N, n_in) with labels (N,), in their order, until `stop` is set.

    `options.seconds` holds for each sample. What violates a property is a member of the family that a plain forward
    pass in float64 shows to. Raises what `decide` raises.
    """
    reach = radius_array(radii.input, network.input_shape, "input").ravel()
    outputs = network.evaluate(x)
    for index in range(len(x)):
        if stop.is_set():
            return
        began = time.perf_counter()
        point = tuple(Fraction(float(number)) for number in x[index])
        case = Case(lower=point, upper=point, clauses=wanted.clauses(int(labels[index]), outputs[index]))
        formula = Some(tuple(All(clause) for clause in case.clauses))

        def confirmed(candidate: Candidate, formula: Some = formula) -> bool:
            return satisfies(candidate, formula, reach)

        question = Question(network=network, radii=radii, options=replace(options, jobs=1), confirmed=confirmed)
        found = decide(question, [case], Deadline.after(options.seconds, stop))
        if stop.is_set() and found.answer in (Answer.UNKNOWN, Answer.TIMED_OUT):
            return
        detail = "time limit" if found.answer is Answer.TIMED_OUT else found.detail
        seconds = round(time.perf_counter() - began, 6)
        label = int(np.asarray(labels)[index])
        tell(PropertyRow(index=index, label=label, status=_STATUS[found.answer], seconds=seconds, detail=detail))
