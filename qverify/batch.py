"""A run kept on disk: what was asked, and one row a sample, appended as it is decided, so that it can go on later.

    DIR/run.json         the question, and under "runs" when and how each start worked on it
    DIR/samples.jsonl    one object a sample, in the order of the decisions (design.md, section 10)
    DIR/witnesses/       INDEX.onnx and INDEX.npz, the failing member of each falsified sample, if asked for

A row is written whole and at once, so a run that is killed loses what it was working on and nothing else; at worst
the last line is torn, which `start` recognises and removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qverify import onnx_io
from qverify.errors import DataError, ModelError, OutputError, UsageError
from qverify.members import Witness
from qverify.network import Array, Network

FORMAT = 1
RUN, ROWS, WITNESSES = "run.json", "samples.jsonl", "witnesses"
_MAY_DIFFER = ("model", "data_source", "radii.file", "radii.convention", "radii.largest", "runs")
"""Keys of run.json that do not belong to the question: files may move (their hashes count), a run may go on elsewhere,
and numbers computed on another machine may differ in the last digit."""


class RunDirectory:
    """A directory open for appending, by one process at a time; a context manager. `rows`: index -> row."""

    def __init__(self, path: Path, file: BinaryIO, record: dict[str, Any], rows: dict[int, dict[str, Any]]):
        self.path, self.record, self.rows = path, record, rows
        self._file = file

    @staticmethod
    def start(path: str, question: dict[str, Any], session: dict[str, Any], resume: bool = False) -> RunDirectory:
        """Begin a run in `path`, or go on with the one there.

        `question` is what run.json must agree on before a run goes on, `session` what may change from one start to
        the next. Raises UsageError if there is a run and `resume` is not set, or if it asked something else;
        DataError if its files are damaged; OutputError if the directory cannot be written or is in use.
        """
        folder = Path(path)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            exists = (folder / RUN).exists() or (folder / ROWS).exists()
            if exists and not resume:
                raise UsageError(f"{folder} holds a run already; add --resume to go on with it, or name another --out.")
            record = _recorded(folder) if exists else {"format": FORMAT, **question, "runs": []}
            if differences := _differences(record, {"format": FORMAT, **question}):
                raise UsageError(
                    f"The run in {folder} asked something else ({'; '.join(differences)}); ask the same, or name"
                    " another --out."
                )
            file = _locked(folder / ROWS)
            try:
                rows = _read_rows(folder / ROWS, file)
                record["runs"].append(session)
                _replace(folder / RUN, json.dumps(record, indent=2, allow_nan=False) + "\n")
            except BaseException:
                file.close()
                raise
        return RunDirectory(folder, file, record, rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row. Raises OutputError; the rows before it are kept."""
        line = memoryview(json.dumps(row, allow_nan=False).encode() + b"\n")
        with _writing(self.path / ROWS, len(self.rows)):
            while line:  # a file almost full takes a part of it
                line = line[self._file.write(line) :]
        self.rows[row["index"]] = row

    def add_witness(self, index: int, x: Array, witness: Witness) -> None:
        """Write a failing member as a float64 ONNX model, and its input with the sample x (n_in,) as an .npz."""
        folder, shape = self.path / WITNESSES, witness.network.input_shape
        with _writing(folder, len(self.rows)):
            folder.mkdir(exist_ok=True)
            np.savez(
                folder / f"{index}.npz",
                input=witness.input.reshape(shape),
                x=x.reshape(shape),
                label=witness.label,
                rival=witness.rival,
                margin=witness.margin,
            )
        try:
            onnx_io.save(witness.network, folder / f"{index}.onnx", dtype="float64")
        except ModelError as error:
            raise OutputError(str(error)) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fingerprint(network: Network) -> str:
    """sha256 of the layers and all their numbers: also tells apart models whose weights lie in another file."""
    digest = hashlib.sha256()
    for layer in network.layers:
        digest.update(type(layer).__name__.encode())
        for field in fields(layer):
            value = getattr(layer, field.name)
            digest.update(f"{field.name}:".encode())
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def file_sha256(path: str) -> str:
    """sha256 of a file that was read before; raises DataError if it has gone since."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); do not move it during a run.") from error


# -- reading what is there ------------------------------------------------------------------------


def _recorded(folder: Path) -> dict[str, Any]:
    """What run.json says; DataError if there is none beside the rows, or if it is not one of ours."""
    damaged = f"{folder / RUN} is missing or damaged, so its rows cannot be trusted; name another --out"
    try:
        record = json.loads((folder / RUN).read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{damaged}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list):
        raise DataError(f"{damaged}.")
    return record


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Which answers to 'what was asked?' differ, in words."""
    then, today = _flat(before), _flat(now)
    found = []
    for key in {**then, **today}:
        if then.get(key) != today.get(key):
            old, new = (
                text if len(text) <= 60 else text[:12] + '..."' for text in (then.get(key, ""), today.get(key, ""))
            )
            found.append(f"{key} was {old or 'not given'} and is {new or 'not given'} now")
    return found


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """The entries of the question under dotted keys, as JSON writes them (tuples as lists); null counts as absent."""
    entries: dict[str, str] = {}
    for key, value in record.items():
        if prefix + key in _MAY_DIFFER or value is None:
            continue
        if isinstance(value, dict):
            entries |= _flat(value, f"{prefix}{key}.")
        else:
            entries[prefix + key] = json.dumps(value)
    return entries


def _read_rows(path: Path, file: BinaryIO) -> dict[int, dict[str, Any]]:
    """The rows by index; a torn last line is cut off, its sample will be decided again."""
    file.seek(0)
    content = file.read()
    rows: dict[int, dict[str, Any]] = {}
    end = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        row = _row(line)
        if row is None:
            if end + len(line) < len(content):
                raise DataError(f"Line {number} of {path} is damaged; delete that line, then use --resume.")
            file.truncate(end)
            break
        rows[row["index"]] = row
        end += len(line)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """One row, None if the line is not a whole one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(row, dict) and {"index", "status", "method", "seconds"} <= row.keys()
    return row if whole else None


# -- writing --------------------------------------------------------------------------------------


def _kept(rows: int) -> str:
    return f"{rows} samples are kept, go on later with --resume." if rows else "name another --out."


@contextlib.contextmanager
def _writing(path: Path, rows: int = 0) -> Iterator[None]:
    """OSError -> OutputError that says what is kept."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); {_kept(rows)}") from error


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


def _replace(path: Path, text: str) -> None:
    """Write a file so that whoever reads it finds the old one or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
