"""A run kept on disk: what was asked, and one row a sample, appended as it is decided, so that it can go on later.

    DIR/run.json         the question, and under "runs" when and how each start worked on it
    DIR/samples.jsonl    one object a sample, in the order of the decisions (formats.md, section 2); where a sample
                         was asked about again after its time was up, the last one counts
    DIR/witnesses/       INDEX.onnx and INDEX.npz, the failing member of each falsified sample, if asked for

A row is written whole and at once, so a run that is killed loses what it was working on and nothing else; at worst
the last line is torn, which `start` recognises and removes. What rows may hold is said in stored.py.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qverify.arrays import Array
from qverify.errors import DataError, ModelError, OutputError
from qverify.family.members import Witness
from qverify.files.places import PLACES
from qverify.onnx import reader as onnx_io
from qverify.runs.folder import Files, append, opened, writing
from qverify.runs.stored import RowLines, record_faults

RUN, ROWS, WITNESSES = "run.json", "samples.jsonl", "witnesses"
_MAY_DIFFER = ("model", "data_source", "radii.file", "radii.convention", "radii.largest", PLACES, "runs")
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

        `question` is what run.json must agree on before a run goes on, except that more samples and a longer time
        limit may be asked for; `session` is what may change from one start to the next. Raises UsageError if there is
        a run and `resume` is not set, or if it asked something else; DataError if its files are damaged; OutputError
        if the directory cannot be written or is in use.
        """
        files = Files(Path(path), RUN, {ROWS: RowLines()}, _MAY_DIFFER, record_faults, _widened)
        record, found = opened(files, question, session, resume)
        return RunDirectory(files.folder, found[ROWS][0], record, found[ROWS][1])

    def add(self, row: dict[str, Any]) -> None:
        """Append one row. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, self._kept()):
            append(self._file, json.dumps(row, allow_nan=False).encode() + b"\n")
        self.rows[row["index"]] = row

    def add_witness(self, index: int, x: Array, witness: Witness) -> None:
        """Write a failing member as a float64 ONNX model, and its input with the sample x (n_in,) as an .npz."""
        folder, shape = self.path / WITNESSES, witness.network.input_shape
        with writing(folder, self._kept()):
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

    def _kept(self) -> str:
        return f"{len(self.rows)} samples" if self.rows else ""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _widened(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The entries of the question that ask for more now, and for all that was asked before."""
    limit, samples, (start, stop) = kept.get("timeout"), kept.get("samples"), now["samples"]
    longer = limit is not None and (now["timeout"] is None or now["timeout"] > limit)
    more = samples is not None and start <= samples[0] and samples[1] <= stop
    wider = [*["timeout"] * longer, *["samples"] * more]
    return {key: now[key] for key in wider}


def file_sha256(path: str) -> str:
    """sha256 of a file that was read before; raises DataError if it has gone since."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); do not move it during a run.") from error
