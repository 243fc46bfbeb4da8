"""The options that say what a number of bits means. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from qverify.choices import (
    ACTIVATIONS,
    BATCHNORMS,
    INPUTS,
    KERNELS,
    POINTS,
    RANGES,
    ROUNDINGS,
    SCHEMES,
)
from qverify.cli.words import OneOf

Options = tuple[Callable[[Any], Any], ...]


def scheme_options() -> Options:
    """Options for the scheme, the rounding, and what toolchains do."""
    return (
        click.option(
            "--scheme",
            type=OneOf(SCHEMES),
            help="What N bits mean. paper: absolute radii, 2^-N for the input and 2^-(N-1) for the rest; tensor, "
            "channel: steps from the range of each weight tensor or output channel, those of the activations from "
            "samples.  [default: paper]",
        ),
        click.option(
            "--rounding",
            type=OneOf(ROUNDINGS),
            help="nearest covers rounding to nearest only; any also floor, ceiling, stochastic and learned rounding. "
            "float32, single, double, truncate: weights to nearest, and by this rule of runtimes what layers give "
            "(schemes tensor and channel, quantised models).  [default: any; for a quantised MODEL float32]",
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
        *_point_options(),
        *_width_options(),
    )


def _point_options() -> Options:
    return (
        click.option(
            "--points",
            type=OneOf(POINTS),
            help="Schemes tensor and channel: where values are rounded. activations: at the input and behind each; "
            "onnxruntime, tflite: where these do, outputs, sums and averages included.  [default: activations]",
        ),
        click.option(
            "--input",
            type=OneOf(INPUTS),
            help="Schemes tensor and channel: exact if samples lie on the input's grid already, as pixels k/255 do "
            "at 8 bits.  [default: rounded]",
        ),
        click.option(
            "--activations",
            type=OneOf(ACTIVATIONS),
            help="Schemes tensor and channel: with a zero point, or symmetric around 0.  [default: asymmetric]",
        ),
        click.option(
            "--ranges",
            type=OneOf(RANGES),
            help="Schemes tensor and channel: how ranges are taken from samples; the calibrators of onnxruntime.  "
            "[default: minmax]",
        ),
        click.option(
            "--calibration",
            metavar="DATA[A:B]|FILE",
            help="Samples that ranges are taken on, as in mnist[0:500], or an integer file of this network that has "
            "them.  [default: the whole data set]",
        ),
    )


def _width_options() -> Options:
    kinds = {
        "weight": "those of --bits",
        "activation": "those of --bits",
        "input": "those of an activation",
        "bias": "32, in steps of weight times input",
    }
    return tuple(
        click.option(
            f"--{kind}-bits",
            type=click.IntRange(1, 32),
            metavar="N",
            help=f"Bits of {_plural(kind)}.  [default: {rest}]",
        )
        for kind, rest in kinds.items()
    )


def _plural(kind: str) -> str:
    return {"bias": "biases (schemes tensor and channel)", "input": "the input"}.get(kind, f"{kind}s")
