"""The options that commands share. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qverify.choices import (
    DISCREPANCY_METHODS,
    FACTOR_METHODS,
    FILE_ROUNDING,
    FORMULATIONS,
    INPUTS,
    ROUNDINGS,
    SOLVER_CHOICES,
    UNSTABLE_METHODS,
    VERIFY_METHODS,
)
from qverify.cli.quantiser_options import scheme_options
from qverify.cli.words import BitWidth, Factor, OneOf, words_of

SHARES = ("clean", "ibp", "bp", "guaranteed", "attack")
"""Of the samples, those that tables of reports show."""
REPORT_FORMS = ("terminal", "markdown", "csv", "latex", "html")
FAILING = ("falsified", "unknown", "misclassified")
GAPS = ("exceeds", "unknown")
"""What `compare --fail-on` may name."""

Command = TypeVar("Command", bound=Callable[..., Any])


def problem_options(data_required: bool) -> Callable[[Command], Command]:
    """Options for the network, the samples and the family."""
    return stacked(
        click.argument("model"),
        output_option,
        *samples_options(data_required),
        bits_option,
        *scheme_options(),
        radii_option,
        *_bound_options(),
    )


def sweep_options() -> Callable[[Command], Command]:
    """Options for networks, samples and families."""
    return stacked(
        click.argument("models", nargs=-1, required=True, metavar="MODEL..."),
        *samples_options(required=True),
        click.option(
            "--values",
            metavar="LIST",
            help="The radii themselves, joined by commas: the same for every kind in a part.",
        ),
        click.option("--bits", metavar="LO:HI", help="Instead of --values: one point a bit-width, both ends included."),
        *scheme_options(),
        click.option(
            "--parts",
            metavar="LIST",
            help="What is quantised while the rest is exact: input, weight (with biases), activation, two of them as "
            "in input+weight, or all; joined by commas, a curve each.  [default: all seven]",
        ),
        *_bound_options(),
    )


def inspect_options() -> Callable[[Command], Command]:
    """Options for counting unstable neurons."""
    return stacked(
        click.option(
            "--method",
            type=click.Choice(UNSTABLE_METHODS),
            default="bp",
            show_default=True,
            help="Bounds by which neurons are called unstable. bp: those of IBP, and those of BP at every layer.",
        ),
        click.option(
            "--timeout",
            type=float,
            default=60.0,
            show_default=True,
            metavar="S",
            help="Seconds for counting; means are over the samples that were counted by then. inf: no limit.",
        ),
    )


def compare_options() -> Callable[[Command], Command]:
    """Two models, samples, the rule of the runtimes, and what is asked of the gap."""
    return stacked(
        click.argument("model"),
        click.argument("file"),
        *samples_options(required=True),
        click.option(
            "--rounding",
            type=OneOf(ROUNDINGS),
            default=FILE_ROUNDING,
            show_default=True,
            help="The rule by which the runtimes of FILE round.",
        ),
        click.option(
            "--epsilon",
            type=float,
            metavar="E",
            help="Decide for every sample whether every output of every runtime is within E of the network's.",
        ),
        click.option(
            "--input-radius",
            type=float,
            default=0.0,
            metavar="R",
            help="Also for all inputs up to R away from the samples, both models reading the same.  [default: 0]",
        ),
        clip_option,
        click.option(
            "--input",
            type=OneOf(INPUTS),
            default=INPUTS[0],
            help="Of the inputs around a sample all, or exact: those on the grid of FILE's input, as pixels k/255 at"
            " 8 bits.  [default: rounded]",
        ),
        click.option(
            "--fail-on",
            callback=words_of(GAPS),
            metavar="LIST",
            help=f"Exit with status 1 if a sample is one of LIST: {', '.join(GAPS)}, joined by commas.",
        ),
    )


def covers_options() -> Callable[[Command], Command]:
    """Two models, a family, and the rule of the runtimes."""
    return stacked(
        click.argument("model"),
        click.argument("file"),
        click.option("--run", metavar="DIR", help="The family of a run that `qverify verify --out` wrote, instead."),
        click.option(
            "--rule",
            type=OneOf(ROUNDINGS),
            help="The rule by which the runtimes of FILE round.  [default: that of the family]",
        ),
        click.option(
            "--data",
            metavar="NAME|FILE.npz",
            help="Samples to take ranges from, for --scheme tensor and channel: a name, or a file.",
        ),
        input_scale_option,
        bits_option,
        *scheme_options(),
        radii_option,
        clip_option,
    )


def radius_options() -> Callable[[Command], Command]:
    """Options for the factors, and for a search layer by layer."""
    return stacked(
        click.option(
            "--max-factor",
            type=float,
            default=16.0,
            show_default=True,
            metavar="F",
            help="The largest factor on the radii that is tried.",
        ),
        click.option(
            "--precision",
            type=float,
            default=0.01,
            show_default=True,
            metavar="P",
            help="How far apart, relative to each other, the ends of a bracket are when it is done.",
        ),
        click.option(
            "--accuracy",
            type=float,
            metavar="SHARE",
            help="Also layer by layer: the largest radius at which this share of the samples is proved, 0.9 for 90 %, "
            "while all other layers are exact.",
        ),
        click.option(
            "--layer-method",
            type=click.Choice(FACTOR_METHODS),
            default="bp",
            show_default=True,
            help="What proves the samples layer by layer.",
        ),
    )


def samples_options(required: bool) -> tuple[Callable[[Any], Any], ...]:
    """Options for the samples."""
    return (
        click.option(
            "--data",
            required=required,
            metavar="NAME|FILE.npz",
            help="Samples and labels: digits, mnist, fashion-mnist, cifar10, or an .npz with x_test, y_test (or x, y).",
        ),
        click.option(
            "--samples",
            metavar="N|A:B",
            help="Only the first N samples, or those from A up to, not including, B.  [default: all]",
        ),
        input_scale_option,
    )


def _bound_options() -> tuple[Callable[[Any], Any], ...]:
    return (
        clip_option,
        memory_option,
        click.option(
            "--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where bounds are computed."
        ),
    )


def solve_options(methods: tuple[str, ...], default: str) -> Callable[[Command], Command]:
    """Options for finding the answer."""
    return stacked(
        method_option(methods, default),
        click.option(
            "--formulation",
            type=click.Choice(FORMULATIONS),
            default="relational",
            show_default=True,
            help="The program of the exact step: weights eliminated, or kept as variables (small networks).",
        ),
        solver_option,
        timeout_option,
        click.option(
            "--jobs",
            type=click.IntRange(max=9999),
            default=0,
            metavar="N",
            help="Samples the exact step works on at once.  [default: one a core]",
        ),
    )


def method_option(methods: tuple[str, ...], default: str) -> Callable[[Any], Any]:
    """How the answer is found, one of `methods`."""
    return click.option("--method", type=OneOf(methods), default=default, show_default=True, help=_METHODS[methods])


solver_option = click.option(
    "--solver",
    type=click.Choice(SOLVER_CHOICES),
    default="auto",
    show_default=True,
    help="For the exact step; `qverify solvers` shows which work here.",
)
timeout_option = click.option(
    "--timeout",
    type=float,
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds for one sample, all stages together; then it stays unknown, with its bounds. inf: no limit.",
)
bits_option = click.option(
    "--bits",
    type=BitWidth("qverify sweep takes a range, as in --bits 4:8, and a plan for qverify batch a list", True),
    metavar="N|WxAy",
    help="Radii of the N-bit quantisers that --scheme and --rounding name; W4A8: 4 bits for weights, 8 for "
    "activations.",
)
radii_option = click.option("--radii", metavar="FILE.toml", help="Radii from a file, instead of --bits.")
output_option = click.option(
    "--output",
    metavar="NAME",
    help="Which output of an ONNX model with several is asked about.  [default: the only one beside labels of classes]",
)
clip_option = click.option(
    "--clip-input",
    type=float,
    nargs=2,
    metavar="LO HI",
    help="A quantised input stays between LO and HI, as a pixel between 0 and 1 does.",
)
input_scale_option = click.option(
    "--input-scale",
    type=Factor(),
    metavar="FACTOR",
    help="Multiply the inputs by FACTOR when they are read: 1/255 for pixels from 0 to 255 that are stored as floats.",
)
memory_option = click.option(
    "--memory",
    metavar="SIZE",
    help="Memory to work in, such as 4G or 800M, solvers included.  [default: half of what there is]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")

_METHODS = {
    VERIFY_METHODS: "auto: from cheap to exact, each sample as far as it must. ibp to bp-branched: an attack, and "
    "proofs by bounds alone, up to that stage. exact: the solver on every sample that no attack breaks, for the worst "
    "margin itself.",
    DISCREPANCY_METHODS: "ibp, bp, bp-optimised: sound bounds, each tighter and slower than the one before. exact: the"
    " solver, for both ends of every output, within the last of them.",
    FACTOR_METHODS: "auto: bounds, then an attack, then the solver between what they prove and what they break. ibp, "
    "bp: bounds alone, which say nothing about where samples fail.",
}


def stacked(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Stack several decorators into one; the first comes first in the help."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


split_list = words_of(FAILING)
"""The words of `verify --fail-on`."""
