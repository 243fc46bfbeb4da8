"""The page of text beside each figure: a template, filled in from the rows and from nothing else."""

from __future__ import annotations

import csv
import io
import platform
from dataclasses import asdict, fields
from importlib.metadata import version
from string import Template
from typing import TYPE_CHECKING, Any

from study import PUBLISHED, Model, Result, StudyCase, StudySettings

import qverify
from qverify.files.hashes import file_sha256
from qverify.report.numbers import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PAGE = Template("""# $title

![$title]($plot.svg)

$shown

$convention

$findings

$tables

## How it was made

    $command

makes `data.csv`, `$plot.png`, `$plot.svg` and this page. $single

    $example

$details

| network | sha256 of its file |
|---|---|
$models

$versions
""")

CONVENTIONS = (
    "Radii are half-widths. Scheme `paper`, rounding `any`: 2^-b for inputs, 2^-(b-1) for weights, biases and"
    " activations, that is plus or minus one whole step of a quantiser for inputs in [0, 1] and weights in [-1, 1], by"
    " whatever rule it rounds. Scheme `channel`, rounding `nearest`: half a step of a quantiser with one step an output"
    " channel, and activations over their range on these samples; what a b-bit integer quantiser gets that rounds to"
    " nearest."
)
"""What a bit-width means in figures 2 and 3."""


def page(settings: StudySettings, models: Sequence[Model], parts: dict[str, str]) -> str:
    """The whole page; `parts` are the placeholders of the template that differ from figure to figure."""
    first = f"The first {settings.samples}" if settings.samples is not None else "All"
    details = [f"{first} test images of `{settings.data}`.", parts.get("limits", ""), _published(models)]
    common = {
        "details": " ".join(sentence for sentence in details if sentence),
        "models": "\n".join(
            f"| `{model.name}` | `{file_sha256(str(settings.path(model)))[:16]}` |" for model in models
        ),
        "versions": versions(),
    }
    return _PAGE.substitute(common | parts)


def _published(models: Sequence[Model]) -> str:
    if any(model.published for model in models):
        return "Networks called `published` are ONNX conversions of those that the authors of the method published."
    return f"The published networks were not at hand, so they are left out; `${PUBLISHED}` names their folder."


def versions() -> str:
    """qverify, Python and the packages that numbers may depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("highspy", "numpy", "torch", "onnx"))
    return f"qverify {qverify.__version__}, Python {platform.python_version()}, {packages}."


def limits(settings: StudySettings, results: Sequence[Result]) -> str:
    """The time limits of the runs that go on to the exact step, and what they left undecided."""
    exact = [result for result in results if result.attack is not None]
    each = [f"{limit:g}" for limit in sorted({result.timeout for result in exact})]
    seconds = " or ".join(filter(None, (", ".join(each[:-1]), each[-1])))
    return (
        f"The exact step had {seconds} s a sample, as data.csv says for each run;"
        f" {sum(result.unknown for result in exact)} of {sum(result.samples for result in exact)} answers stayed"
        " undecided. Seconds are summed over the samples."
    )


def command(settings: StudySettings, number: int) -> str:
    """The command that makes the figure as it is."""
    default = StudySettings()
    words = ["python results/figures.py --only", str(number)]
    for name in ("data", "samples", "timeout", "timeout_normal"):
        if (value := getattr(settings, name)) != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return " ".join(words)


def verify_command(settings: StudySettings, case: StudyCase) -> str:
    """The command that repeats one run."""
    family = f"--bits {case.bits} --scheme {case.scheme} --rounding {case.rounding}"
    how = f"--method {case.method} --timeout {settings.limit(case.model):g}{selection(settings)}"
    return f"qverify verify {location(case.model)} --data {settings.data} {family} {how}"


def selection(settings: StudySettings) -> str:
    return "" if settings.samples is None else f" --samples 0:{settings.samples}"


def location(model: Model) -> str:
    return f"${PUBLISHED}/{model.name}.onnx" if model.published else f"models/{model.name}.onnx"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def accuracy(result: Result) -> str:
    """The guaranteed accuracy, and up to what it could be if samples are undecided after an attack."""
    proved = percent(result.guaranteed, result.samples)
    if result.attack is None or not result.unknown:
        return proved
    return f"{proved.removesuffix(' %')} to {percent(result.attack, result.samples)}"


def results_csv(results: Iterable[Result]) -> str:
    """The content of data.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    return text.getvalue()
