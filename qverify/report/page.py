"""The report as one HTML page, complete in itself: no file and no network is needed to show it.

The page is the template data/report.html with its style and its script. Whatever comes from a run is escaped, and
the page's own policy lets nothing run but that script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from qverify.files.dotted import dotted
from qverify.files.places import PLACES
from qverify.report.claim import claim
from qverify.report.curves import Curve, curves, svg
from qverify.report.layers import Layers, layers_of
from qverify.report.numbers import footer, percent, stage_basis, trust
from qverify.report.page_rows import DIGITS, packed
from qverify.report.pictures import Gallery, Picture, galleries
from qverify.report.sources import Sources
from qverify.report.table import ACCURACIES, HEADINGS, Line, identities, labels
from qverify.report.text import csv_table, legend, notes
from qverify.text.escapes import printable
from qverify.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qverify.runs.reading import StoredCase


class _Page(Template):
    """A template whose places begin with `@@`, which neither CSS nor scripts use."""

    delimiter = "@@"


def page(
    lines: Sequence[Line],
    tell: Callable[[str], None] = lambda sentence: None,
    title: str | None = None,
    required: Sequence[str] = (),
) -> str:
    """The whole page for the lines of `lines_of`; `tell` hears how far it is.

    `required`: on each line whether it passes what is required of it (claim.py), nothing where nothing is.
    """
    cases, sources = [line.case for line in lines], Sources()
    script = _asset("page.js")
    total = sum(line.tally.samples for line in lines)
    models = ", ".join(dict.fromkeys(case.model for case in cases))
    name = dict(zip(cases, labels(lines), strict=True))
    sections = {
        "summary": _summary(lines),
        "notes": "".join(f"<li>{_text(note)}</li>" for note in notes(lines)),
        "curves": "".join(map(_curve, curves(lines))),
        "pictures": "".join(_gallery(found, name[found.case]) for found in galleries(cases, sources))
        or "<p>No sample was falsified.</p>",
        "layers": "".join(_layers(found, name[found.case]) for found in layers_of(cases, sources, tell)),
        "stages": _stages(cases),
        "manifest": "".join(_manifest(line, name[line.case]) for line in lines),
    }
    return _Page(_asset("page.html")).substitute(
        sections,
        title=_text(title or f"qverify report: {models}"),
        top=_text(title or "qverify report"),
        claims=_claims(lines, list(name.values()), required),
        policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_asset("page.css"),
        script=script,
        rows=packed(cases, list(name.values())),
        heading=_text(f"{len(lines)} {'case' if len(lines) == 1 else 'cases'}, {total} verdicts: {models}."),
        no_curves="" if sections["curves"] else "hidden",
        no_notes="" if sections["notes"] else "hidden",
        csv=base64.b64encode(csv_table(lines).encode()).decode(),
        version=_text(__version__),
        digits=str(DIGITS),
    )


def _claims(lines: Sequence[Line], names: Sequence[str], required: Sequence[str]) -> str:
    """What is required and passed or not, and what each case proves; of many, behind a line to unfold."""
    kinds = {False: "failed", True: "passed"}
    said = [f'<p class="{kinds[one.startswith("passed")]}">{_text(one)}</p>' for one in required]
    proved = [_text(claim(line)) for line in lines]
    if len(proved) == 1:
        return "".join([*said, f'<p class="claim">{proved[0]}</p>'])
    items = "".join(f"<li><b>{_text(name)}.</b> {one}</li>" for name, one in zip(names, proved, strict=True))
    summary = f"What exactly is proved: {len(proved)} cases"
    return "".join([*said, f'<details class="claim"><summary>{summary}</summary><ul>{items}</ul></details>'])


def _text(text: str) -> str:
    """`text` as HTML, for elements and for attributes in quotes."""
    return escape(printable(text))


def _asset(name: str) -> str:
    return resources.files("qverify.report").joinpath(name).read_text(encoding="utf-8")


# -- the table, and curves ------------------------------------------------------------------------


def _summary(lines: Sequence[Line]) -> str:
    """The table and its legend; each cell repeats its heading for narrow screens."""
    shown, common = identities(lines)
    headings = [*shown, "samples", *HEADINGS.values(), "unknown", "seconds"]
    letters = {name: min(_LETTERS, max(map(len, texts))) for name, texts in shown.items()}
    head = "".join(
        f'<th scope="col"{"" if heading in shown else _NUMBER}>{_text(heading)}</th>' for heading in headings
    )
    body = []
    for number, line in enumerate(lines):
        total = line.tally.samples
        names = "".join(_name(name, texts[number], letters[name]) for name, texts in shown.items())
        cells = [("samples", str(total))]
        cells += [(HEADINGS[name], _share(line.count(name), total)) for name in ACCURACIES]
        cells += [("unknown", str(line.tally.statuses["unknown"])), ("seconds", f"{line.seconds:.2f}")]
        body.append(f"<tr>{names}{''.join(_cell(name, text, _NUMBER) for name, text in cells)}</tr>")
    said = [f"All: {common}."] if common else []
    below = "".join(f'<p class="legend">{_text(text)}</p>' for text in [*said, *legend(lines)])
    many = ' class="many"' if len(shown) > _BESIDE else ""
    head, rows = f"<thead><tr>{head}</tr></thead>", "".join(body)
    return f'<table id="summary"{many}>{head}<tbody>{rows}</tbody></table>{below}'


_NUMBER = ' class="number"'
_LETTERS = 18
"""Of a name, so many letters have room on a line at least."""
_BESIDE = 3
"""So many columns of names have room beside the numbers on paper."""


def _cell(name: str, content: str, more: str = "") -> str:
    return f'<td data-label="{_text(name)}"{more}><span>{content}</span></td>'


def _name(name: str, text: str, letters: int) -> str:
    """A cell whose column has room for at least so many letters."""
    return _cell(name, _text(text), f' class="name" style="--letters:{letters}"')


def _share(count: int, total: int) -> str:
    return f"{percent(count, total)} <small>{count}</small>"


def _curve(curve: Curve) -> str:
    return f"<figure>{svg(curve)}<figcaption>{_text(curve.title)}</figcaption></figure>"


# -- falsified samples ----------------------------------------------------------------------------


def _gallery(gallery: Gallery, name: str) -> str:
    """The pictures of one case under its name."""
    shown = len(gallery.pictures)
    words = f"{gallery.falsified} falsified" + (f", {shown} of them shown" if 0 < shown < gallery.falsified else "")
    lost = f'<p class="missing">{_text(gallery.missing)}</p>' if gallery.missing else ""
    pictures = "".join(map(_picture, gallery.pictures))
    return f'<h3>{_text(name)}: {words}</h3>{lost}<div class="gallery">{pictures}</div>'


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


def _layers(layers: Layers, name: str) -> str:
    """Bars of the unstable neurons of each Relu of one case; the layer with the most is marked."""
    title = f"<h3>{_text(name)}</h3>"
    if not layers.relus:
        why = _text(layers.missing or "The network has no Relu.")
        return f'<div>{title}<p class="missing">{why}</p>{_points(layers)}</div>'
    counts = [(relu, relu.ibp, relu.bp or 0.0) for relu in layers.relus]
    most = max(bp for _, _, bp in counts)
    rows = []
    for relu, ibp, bp in counts:
        mark = ' class="most"' if bp == most > 0 else ""
        cells = "".join(
            f'<td class="number">{mean:.1f}<meter max="{relu.size}" value="{mean:.3f}"></meter></td>'
            for mean in (ibp, bp)
        )
        rows.append(f'<tr{mark}><td>{_text(relu.name)}</td><td class="number">{relu.size}</td>{cells}</tr>')
    other = " This version of qverify makes other radii than those of the run, and took its own." * layers.other_radii
    head = '<th>layer</th><th class="number">neurons</th><th class="number">by IBP</th><th class="number">after BP</th>'
    return (
        f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="legend">Unstable neurons, the mean over {layers.samples} samples.{other}</p>{_points(layers)}</div>'
    )


def _points(layers: Layers) -> str:
    """Where values are rounded, and what of this model is not covered; nothing where there is nothing to say."""
    parts = [("Rounding points", layers.rounded), ("Not covered, or to be known", layers.beyond)]
    found = ""
    for title, said in parts:
        listed = "".join(f"<li>{_text(one)}</li>" for one in said)
        found += f"<details><summary>{title}: {len(said)}</summary><ul>{listed}</ul></details>" if said else ""
    return found


# -- manifest -------------------------------------------------------------------------------------


def _stages(cases: Sequence[StoredCase]) -> str:
    """The rows of the table of stages: those of the exact step say what the cases that ask for it rest on."""
    trusts = [trust(case.question, case.run.solvers) for case in cases if case.question.method in ("auto", "exact")]
    return "".join(
        "<tr>"
        + "".join(_cell(heading, _text(text)) for heading, text in zip(_STAGE_HEADINGS, stage, strict=True))
        + "</tr>"
        for stage in stage_basis(trusts)
    )


_STAGE_HEADINGS = ("method", "does", "rests on")


def _manifest(line: Line, name: str) -> str:
    """The manifest of a case: its question with hashes, starts and solvers, and what the verdicts rest on."""
    case = line.case
    asked = {key: value for key, value in case.question.to_json().items() if key != PLACES}
    entries = [("run", case.title), *_entries(asked)]
    for number, start in enumerate(case.run.starts, start=1):
        entries += [(f"start {number}: {key}", value) for key, value in _entries(start.to_json())]
    rows = "".join(f"<div><dt>{_text(key)}</dt><dd>{_text(case.bare(value))}</dd></div>" for key, value in entries)
    said = footer(line.tally, case.question, case.run.solvers)
    rests = "".join(f"<li>{_text(case.bare(text))}</li>" for text in said)
    return f"<details><summary>{_text(name)}</summary><ul>{rests}</ul><dl>{rows}</dl></details>"


def _entries(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted keys, and values as text."""
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in dotted(record)]
