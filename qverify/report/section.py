"""Sections of a report beside the verified accuracy: what `sweep`, `radius`, `discrepancy` and others found.

A section claims in one sentence what its rows hold, and shows them as tables and a drawing; every form of the report
renders it from the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.files.names import file_name, without_folders
from qverify.report.claim import origin
from qverify.report.numbers import outward, trust
from qverify.text.brief import Brief
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.runs.found import SampleFound
    from qverify.runs.question import Question
    from qverify.runs.start import Start

KINDS = {
    "sweep": (
        "Sweeps",
        "How much is proved as quantisation gets coarser. A part is what is quantised; everything else stays exact.",
    ),
    "radius": (
        "Radii",
        "How much coarser quantisation may be before a sample is no longer proved: at factor 1 every number deviates as"
        " far as stated, at factor 2 twice as far.",
    ),
    "discrepancy": ("Discrepancies", "How far an output can move from that of the network itself."),
    "property": ("Properties", "Statements about the outputs beyond the class, asked of every network of the family."),
    "compare": ("Comparisons", "The outputs of a quantised file beside those of the network that it was made of."),
    "covers": (
        "Coverage",
        "Whether a file is a member of a family. Only then does what is proved of the family hold for the file.",
    ),
    "runtimes": (
        "Runtimes",
        "Runtimes share the integers of a file and differ in how they round: whether that can change its class.",
    ),
}
"""The kinds of sections in their order: a heading, and what such a section is about."""

DIGITS = 5
MOST = 24
"""Rows of a table of outputs, samples or parts; the rest is counted."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Listing(Brief):
    """A table: `texts` columns of text at the left, the others are numbers. `said`: what its columns mean."""

    headings: tuple[str, ...]
    texts: int
    rows: tuple[tuple[str, ...], ...]
    said: str = ""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Section(Brief):
    """What one folder or file holds. `kind`: one of `KINDS`; `name`: that of the folder or file, for people.

    `drawing`: SVG for the page; `key`: its classes, and what each stands for. `more`: more that is known, `notes`: what
    does not count, a sentence each.
    """

    kind: str
    name: str
    claim: str
    listings: tuple[Listing, ...]
    drawing: str = ""
    key: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# -- words that sections share ---------------------------------------------------------------------


def bare(question: Question, text: str) -> str:
    """`text` for people: printable, and without the folders of the files that a question names."""
    paths = (question.model, question.data, question.data_source, question.radii.file, *(question.model_files or ()))
    return printable(without_folders(text, [path for path in paths if path]))


def samples_of(done: int, samples: Sequence[int], data: str) -> str:
    """The samples asked about, and how many of them are done, where it is not all."""
    start, stop = samples
    some = "" if done == stop - start else f", {done} of them done"
    return f"the {stop - start} samples {start}:{stop} of {file_name(data)}{some}"


def source(question: Question, starts: Sequence[Start] = ()) -> str:
    """Who decided when, on which bytes."""
    hashes = {"data": question.data_sha256}
    if question.models is None:
        hashes = {"model": question.model_sha256} | hashes
    own = {f"model {name}": sha256 for name, each in (question.models or {}).items() for sha256 in _sha256(each)}
    return f"{origin([question], starts)}; {sha256_of(own | hashes)}"


def _sha256(hashes: Mapping[str, str]) -> list[str]:
    return [value for name, value in hashes.items() if name == "model_sha256"]


def by_method(question: Question, solvers: Sequence[str]) -> str:
    """By which method, and what its exact step rests on, if it has one; `solvers`: those that are known."""
    if question.method not in ("auto", "exact"):
        return f"by method {question.method}"
    rests = f", {trust(question, solvers)}" if solvers else " by a solver that is not named"
    return f"by method {question.method}, with an exact step{rests}"


def not_covered(missing: int, *others: str) -> str:
    """What a claim is not about: samples of those asked about that it does not count, and others."""
    left = "" if not missing else "1 sample of these, " if missing == 1 else f"{missing} samples of these, "
    return f"not covered: {left}{', '.join(others[:-1])}{' and ' * (len(others) > 1)}{others[-1]}."


def sha256_of(hashes: Mapping[str, str | None]) -> str:
    """Hashes in one phrase."""
    return "sha256 of " + ", ".join(f"{name} {value or 'not recorded'}" for name, value in hashes.items())


def signed(value: float, up: bool) -> str:
    """A number in few digits, rounded towards where it claims less, with its sign."""
    text = outward(value, DIGITS, up)
    return text.replace("-", "\u2212") if value <= 0 else f"+{text}"


def most(value: float) -> str:
    """What is not exceeded, rounded upwards."""
    return outward(value, DIGITS, up=True)


def least(value: float) -> str:
    """What is reached, rounded downwards."""
    return outward(value, DIGITS, up=False)


# -- outputs that move -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """Over some samples the ends of one output: proved, and met, where all samples have ends that were met."""

    output: int
    low: float
    high: float
    met: tuple[float, float] | None

    @property
    def worst(self) -> float:
        """The largest size of an end that is proved."""
        return max(abs(self.low), abs(self.high))


def moved(rows: Sequence[SampleFound]) -> list[Moved]:
    """Every output over all rows."""
    found = []
    known = all(row.attained_lower is not None and row.attained_upper is not None for row in rows)
    for output in range(len(rows[0].lower) if rows else 0):
        low, high = min(row.lower[output] for row in rows), max(row.upper[output] for row in rows)
        met = None
        if known:
            ends = (
                [(row.attained_lower or ())[output] for row in rows],
                [(row.attained_upper or ())[output] for row in rows],
            )
            met = min(ends[0]), max(ends[1])
        found.append(Moved(output, low, high, met))
    return found


def output_listing(found: Sequence[Moved], what: str) -> Listing:
    """The outputs that move most, in their order; `what` moves."""
    chosen = sorted(sorted(found, key=lambda one: -one.worst)[:MOST], key=lambda one: one.output)
    met = bool(found) and found[0].met is not None
    rows = [
        (str(one.output), signed(one.low, False), signed(one.high, True))
        + ((signed(one.met[0], True), signed(one.met[1], False)) if one.met is not None else ())
        for one in chosen
    ]
    left = f" The {MOST} outputs that move most; {len(found) - MOST} more move less." if len(found) > MOST else ""
    seen = "; lowest and highest met: by a concrete one" if met else ""
    return Listing(
        headings=("output", "at least", "at most", *(("lowest met", "highest met") if met else ())),
        texts=0,
        rows=tuple(rows),
        said=f"{what}, over all samples. At least, at most: proved, rounded outwards{seen}.{left}",
    )
