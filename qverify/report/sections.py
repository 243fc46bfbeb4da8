"""The sections of all that `runs.findings` read, and these as text: for a terminal, as Markdown, and as LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from qverify.report.file_sections import (
    compare_section,
    covers_section,
    discrepancy_section,
    property_section,
    runtimes_section,
)
from qverify.report.radii_sections import radius_section, sweep_sections
from qverify.report.section import KINDS, Listing, Section
from qverify.report.text import tabular
from qverify.runs.findings import AnyFinding, Factors, Sweep
from qverify.runs.found import Comparison, Coverage, Discrepancies, Properties, Runtimes
from qverify.text import escapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OF: dict[type, Callable[[Any], list[Section]]] = {
    Sweep: sweep_sections,
    Factors: lambda finding: [radius_section(finding)],
    Discrepancies: lambda finding: [discrepancy_section(finding)],
    Properties: lambda finding: [property_section(finding)],
    Comparison: lambda finding: [compare_section(finding)],
    Coverage: lambda finding: [covers_section(finding)],
    Runtimes: lambda finding: [runtimes_section(finding)],
}


def sections_of(findings: Sequence[AnyFinding]) -> list[Section]:
    """The sections, kind by kind in the order of `KINDS`, those of a kind in the order given."""
    found = [section for finding in findings for section in _OF[type(finding.found)](finding)]
    return sorted(found, key=lambda section: list(KINDS).index(section.kind))


def terminal_sections(sections: Sequence[Section]) -> list[Table | str]:
    """Claims and tables for `console.output.show`."""
    shown: list[Table | str] = []
    for section in sections:
        shown += ["", f"{KINDS[section.kind][0]}: {section.name}", section.claim]
        for listing in section.listings:
            table = Table(box=None, padding=(0, 2, 0, 0))
            for place, heading in enumerate(listing.headings):
                justify: Any = "left" if place < listing.texts else "right"
                table.add_column(heading, justify=justify, overflow="fold")
            for row in listing.rows:
                table.add_row(*row)
            shown += ["", table, *([listing.said] if listing.said else [])]
        shown += [*section.more, *section.notes]
    return shown


def markdown_sections(sections: Sequence[Section]) -> str:
    """Claims and tables in GitHub's Markdown, a heading each."""
    parts = []
    for section in sections:
        parts += [f"## {KINDS[section.kind][0]}: {escapes.markdown(section.name)}", escapes.markdown(section.claim)]
        parts += [part for listing in section.listings for part in _markdown(listing)]
        parts += [f"- {escapes.markdown(note)}" for note in (*section.more, *section.notes)]
    return "".join(f"\n{part}\n" for part in parts)


def _markdown(listing: Listing) -> list[str]:
    texts = listing.texts
    rules = ["---"] * texts + ["---:"] * (len(listing.headings) - texts)
    rows = [rules, *([*map(escapes.markdown, row[:texts]), *row[texts:]] for row in listing.rows)]
    table = [list(map(escapes.markdown, listing.headings)), *rows]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return [lines, *([escapes.markdown(listing.said)] if listing.said else [])]


def latex_sections(sections: Sequence[Section]) -> str:
    """Tabulars for booktabs, with the claim as a comment above the first of a section."""
    parts = []
    for section in sections:
        said = [f"{KINDS[section.kind][0]}: {section.name}. {section.claim}", *section.more, *section.notes]
        for listing in section.listings:
            columns = "l" * listing.texts + "r" * (len(listing.headings) - listing.texts)
            rows = [list(map(_latex, row)) for row in (listing.headings, *listing.rows)]
            parts.append("\n" + tabular(columns, rows, [*said, *([listing.said] if listing.said else [])]))
            said = []
    return "".join(parts)


def _latex(cell: str) -> str:
    return escapes.latex(cell).replace("\u2212", "$-$")
