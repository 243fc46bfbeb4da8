"""The options of `qverify property` beside model, samples and family. Imports nothing that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qverify.choices import VERIFY_METHODS
from qverify.cli.options import method_option, problem_options, solver_option, stacked, timeout_option
from qverify.cli.words import Percent, words_of

if TYPE_CHECKING:
    from collections.abc import Callable

FAILING = ("violated", "unknown")
"""What `property --fail-on` may name."""


def property_options() -> Callable[[Any], Any]:
    """Model, samples, family and property, and how to decide."""
    return stacked(
        problem_options(data_required=False),
        click.option(
            "--property",
            "file",
            required=True,
            metavar="FILE.toml",
            help="The property: a formula, top-k, margin, distance or score; boxes of inputs, if not about --data.",
        ),
        method_option(VERIFY_METHODS, "auto"),
        solver_option,
        timeout_option,
        click.option(
            "--fail-on",
            callback=words_of(FAILING),
            metavar="LIST",
            help=f"Exit with status 1 if a sample is one of LIST: {', '.join(FAILING)}, joined by commas.",
        ),
        click.option(
            "--fail-under",
            type=Percent(),
            metavar="P",
            help="Exit with status 1 if it is proved for less than P percent of what is asked about.",
        ),
    )
