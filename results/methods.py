"""Figure 3: interval bounds against backward bounds against exact verification, on robust networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import charts
import pages
from study import CONV, CONVENTIONS, PUBLISHED_ROBUST, ROBUST, Model, Result, StudyCase, StudySettings, decided

from qverify.report import plots
from qverify.report.numbers import percent

if TYPE_CHECKING:
    from pathlib import Path

METHODS = {"ibp": "IBP", "bp": "BP", "auto": "exact"}
FOLDER = "figure3_methods"
MODELS = (*ROBUST, CONV, *PUBLISHED_ROBUST)
Found = Sequence[tuple[Model, str, dict[str, Result]]]


def make(settings: StudySettings) -> Path:
    """Compute what is missing, then write the folder of the figure; returns it."""
    models = settings.here(MODELS)
    found = []
    for scheme, rounding in CONVENTIONS:
        for model in models:
            cases = {
                name: StudyCase(model=model, bits=model.bits or 0, scheme=scheme, rounding=rounding, method=name)
                for name in METHODS
            }
            found.append(
                (model, cases["auto"].convention, {name: decided(case, settings) for name, case in cases.items()})
            )
    results = [result for _, _, of in found for result in of.values()]
    folder = settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text(pages.results_csv(results))
    content = [
        charts.Bar(
            convention, model.label.replace("published ", "published\n").replace(", ", "\n"), METHODS[name], result
        )
        for model, convention, of in found
        for name, result in of.items()
    ]
    title = f"Robust networks by method, {results[0].samples} samples of {settings.data}; everything quantised"
    plots.save_figure(charts.bars(content, title), folder / "methods")
    scheme, rounding = CONVENTIONS[0]
    last = StudyCase(model=models[0], bits=models[0].bits or 0, scheme=scheme, rounding=rounding, method="bp")
    text = {
        "title": "Interval bounds, backward bounds, exact",
        "plot": "methods",
        "shown": "Every robust network at the bits it was trained for; inputs, weights, biases and activations are all"
        " quantised. A bar is the share of test images proved right for every network within the radii: by interval"
        " bounds (IBP), by these and backward bounds (BP), and going on to the exact step where both prove too little."
        " An outline above a bar of the exact step is what stayed undecided.",
        "convention": pages.CONVENTIONS,
        "findings": _findings(found),
        "tables": _tables(found),
        "command": pages.command(settings, 3),
        "single": "One of its runs from the command line (which also looks for failing networks):",
        "example": pages.verify_command(settings, last),
        "limits": pages.limits(settings, results) + _independent(results),
    }
    (folder / "README.md").write_text(pages.page(settings, models, text))
    return folder


def _findings(found: Found) -> str:
    """A sentence a network and convention: how many proofs need more than the bounds."""
    sentences = []
    for model, convention, of in found:
        exact, bp, ibp = of["auto"], of["bp"], of["ibp"]
        beyond = ""
        if exact.guaranteed:
            beyond = (
                f"; of these {exact.guaranteed} proofs {exact.guaranteed - ibp.guaranteed} are beyond IBP"
                f" ({percent(exact.guaranteed - ibp.guaranteed, exact.guaranteed)}) and"
                f" {exact.guaranteed - bp.guaranteed} beyond BP"
            )
        sentences.append(
            f"- {model.label}, {convention}: {pages.accuracy(exact)} guaranteed by the exact step{beyond}."
        )
    return "\n".join(sentences)


def _tables(found: Found) -> str:
    headings = ["network", "bits", "clean", "IBP", "BP", "exact", "undecided", "seconds: IBP", "BP", "exact"]
    parts = []
    for convention in dict.fromkeys(convention for _, convention, _ in found):
        rows = [
            [
                f"`{model.name}`",
                model.bits,
                percent(of["auto"].clean, of["auto"].samples),
                *(percent(of[name].guaranteed, of[name].samples) for name in METHODS),
                of["auto"].unknown,
                *(f"{of[name].seconds:.1f}" for name in METHODS),
            ]
            for model, own, of in found
            if own == convention
        ]
        parts.append(f"{convention[0].upper()}{convention[1:]}:\n\n{pages.table(headings, rows)}")
    return "\n\n".join(parts)


def _independent(results: Sequence[Result]) -> str:
    """What the exact step of convolutions means."""
    count = sum(result.independent_positions for result in results)
    if not count:
        return ""
    return (
        f" For {count} answers the exact step took the positions of convolutions as independent: sound, but some of"
        " what it leaves open may hold, and it falsifies nothing."
    )
