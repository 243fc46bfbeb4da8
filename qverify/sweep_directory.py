"""A sweep kept on disk, so that it can go on later.

    DIR/sweep.json    the question, and under "runs" when and how each start worked on it
    DIR/sweep.csv     one row a point (sweep.Row), appended as it is done; an empty cell is a value that is not there

A sweep that is killed loses the point it was working on and nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from qverify.errors import DataError
from qverify.records import Files, append, opened, writing
from qverify.sweep import Key, Row

QUESTION, ROWS = "sweep.json", "sweep.csv"
_MAY_DIFFER = ("model_files", "data_source", "runs")
"""Keys of sweep.json that do not belong to the question: files may move, their hashes count."""

_COLUMNS = tuple(field.name for field in fields(Row))
_INTEGERS = ("bits", "samples", "clean", "guaranteed", "attack", "unknown")
_WORDS = ("model", "part", "method")
_MAY_BE_EMPTY = ("bits", "value", "attack")


class SweepDirectory:
    """A directory open for appending, by one process at a time; a context manager. `rows`: the rows by `Row.key`."""

    def __init__(self, path: Path, file: BinaryIO, record: dict[str, Any], rows: dict[Key, Row]):
        self.path, self.record, self.rows = path, record, rows
        self._file = file

    @staticmethod
    def start(path: str, question: dict[str, Any], session: dict[str, Any], resume: bool = False) -> SweepDirectory:
        """Begin a sweep in `path`, or go on with the one there; arguments and errors as `records.opened`."""
        files = Files(Path(path), QUESTION, ROWS, _MAY_DIFFER)
        file, record, rows = opened(files, question, session, resume, _read_rows)
        return SweepDirectory(files.folder, file, record, rows)

    def add(self, row: Row) -> None:
        """Append one row. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, f"{len(self.rows)} points" if self.rows else ""):
            append(self._file, csv_text([row]).encode())
        self.rows[row.key] = row

    def __enter__(self) -> SweepDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def csv_text(rows: Iterable[Row], header: bool = False) -> str:
    """The rows as lines of sweep.csv; numbers are written so that they are read back as they were."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_COLUMNS)
    writer.writerows(row.as_dict().values() for row in rows)
    return text.getvalue()


def _read_rows(path: Path, file: BinaryIO) -> dict[Key, Row]:
    """The rows by key; a torn last line is cut off, its point will be computed again. Writes the header if needed."""
    file.seek(0)
    content = file.read()
    header = csv_text([], header=True).encode()
    if not content.startswith(header):
        if not header.startswith(content):
            raise DataError(f"{path} does not begin with the columns of a sweep; name another --out.")
        file.truncate(0)
        append(file, header)
        return {}
    rows: dict[Key, Row] = {}
    end = len(header)
    for number, line in enumerate(content[end:].splitlines(keepends=True), start=2):
        row = _row(line)
        if row is None:
            if end + len(line) < len(content):
                raise DataError(f"Line {number} of {path} is damaged; delete that line, then use --resume.")
            file.truncate(end)
            break
        rows[row.key] = row
        end += len(line)
    return rows


def _row(line: bytes) -> Row | None:
    """One row, None if the line is not a whole one."""
    try:
        ((*cells,),) = csv.reader([line.decode()])
        found = {name: _value(name, cell) for name, cell in zip(_COLUMNS, cells, strict=True)}
    except (ValueError, csv.Error):
        return None
    return Row(**found) if line.endswith(b"\n") else None


def _value(name: str, cell: str) -> Any:
    if name in _WORDS:
        return cell
    if not cell and name in _MAY_BE_EMPTY:
        return None
    return int(cell) if name in _INTEGERS else float(cell)
