"""A batch kept on disk: rows of many cases in one file, each under a key that says all it answers.

    DIR/batch.json       under "cases" what each case asks, and under "runs" when and how each start worked on it
    DIR/samples.jsonl    the rows of `qverify verify` (formats.md, section 2), and in each also "case" and "key"

A start may ask more than the one before, or something else: keys say which rows are there. Those that nobody asks for
any more stay, and do not matter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from qverify.runs.folder import Files, append, opened, writing
from qverify.runs.stored import RowLines, batch_faults
from qverify.runs.verify import ROWS

BATCH = "batch.json"


class BatchDirectory:
    """A directory open for appending, by one process at a time; a context manager. `rows`: key -> row."""

    def __init__(self, path: Path, file: BinaryIO, record: dict[str, Any], rows: dict[str, dict[str, Any]]):
        self.path, self.record, self.rows = path, record, rows
        self._file = file

    @staticmethod
    def start(path: str, cases: dict[str, dict[str, Any]], session: dict[str, Any]) -> BatchDirectory:
        """Begin in `path`, or go on with what is there; `cases`: case id -> question.

        Raises DataError if its files are damaged; OutputError if the directory cannot be written or is in use.
        """
        rows = RowLines("key", ("key", "case"), " and start again")
        files = Files(Path(path), BATCH, {ROWS: rows}, ("cases", "runs"), batch_faults, _more_cases)
        record, found = opened(files, {"cases": cases}, session, True)
        return BatchDirectory(files.folder, found[ROWS][0], record, found[ROWS][1])

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; they survive a reboot once this returns. Raises OutputError; the rows before are kept."""
        kept = f"{len(self.rows)} samples" if self.rows else ""
        with writing(self.path / ROWS, kept, "with the same command"):
            append(self._file, b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows))
            os.fsync(self._file.fileno())
        self.rows |= {row["key"]: row for row in rows}

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> BatchDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _more_cases(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The cases of all starts, each as it was asked last."""
    return {"cases": kept["cases"] | now["cases"]}
