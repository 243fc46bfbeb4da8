"""Directories that keep a question and its rows: what was asked as JSON, and rows appended as they are found.

Rows are kept through a kill, and are only added to under the question they answer. `verify.py` keeps the samples of
one run so, `batch.py` those of many, `sweep.py` the points of a sweep, `radius.py`
brackets of factors. What the files may hold is said in `stored.py` and, for CSV, where the rows are defined.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from qverify.errors import DataError, OutputError, UsageError
from qverify.files.atomic import write_atomically
from qverify.files.dotted import dotted, within
from qverify.files.paths import new_folder
from qverify.files.places import PLACES
from qverify.files.strict_json import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

Line = TypeVar("Line")

FORMAT = 1
RUNS = "runs"
"""The key under which a question has the starts that worked on it."""
_MOVED = ("model", PLACES)
"""Keys of a question that say where files lie now."""
_NAMED = 6
"""Differences between two questions that are named one by one."""
_LONG, _BEGINNING = 60, 12
"""Characters of a value that is shown whole, and of the beginning of a longer one, a hash mostly."""
_ATTEMPTS = 100
"""How often a file is opened that another process takes away in the same moment."""


class Reader(Protocol):
    """The format of a file of rows. `header`: the bytes it begins with."""

    @property
    def header(self) -> bytes: ...

    def read(self, path: Path, content: bytes) -> tuple[Any, int]:
        """The rows in `content`, that of the file at `path`, and up to which byte it is whole.

        Raises DataError for damage before the last line; a last line that is torn is no damage.
        """


def _nothing(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Files:
    """A question and its rows in `folder`.

    `question`: the name of its file. `rows`: name -> reader of each file of rows; the first is locked while it is
    worked on. `may_differ`: the keys of the question that may differ from one start to the next. `faults`: the keys of
    a question as read that are missing or senseless. `changed`: from the question as kept and as asked now, what is
    kept from now on instead: all that the old one asked must be in it. `others`: files of rows that this start leaves
    alone.
    """

    folder: Path
    question: str
    rows: Mapping[str, Reader]
    may_differ: Collection[str]
    faults: Callable[[dict[str, Any]], list[str]]
    changed: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = _nothing
    others: Collection[str] = ()


def open_folder(
    files: Files, question: dict[str, Any], session: dict[str, Any], resume: bool
) -> tuple[dict[str, Any], dict[str, tuple[BinaryIO, Any]]]:
    """Begin in `files.folder`, or go on with what is there: the question as kept; name -> open file and its rows.

    `question` is what must agree before rows are added, `session` what may change from one start to the next. All
    is read and compared under the lock, and nothing is changed before all agrees: a start that is refused leaves every
    file as it was. Raises UsageError if there is a run and `resume` is not set, or if it asked something else;
    DataError if its files are damaged; OutputError if the directory cannot be written or is in use.
    """
    folder = files.folder
    with writing(folder), new_folder(folder), contextlib.ExitStack() as stack:
        found: dict[str, tuple[BinaryIO, Any]] = {}
        contents: dict[str, bytes] = {}
        for name in files.rows:
            file, is_new = _appending(folder / name, lock=not found)
            stack.callback(_given_up, file, folder / name, is_new)
            found[name], contents[name] = (file, None), file.read()
        record = _agreed(files, question, resume, contents)
        ends: dict[str, int] = {}
        for name, reader in files.rows.items():
            rows, ends[name] = reader.read(folder / name, contents[name])
            found[name] = (found[name][0], rows)
        record[RUNS].append(session)
        write_record(folder / files.question, record)
        for name, end in ends.items():
            _mend(found[name][0], len(contents[name]), end, files.rows[name].header)
        stack.pop_all()  # who asked closes the files
    return record, found


class Directory:
    """A directory open for appending, by one process at a time; a context manager, which closes `files`, by name."""

    def __init__(self, path: Path, files: Mapping[str, BinaryIO]):
        self.path, self.files = path, files

    def close(self) -> None:
        """Let another process in."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _agreed(files: Files, question: dict[str, Any], resume: bool, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The question to keep, without the session. Raises UsageError, DataError."""
    folder, path = files.folder, files.folder / files.question
    # files that hold no row are what a start leaves that was killed before it wrote the question
    begun = any(len(content) > len(files.rows[name].header) for name, content in contents.items())
    begun |= any((folder / name).exists() for name in files.others)
    if not path.exists() and not begun:
        return {"format": FORMAT, **question, RUNS: []}
    if not resume:
        raise UsageError(f"{folder} holds a run already; add --resume to go on with it, or name another --out.")
    record = _recorded(path, files.faults)
    record |= files.changed(record, question)
    if differences := _differences(record, {"format": FORMAT, **question}, files.may_differ):
        raise UsageError(
            f"The run in {folder} asked something else ({'; '.join(differences)}); ask the same, or name another --out."
        )
    return record | {key: question[key] for key in _MOVED if key in question}


def _mend(file: BinaryIO, size: int, end: int, header: bytes) -> None:
    """Cut off a torn end, and begin a file that is empty."""
    if end < size:
        file.truncate(end)
    if not end and header:
        append(file, header)


def read_lines(
    path: Path, content: bytes, row: Callable[[bytes], Line], start: int = 0, then: str = ", then use --resume"
) -> tuple[list[Line], int]:
    """The lines from byte `start` on, each parsed by `row`, and the byte up to which they are whole.

    `row` raises ValueError, which says in a few words what is wrong. A last line with which something is wrong, or that
    does not end, is torn, and is left out. Raises DataError for any line before it; `then` ends its remedy.
    """
    rows: list[Line] = []
    before, end = content[:start].count(b"\n"), start
    *lines, torn = content[start:].split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(row(line))
        except ValueError as error:
            if number == len(lines) and not torn:
                break
            raise DataError(f"Line {before + number} of {path} is damaged; delete that line{then} ({error}).") from None
        end += len(line) + 1
    return rows, end


def append(file: BinaryIO, line: bytes) -> None:
    """Write all of `line`; raises OSError."""
    rest = memoryview(line)
    while rest:  # a file almost full takes a part of it
        rest = rest[file.write(rest) :]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write `record` as JSON so that whoever reads the file finds the old one or the new one, whole."""

    def write(partial: Path) -> None:
        with open(partial, "w") as file:
            file.write(json.dumps(record, indent=2, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)


@contextlib.contextmanager
def writing(path: Path, kept: str = "", again: str = "with --resume") -> Iterator[None]:
    """Turn OSError into OutputError, which says what is kept, and `again`, how to go on."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        remedy = f"{kept} are kept, go on later {again}." if kept else "name another --out."
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); {remedy}") from error


def read_record(path: Path, faults: Callable[[dict[str, Any]], list[str]]) -> dict[str, Any]:
    """The JSON object in a question's file. Raises OSError, and ValueError that says in a few words what is wrong."""
    record = parsed(path.read_bytes())
    if wrong := faults(record):
        raise ValueError(f"{', '.join(wrong)} missing or senseless")
    return record


def _recorded(path: Path, faults: Callable[[dict[str, Any]], list[str]]) -> dict[str, Any]:
    """The content of the question's file; DataError if there is none beside the rows, or if it is not one of ours."""
    try:
        return read_record(path, faults)
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    raise DataError(
        f"{path} is missing or damaged, so its rows cannot be trusted; name another --out, or put it right ({why})."
    )


def _differences(before: dict[str, Any], now: dict[str, Any], may_differ: Collection[str]) -> list[str]:
    """The entries in which two questions differ, in words; of many, the first few."""
    then, today = _entries(before, may_differ), _entries(now, may_differ)
    found = []
    for key in {**then, **today}:
        if then.get(key) != today.get(key):
            old, new = (
                text if len(text) <= _LONG else text[:_BEGINNING] + '..."'
                for text in (then.get(key, ""), today.get(key, ""))
            )
            found.append(f"{key[:_LONG]} was {old or 'not given'} and is {new or 'not given'} now")
    more = len(found) - _NAMED
    return found if more <= 0 else [*found[:_NAMED], f"and {more} more"]


def _entries(record: dict[str, Any], may_differ: Collection[str]) -> dict[str, str]:
    """The entries of the question under dotted keys, as JSON writes them (tuples as lists); null counts as absent."""
    entries = {key: value for key, value in dotted(record) if value is not None}
    return {key: json.dumps(value) for key, value in entries.items() if not any(within(key, one) for one in may_differ)}


def _appending(path: Path, lock: bool) -> tuple[BinaryIO, bool]:
    """The file opened for reading and appending, locked if asked, and whether it was made now.

    The lock keeps out a second process where the system can. Raises OutputError, OSError.
    """
    for _ in range(_ATTEMPTS):
        file, is_new = _open_or_new(path)
        try:
            if lock:
                _lock(file, path)
            if _is_at(file, path):  # or else removed, after it was opened here, by a start that was refused
                return file, is_new
        except BaseException:
            file.close()
            raise
        file.close()
    raise OutputError(f"Another process keeps removing {path}; wait for it, or name another --out.")


def _given_up(file: BinaryIO, path: Path, is_new: bool) -> None:
    """Close a file, and take back one that was made in vain: before the lock goes."""
    if is_new and os.fstat(file.fileno()).st_size == 0 and _is_at(file, path):
        with contextlib.suppress(OSError):
            path.unlink()
    file.close()


def _open_or_new(path: Path) -> tuple[BinaryIO, bool]:
    """The file, and whether it was made now."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            return open(path, "x+b", buffering=0, opener=_append_only), True
        with contextlib.suppress(FileNotFoundError):
            return open(path, "r+b", buffering=0, opener=_append_only), False
    raise OutputError(f"Another process keeps removing {path}; wait for it, or name another --out.")


def _append_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, 0o666)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO, path: Path) -> None:
    """Raise OutputError if another process has it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"Another process is writing to {path}; wait for it, or name another --out.") from None
    except (ImportError, OSError):  # no such lock on this system or file system
        pass
