"""The options that commands share. Imports nothing that takes time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from qverify.choices import (
    BATCHNORMS,
    DISCREPANCY_METHODS,
    FACTOR_METHODS,
    FILE_ROUNDINGS,
    FORMULATIONS,
    KERNELS,
    ROUNDINGS,
    SCHEMES,
    SOLVER_CHOICES,
    UNSTABLE_METHODS,
    VERIFY_METHODS,
)
from qverify.errors import UsageError
from qverify.text.shortened import quoted

REPORT_FORMS = ("terminal", "markdown", "csv", "latex", "html")
FAILING = ("falsified", "unknown", "misclassified")

Command = TypeVar("Command", bound=Callable[..., Any])


class BitWidth(click.types.IntParamType):
    """The type of one bit-width; a list or a range is refused with the name of a command that takes several."""

    def __init__(self, several: str):
        self.several = several

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and re.fullmatch(r"\s*\d*\s*[,:;][\d\s,:;]*|\s*\d+\s*-\s*\d+\s*", value, re.ASCII):
            raise UsageError(f"--bits takes one bit-width here, not {quoted(value)}; {self.several}.")
        return super().convert(value, param, ctx)


class Factor(click.types.FloatParamType):
    """The type of a number above 0, or a quotient of two, as in 1/255."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts: list[Any] = value.split("/") if isinstance(value, str) else [value]
        numbers = [super(Factor, self).convert(part, param, ctx) for part in parts[:2]]
        quotient = numbers[0] / numbers[1] if numbers[1:] and numbers[1] else numbers[0]
        if len(parts) > 2 or not all(0 < number < math.inf for number in (*numbers, quotient)):
            self.fail(f"{quoted(str(value))} is no number above 0, such as 255 or 1/255.", param, ctx)
        return quotient


class OneOf(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """The type of one word of several; a list of them is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        words = value.split(",") if isinstance(value, str) else []
        if param is not None and len(words) > 1 and all(word.strip() in self.choices for word in words):
            raise UsageError(
                f"{param.opts[0]} takes one of {', '.join(self.choices)}, not {quoted(value)}; a plan for qverify batch"
                " takes several."
            )
        return str(super().convert(value, param, ctx))


def problem_options(data_required: bool) -> Callable[[Command], Command]:
    """Options for the network, the samples and the family."""
    return stacked(
        click.argument("model"),
        *_samples_options(data_required),
        click.option(
            "--bits",
            type=BitWidth("qverify sweep takes a range, as in --bits 4:8, and a plan for qverify batch a list"),
            metavar="N",
            help="Radii of the N-bit quantisers that --scheme and --rounding name.",
        ),
        *_scheme_options(),
        click.option("--radii", metavar="FILE.toml", help="Radii from a file, instead of --bits."),
        *_bound_options(),
    )


def sweep_options() -> Callable[[Command], Command]:
    """Options for networks, samples and families."""
    return stacked(
        click.argument("models", nargs=-1, required=True, metavar="MODEL..."),
        *_samples_options(required=True),
        click.option(
            "--values",
            metavar="LIST",
            help="The radii themselves, joined by commas: the same for every kind in a part.",
        ),
        click.option("--bits", metavar="LO:HI", help="Instead of --values: one point a bit-width, both ends included."),
        *_scheme_options(),
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


def _samples_options(required: bool) -> tuple[Callable[[Any], Any], ...]:
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


def _scheme_options() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option(
            "--scheme",
            type=OneOf(SCHEMES),
            help="What N bits mean. paper: absolute radii, 2^-N for the input and 2^-(N-1) for the rest; tensor, "
            "channel: steps from the range of each weight tensor or output channel, those of the activations from "
            "the whole data set.  [default: paper]",
        ),
        click.option(
            "--rounding",
            type=OneOf(tuple(dict.fromkeys((*ROUNDINGS, *FILE_ROUNDINGS)))),
            help="With --bits: nearest covers rounding to nearest only; any also floor, ceiling, stochastic and "
            "learned rounding.  [default: any]  For a quantised MODEL: the rule by which its runtimes round.  "
            "[default: float32]",
        ),
        click.option(
            "--kernel",
            type=click.Choice(KERNELS),
            help="Schemes tensor and channel: which integer kernels. exact-accumulation: those that add products up in "
            "int32; any: also those that add pairs of products in saturating int16.  [default: exact-accumulation]",
        ),
        click.option(
            "--batchnorm",
            type=click.Choice(BATCHNORMS),
            help="Schemes tensor and channel: what toolchains do with a BatchNormalization that the file still has.  "
            "[default: either]",
        ),
    )


def _bound_options() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option(
            "--clip-input",
            type=float,
            nargs=2,
            metavar="LO HI",
            help="A quantised input stays between LO and HI, as a pixel between 0 and 1 does.",
        ),
        memory_option,
        click.option(
            "--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where bounds are computed."
        ),
    )


def solve_options(methods: tuple[str, ...], default: str) -> Callable[[Command], Command]:
    """Options for finding the answer."""
    return stacked(
        click.option("--method", type=OneOf(methods), default=default, show_default=True, help=_METHODS[methods]),
        click.option(
            "--formulation",
            type=click.Choice(FORMULATIONS),
            default="relational",
            show_default=True,
            help="The program of the exact step: weights eliminated, or kept as variables (small networks).",
        ),
        click.option(
            "--solver",
            type=click.Choice(SOLVER_CHOICES),
            default="auto",
            show_default=True,
            help="For the exact step; `qverify solvers` shows which work here.",
        ),
        click.option(
            "--timeout",
            type=float,
            default=300.0,
            show_default=True,
            metavar="S",
            help="Seconds for one sample, all stages together; then it stays unknown, with its bounds. inf: no limit.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(max=9999),
            default=0,
            metavar="N",
            help="Samples the exact step works on at once.  [default: one a core]",
        ),
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
    VERIFY_METHODS: "auto: from cheap to exact, each sample as far as it must. ibp, bp: an attack, and "
    "proofs by bounds alone. exact: the solver on every sample that no attack breaks, for the worst margin itself.",
    DISCREPANCY_METHODS: "ibp, bp: sound bounds. exact: the solver, for both ends of every output.",
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


def split_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """`falsified,unknown` -> a tuple; click's usage error for any other word."""
    words = tuple(word.strip() for word in value.split(",")) if value is not None else ()
    for word in words:
        if word not in FAILING:
            raise click.BadParameter(f"{word!r} is none of {', '.join(FAILING)}; join several by commas.")
    return words
