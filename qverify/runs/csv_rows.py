"""Rows of a dataclass as lines of a CSV file that is only appended to, and is read back exactly as it was.

Text is written so that each row is one line of UTF-8, and that no spreadsheet takes it for a formula: what is not
printable as JSON writes it, in quotes; `'` before what looks like a formula.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import astuple, dataclass, fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args, get_type_hints

from qverify.errors import DataError
from qverify.runs.folder import read_lines
from qverify.text.escapes import from_spreadsheet, shown, spreadsheet
from qverify.text.shortened import VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Checked(Protocol):
    """A row that knows what it may hold."""

    def faults(self) -> list[str]:
        """The columns whose values cannot be, or contradict each other; a row that is read back must have none."""


CheckedRow = TypeVar("CheckedRow", bound=Checked)

_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Columns(Generic[CheckedRow]):
    """The fields of `row`, a dataclass of str, int, float and bool, or of one of these or None, which is an empty cell.

    `what` the rows are, for people: "a sweep". A `folder.Reader`.
    """

    row: type[CheckedRow]
    what: str

    @property
    def names(self) -> tuple[str, ...]:
        """The headings of the columns."""
        return tuple(field.name for field in fields(self.row))  # type: ignore[arg-type]

    @property
    def header(self) -> bytes:
        """The first line, with the headings."""
        return self.text([], header=True).encode()

    def text(self, rows: Iterable[CheckedRow], header: bool = False) -> str:
        """The rows as lines; numbers are written so that they are read back as they were."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(self.names)
        writer.writerows(map(_cell, astuple(row)) for row in rows)  # type: ignore[call-overload]
        return text.getvalue()

    def read(self, path: Path, content: bytes) -> tuple[list[CheckedRow], int]:
        """The rows in `content`, that of the file at `path`, and up to which byte it is whole.

        A torn last line is not in it: what it held will be computed again. Raises DataError for a file of another kind,
        and for a damaged line before the last.
        """
        if not content.startswith(self.header):
            if not self.header.startswith(content):
                raise DataError(f"{path} does not begin with the columns of {self.what}; name another --out.")
            return [], 0
        return read_lines(path, content, self._row, len(self.header))

    def _row(self, line: bytes) -> CheckedRow:
        """Parse one row. Raises ValueError that says what is wrong in a few words."""
        try:
            ((*cells,),) = csv.reader([line.decode()], strict=True)
        except (ValueError, csv.Error):
            raise ValueError("it is no line of a CSV file") from None
        if len(cells) != len(self.names):
            raise ValueError(f"it has {len(cells)} cells instead of {len(self.names)}")
        kinds, values = get_type_hints(self.row), {}
        for name, cell in zip(self.names, cells, strict=True):
            try:
                values[name] = _value(kinds[name], cell)
            except ValueError:
                raise ValueError(f"column {name} is {shown(cell, VALUE)}") from None
        row = self.row(**values)
        if wrong := row.faults():
            raise ValueError(f"column {wrong[0]} is {shown(values[wrong[0]], VALUE)}, which cannot be")
        return row


def _cell(value: Any) -> Any:
    """A value as a cell of CSV."""
    if not isinstance(value, str):
        return value
    return spreadsheet(value) if value.isprintable() and not value.startswith('"') else json.dumps(value)


def _value(kind: Any, cell: str) -> Any:
    """A cell as the type of its column, `T` or `T | None`. Raises ValueError."""
    allowed = get_args(kind) or (kind,)
    if not cell and NoneType in allowed:
        return None
    (own,) = (one for one in allowed if one is not NoneType)
    return _READERS[own](cell)


def _text(cell: str) -> str:
    if cell.startswith('"'):
        return str(json.loads(cell))
    if not cell.isprintable():
        raise ValueError
    return from_spreadsheet(cell)


def _int(cell: str) -> int:
    if not _INTEGER.fullmatch(cell):
        raise ValueError
    return int(cell)


def _float(cell: str) -> float:
    if not _NUMBER.fullmatch(cell) or math.isinf(float(cell)):
        raise ValueError
    return float(cell)


def _bool(cell: str) -> bool:
    if cell not in ("True", "False"):
        raise ValueError
    return cell == "True"


_READERS: dict[type, Any] = {str: _text, int: _int, float: _float, bool: _bool}
