"""Starts of runs in a directory, by the four kinds of run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.analysis.sweeps import Row
from qverify.runs.batch import BatchDirectory
from qverify.runs.radius import RadiusDirectory
from qverify.runs.start import Start
from qverify.runs.sweep import SweepDirectory
from qverify.runs.verify import RunDirectory
from tests.support.runs_on_disk import asked, row, typed

NOW = Start(started="now")
SIX = {"samples": [0, 6]}
POINT = Row("m", "all", None, 0.01, 0.01, 0.01, 0.01, 0.01, "ibp", 9, 8, 7, None, 1, 0.5)
BRACKET = Bracket(0, 1, 1, 1.5, 1.6, "bp", "attack", "", 0.25)
LAYER = LayerRow("dense1", "weight", 0.9, "bp", 1.5, 0.01, None, 0.95, False, 20, 1.0)


def verify(folder: Path, resume: bool = True, **changes: Any) -> RunDirectory:
    return RunDirectory.start(str(folder), asked(**SIX | changes), NOW, resume)


def batch(folder: Path, resume: bool = True, **changes: Any) -> BatchDirectory:
    return BatchDirectory.start(str(folder), {"a": asked(**SIX | changes)}, NOW)


def sweep(folder: Path, resume: bool = True, **changes: Any) -> SweepDirectory:
    hashes = {"model_sha256": "aa" * 32, "network_sha256": "bb" * 32}
    axis = {"values": [0.0, 0.125, 0.25], "parts": ["all"]}
    question = asked(**SIX | {"models": {"m": hashes}, "radii": axis} | changes)
    return SweepDirectory.start(str(folder), question, NOW, resume)


def radius(folder: Path, resume: bool = True, **changes: Any) -> RadiusDirectory:
    return RadiusDirectory.start(str(folder), asked(**SIX | changes), NOW, resume, layers=True)


def filled(folder: Path, start: Any) -> None:
    """A directory with three rows, in each of its files."""
    with start(folder, resume=False) as kept:
        for index in range(3):
            if start is verify:
                kept.add(typed(row(index)))
            elif start is batch:
                kept.add([typed(row(index, case="a", key=f"k{index}"))])
            elif start is sweep:
                kept.add(Row(**{**POINT.as_dict(), "value": index / 8}))
            else:
                kept.add(Bracket(**{**BRACKET.as_dict(), "index": index}))
                kept.add_layer(LayerRow(**{**LAYER.as_dict(), "layer": f"dense{index}"}))
