"""Brackets of factors kept on disk, so that a search can go on later.

    DIR/radius.json    the question, and under "runs" when and how each start worked on it
    DIR/factors.csv    one row a sample (grid.Bracket), appended as it is known; an empty cell is a value that is
                       not there
    DIR/layers.csv     one row a layer (layers.LayerRow), if layers were asked for

A search that is killed loses the samples and the layer it was working on and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.files.places import PLACES
from qverify.runs.csv_rows import Columns
from qverify.runs.folder import Files, Reader, append, opened, writing
from qverify.runs.stored import record_faults

QUESTION, ROWS, LAYERS = "radius.json", "factors.csv", "layers.csv"
_MAY_DIFFER = ("model", "data_source", "radii.file", "radii.convention", "radii.largest", PLACES, "runs")
"""As in `verify.py`: files may move, and numbers may differ in the last digit elsewhere."""

_BRACKETS = Columns(Bracket, "a search for factors")
_LAYERS = Columns(LayerRow, "a search layer by layer")


class RadiusDirectory:
    """A directory open for appending, by one process at a time; a context manager.

    `brackets`: the samples by index; `layers`: the layers by `LayerRow.key`.
    """

    def __init__(self, path: Path, record: dict[str, Any], found: dict[str, tuple[BinaryIO, Any]]):
        self.path, self.record, self._files = path, record, {name: file for name, (file, _) in found.items()}
        rows: dict[str, list[Any]] = {name: rows for name, (_, rows) in found.items()}
        self.brackets: dict[int, Bracket] = {bracket.index: bracket for bracket in rows[ROWS]}
        self.layers: dict[tuple[str, str, float, str], LayerRow] = {row.key: row for row in rows.get(LAYERS, [])}

    @staticmethod
    def start(
        path: str, question: dict[str, Any], session: dict[str, Any], resume: bool = False, layers: bool = False
    ) -> RadiusDirectory:
        """Begin a search in `path`, or go on with the one there; arguments and errors as `folder.opened`.

        `layers`: rows of layers will be added too.
        """
        rows: dict[str, Reader] = {ROWS: _BRACKETS} | ({LAYERS: _LAYERS} if layers else {})
        others = () if layers else (LAYERS,)
        files = Files(Path(path), QUESTION, rows, _MAY_DIFFER, record_faults, others=others)
        return RadiusDirectory(files.folder, *opened(files, question, session, resume))

    def add(self, bracket: Bracket) -> None:
        """Append one sample. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, f"{len(self.brackets)} samples" if self.brackets else ""):
            append(self._files[ROWS], _BRACKETS.text([bracket]).encode())
        self.brackets[bracket.index] = bracket

    def add_layer(self, row: LayerRow) -> None:
        """Append one layer, where `start` was told so. Raises OutputError."""
        with writing(self.path / LAYERS, f"{len(self.brackets)} samples and {len(self.layers)} layers"):
            append(self._files[LAYERS], _LAYERS.text([row]).encode())
        self.layers[row.key] = row

    def __enter__(self) -> RadiusDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
