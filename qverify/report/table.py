"""The verified-accuracy table: a line a case, every number counted from its rows.

Every form a report takes (terminal, Markdown, CSV, LaTeX, HTML) shows these lines in this order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.verification.row import STATUSES
from qverify.verification.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.runs.reading import StoredCase

ACCURACIES = ("clean", "ibp", "bp", "guaranteed", "attack")
"""Shares of the samples, by the names they have in `Tally`."""

HEADINGS = {"clean": "clean", "ibp": "IBP", "bp": "BP", "guaranteed": "guaranteed", "attack": "attack"}
MEANINGS = (
    "clean: the network itself, before quantisation, is right",
    "IBP: verified by interval bounds",
    "BP: verified by bounds alone, interval or backward",
    "guaranteed: verified, by bounds or the exact step",
    "attack: no failing network is known",
    "unknown: neither verified nor falsified",
    "seconds: of computing, summed over the samples",
)
EXACT_ONLY = "Method exact sends every sample to the solver, so its IBP and BP are 0."


@dataclass(frozen=True, eq=False, repr=False)
class Line(Brief):
    """A line of the table: one case, and the counts of its rows.

    `marks`: what tells its model and its data from others of the same name, empty where there are none.
    """

    case: StoredCase
    marks: tuple[str, str] = ("", "")

    @property
    def model(self) -> str:
        """The name of the model, as no other model of the report has it."""
        return self.case.model + self.marks[0]

    @property
    def data(self) -> str:
        """The name of the data, as no other data of the report have it."""
        return self.case.data + self.marks[1]

    @cached_property
    def tally(self) -> Tally:
        """The counts of the rows."""
        return Tally.of(self.case.rows)

    def count(self, accuracy: str) -> int:
        """The number of samples that an accuracy of `ACCURACIES` counts."""
        return int(getattr(self.tally, accuracy))

    @property
    def seconds(self) -> float:
        """Seconds of computing, summed over the samples."""
        return float(sum(self.tally.seconds.values()))

    def record(self) -> dict[str, str | int | float | None]:
        """The CSV row: counts as integers, accuracies as fractions (None without samples)."""
        case, total, question = self.case, self.tally.samples, self.case.question
        low, high = question.clip_input or (None, None)
        counts = {name: self.count(name) for name in ACCURACIES}
        return {
            "run": case.run.name,
            "case": printable(case.name),
            "model": case.model,
            "model_sha256": printable(question.model_sha256 or ""),
            "data": case.data,
            "data_sha256": printable(question.data_sha256 or ""),
            "first": question.samples[0],
            "stop": question.samples[1],
            "bits": case.bits,
            "convention": case.bare(question.radii.convention),
            "clip_low": low,
            "clip_high": high,
            "method": case.method,
            "samples": total,
            **counts,
            **{status: self.tally.statuses[status] for status in STATUSES if status != "verified"},
            **{f"{name}_accuracy": count / total if total else None for name, count in counts.items()},
            "seconds": round(self.seconds, 6),
        }


def lines_of(cases: Sequence[StoredCase]) -> list[Line]:
    """The lines in order: by model, data, convention, bits, method, then samples and run."""

    def place(case: StoredCase) -> tuple[object, ...]:
        texts = (case.model, case.data, case.convention)
        bits = -1 if case.bits is None else case.bits
        rest = (case.radii, case.method)
        return (*map(_natural, texts), bits, *map(_natural, rest), case.question.samples, _natural(case.title))

    return marked(sorted(cases, key=place))


def marked(cases: Sequence[StoredCase]) -> list[Line]:
    """The lines in the order of the cases; files of one name and other bytes get their sha256 behind it."""
    models = _marks([(case.model, case.question.model_sha256) for case in cases])
    data = _marks([(case.data, case.question.data_sha256) for case in cases])
    return [Line(*found) for found in zip(cases, zip(models, data, strict=True), strict=True)]


def _marks(files: Sequence[tuple[str, str | None]]) -> list[str]:
    several = {name for name, own in files if any(other == name and sha256 != own for other, sha256 in files)}
    return [f" ({printable((own or 'unknown')[:_HASH])})" if name in several else "" for name, own in files]


_HASH = 8
"""Digits of a hash that tell files apart."""


def identities(lines: Sequence[Line]) -> tuple[dict[str, list[str]], str]:
    """The columns that tell the lines apart, heading -> cells; and in one phrase what is the same for all."""
    columns = {
        "model": [line.model for line in lines],
        "radii": [line.case.radii for line in lines],
        "convention": [line.case.convention for line in lines],
        "data": [line.data for line in lines],
        "range": ["{}:{}".format(*line.case.question.samples) for line in lines],
        "method": [line.case.method for line in lines],
    }
    shown = {name: cells for name, cells in columns.items() if name in ("model", "radii") or len(set(cells)) > 1}
    if len(set(zip(*shown.values(), strict=True))) < len(lines):
        shown["run"] = [line.case.title for line in lines]
    names = {"convention": "{}", "data": "data {}", "range": "samples {}", "method": "method {}"}
    common = [
        names[name].format(cells[0]) for name, cells in columns.items() if name not in shown and cells and cells[0]
    ]
    return shown, ", ".join(common)


def labels(lines: Sequence[Line]) -> list[str]:
    """A short name for each line, no two alike: model, radii, and what else it takes to tell it from the others."""
    shown, _ = identities(lines)
    names = [""] * len(lines)
    for heading, cells in shown.items():
        longer = [", ".join(part for part in pair if part) for pair in zip(names, cells, strict=True)]
        if heading in ("model", "radii") or len(set(longer)) > len(set(names)):
            names = longer
    return names


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key under which `8bit` comes before `10bit`; numbers are compared as text, as they may be of any length."""
    parts = re.split(r"([0-9]+)", text)
    digits = [part.lstrip("0") for part in parts]
    return [(0, len(own), own) if k % 2 else (1, 0, parts[k]) for k, own in enumerate(digits)]
