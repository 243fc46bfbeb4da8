"""Text that came from a file, as it may go into a message: printable, on one line, of bounded length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUE, NAME, SENTENCE = 40, 80, 300
"""How many characters are shown of a value, of a name, and of a path or of what a library says."""


def shortened(text: str | bytes, most: int = NAME) -> str:
    """`printable` text of at most `most` characters; of a longer one both ends, with "..." for what is between.

    Bytes are what protobuf gives for a name that is damaged.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if len(text) <= most:
        return printable(text)
    kept = most - 3
    return printable(f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}")


def quoted(name: str | bytes) -> str:
    """A name in quotes, shortened."""
    return repr(shortened(name))


def listed(items: Sequence[str], most: int = 10) -> str:
    """`a, b, c`, or `a, b and 7 more` where there are more than `most`."""
    if len(items) <= most:
        return ", ".join(items)
    return f"{', '.join(items[:most])} and {len(items) - most} more"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened: libraries add stack traces, and repeat names of the model."""
    lines = str(error).strip().splitlines()
    return shortened(lines[0], SENTENCE) if lines else type(error).__name__
