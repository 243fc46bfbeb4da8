"""Text that comes from files, models and data, made harmless for where it goes.

Names may hold anything: escape sequences, line breaks, formulas, markup. Whatever is shown goes through the function of
its place: `printable` for a terminal or a message (and, before `html.escape`, for a page), `shown` for a value in a
message, `spreadsheet` for a cell of a CSV file, `markdown` and `latex`. Imports nothing that takes time.
"""

from __future__ import annotations

import html
import re
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\ufffd": "?",  # pdflatex has no such letter
    **{letter: "\\" + letter for letter in "{}$&#%_"},
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, some in full width too."""


def printable(text: str) -> str:
    """`text` on one line, every character a visible one or a space: U+FFFD stands for each other.

    So it cannot drive a terminal, break a line or turn the direction of what follows.
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def shown(value: Any, most: int = 60) -> str:
    """A value read from a file as Python writes it, for a message: printable, and at most so many characters."""
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists within lists
        return f"a very long {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def spreadsheet(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: `'` goes before what looks like one."""
    return f"'{text}" if text.startswith(("'", *_FORMULA)) else text


def from_spreadsheet(cell: str) -> str:
    """The text that `spreadsheet` made `cell` of."""
    return cell.removeprefix("'")


def markdown(text: str) -> str:
    """`text` as itself in GitHub's Markdown, in a cell of a table or as a paragraph."""
    escaped = html.escape(printable(text).lstrip(" "), quote=False)
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]|~" else letter for letter in escaped)
    return re.sub(r"^(\d*)([#+=:.)-])", r"\1\\\2", escaped)  # no heading, list or rule begins here


def latex(text: str) -> str:
    """`text` as itself in LaTeX, also as the first cell of a row, where brackets and a star would belong to `\\\\`."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in printable(text))
    return f"{{}}{escaped}" if escaped.lstrip().startswith(("[", "(", "*")) else escaped
