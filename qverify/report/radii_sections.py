"""Sections of sweeps and of searches for the largest factor on the radii."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qverify.analysis.sweeps import PARTS
from qverify.choices import QUANTISER
from qverify.files.names import file_name
from qverify.report.claim import family_words
from qverify.report.drawings import Series, lines
from qverify.report.numbers import percent
from qverify.report.section import Listing, Section, bare, by_method, least, most, not_covered, samples_of, source
from qverify.runs.gate import share
from qverify.runs.start import used_solvers
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.analysis.grid import Bracket
    from qverify.analysis.layers import LayerRow
    from qverify.analysis.sweeps import SweepRow
    from qverify.runs.findings import Factors, Finding, Sweep
    from qverify.runs.question import Question

_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1)
"""Shares of the samples whose factors the table has."""


def sweep_sections(finding: Finding[Sweep]) -> list[Section]:
    """A section a model of the sweep."""
    swept = finding.found
    models = list(swept.question.models or {})
    return [_sweep(finding, [row for row in swept.rows if row.model == model], model) for model in models]


def _sweep(finding: Finding[Sweep], rows: Sequence[SweepRow], model: str) -> Section:
    swept, question = finding.found, finding.found.question
    asked = swept.asked // max(1, len(question.models or {}))
    start, stop = question.samples
    done = f"{len(rows)} of {asked} points are done" if len(rows) < asked else f"all {asked} points are done"
    name = file_name(printable(model))
    claim = (
        f"At each point below, so many of {samples_of(stop - start, question.samples, question.data)} are proved to be"
        f" classified as they are labelled by every network of the family of {name} at that point"
        f" [{axis_words(question)}; kinds outside the part exact], {by_method(question, used_solvers(swept.starts))};"
        f" {done}; {source(question, swept.starts)}; not covered: other points, and what is not proved at these."
    )
    parts = [part for part in PARTS if any(row.part == part for row in rows)]
    said = f"guaranteed accuracy of {name}, %, a line a part"
    points = {
        part: tuple((row.place, 100 * row.guaranteed / row.samples) for row in rows if row.part == part)
        for part in parts
    }
    series = [Series(f"part{list(PARTS).index(part)}", points[part]) for part in parts]
    title = f"{printable(finding.name)}: {name}" if len(question.models or {}) > 1 else printable(finding.name)
    return Section(
        kind="sweep",
        name=title,
        claim=bare(question, claim),
        listings=(_points(rows, parts, bool(question.radii.bits)),) if rows else (),
        drawing=lines(series, "bits" if question.radii.bits else "radius", said) if rows else "",
        key=tuple((one.name, part) for one, part in zip(series, parts, strict=True)),
        notes=finding.notes,
    )


def axis_words(question: Question) -> str:
    """What a point is, in words."""
    stated = question.radii
    if not stated.bits:
        return "radius (half-width): the same number for every quantised kind"
    own = {name: getattr(stated, name) for name in (*QUANTISER, "calibration")}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in own.items() if value is not None]
    return ", ".join([f"bits under {words[0]}" if words else "bits", *words[1:]])


def _points(rows: Sequence[SweepRow], parts: Sequence[str], bits: bool) -> Listing:
    """A row a point, a column a part."""
    found = {(row.place, row.part): row for row in rows}
    places = sorted({row.place for row in rows})
    clean, total = rows[0].clean, rows[0].samples
    undecided = any(row.unknown for row in rows)

    def cell(row: SweepRow | None) -> str:
        if row is None:
            return "not done"
        proved = percent(row.guaranteed, row.samples)
        return (
            f"{proved} to {percent(row.attack or 0, row.samples)}" if row.unknown and row.attack is not None else proved
        )

    said = f"Guaranteed accuracy; clean, the network itself before quantisation: {percent(clean, total)}."
    said += " A to B: A is proved, B is the share against which no failing network is known." * undecided
    return Listing(
        headings=("bits" if bits else "radius", *parts),
        texts=0,
        rows=tuple((f"{place:g}", *(cell(found.get((place, part))) for part in parts)) for place in places),
        said=said,
    )


# -- factors --------------------------------------------------------------------------------------


def radius_section(finding: Finding[Factors]) -> Section:
    """The section of a search for the largest factors."""
    search, question = finding.found, finding.found.question
    rows, asked = search.rows, question.samples[1] - question.samples[0]
    top = question.max_factor or math.inf
    factor = min(1.0, top)
    held = sum(row.lower is not None and row.lower >= factor * (1 - 1e-9) for row in rows)
    proved = f"{held} ({share(held, asked)}) are proved at factor {factor:g} to be classified as they are labelled"
    claim = (
        f"Of {samples_of(len(rows), question.samples, question.data)}, {proved} by every network of the family of"
        f" {file_name(question.model)} [{family_words(question)}], and the table has the factors on these radii up to"
        f" which that holds, {by_method(question, used_solvers(search.starts))}; {source(question, search.starts)};"
        f" {not_covered(asked - held, 'larger factors than those', 'inputs and quantisers beyond these radii')}"
    )
    return Section(
        kind="radius",
        name=printable(finding.name),
        claim=bare(question, claim),
        listings=tuple([_factors(rows)] * bool(rows) + [_layers(rows) for rows in _searches(search.layers)]),
        drawing=_held(rows, top) if rows else "",
        key=(("guaranteed", "proved"), ("attack", "no failing network is known")) if rows else (),
        notes=(*finding.notes, *_reasons(rows)),
    )


def _factors(rows: Sequence[Bracket]) -> Listing:
    """For shares of the samples done the factor at which so many are proved, and from which fewer are right."""
    proved = sorted((-1.0 if row.lower is None else row.lower for row in rows), reverse=True)
    fails = sorted((math.inf if row.upper is None else row.upper for row in rows), reverse=True)
    body = []
    for part in _SHARES:
        count = max(1, math.ceil(part * len(rows)))
        held, end = proved[count - 1], fails[count - 1]
        shown = "none" if held < 0 else least(held), "not known" if math.isinf(end) else most(end)
        body.append((f"{100 * part:g} %", str(count), *shown))
    wrong, nothing = sum(row.misclassified for row in rows), sum(row.lower is None for row in rows)
    said = (
        "Proved: the largest factor tried at which so many of the samples done are proved, or more. Fewer right: from"
        " this factor on fewer than so many are right for every network, as failing ones show. Never proved:"
        f" {nothing}, of which the network itself misclassifies {wrong}."
    )
    return Listing(headings=("samples", "count", "proved", "fewer right"), texts=0, rows=tuple(body), said=said)


def _held(rows: Sequence[Bracket], top: float) -> str:
    """Shares of the samples done against the factor."""
    proved = [0.0 if row.lower is None else row.lower for row in rows]
    known = [math.inf if row.upper is None else row.upper for row in rows]
    last = min(top, 1.1 * max([1.0, *proved, *(end for end in known if end < math.inf)]))

    def steps(ends: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """From every place on up to the next: the share of the ends beyond it."""
        places = sorted({0.0, *(end for end in ends if end < last)})
        beyond = [100 * sum(end > place for end in ends) / len(ends) for place in places]
        return (*zip(places, beyond, strict=True), (last, beyond[-1]))

    series = [Series("attack", steps(known), stepped=True), Series("guaranteed", steps(proved), stepped=True)]
    return lines(series, "factor on the radii", "share of the samples done that hold up to a factor, %")


def _reasons(rows: Sequence[Bracket]) -> list[str]:
    """Why brackets are wider than asked."""
    found = [row.detail for row in rows if row.detail]
    return [
        f"{len(found)} samples have wider brackets than asked: {'; '.join(sorted(set(map(printable, found))))}."
    ] * bool(found)


def _searches(layers: Sequence[LayerRow]) -> list[list[LayerRow]]:
    """The rows of each search layer by layer."""
    groups: dict[tuple[float, str], list[LayerRow]] = {}
    for row in layers:
        groups.setdefault((row.accuracy, row.method), []).append(row)
    return list(groups.values())


def _layers(rows: Sequence[LayerRow]) -> Listing:
    def cell(value: float | None, row: LayerRow) -> str:
        return "" if value is None else f"{'at least ' if row.at_end else ''}{least(value)}"

    body = [
        (
            printable(row.layer),
            row.kind,
            cell(row.factor, row) or "none",
            cell(row.radius, row),
            cell(row.bias_radius, row),
            "" if row.reached is None else percent(round(row.reached * row.samples), row.samples),
        )
        for row in rows
    ]
    said = (
        f"One layer quantised, all others exact: the largest radius tried at which {100 * rows[0].accuracy:g} % of the"
        f" samples or more are proved, by {rows[0].method}."
    )
    headings = ("layer", "quantised", "factor", "radius", "bias radius", "proved")
    return Listing(headings=headings, texts=2, rows=tuple(body), said=said)
