"""The two streams: results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

_PIPE_WIDTH = 110
"""Columns of a table that goes to a file or a pipe, which have no width of their own."""


def say(sentence: str) -> None:
    """Write one line for the user to stderr, whatever names are in it."""
    click.echo(f"qverify: {printable(sentence)}", err=True)


def show(*parts: Table | str) -> None:
    """Write tables and lines to stdout, every text in them made printable. Raises OSError if it is closed or full."""
    if sys.stdout is None:  # closed by the caller, who wants nothing
        return
    terminal = sys.stdout.isatty()
    width = None if terminal else _PIPE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)  # 0:100: is no emoji
    # Captured, since rich would end the process by itself, with status 1, if nobody reads stdout.
    with console.capture() as text:
        for part in map(_clean, parts):
            console.print(part, soft_wrap=not terminal and isinstance(part, str))
    for line in text.get().splitlines():
        echo(line if terminal else line.rstrip())


def _clean(part: Table | str) -> Table | str:
    """A line, or a table with cells and headings, that cannot drive the terminal."""
    if isinstance(part, str):
        return printable(part)
    for column in part.columns:  # rich has no other way to what is in a table
        cells = column._cells  # noqa: SLF001
        cells[:] = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
        column.header = printable(column.header) if isinstance(column.header, str) else column.header
    return part


def echo(text: str, end: str = "\n") -> None:
    """Write `text` as it is to stdout; what its encoding lacks is replaced. Raises OSError if it is closed or full."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding) + end, nl=False)


def show_json(result: dict[str, Any]) -> None:
    """Write one JSON object on one line to stdout."""
    click.echo(json.dumps(result, allow_nan=False))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr all that libraries print meanwhile, also those in C."""
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
