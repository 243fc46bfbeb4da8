"""Rows of a dataclass as lines of a CSV file that is only appended to, and is read back exactly as it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Generic, TypeVar, get_args, get_type_hints

from qverify.errors import DataError
from qverify.records import append

Row = TypeVar("Row")


@dataclass(frozen=True)
class Columns(Generic[Row]):
    """The fields of `row`, a dataclass of str, int, float and bool, or of one of these or None, which is an empty cell.

    `what` the rows are, for people: "a sweep".
    """

    row: type[Row]
    what: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self.row))  # type: ignore[arg-type]

    def text(self, rows: Iterable[Row], header: bool = False) -> str:
        """The rows as lines; numbers are written so that they are read back as they were."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(self.names)
        writer.writerows(astuple(row) for row in rows)  # type: ignore[call-overload]
        return text.getvalue()

    def read(self, path: Path, file: BinaryIO) -> list[Row]:
        """All rows of `file`, which is open for appending; `path` is its name.

        A torn last line is cut off: what it held will be computed again. Writes the header if there is none yet.
        Raises DataError for a file of another kind, and for a damaged line before the last.
        """
        file.seek(0)
        content = file.read()
        header = self.text([], header=True).encode()
        if not content.startswith(header):
            if not header.startswith(content):
                raise DataError(f"{path} does not begin with the columns of {self.what}; name another --out.")
            file.truncate(0)
            append(file, header)
            return []
        rows: list[Row] = []
        end = len(header)
        for number, line in enumerate(content[end:].splitlines(keepends=True), start=2):
            row = self._row(line)
            if row is None:
                if end + len(line) < len(content):
                    raise DataError(f"Line {number} of {path} is damaged; delete that line, then use --resume.")
                file.truncate(end)
                break
            rows.append(row)
            end += len(line)
        return rows

    def _row(self, line: bytes) -> Row | None:
        """One row, None if the line is not a whole one."""
        kinds = get_type_hints(self.row)
        try:
            ((*cells,),) = csv.reader([line.decode()])
            found = {name: _value(kinds[name], cell) for name, cell in zip(self.names, cells, strict=True)}
        except (ValueError, KeyError, csv.Error):
            return None
        return self.row(**found) if line.endswith(b"\n") else None


def _value(kind: Any, cell: str) -> Any:
    """A cell as the type of its column, `T` or `T | None`."""
    allowed = get_args(kind) or (kind,)
    if not cell and NoneType in allowed:
        return None
    (own,) = (one for one in allowed if one is not NoneType)
    if own is bool:
        return {"True": True, "False": False}[cell]
    return own(cell)
