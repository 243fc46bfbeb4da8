"""A property decided on samples, or boxes of inputs, over a quantised family."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from qverify.budget import Deadline
from qverify.errors import DataError
from qverify.family.radius_arrays import radius_array
from qverify.properties.cases import Case
from qverify.properties.decide import Answer, Candidate, Decision, Question, decide
from qverify.properties.formula import All, Some
from qverify.properties.kinds import itself
from qverify.properties.members import satisfies

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.properties.kinds import Property, Subject
    from qverify.verification.verdict import Options

STATUSES = ("holds", "violated", "unknown")
_STATUS = {Answer.UNSAT: "holds", Answer.SAT: "violated", Answer.UNKNOWN: "unknown", Answer.TIMED_OUT: "unknown"}


@dataclass(frozen=True, kw_only=True)
class PropertyRow:
    """The answer for one sample or box: `holds` for all members of the family, `violated` by one, or `unknown`.

    `label` is None where there is none. `itself`: the network itself, before quantisation, has the property, of a box
    at its middle. `method`, `margin_lower`, `margin_upper`: the stage that decided, and between which bounds the worst
    margin of the property lies, None where there is none; above 0 it holds. `limit`: the seconds that ended it.
    """

    index: int
    label: int | None
    itself: bool
    status: str
    seconds: float
    detail: str = ""
    method: str = "forward"
    margin_lower: float | None = None
    margin_upper: float | None = None
    limit: float | None = None


def decide_subjects(
    network: Network,
    subjects: Sequence[Subject],
    radii: Radii,
    wanted: Property,
    options: Options,
    tell: Callable[[PropertyRow], None],
    stop: threading.Event,
) -> None:
    """Tell a row for each of the subjects, in their order, until `stop` is set; `index` is the place among them.

    `options.seconds` holds for each. What violates a property is a member of the family that a plain forward pass in
    float64 shows to. Raises what `decide` and the property raise.
    """
    outputs = network.evaluate(np.array([subject.middle for subject in subjects]))
    for subject, own in zip(subjects, outputs, strict=True):  # before hours of work
        _refuse_beyond(options.clip, subject)
        wanted.extended(network, radii, subject)
        wanted.clauses(subject, wanted.values(subject.middle, own))
    for index, (subject, own) in enumerate(zip(subjects, outputs, strict=True)):
        if stop.is_set():
            return
        began = time.perf_counter()
        found = _decided(network, subject, own, radii, wanted, replace(options, jobs=1), stop)
        if stop.is_set() and found.answer in (Answer.UNKNOWN, Answer.TIMED_OUT):
            return
        row = PropertyRow(
            index=index,
            label=subject.label,
            itself=itself(wanted, subject, own),
            status=_STATUS[found.answer],
            seconds=round(time.perf_counter() - began, 6),
            detail="time limit" if found.answer is Answer.TIMED_OUT else found.detail,
            method=found.method,
            margin_lower=found.margin_lower if np.isfinite(found.margin_lower) else None,
            margin_upper=found.margin_upper if np.isfinite(found.margin_upper) else None,
            limit=options.seconds if found.answer is Answer.TIMED_OUT else None,
        )
        tell(row)


def _refuse_beyond(clip: tuple[float, float] | None, subject: Subject) -> None:
    """Raise DataError for inputs outside the range that quantised ones are clipped to, as for samples of `verify`."""
    if clip is not None and ((subject.lower < clip[0]).any() or (subject.upper > clip[1]).any()):
        raise DataError(f"Some inputs lie outside --clip-input {clip[0]:g} {clip[1]:g}; widen it.")


def _decided(
    network: Network,
    subject: Subject,
    outputs: Array,
    radii: Radii,
    wanted: Property,
    options: Options,
    stop: threading.Event,
) -> Decision:
    """The answer on one subject, for whose middle the network itself gives `outputs` (n_out,)."""
    clauses = wanted.clauses(subject, wanted.values(subject.middle, outputs))
    if not clauses:
        return Decision(answer=Answer.UNSAT, detail="whatever the outputs", margin_lower=np.inf)
    ends = (tuple(Fraction(float(number)) for number in end) for end in (subject.lower, subject.upper))
    lower, upper = ends
    case, formula = Case(lower=lower, upper=upper, clauses=clauses), Some(tuple(map(All, clauses)))
    reach = radius_array(radii.input, network.input_shape, "input").ravel()

    def confirmed(candidate: Candidate) -> bool:
        return satisfies(replace(candidate, outputs=wanted.judged(candidate)), formula, reach)

    extended, own = wanted.extended(network, radii, subject)
    question = Question(network=extended, radii=own, options=options, confirmed=confirmed)
    return decide(question, [case], Deadline.after(options.seconds, stop))
