"""Sections of objects of `--json`: discrepancies, properties, comparisons, coverage and runtimes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qverify.files.names import file_name, without_folders
from qverify.report.claim import family_words
from qverify.report.drawings import Mark, brackets, shares
from qverify.report.numbers import percent, reason_lines
from qverify.report.section import (
    MOST,
    Listing,
    Moved,
    Section,
    bare,
    by_method,
    least,
    most,
    moved,
    not_covered,
    output_listing,
    samples_of,
    sha256_of,
    source,
)
from qverify.runs.gate import share
from qverify.text.escapes import printable
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.runs.findings import Finding
    from qverify.runs.found import (
        About,
        Comparison,
        Coverage,
        Discrepancies,
        PartFound,
        Properties,
        Runtimes,
        SampleFound,
    )

_BEYOND = ("inputs beyond these radii", "quantisers that leave them")
_ROUNDINGS = "runtimes that round otherwise"
_MOVES = (("guaranteed proved", "proved"), ("guaranteed", "met"))


def discrepancy_section(finding: Finding[Discrepancies]) -> Section:
    """The section of worst-case discrepancies."""
    question, rows = finding.found.question, finding.found.rows
    doubted = sum(bool(row.detail) for row in rows)
    seen = moved(rows)
    met = max((max(map(abs, one.met)) for one in seen if one.met is not None), default=None)
    bound = f"no output moves by more than {most(max(row.worst for row in rows))}" if rows else "nothing is known yet"
    asked = question.samples[1] - question.samples[0]
    beyond = [*_BEYOND, *([f"what the notes say of {doubted} samples"] if doubted else [])]
    claim = (
        f"On {samples_of(len(rows), question.samples, question.data)}, {bound} between {file_name(question.model)} and"
        f" any network of its family [{family_words(question)}], proved {by_method(question, finding.found.solvers)}"
        f"{'' if met is None else f', and some member moves one by {least(met)}'};"
        f" {source(question)}; {not_covered(asked - len(rows), *beyond)}"
    )
    return Section(
        kind="discrepancy",
        name=finding.name,
        claim=bare(question, claim),
        listings=(output_listing(seen, "An output of a network of the family less that of the network"),)
        if rows
        else (),
        drawing=_moving(seen),
        key=_MOVES[: 1 if met is None else 2] if rows else (),
        notes=(*finding.notes, *reason_lines("Not certain", Counter(row.detail for row in rows), len(rows))),
    )


def _moving(found: Sequence[Moved]) -> str:
    """The outputs as brackets."""
    chosen = sorted(sorted(found, key=lambda one: -one.worst)[:MOST], key=lambda one: one.output)
    marks = [
        Mark("guaranteed" if one.met else "guaranteed proved", one.low, one.high, one.met, str(one.output))
        for one in chosen
    ]
    return brackets(marks, "how far each output moves") if marks else ""


def property_section(finding: Finding[Properties]) -> Section:
    """The section of a property."""
    question, rows, words = finding.found.question, finding.found.rows, printable(finding.found.property)
    counts, asked = Counter(row.status for row in rows), question.samples[1] - question.samples[0]
    claim = (
        f"Of {samples_of(len(rows), question.samples, question.data)}, {counts['holds']}"
        f" ({share(counts['holds'], asked)}) are proved to have this property for every network of the family of"
        f" {file_name(question.model)} [{family_words(question)}]: {words}; that is decided"
        f" {by_method(question, ())}; {source(question)};"
        f" {not_covered(asked - counts['holds'], *_BEYOND)}"
    )
    meanings = {
        "holds": "proved for every network of the family",
        "violated": "a network of the family does not have it",
        "unknown": "neither",
    }
    return Section(
        kind="property",
        name=finding.name,
        claim=bare(question, claim),
        listings=(_statuses(counts, meanings, rows),),
        drawing=_divided(counts, {"holds": "verified", "violated": "falsified", "unknown": "unknown"}),
        key=(("verified", "holds"), ("falsified", "violated"), ("unknown", "unknown")),
        notes=(*finding.notes, *reason_lines("Unknown", _details(rows), counts["unknown"])),
    )


def _details(rows: Sequence[SampleFound]) -> Counter[str]:
    return Counter(row.detail for row in rows if row.status == "unknown")


def _statuses(counts: Mapping[str, int], meanings: Mapping[str, str], rows: Sequence[SampleFound]) -> Listing:
    """A row a status: how many samples have it, what it means, and which they are, where something is wrong."""
    usual = next(iter(meanings))
    body = []
    for status, meaning in meanings.items():
        own = [str(row.index) for row in rows if row.status == status]
        named = f" (samples {listed(own)})" if own and status != usual else ""
        body.append((status, f"{meaning}{named}", str(counts[status]), percent(counts[status], len(rows))))
    return Listing(
        headings=("answer", "meaning", "samples", "share"),
        texts=2,
        rows=tuple(body),
        said="Shares of the samples done.",
    )


def _divided(counts: Mapping[str, int], styles: Mapping[str, str]) -> str:
    words = ", ".join(f"{counts[status]} {status}" for status in styles)
    return shares([(style, counts[status]) for status, style in styles.items()], words)


# -- files beside networks -------------------------------------------------------------------------


def compare_section(finding: Finding[Comparison]) -> Section:
    """The section of a file beside its network."""
    found, rows = finding.found, finding.found.rows
    seen, about = moved(rows), found.about
    trained, file = file_name(found.trained.model), file_name(found.file.model)
    around = f" and inputs up to {found.input_radius:g} away from them" if found.input_radius else ""
    around += f" within {found.clip[0]:g} to {found.clip[1]:g}" if found.clip and around else ""
    around += " that lie on the grid of the file's input" if found.on_grid else ""
    bound = "nothing is known yet"
    if rows:
        bound = (
            f"no output of {file} is farther than {most(max(row.worst for row in rows))} from that of {trained}, which"
            f" is proved for every runtime that rounds by rule {found.rounding}, and one is met that is"
            f" {least(max(row.met for row in rows))} away"
        )
    counts = Counter(row.status for row in rows)
    within = ""
    if found.epsilon is not None:
        within = f"; within {found.epsilon:g} on {counts['within']} of these samples, beyond it on {counts['exceeds']}"
        within += f", not known on {counts['unknown']}" if counts["unknown"] else ""
    hashes = sha256_of({trained: found.trained.model_sha256, file: found.file.model_sha256, "data": about.data_sha256})
    claim = (
        f"On {samples_of(len(rows), about.sample_range, about.data)}{around}, {bound}{within}; decided by qverify"
        f" {about.qverify}; {hashes};"
        f" {not_covered(about.asked - len(rows), 'other inputs', _ROUNDINGS)}"
    )
    return Section(
        kind="compare",
        name=finding.name,
        claim=_bare(claim, (found.trained.model, found.file.model, about.data)),
        listings=(
            *([output_listing(seen, "An output of the file less that of the network")] if rows else []),
            _tensors(found),
        ),
        drawing=_moving(seen),
        key=_MOVES if rows else (),
        more=tuple(_alike(found)),
        notes=finding.notes,
    )


def _bare(text: str, paths: Sequence[str]) -> str:
    return printable(without_folders(text, list(paths)))


def _alike(found: Comparison) -> list[str]:
    """What both models answer."""
    if found.float_right is None or found.file_right is None or found.same_class is None:
        return []
    return [
        f"Of all {found.about.asked} samples the network gets {found.float_right} right, and the file, rounded to the"
        f" nearest, {found.file_right}; both give the same class on {found.same_class}."
    ]


def _tensors(found: Comparison) -> Listing:
    body = [
        (
            printable(one.name),
            printable(one.trained),
            "" if one.snr_db is None else f"{one.snr_db:.1f}",
            f"{one.largest:.4g}",
        )
        for one in found.tensors
    ]
    said = (
        "Differences of tensors on the samples, the file rounded to the nearest: measured, not proved. SNR: signal over"
        " noise in decibels, the more the closer."
    )
    return Listing(headings=("tensor", "stands for", "SNR, dB", "largest"), texts=2, rows=tuple(body), said=said)


def covers_section(finding: Finding[Coverage]) -> Section:
    """The section of coverage."""
    found = finding.found
    trained, file = file_name(found.trained.model), file_name(found.file.model)
    outside = [part for part in found.parts if not part.covered]
    family = f"the family of {trained} [{found.convention}]"
    claim = f"{file} is NOT covered by {family}: {len(outside)} of its {len(found.parts)} parts are outside"
    if not outside:
        claim = (
            f"{file} is covered by {family}: all its {len(found.parts)} parts lie inside, so what is proved for every"
            f" network of this family holds for the file on every runtime that rounds by rule {found.rule}"
        )
    version = f"; decided by qverify {found.qverify}" if found.qverify else ""
    hashes = sha256_of({trained: found.trained.model_sha256, file: found.file.model_sha256})
    claim += f"{version}; {hashes}{'.' if outside else '; not covered: runtimes that round otherwise.'}"
    marks = []
    for number, part in enumerate(found.parts, start=1):
        end = 0.0 if part.share is None and part.covered else part.share
        marks.append(Mark("verified" if part.covered else "falsified", 0.0, end, None, str(number)))
    return Section(
        kind="covers",
        name=finding.name,
        claim=_bare(claim, (found.trained.model, found.file.model)),
        listings=(_parts(found.parts),),
        drawing=brackets(marks, "the deviation of each part over its radius; above 1 is outside", line=1.0),
        key=(("verified", "inside"), ("falsified", "outside")),
        notes=finding.notes,
    )


def _parts(parts: Sequence[PartFound]) -> Listing:
    body = [
        (
            printable(part.trained or part.file),
            part.kind,
            "inside" if part.covered else f"OUTSIDE: {printable(part.detail)}",
            str(number),
            "" if part.share is None else most(part.share),
        )
        for number, part in enumerate(parts, start=1)
    ]
    return Listing(
        headings=("part", "what", "it lies", "number", "of the radius"),
        texts=3,
        rows=tuple(body),
        said="Of the radius: the largest deviation of the file over what the family allows; 1 is its end.",
    )


def runtimes_section(finding: Finding[Runtimes]) -> Section:
    """The section of runtimes."""
    found, rows = finding.found, finding.found.rows
    about: About = found.about
    counts = Counter(row.status for row in rows)
    right = sum(row.status == "same" and row.predicted == row.label for row in rows)
    rules = ", ".join(found.rules)
    widest = max((high - low for row in rows for low, high in zip(row.lower, row.upper, strict=True)), default=0.0)
    bound = f"no output moves by more than {most(widest)}" if rows else "nothing is known yet"
    limit = "" if found.timeout is None else f", each within {found.timeout:g} s"
    hashes = sha256_of({"model": found.file.model_sha256, "data": about.data_sha256})
    claim = (
        f"Of {samples_of(len(rows), about.sample_range, about.data)}, {counts['same']}"
        f" ({share(counts['same'], about.asked)}) are proved to get one class from {file_name(found.file.model)},"
        f" whichever of the rules {rules} each of its layers rounds by, and {right} of these the class of"
        f" their label{limit}; {bound}; decided by qverify {about.qverify};"
        f" {hashes}; {not_covered(about.asked - counts['same'], 'other inputs', _ROUNDINGS)}"
    )
    meanings = {
        "same": "one class, proved for every choice of rules, layer by layer",
        "differs": "two choices of rules give two classes",
        "unknown": "neither",
    }
    return Section(
        kind="runtimes",
        name=finding.name,
        claim=_bare(claim, (found.file.model, about.data)),
        listings=(_statuses(counts, meanings, rows),),
        drawing=_divided(counts, {"same": "verified", "differs": "falsified", "unknown": "unknown"}),
        key=(("verified", "same"), ("falsified", "differs"), ("unknown", "unknown")),
        more=tuple(f"Rule {printable(rule)}: {printable(words)}." for rule, words in found.rules.items()),
        notes=finding.notes,
    )
