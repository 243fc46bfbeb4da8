"""Figure 1: guaranteed accuracy against the radius by IBP, normal and robust, a curve for every quantised part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pages
from study import NORMAL, PUBLISHED_NORMAL, PUBLISHED_ROBUST, ROBUST, StudySettings, swept

from qverify.analysis.sweeps import PARTS, SweepRow
from qverify.report import plots
from qverify.report.numbers import percent
from qverify.runs.sweep import sweep_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VALUES = (0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032)
FOLDER = "figure1_radius"
MODELS = (NORMAL, ROBUST[1], PUBLISHED_NORMAL, PUBLISHED_ROBUST[0])
_SHARE = 0.9


def make(settings: StudySettings) -> Path:
    """Compute what is missing, then write the folder of the figure; returns it."""
    models = settings.here(MODELS)
    rows = swept(models, VALUES, settings)
    folder = settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text(sweep_csv(rows, header=True))
    title = f"Guaranteed by interval bounds, {rows[0].samples} samples of {settings.data}; radii are half-widths"
    plots.save_figure(plots.sweep_figure(rows, title), folder / "radius")
    files = " ".join(pages.location(model) for model in models)
    text = {
        "title": "Guaranteed accuracy against the radius",
        "plot": "radius",
        "shown": "One panel a network, one curve for every part that is quantised while the rest stays exact. A point"
        " is the share of test images for which interval bounds (IBP) prove that every network within the radius"
        " answers right. The dotted line is the accuracy of the network itself.",
        "convention": "The radius is a half-width, in the unit of the tensor, and the same number for every quantised"
        " kind: inputs, weights and biases together, activations.",
        "findings": _findings(rows),
        "tables": _table(rows),
        "command": pages.command(settings, 1),
        "single": "The same from the command line:",
        "example": f"qverify sweep {files} --data {settings.data} --method ibp --values"
        f" {','.join(f'{value:g}' for value in VALUES)}{pages.selection(settings)} --out DIR",
    }
    (folder / "README.md").write_text(pages.page(settings, models, text))
    return folder


def _findings(rows: Sequence[SweepRow]) -> str:
    """A sentence a network: where `all` has fallen below half, and which single kind costs most there."""
    sentences = []
    for model in dict.fromkeys(row.model for row in rows):
        own = {(row.part, row.place): row for row in rows if row.model == model}
        clean = own["all", 0.0]
        below = [value for value in VALUES if 2 * own["all", value].guaranteed < clean.clean]
        name = f"`{model}` (clean {percent(clean.clean, clean.samples)})"
        if not below:
            last = own["all", VALUES[-1]]
            sentences.append(
                f"- {name}: with everything quantised still {percent(last.guaranteed, last.samples)} are guaranteed"
                f" at the largest radius, {VALUES[-1]:g}."
            )
            continue
        singles = sorted(("input", "weight", "activation"), key=lambda part: own[part, below[0]].guaranteed)
        costs = ", ".join(f"{part} {percent(own[part, below[0]].guaranteed, clean.samples)}" for part in singles)
        sentences.append(
            f"- {name}: with everything quantised, radius {below[0]:g} is the first of those computed that leaves less"
            f" than half of the clean accuracy, {percent(own['all', below[0]].guaranteed, clean.samples)}. There, one"
            f" kind alone leaves: {costs}."
        )
    return "\n".join(sentences)


def _table(rows: Sequence[SweepRow]) -> str:
    """Per network and part the largest radius that keeps most of the clean accuracy."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        cells = []
        for part in PARTS:
            kept = [r.place for r in rows if (r.model, r.part) == (model, part) and r.guaranteed >= _SHARE * r.clean]
            cells.append(f"{max(kept):g}" if kept else "none")
        lines.append([f"`{model}`", *cells])
    return (
        f"The largest radius computed at which at least {_SHARE:.0%} of the images that the network gets right are"
        " guaranteed:\n\n" + pages.table(["network", *PARTS], lines)
    ).replace("90%", "90 %")
