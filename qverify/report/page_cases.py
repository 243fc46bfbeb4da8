"""The sections of the cases of a page: the table, curves, margins, falsified samples, layers, and what they rest on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qverify.files.dotted import dotted
from qverify.files.places import PLACES
from qverify.report import margins as drawn
from qverify.report.curves import Curve, svg
from qverify.report.numbers import footer, percent, stage_basis, trust
from qverify.report.page_sections import LETTERS, html, listing
from qverify.report.table import ACCURACIES, HEADINGS, Line, identities
from qverify.report.text import legend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.report.layers import Layers
    from qverify.report.pictures import Gallery, Picture
    from qverify.runs.reading import StoredCase

# -- the table, and curves ------------------------------------------------------------------------


def summary(lines: Sequence[Line]) -> str:
    """The table and its legend; each cell repeats its heading for narrow screens."""
    shown, common = identities(lines)
    headings = [*shown, "samples", *HEADINGS.values(), "unknown", "seconds"]
    letters = {name: min(LETTERS, max(map(len, texts))) for name, texts in shown.items()}
    head = "".join(f'<th scope="col"{"" if heading in shown else _NUMBER}>{html(heading)}</th>' for heading in headings)
    body = []
    for number, line in enumerate(lines):
        total = line.tally.samples
        names = "".join(_name(name, texts[number], letters[name]) for name, texts in shown.items())
        cells = [("samples", str(total))]
        cells += [(HEADINGS[name], _share(line.count(name), total)) for name in ACCURACIES]
        cells += [("unknown", str(line.tally.statuses["unknown"])), ("seconds", f"{line.seconds:.2f}")]
        body.append(f"<tr>{names}{''.join(_cell(name, text, _NUMBER) for name, text in cells)}</tr>")
    said = [f"All: {common}."] if common else []
    below = "".join(f'<p class="legend">{html(text)}</p>' for text in [*said, *legend(lines)])
    many = ' class="many"' if len(shown) > _BESIDE else ""
    head, rows = f"<thead><tr>{head}</tr></thead>", "".join(body)
    return f'<table id="summary"{many}>{head}<tbody>{rows}</tbody></table>{below}'


_NUMBER = ' class="number"'
_BESIDE = 3
"""So many columns of names have room beside the numbers on paper."""


def _cell(name: str, content: str, more: str = "") -> str:
    return f'<td data-label="{html(name)}"{more}><span>{content}</span></td>'


def _name(name: str, text: str, letters: int) -> str:
    """A cell whose column has room for at least so many letters."""
    return _cell(name, html(text), f' class="name" style="--letters:{letters}"')


def _share(count: int, total: int) -> str:
    return f"{percent(count, total)} <small>{count}</small>"


def curve(found: Curve) -> str:
    return f"<figure>{svg(found)}<figcaption>{html(found.title)}</figcaption></figure>"


# -- margins --------------------------------------------------------------------------------------


def margins(line: Line, name: str, alone: bool) -> str:
    """The drawing of one case, and its worst samples as a table, which is folded unless the case is `alone`."""
    if not line.case.rows:
        return f'<h3>{html(name)}</h3><p class="missing">No sample is decided.</p>'
    table = drawn.listing(line)
    count = len(table.rows)
    head = "The sample" if count == 1 else f"The {count} samples with the lowest margins"
    return (
        f'<h3>{html(name)}</h3><figure class="found">{drawn.drawing(line)}<figcaption>{html(drawn.extent(line))}'
        f'</figcaption></figure><details class="worst"{" open" if alone else ""}><summary>{head}</summary>'
        f"{listing(table)}</details>"
    )


# -- falsified samples ----------------------------------------------------------------------------


def pictures(lines: Sequence[Line], found: Sequence[Gallery], name: Mapping[StoredCase, str]) -> str:
    """The galleries of all cases; in words what there is to see, or that no sample was falsified."""
    if not found:
        open_ = any(line.tally.samples < line.case.asked for line in lines)
        return f"<p>No sample that is decided was falsified.{' Not all samples are decided.' if open_ else ''}</p>"
    said = (
        "Left the sample, right the input of a failing network of the family: one that the run kept, or one that was"
        " found again for this page by another attack. What they answer is evaluated anew."
    )
    shown = f"<p>{said}</p>" if any(gallery.pictures for gallery in found) else ""
    return shown + "".join(_gallery(gallery, name[gallery.case]) for gallery in found)


def _gallery(gallery: Gallery, name: str) -> str:
    """The pictures of one case under its name."""
    shown = len(gallery.pictures)
    words = f"{gallery.falsified} falsified" + (f", {shown} of them shown" if 0 < shown < gallery.falsified else "")
    lost = f'<p class="missing">{html(gallery.missing)}</p>' if gallery.missing else ""
    pictures = "".join(map(_picture, gallery.pictures))
    return f'<h3>{html(name)}: {words}</h3>{lost}<div class="gallery">{pictures}</div>'


def _picture(picture: Picture) -> str:
    """The sample, beside it the witness's input, below them what both networks answer."""
    answer, row = picture.answer, picture.row
    images = f'<img src="{picture.picture}" alt="sample {row.index}">'
    if answer is None:
        margin = "" if row.margin_upper is None else f" (margin {_signed(row.margin_upper)})"
        says = f"a failing network is known{margin}; {'its file is damaged' if picture.damaged else 'it was not kept'}"
    else:
        images += f'<img src="{answer.picture}" alt="input of the witness">'
        verdict = f"<b>{answer.predicted}</b>" if answer.margin <= 0 else f"{answer.predicted}, which is right"
        verdict += " as much as the label" if answer.margin == 0 else ""
        who = "a failing network found again" if answer.again else "the witness"
        kept = "" if answer.recorded is None else f"; the run recorded {_signed(answer.recorded)}"
        says = f"{who} answers {verdict} (margin {_signed(answer.margin)}{kept})"
    return (
        f"<figure><div>{images}</div><figcaption>sample {row.index}, label {row.label}:"
        f" the network answers {row.predicted}, {says}</figcaption></figure>"
    )


def _signed(margin: float) -> str:
    return f"{margin:.4g}".replace("-", "\u2212")


# -- layers ---------------------------------------------------------------------------------------


def layers(found: Layers, name: str) -> str:
    """Bars of the unstable neurons of each Relu of one case; the layer with the most is marked."""
    title = f"<h3>{html(name)}</h3>"
    if not found.relus:
        why = html(found.missing or "The network has no Relu.")
        return f'<div>{title}<p class="missing">{why}</p>{_points(found)}</div>'
    counts = [(relu, relu.ibp, relu.bp or 0.0) for relu in found.relus]
    most = max(bp for _, _, bp in counts)
    rows = []
    for relu, ibp, bp in counts:
        mark = ' class="most"' if bp == most > 0 else ""
        cells = "".join(
            f'<td class="number">{mean:.1f}<meter max="{relu.size}" value="{mean:.3f}" aria-hidden="true"></meter></td>'
            for mean in (ibp, bp)
        )
        rows.append(f'<tr{mark}><td>{html(relu.name)}</td><td class="number">{relu.size}</td>{cells}</tr>')
    other = " This version of qverify makes other radii than those of the run, and took its own." * found.other_radii
    kind = ' class="number"'
    head = "".join(
        f'<th scope="col"{kind if place else ""}>{heading}</th>'
        for place, heading in enumerate(("layer", "neurons", "by IBP", "after BP"))
    )
    return (
        f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="legend">Unstable neurons, the mean over {found.samples} samples.{other}</p>{_points(found)}</div>'
    )


def _points(layers: Layers) -> str:
    """Where values are rounded, and what of this model is not covered; nothing where there is nothing to say."""
    parts = [("Rounding points", layers.rounded), ("Not covered, or to be known", layers.beyond)]
    found = ""
    for title, said in parts:
        listed = "".join(f"<li>{html(one)}</li>" for one in said)
        found += f"<details><summary>{title}: {len(said)}</summary><ul>{listed}</ul></details>" if said else ""
    return found


# -- manifest -------------------------------------------------------------------------------------


def stages(cases: Sequence[StoredCase]) -> str:
    """The rows of the table of stages: those of the exact step say what the cases that ask for it rest on."""
    trusts = [trust(case.question, case.run.solvers) for case in cases if case.question.method in ("auto", "exact")]
    return "".join(
        "<tr>"
        + "".join(_cell(heading, html(text)) for heading, text in zip(_STAGE_HEADINGS, stage, strict=True))
        + "</tr>"
        for stage in stage_basis(trusts)
    )


_STAGE_HEADINGS = ("method", "does", "rests on")


def manifest(line: Line, name: str) -> str:
    """The manifest of a case: its question with hashes, starts and solvers, and what the verdicts rest on."""
    case = line.case
    asked = {key: value for key, value in case.question.to_json().items() if key != PLACES}
    entries = [("run", case.title), *_entries(asked)]
    for number, start in enumerate(case.run.starts, start=1):
        entries += [(f"start {number}: {key}", value) for key, value in _entries(start.to_json())]
    rows = "".join(f"<div><dt>{html(key)}</dt><dd>{html(case.bare(value))}</dd></div>" for key, value in entries)
    said = footer(line.tally, case.question, case.run.solvers)
    rests = "".join(f"<li>{html(case.bare(text))}</li>" for text in said)
    return f"<details><summary>{html(name)}</summary><ul>{rests}</ul><dl>{rows}</dl></details>"


def _entries(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted keys, and values as text."""
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in dotted(record)]
