"""A sweep kept on disk, so that it can go on later.

    DIR/sweep.json    the question, and under "runs" when and how each start worked on it
    DIR/sweep.csv     one row a point (sweeps.Row), appended as it is done; an empty cell is a value that is not there

A sweep that is killed loses the point it was working on and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from qverify.analysis.sweeps import Key, Row
from qverify.files.places import PLACES
from qverify.runs.csv_rows import Columns
from qverify.runs.folder import Files, append, opened, writing
from qverify.runs.stored import sweep_faults

QUESTION, ROWS = "sweep.json", "sweep.csv"
_MAY_DIFFER = ("model_files", "data_source", PLACES, "runs")
"""Keys of sweep.json that do not belong to the question: files may move, their hashes count."""

_COLUMNS = Columns(Row, "a sweep")


class SweepDirectory:
    """A directory open for appending, by one process at a time; a context manager. `rows`: the rows by `Row.key`."""

    def __init__(self, path: Path, file: BinaryIO, record: dict[str, Any], rows: dict[Key, Row]):
        self.path, self.record, self.rows = path, record, rows
        self._file = file

    @staticmethod
    def start(path: str, question: dict[str, Any], session: dict[str, Any], resume: bool = False) -> SweepDirectory:
        """Begin a sweep in `path`, or go on with the one there; arguments and errors as `folder.opened`."""
        files = Files(Path(path), QUESTION, {ROWS: _COLUMNS}, _MAY_DIFFER, sweep_faults)
        record, found = opened(files, question, session, resume)
        file, rows = found[ROWS]
        return SweepDirectory(files.folder, file, record, {row.key: row for row in rows})

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
    return _COLUMNS.text(rows, header)
