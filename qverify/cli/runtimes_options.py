"""The options of `qverify runtimes`. Imports nothing that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qverify.choices import RUNTIME_RULES
from qverify.cli.options import Command, samples_options, stacked
from qverify.cli.words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable

APART = ("differs", "unknown", "misclassified")
"""What `--fail-on` may name."""


def runtimes_options() -> Callable[[Command], Command]:
    """Options for a quantised file, samples, the rules of its runtimes, and what becomes of the answers."""
    return stacked(
        click.argument("model"),
        *samples_options(required=True),
        click.option(
            "--rules",
            callback=words_of(RUNTIME_RULES),
            default=",".join(RUNTIME_RULES),
            show_default=True,
            metavar="LIST",
            help="How runtimes may requantise each layer's output; every layer by another of them.",
        ),
        click.option(
            "--timeout",
            type=float,
            default=60.0,
            show_default=True,
            metavar="S",
            help="Seconds for one sample; then it stays unknown, with its bounds. inf: no limit.",
        ),
        click.option("--ranges", is_flag=True, help="Also find the exact range of every output, as far as time goes."),
        click.option(
            "--jobs",
            type=click.IntRange(0, 9999),
            default=0,
            metavar="N",
            help="Samples that are worked on at once.  [default: one a core]",
        ),
        click.option("--out", metavar="FILE.jsonl", help="Write a line a sample there."),
        click.option(
            "--fail-on",
            callback=words_of(APART),
            metavar="LIST",
            help=f"Exit with status 1 if a sample is one of LIST: {', '.join(APART)}, joined by commas.",
        ),
    )
