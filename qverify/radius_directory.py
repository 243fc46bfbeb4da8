"""Brackets of factors kept on disk, so that a search can go on later.

    DIR/radius.json    the question, and under "runs" when and how each start worked on it
    DIR/factors.csv    one row a sample (radius.Bracket), appended as it is known; an empty cell is a value that is
                       not there
    DIR/layers.csv     one row a layer (layer_radius.LayerRow), if layers were asked for

A search that is killed loses the samples and the layer it was working on and nothing else.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, BinaryIO

from qverify.csv_rows import Columns
from qverify.layer_radius import LayerRow
from qverify.places import PLACES
from qverify.radius import Bracket
from qverify.records import Files, append, opened, writing

QUESTION, ROWS, LAYERS = "radius.json", "factors.csv", "layers.csv"
_MAY_DIFFER = ("model", "data_source", "radii.file", "radii.convention", "radii.largest", PLACES, "runs")
"""As in `batch.py`: files may move, and numbers may differ in the last digit elsewhere."""

_BRACKETS = Columns(Bracket, "a search for factors")
_LAYERS = Columns(LayerRow, "a search layer by layer")


class RadiusDirectory:
    """A directory open for appending, by one process at a time; a context manager.

    `brackets`: the samples by index; `layers`: the layers by `LayerRow.key`.
    """

    def __init__(self, path: Path, file: BinaryIO, record: dict[str, Any], brackets: list[Bracket]):
        self.path, self.record = path, record
        self.brackets = {bracket.index: bracket for bracket in brackets}
        self.layers: dict[tuple[str, str, float, str], LayerRow] = {}
        self._file = file
        self._layers_file: BinaryIO | None = None

    @staticmethod
    def start(
        path: str, question: dict[str, Any], session: dict[str, Any], resume: bool = False, layers: bool = False
    ) -> RadiusDirectory:
        """Begin a search in `path`, or go on with the one there; arguments and errors as `records.opened`.

        `layers`: rows of layers will be added too.
        """
        files = Files(Path(path), QUESTION, ROWS, _MAY_DIFFER)
        directory = RadiusDirectory(files.folder, *opened(files, question, session, resume, _BRACKETS.read))
        if layers:
            try:
                directory._open_layers()
            except BaseException:
                directory._file.close()
                raise
        return directory

    def _open_layers(self) -> None:
        path = self.path / LAYERS
        with contextlib.ExitStack() as stack, writing(path):
            file: BinaryIO = stack.enter_context(open(path, "a+b", buffering=0))
            self.layers = {row.key: row for row in _LAYERS.read(path, file)}
            self._layers_file = file
            stack.pop_all()  # __exit__ closes it

    def add(self, bracket: Bracket) -> None:
        """Append one sample. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, f"{len(self.brackets)} samples" if self.brackets else ""):
            append(self._file, _BRACKETS.text([bracket]).encode())
        self.brackets[bracket.index] = bracket

    def add_layer(self, row: LayerRow) -> None:
        """Append one layer, where `start` was told so. Raises OutputError."""
        assert self._layers_file is not None
        with writing(self.path / LAYERS, f"{len(self.brackets)} samples and {len(self.layers)} layers"):
            append(self._layers_file, _LAYERS.text([row]).encode())
        self.layers[row.key] = row

    def __enter__(self) -> RadiusDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._layers_file is not None:
            self._layers_file.close()
