"""Figure 2: normal against robust networks at 6, 8 and 10 bits, by exact verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import charts
import pages
from study import (
    CONVENTIONS,
    NORMAL,
    PUBLISHED_NORMAL,
    PUBLISHED_ROBUST,
    PUBLISHED_SMALL,
    ROBUST,
    SMALL,
    Result,
    StudyCase,
    StudySettings,
    decided,
)

from qverify.report import plots
from qverify.report.numbers import percent

if TYPE_CHECKING:
    from pathlib import Path

BITS = (6, 8, 10)
FOLDER = "figure2_normal_robust"
MODELS = (NORMAL, *ROBUST, SMALL, PUBLISHED_NORMAL, *PUBLISHED_ROBUST, PUBLISHED_SMALL)
Found = Sequence[tuple[StudyCase, Result]]


def make(settings: StudySettings) -> Path:
    """Compute what is missing, then write the folder of the figure; returns it."""
    models = settings.here(MODELS)
    cases = [
        StudyCase(model=model, bits=bits, scheme=scheme, rounding=rounding, method="auto")
        for scheme, rounding in CONVENTIONS
        for bits in BITS
        for model in models
        if model.bits in (None, bits)
    ]
    found = [(case, decided(case, settings)) for case in cases]
    results = [result for _, result in found]
    folder = settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text(pages.results_csv(results))
    content = [
        charts.Bar(case.convention, f"{case.bits} bits", case.model.label.split(",")[0], result)
        for case, result in found
    ]
    title = f"Guaranteed by exact verification, {results[0].samples} samples of {settings.data}; everything quantised"
    plots.save_figure(charts.bars(content, title), folder / "normal_robust")
    text = {
        "title": "Normal against robust networks",
        "plot": "normal_robust",
        "shown": "Inputs, weights, biases and activations are all quantised. A bar is the share of test images for"
        " which every network within the radii answers right, decided from cheap bounds to the exact step; an outline"
        " above it is what stayed undecided; the line is the accuracy of the network itself. A robust network is the"
        " one trained for the bits it is shown at.",
        "convention": pages.CONVENTIONS,
        "findings": _findings(found),
        "tables": _tables(found),
        "command": pages.command(settings, 2),
        "single": "One of its runs from the command line:",
        "example": pages.verify_command(settings, cases[0]),
        "limits": pages.limits(settings, results),
    }
    (folder / "README.md").write_text(pages.page(settings, models, text))
    return folder


def _findings(found: Found) -> str:
    """A sentence a bit-width and convention: the robust network against the normal one of the same shape."""
    sentences = []
    for robust, result in found:
        if robust.model not in ROBUST:
            continue
        normal = next(
            other
            for case, other in found
            if (case.model, case.bits, case.convention) == (NORMAL, robust.bits, robust.convention)
        )
        gain = 100 * (result.guaranteed - normal.guaranteed) / result.samples
        cost = 100 * (result.clean - normal.clean) / result.samples
        sentences.append(
            f"- {robust.bits} bits, {robust.convention}: {pages.accuracy(result)} guaranteed for the robust network,"
            f" {pages.accuracy(normal)} for the normal one ({gain:+.2f} points); clean"
            f" {percent(result.clean, result.samples)} and {percent(normal.clean, normal.samples)} ({cost:+.2f})."
        )
    return "\n".join(sentences)


def _tables(found: Found) -> str:
    """A table a convention."""
    headings = ["network", "bits", "clean", "guaranteed", "a member fails", "undecided", "seconds"]
    parts = []
    for convention in dict.fromkeys(case.convention for case, _ in found):
        rows = [
            [
                f"`{case.model.name}`",
                case.bits,
                percent(result.clean, result.samples),
                percent(result.guaranteed, result.samples),
                percent(result.clean - (result.attack or 0), result.samples),
                result.unknown,
                f"{result.seconds:.0f}",
            ]
            for case, result in found
            if case.convention == convention
        ]
        parts.append(f"{convention[0].upper()}{convention[1:]}:\n\n{pages.table(headings, rows)}")
    return "\n\n".join(parts)
