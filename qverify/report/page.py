"""The report as one HTML page, complete in itself: no file and no network is needed to show it.

The page is the template page.html with page.cases.html, its style and its script. Whatever comes from a run is
escaped, and the page's own policy lets nothing run but that script.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from qverify.report.claim import claim
from qverify.report.curves import curves
from qverify.report.layers import layers_of
from qverify.report.page_cases import curve, layers, manifest, margins, pictures, stages, summary
from qverify.report.page_rows import DIGITS, packed
from qverify.report.page_sections import claim_words, findings, html, links, listing
from qverify.report.pictures import galleries
from qverify.report.sources import Sources, strange_labels
from qverify.report.table import labels
from qverify.report.text import csv_table, notes
from qverify.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.report.section import Listing, Section
    from qverify.report.table import Line


class _Page(Template):
    """A template whose places begin with `@@`, which neither CSS nor scripts use."""

    delimiter = "@@"


@dataclass(frozen=True, kw_only=True)
class Around:
    """What stands around the cases of a page: its title; on each line whether it passes what is required of it
    (claim.py), nothing where nothing is; a pivot table; sections of other commands."""

    title: str | None = None
    required: Sequence[str] = ()
    pivot: Sequence[Listing] = ()
    sections: Sequence[Section] = ()


def page(
    lines: Sequence[Line], tell: Callable[[str], None] = lambda sentence: None, around: Around | None = None
) -> str:
    """The whole page for the lines of `lines_of`, which may be none; `tell` hears how far it is."""
    around = around or Around()
    script = _asset("page.js")
    total = sum(line.tally.samples for line in lines)
    models = ", ".join(dict.fromkeys(line.model for line in lines))
    names = labels(lines)
    cases = f"{_counted(len(lines), 'case')}, {_counted(total, 'verdict')}: {models}."
    more = ", ".join(dict.fromkeys(section.name for section in around.sections))
    said = [*([cases] if lines else []), *([f"Also: {more}." if lines else f"{more}."] if more else [])]
    anchors = [*(_ANCHORS[:-1] if lines else []), *links(around.sections), *(_ANCHORS[-1:] if lines else [])]
    found = findings(around.sections)
    data = f'<script type="application/json" id="rows">{packed([line.case for line in lines], names)}</script>\n'
    return _Page(_asset("page.html")).substitute(
        title=html(around.title or f"qverify report: {models or more}"),
        top=html(around.title or "qverify report"),
        claims=_claims(lines, names, around.required),
        policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_asset("page.css"),
        heading=html(" ".join(said)),
        nav=" ".join(f'<a href="#{anchor}">{words}</a>' for anchor, words in anchors),
        body=_cases(lines, names, tell, around.pivot, found) if lines else found,
        scripts=f"{data}<script>{script}</script>" if lines else "",
        version=html(__version__),
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


_ANCHORS = [(name, name) for name in ("accuracy", "margins", "falsified", "layers")] + [("manifest", "appendix")]


def _cases(
    lines: Sequence[Line], names: Sequence[str], tell: Callable[[str], None], pivot: Sequence[Listing], found: str
) -> str:
    """The sections of the cases, with those that `found` has before the appendix."""
    cases, sources = [line.case for line in lines], Sources()
    name = dict(zip(cases, names, strict=True))
    shown = {
        "summary": summary(lines),
        "pivot": "".join(map(listing, pivot)),
        "notes": "".join(f"<li>{html(note)}</li>" for note in [*notes(lines), *strange_labels(cases, sources)]),
        "curves": "".join(map(curve, curves(lines))),
        "margins": "".join(margins(line, name[line.case], len(lines) == 1) for line in lines),
        "pictures": pictures(lines, galleries(cases, sources), name),
        "layers": "".join(layers(counted, name[counted.case]) for counted in layers_of(cases, sources, tell)),
        "findings": found,
        "stages": stages(cases),
        "manifest": "".join(manifest(line, name[line.case]) for line in lines),
    }
    return _Page(_asset("page.cases.html")).substitute(
        shown,
        no_curves="" if shown["curves"] else "hidden",
        no_notes="" if shown["notes"] else "hidden",
        csv=base64.b64encode(csv_table(lines).encode()).decode(),
        digits=str(DIGITS),
    )


def _claims(lines: Sequence[Line], names: Sequence[str], required: Sequence[str]) -> str:
    """What is required and passed or not, and what each case proves; of many, behind a line to unfold."""
    kinds = {False: "failed", True: "passed"}
    said = "".join(f'<p class="{kinds[one.startswith("passed")]}">{html(one)}</p>' for one in required)
    proved = [claim_words(claim(line)) for line in lines]
    if len(proved) < 2:
        return said + "".join(f'<p class="claim">{one}</p>' for one in proved)
    items = "".join(f"<li><i>{html(name)}.</i> {one}</li>" for name, one in zip(names, proved, strict=True))
    head = f"What exactly is proved: {len(proved)} cases"
    shown = " open" if len(proved) <= _OPEN else ""
    return f'{said}<details class="claim"{shown}><summary>{head}</summary><ul>{items}</ul></details>'


_OPEN = 3
"""So many claims are not folded."""


def _asset(name: str) -> str:
    return resources.files("qverify.report").joinpath(name).read_text(encoding="utf-8")
