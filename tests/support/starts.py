"""Starts of runs in a directory, by the four kinds of run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.analysis.sweeps import SweepRow
from qverify.runs.batch import BatchDirectory
from qverify.runs.radius import RadiusDirectory
from qverify.runs.start import Start
from qverify.runs.sweep import SweepDirectory
from qverify.runs.verify import RunDirectory
from tests.support.runs_on_disk import asked, row, typed

NOW = Start(started="now")
SIX = {"samples": [0, 6]}
POINT = SweepRow(
    model="m",
    part="all",
    bits=None,
    value=0.01,
    input=0.01,
    weight=0.01,
    bias=0.01,
    activation=0.01,
    method="ibp",
    samples=9,
    clean=8,
    guaranteed=7,
    attack=None,
    unknown=1,
    seconds=0.5,
)
BRACKET = Bracket(
    index=0, label=1, predicted=1, lower=1.5, upper=1.6, proved_by="bp", broken_by="attack", detail="", seconds=0.25
)
LAYER = LayerRow(
    layer="dense1",
    kind="weight",
    accuracy=0.9,
    method="bp",
    factor=1.5,
    radius=0.01,
    bias_radius=None,
    reached=0.95,
    at_end=False,
    samples=20,
    seconds=1.0,
)


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
                kept.add(SweepRow(**{**POINT.as_dict(), "value": index / 8}))
            else:
                kept.add(Bracket(**{**BRACKET.as_dict(), "index": index}))
                kept.add_layer(LayerRow(**{**LAYER.as_dict(), "layer": f"dense{index}"}))
