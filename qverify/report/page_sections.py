"""Sections, tables and claims as HTML. Whatever comes from a run is escaped by `html`."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from qverify.report.section import KINDS
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.report.section import Listing, Section

_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_FEW = 4
"""So many columns of numbers have room beside each other on a phone."""
LETTERS = 18
"""Of a name, so many letters have room on a line at least."""


def html(words: str) -> str:
    """`words` as HTML, for elements and for attributes in quotes."""
    return escape(printable(words))


def claim_words(sentence: str) -> str:
    """A claim: what is proved in full size, what it rests on smaller below; it stays one sentence."""
    proved, mark, rests = sentence.partition("; decided by qverify ")
    small = _HASH.sub(lambda found: f"<code>{found[0]}</code>", html(mark.removeprefix("; ") + rests))
    return f"<b>{html(proved)};</b> <small>{small}</small>" if mark else html(sentence)


def findings(sections: Sequence[Section]) -> str:
    """All sections, those of a kind under one heading."""
    found = ""
    for kind, (heading, about) in KINDS.items():
        own = [section for section in sections if section.kind == kind]
        inside = "".join(map(_section, own))
        found += f'<section id="{kind}"><h2>{heading}</h2><p>{html(about)}</p>{inside}</section>' if own else ""
    return found


def links(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Anchors of the kinds that there are, and their words."""
    kinds = {section.kind for section in sections}
    return [(kind, heading.lower()) for kind, (heading, _) in KINDS.items() if kind in kinds]


def _section(section: Section) -> str:
    drawing = ""
    if section.drawing:
        key = "".join(f'<span class="{style}">{html(words)}</span>' for style, words in section.key)
        drawing = f'<figure class="found"><p class="key">{key}</p>{section.drawing}</figure>'
    listed = "".join(f"<li>{html(note)}</li>" for note in section.notes)
    notes = f'<ul class="notes">{listed}</ul>' if listed else ""
    tables = [f"<div>{listing(one)}</div>" for one in section.listings]
    first = f'<div class="beside">{drawing}{"".join(tables[:1])}</div>'
    more = "".join(f'<p class="legend">{html(one)}</p>' for one in section.more)
    claim = f'<p class="claim">{claim_words(section.claim)}</p>'
    return f"<h3>{html(section.name)}</h3>{claim}{first}{''.join(tables[1:])}{more}{notes}"


def listing(table: Listing) -> str:
    """A table, each cell with its heading for narrow screens, and what its columns mean below it."""
    number = ' class="number"'
    head = "".join(
        f'<th scope="col"{"" if place < table.texts else number}>{html(name).replace("+", "+<wbr>")}</th>'
        for place, name in enumerate(table.headings)
    )
    body = ""
    for row in table.rows:
        cells = ""
        for place, (name, cell) in enumerate(zip(table.headings, row, strict=True)):
            kind = f' class="name" style="--letters:{min(LETTERS, len(cell))}"' if place < table.texts else number
            cells += f'<td data-label="{html(name)}"{kind}><span>{html(cell).replace(" %", "&nbsp;%")}</span></td>'
        body += f"<tr>{cells}</tr>"
    said = f'<p class="legend">{html(table.said)}</p>' if table.said else ""
    small = " small" if not table.texts and len(table.headings) <= _FEW else ""
    return f'<table class="found{small}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}'
