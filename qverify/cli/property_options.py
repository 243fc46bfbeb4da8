"""The options of `qverify property` beside model, samples and family. Imports nothing that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qverify.choices import VERIFY_METHODS
from qverify.cli.options import problem_options, solver_option, stacked, timeout_option
from qverify.cli.words import OneOf, words_of

if TYPE_CHECKING:
    from collections.abc import Callable

FAILING = ("violated", "unknown")
"""What `property --fail-on` may name."""


def property_options() -> Callable[[Any], Any]:
    """Model, samples, family and property, and how to decide."""
    return stacked(
        problem_options(data_required=True),
        click.option(
            "--property",
            "file",
            required=True,
            metavar="FILE.toml",
            help='The property: property = "top-k" with k, "margin" with margin, or "distance" with distance.',
        ),
        click.option(
            "--method",
            type=OneOf(VERIFY_METHODS),
            default="auto",
            show_default=True,
            help="auto: from cheap to exact, each sample as far as it must. ibp, bp: an attack, and proofs by bounds "
            "alone. exact: the solver on every sample that no attack breaks.",
        ),
        solver_option,
        timeout_option,
        click.option(
            "--fail-on",
            callback=words_of(FAILING),
            metavar="LIST",
            help=f"Exit with status 1 if a sample is one of LIST: {', '.join(FAILING)}, joined by commas.",
        ),
    )
