"""The two streams: results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 110
"""Columns of a table that goes to a file or a pipe, which have no width of their own."""


def say(sentence: str) -> None:
    """One line for the user, on stderr."""
    click.echo(f"qverify: {sentence}", err=True)


def show(*parts: Table | str) -> None:
    """Tables and lines on stdout. Raises OSError if it is closed or full."""
    if sys.stdout is None:  # closed by the caller, who wants nothing
        return
    terminal = sys.stdout.isatty()
    width = None if terminal else _PIPE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)  # 0:100: is no emoji
    # Captured, since rich would end the process by itself, with status 1, if nobody reads stdout.
    with console.capture() as text:
        for part in parts:
            console.print(part, soft_wrap=not terminal and isinstance(part, str))
    for line in text.get().splitlines():
        click.echo(line if terminal else line.rstrip())


def show_json(result: dict[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    click.echo(json.dumps(result, allow_nan=False))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Whatever libraries print meanwhile, also those in C, goes to stderr."""
    if sys.stdout is None or sys.stderr is None:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            os.dup2(2, 1)
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
