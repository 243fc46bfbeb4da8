"""Rows of CSV files: what was written comes back as it was, one line a row, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.analysis.sweeps import PARTS, SweepRow
from qverify.errors import DataError
from qverify.runs.csv_rows import Columns
from tests.support import starts
from tests.support.refusals import sentence

PATH = Path("rows")

POINT = replace(starts.POINT, guaranteed=5, attack=7, unknown=2)
BRACKET = replace(starts.BRACKET, index=3)
LAYER = replace(starts.LAYER, bias_radius=0.02)
COLUMNS: dict[Any, Columns[Any]] = {kind: Columns(kind, "rows") for kind in (SweepRow, Bracket, LayerRow)}
COUNTS = [
    "",
    "x",
    "-1",
    "1.0",
    "1_000",
    " 1",
    "+1",
    "１",
    "٣",
    "nan",
    "1e3",
    "True",
    "9" * 19,
    "9" * 5000,
    "0x1",
    "1\0",
]
FLOATS = [
    "x",
    "-1",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "1_0.5",
    " 1",
    "+1",
    "１.5",
    "True",
    "0x1p0",
    ".5",
    "1.",
    "1e",
]
NAMES = ["x", "IBP", "é", "ibp ", '""', '"ibp', "ib\x1bp"]
ODD_CELLS: dict[Any, dict[str, list[str]]] = {
    SweepRow: {
        "model": ["", '"""a"', "a\tb", "\x1b[31m"],
        "part": ["", "wieght", *NAMES],
        "bits": ["0", "33", "8", *COUNTS[1:]],
        "value": ["", *FLOATS],
        **{key: ["", *FLOATS] for key in ("input", "weight", "bias", "activation", "seconds")},
        "method": ["", *NAMES],
        "samples": ["0", "7", *COUNTS],
        "clean": ["6", "10", *COUNTS],
        "guaranteed": ["9", "6", "4", *COUNTS],
        "attack": ["5", "8", *COUNTS[1:]],
        "unknown": ["3", "4", *COUNTS],
    },
    Bracket: {
        "index": COUNTS,
        "label": ["2", *COUNTS],
        "predicted": ["2", *COUNTS],
        "lower": ["", "1.6", "1.7", *FLOATS],
        "upper": ["", "1.5", "0.1", "0", *FLOATS],
        "proved_by": ["", "attack", "forward", *NAMES],
        "broken_by": ["", "ibp", "forward", *NAMES],
        "seconds": ["", *FLOATS],
    },
    LayerRow: {
        "layer": ["", '"""a"', "\u202eabc"],
        "kind": ["", "bias", "input", *NAMES],
        "accuracy": ["", "0", "1.01", "0.96", *FLOATS],
        "method": ["", "exact", *NAMES],
        "factor": ["", *FLOATS],
        "radius": ["", *FLOATS],
        "bias_radius": FLOATS,
        "reached": ["", "0.89", "1.01", *FLOATS],
        "at_end": ["", "true", "1", "yes", "TRUE"],
        "samples": ["0", *COUNTS],
        "seconds": ["", *FLOATS],
    },
}
EXAMPLES = {SweepRow: POINT, Bracket: BRACKET, LayerRow: LAYER}


@pytest.mark.parametrize("kind", COLUMNS, ids=lambda kind: kind.__name__)
def test_a_cell_that_cannot_be_is_refused_and_named(kind: type[Any]) -> None:
    columns, example = COLUMNS[kind], EXAMPLES[kind]
    header, line = columns.text([example], header=True).splitlines(keepends=True)
    assert columns.read(PATH, (header + line).encode()) == ([example], len(header + line))
    for name, cells in ODD_CELLS[kind].items():
        place = columns.names.index(name)
        for cell in cells:
            found = line.strip().split(",")
            found[place] = cell
            content = header + line + ",".join(found) + "\n" + line
            with pytest.raises(
                DataError, match=r"^Line 3 of rows is damaged; delete that line, then use --resume \("
            ) as caught:
                columns.read(PATH, content.encode())
            assert len(sentence(caught)) < 250, (name, cell)


@pytest.mark.parametrize("line", ["", "a", "m,all" * 99, '"m,all', "\xff", "m" * 200_000, "\0"])
def test_lines_that_are_no_rows_of_a_csv_file(line: str) -> None:
    columns = COLUMNS[SweepRow]
    header, good = columns.text([POINT], header=True).splitlines(keepends=True)
    content = (header + good).encode() + line.encode("latin-1") + b"\n" + good.encode()
    with pytest.raises(DataError, match="Line 3 of rows is damaged; delete that line, then use --resume") as caught:
        columns.read(PATH, content)
    sentence(caught)


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=12)
SIZE = st.floats(0, allow_nan=False, allow_infinity=False)


@st.composite
def points(draw: Any) -> SweepRow:
    clean, wrong, unknown, broken = (draw(st.integers(0, 10**6)) for _ in range(4))
    assume(clean + wrong and unknown + broken <= clean)
    bits = draw(st.none() | st.integers(1, 32))
    proved = clean - unknown - broken
    attack = draw(st.sampled_from([None, proved + unknown]))
    return SweepRow(
        model=draw(ANY_TEXT),
        part=draw(st.sampled_from(list(PARTS))),
        bits=bits,
        value=None if bits else draw(SIZE),
        input=draw(SIZE),
        weight=draw(SIZE),
        bias=draw(SIZE),
        activation=draw(SIZE),
        method="auto",
        samples=clean + wrong,
        clean=clean,
        guaranteed=proved,
        attack=attack,
        unknown=unknown,
        seconds=draw(SIZE),
    )


@st.composite
def layers(draw: Any) -> LayerRow:
    share, factor, radius, seconds = draw(st.floats(0.01, 1)), draw(st.none() | SIZE), draw(SIZE), draw(SIZE)
    kind, bias = draw(st.sampled_from(["input", "weight", "activation"])), draw(st.none() | SIZE)
    found = factor is not None
    return LayerRow(
        layer=draw(ANY_TEXT),
        kind=kind,
        accuracy=share,
        method="bp",
        factor=factor,
        radius=radius if found else None,
        bias_radius=bias if found and kind == "weight" else None,
        reached=draw(st.floats(share, 1)) if found else None,
        at_end=found and draw(st.booleans()),
        samples=draw(st.integers(1, 10**9)),
        seconds=seconds,
    )


@st.composite
def brackets(draw: Any) -> Bracket:
    index, label, seconds = draw(st.integers(0, 10**9)), draw(st.integers(0, 999)), draw(SIZE)
    if draw(st.booleans()):
        return Bracket(
            index=index,
            label=label,
            predicted=draw(st.integers(0, 999)),
            lower=None,
            upper=0.0,
            proved_by="",
            broken_by="forward",
            detail="",
            seconds=seconds,
        )
    lower = draw(st.none() | SIZE)
    upper = draw(st.none() | SIZE.filter(lambda end: end > (-1 if lower is None else lower)))
    proved, broken = "" if lower is None else "exact", "" if upper is None else "attack"
    detail = draw(ANY_TEXT | st.just(""))
    return Bracket(
        index=index,
        label=label,
        predicted=label,
        lower=lower,
        upper=upper,
        proved_by=proved,
        broken_by=broken,
        detail=detail,
        seconds=seconds,
    )


@given(st.lists(points(), max_size=3), st.lists(brackets(), max_size=3), st.lists(layers(), max_size=3))
def test_rows_come_back_as_they_were(points: list[SweepRow], brackets: list[Bracket], layers: list[LayerRow]) -> None:
    for kind, rows in ((SweepRow, points), (Bracket, brackets), (LayerRow, layers)):
        columns: Columns[Any] = COLUMNS[kind]
        text = columns.text(rows, header=True)
        assert columns.read(PATH, text.encode()) == (rows, len(text.encode()))
        assert text.isascii() or text.replace("\n", "").isprintable()
        assert text.count("\n") == 1 + len(rows)  # a line a row, so that a torn one is the last
        for line in text.splitlines()[1:]:
            assert not line.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))


def test_numpy_numbers_are_written_as_numbers() -> None:
    row_ = SweepRow(**{**POINT.as_dict(), "value": np.float64(0.01), "samples": np.int64(9)})
    (line,) = COLUMNS[SweepRow].text([row_]).splitlines()
    assert line == COLUMNS[SweepRow].text([POINT]).strip()
