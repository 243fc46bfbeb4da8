"""Directories that keep a question and its rows: what was asked as JSON, and rows appended as they are found.

Rows are kept through a kill, and are only added to under the question they answer. `batch.py` keeps the samples of
one run so, `batch_directory.py` those of many, `sweep_directory.py` the points of a sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from qverify.errors import DataError, OutputError, UsageError
from qverify.places import PLACES

FORMAT = 1
Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Files:
    """The names of both files in `folder`, and the keys of the question that may differ from one start to the next.

    `widened`: from the question as kept and as asked now, the keys whose new value covers all that the old one asked.
    """

    folder: Path
    question: str
    rows: str
    may_differ: Collection[str]
    widened: Callable[[dict[str, Any], dict[str, Any]], Collection[str]] = lambda kept, now: ()


def opened(
    files: Files,
    question: dict[str, Any],
    session: dict[str, Any],
    resume: bool,
    read: Callable[[Path, BinaryIO], Rows],
) -> tuple[BinaryIO, dict[str, Any], Rows]:
    """Begin in `files.folder`, or go on with what is there: the open file, the question as kept, `read` of the rows.

    `question` is what must agree before rows are added, `session` what may change from one start to
    the next. Raises UsageError if there is a run and `resume` is not set, or if it asked something else;
    DataError if its files are damaged; OutputError if the directory cannot be written or is in use.
    """
    folder, rows = files.folder, files.folder / files.rows
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # an empty file of rows alone is what a start leaves that was killed before it wrote the question
        exists = (folder / files.question).exists() or (rows.exists() and rows.stat().st_size > 0)
        if exists and not resume:
            raise UsageError(f"{folder} holds a run already; add --resume to go on with it, or name another --out.")
        record = _recorded(folder / files.question) if exists else {"format": FORMAT, **question, "runs": []}
        record |= {key: question[key] for key in files.widened(record, question)}
        if differences := _differences(record, {"format": FORMAT, **question}, files.may_differ):
            raise UsageError(
                f"The run in {folder} asked something else ({'; '.join(differences)}); ask the same, or name"
                " another --out."
            )
        record |= {key: question[key] for key in ("model", PLACES) if key in question}  # where files lie now
        file = _locked(rows)
        try:
            found = read(rows, file)
            record["runs"].append(session)
            write_record(folder / files.question, record)
        except BaseException:
            file.close()
            raise
    return file, record, found


def settled(row: dict[str, Any], seconds: float | None) -> bool:
    """Whether a row is the answer also with a time limit of `seconds`, None for none: no shorter one ended it."""
    limit = row.get("limit")
    return limit is None or (seconds is not None and seconds <= limit)


def append(file: BinaryIO, line: bytes) -> None:
    """Write all of `line`; raises OSError."""
    rest = memoryview(line)
    while rest:  # a file almost full takes a part of it
        rest = rest[file.write(rest) :]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write `record` as JSON so that whoever reads the file finds the old one or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as file:
        file.write(json.dumps(record, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextlib.contextmanager
def writing(path: Path, kept: str = "", again: str = "with --resume") -> Iterator[None]:
    """OSError -> OutputError that says what is kept, and `again`, how to go on."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        remedy = f"{kept} are kept, go on later {again}." if kept else "name another --out."
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); {remedy}") from error


def _recorded(path: Path) -> dict[str, Any]:
    """What the question's file says; DataError if there is none beside the rows, or if it is not one of ours."""
    damaged = f"{path} is missing or damaged, so its rows cannot be trusted; name another --out"
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{damaged}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list):
        raise DataError(f"{damaged}.")
    return record


def _differences(before: dict[str, Any], now: dict[str, Any], may_differ: Collection[str]) -> list[str]:
    """Which answers to 'what was asked?' differ, in words."""
    then, today = _flat(before, may_differ), _flat(now, may_differ)
    found = []
    for key in {**then, **today}:
        if then.get(key) != today.get(key):
            old, new = (
                text if len(text) <= 60 else text[:12] + '..."' for text in (then.get(key, ""), today.get(key, ""))
            )
            found.append(f"{key} was {old or 'not given'} and is {new or 'not given'} now")
    return found


def _flat(record: dict[str, Any], may_differ: Collection[str], prefix: str = "") -> dict[str, str]:
    """The entries of the question under dotted keys, as JSON writes them (tuples as lists); null counts as absent."""
    entries: dict[str, str] = {}
    for key, value in record.items():
        if prefix + key in may_differ or value is None:
            continue
        if isinstance(value, dict):
            entries |= _flat(value, may_differ, f"{prefix}{key}.")
        else:
            entries[prefix + key] = json.dumps(value)
    return entries


def _locked(path: Path) -> BinaryIO:
    """The file opened for reading and appending, locked against a second process where the system can."""
    file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 - RunDirectory closes it
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(f"Another process is writing to {path}; wait for it, or name another --out.") from None
    except (ImportError, OSError):  # no such lock on this system or file system
        pass
    return file
