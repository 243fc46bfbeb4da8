"""A group of commands that ends with a status and one sentence (formats.md, section 14)."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any

import click

from qverify.console.signals import INTERRUPTED, Terminated, status_of, terminable
from qverify.errors import InternalError, QVerifyError
from qverify.remarks import said
from qverify.text.escapes import printable

_LONGEST_NAME, _BEGINNING = 300, 100  # characters of a file's name in a message; of a longer one its beginning
_CLOSED_PIPE = 141  # 128 + the signal's number, as shells report it


class Guarded(click.Group):
    """A group whose commands end with a status and one sentence, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with terminable(), said(_note):
            try:
                status = super().invoke(ctx)
            except (click.exceptions.Exit, click.ClickException, click.Abort):
                raise
            except (Exception, KeyboardInterrupt) as error:
                if os.environ.get("QVERIFY_DEBUG") == "1":
                    traceback.print_exc()
                status = explained(error)
        ctx.exit(status_of(status or 0))


def _note(sentence: str) -> None:
    click.echo(f"qverify: note: {printable(sentence)}", err=True)


def explained(error: BaseException) -> int:
    """Say on stderr what went wrong; the exit status."""
    if isinstance(error, BrokenPipeError):
        # The interpreter flushes stdout once more when it ends; give that somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    if isinstance(error, KeyboardInterrupt):
        status, sentence = INTERRUPTED, "ended by SIGTERM." if isinstance(error, Terminated) else "interrupted."
    elif isinstance(error, QVerifyError):
        status, sentence = error.exit_code, str(error)
        if isinstance(error, InternalError) and "report" not in sentence:
            sentence += " Please report this with the model and the command."
    elif isinstance(error, MemoryError):
        status, sentence = 2, "There is not enough memory; use fewer --jobs, or a smaller --memory."
    elif isinstance(error, OSError):
        name, too_long = str(error.filename or ""), error.errno == errno.ENAMETOOLONG
        what = f"{name if len(name) <= _LONGEST_NAME else name[:_BEGINNING] + '...'}: " if name else ""
        remedy = "give a shorter name" if too_long else "free some space or choose another place"
        status, sentence = 2, f"{what}{error.strerror or error}; {remedy}."
    else:
        status = InternalError.exit_code
        sentence = (
            f"Unexpected {type(error).__name__} ({error}). This is a fault of qverify: please report it with the model"
            " and the command; QVERIFY_DEBUG=1 shows where it happened."
        )
    click.echo(f"qverify: {printable(sentence.rstrip('.'))}.", err=True)
    return status
