"""The one place where a query file becomes a `Query`, by the version that it says. Loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.vnnlib import version1, version2
from qverify.vnnlib.query import read_text

if TYPE_CHECKING:
    from qverify.vnnlib.query import Query


def read_query(path: str) -> Query:
    """The query in a file, of version 1.0 or 2.0. Raises UsageError, and PackageMissing without the extra for 2.0."""
    text = read_text(path)
    name = str(path)
    return version2.parse(text, name) if "vnnlib-version" in _commands(text) else version1.parse(text, name)


def _commands(text: str) -> str:
    """The first line that is no comment, which says the version since 2.0."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith(";")), "")
