"""The options of the gate in CI. Imports nothing that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qverify.cli.options import FAILING, split_list, stacked
from qverify.cli.words import Percent

if TYPE_CHECKING:
    from collections.abc import Callable


def gate_options() -> Callable[[Any], Any]:
    """What a run must reach, and where a summary of it goes."""
    return stacked(
        click.option(
            "--fail-on",
            callback=split_list,
            metavar="LIST",
            help=f"Exit with status 1 if a sample is one of LIST: {', '.join(FAILING)}, joined by commas.",
        ),
        click.option(
            "--fail-under",
            type=Percent(),
            metavar="P",
            help="Exit with status 1 if less than P percent of the samples asked about are verified.",
        ),
        click.option(
            "--baseline",
            metavar="RUN",
            help="Exit with status 1 if a sample that was verified in RUN, a folder that --out kept, is not now.",
        ),
        click.option(
            "--job-summary",
            metavar="FILE.md",
            help="Append a summary in Markdown to FILE.md; `github`: to the file that $GITHUB_STEP_SUMMARY names.",
        ),
    )
