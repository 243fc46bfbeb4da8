"""Brackets of factors and rows of layers on disk, and as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.errors import DataError, OutputError
from qverify.report import plots
from qverify.runs.csv_rows import Columns
from qverify.runs.radius import LAYERS, ROWS, RadiusDirectory
from tests.support.runs_on_disk import asked
from tests.support.starts import NOW

AWKWARD = Bracket(
    index=7,
    label=1,
    predicted=1,
    lower=1e-300,
    upper=0.1 + 0.2,
    proved_by="bp-layers",
    broken_by="exact",
    detail='a, "b"',
    seconds=0.123,
)
NOTHING = Bracket(
    index=8, label=2, predicted=3, lower=None, upper=0.0, proved_by="", broken_by="forward", detail="", seconds=0.0
)
LAYER = LayerRow(
    layer="a,b",
    kind="weight",
    accuracy=0.9,
    method="bp",
    factor=1 / 3,
    radius=2.0**-52,
    bias_radius=None,
    reached=0.95,
    at_end=True,
    samples=9,
    seconds=1.0,
)


def started(path: Path, resume: bool = True, layers: bool = True) -> RadiusDirectory:
    return RadiusDirectory.start(str(path), asked(), NOW, resume, layers)


def test_rows_are_read_back_as_they_were_and_torn_ones_cut_off(tmp_path: Path) -> None:
    with started(tmp_path, resume=False) as kept:
        for bracket in (AWKWARD, NOTHING):
            kept.add(bracket)
        kept.add_layer(LAYER)
    for name, count in ((ROWS, 2), (LAYERS, 1)):
        content = (tmp_path / name).read_bytes()
        for length in range(0, len(content) + 1, 7):
            (tmp_path / name).write_bytes(content[:length])
            with started(tmp_path) as kept:
                whole = max(0, content[:length].count(b"\n") - 1)
                rows = list(kept.brackets.values() if name == ROWS else kept.layers.values())
                assert rows == ([AWKWARD, NOTHING] if name == ROWS else [LAYER])[:whole]
        (tmp_path / name).write_bytes(content)
        with started(tmp_path) as kept:
            assert len(kept.brackets if name == ROWS else kept.layers) == count
        (tmp_path / name).write_bytes(content.replace(b"True", b"yes").replace(b"7,1,1", b"7,x,1") + content[-30:])
        with pytest.raises(DataError, match=rf"Line 2 of .*{name} is damaged; delete that line, then use --resume"):
            started(tmp_path)
        (tmp_path / name).write_bytes(content)
    with started(tmp_path, layers=False) as kept:
        assert kept.layers == {} and len(kept.brackets) == 2
        with pytest.raises(OutputError, match="Another process is writing to"):
            started(tmp_path)
    (tmp_path / LAYERS).write_text("a,b\n")
    with pytest.raises(DataError, match="does not begin with the columns of a search layer by layer"):
        started(tmp_path)


def test_the_histogram_holds_every_sample_above_0() -> None:
    brackets = [
        Bracket(
            index=i,
            label=0,
            predicted=0,
            lower=f,
            upper=1.1 * f,
            proved_by="bp",
            broken_by="attack",
            detail="",
            seconds=0.0,
        )
        for i, f in enumerate((0.1, 0.5, 0.5, 2.0, 16.0))
    ]
    figure = plots.factor_figure([*brackets, NOTHING], "what it shows", 16.0)
    (axes,) = figure.axes
    bars = [patch.get_height() for patch in axes.patches if hasattr(patch, "get_height")]
    assert sum(bars) == 5 and max(bars) == 2 and axes.get_title() == "what it shows"
    assert "at 0: 1 misclassified, 0 never proved" in axes.get_xlabel()
    low, high = axes.get_xlim()
    assert low < 0.1 and high > 17.6
    plots.factor_figure([NOTHING], "nothing above 0", 16.0)


def test_columns_of_every_type() -> None:
    columns = Columns(LayerRow, "rows")
    assert columns.text([LAYER], header=True).splitlines()[0].startswith("layer,kind,accuracy,method,factor,radius")
    assert columns.text([LAYER]) == f'"a,b",weight,0.9,bp,{1 / 3!r},{2.0**-52!r},,0.95,True,9,1.0\n'
