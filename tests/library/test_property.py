"""`qverify.verify_property`: properties, samples, boxes and radii in whatever form a program has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import qverify
from qverify import Radii
from qverify.errors import DataError, UsageError
from qverify.properties.kinds import Distance, Holds, Margin, TopK
from qverify.properties.score import Score
from tests.support.paths import ROOT
from tests.support.properties import linear

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = ROOT / "models" / "digits.onnx"
LINE = linear([[1.0, 0.0], [0.3, 1.0]], [0.0, 0.0])
X = np.array([[1.0, 0.0], [2.0, 0.0]])


def statuses(wanted: Any, *given: Any, **words: Any) -> list[str]:
    return [row.status for row in qverify.verify_property(LINE, wanted, *given, **words)]


def test_properties_come_as_text_objects_and_files(tmp_path: Path) -> None:
    """At radii of 0.1 y is at least 0.9 x - y at most 0.4 x, in x = 1 and 2."""
    path = tmp_path / "p.toml"
    path.write_text('[[holds]]\nall = ["y[0] - y[1] >= 0.49", "y[0] <= 2"]\n')
    radii = Radii(weight=0.1)
    assert statuses("y[0] - y[1] >= 0.49", X, None, radii) == ["holds", "holds"]
    assert statuses(Holds((("y[0] >= 1.5",),)), X, None, radii) == ["violated", "holds"]
    assert statuses(Margin(0.6), X, [0, 0], radii) == ["violated", "holds"]
    assert statuses(path, X, None, radii) == statuses(str(path), X, None, radii) == ["holds", "violated"]


def test_samples_come_from_a_data_set_too() -> None:
    rows = qverify.verify_property(DIGITS, "y[label] > y[3] - 100", data="digits", samples="5:7", radii=8)
    assert [(row.index, row.label, row.status) for row in rows] == [(5, 7, "holds"), (6, row_label(6), "holds")]


def row_label(index: int) -> int:
    return int(qverify.datasets.load("digits").y[index])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TopK(0), "k is the int 0; give a whole number from 1"),
        (lambda: TopK(True), "k is True; give a whole number from 1"),
        (lambda: Margin(-1), "The margin is the int -1; give a number from 0"),
        (lambda: Margin("1"), "The margin is the str '1'"),  # type: ignore[arg-type]
        (lambda: Distance(float("inf")), "The distance is the float inf"),
        (lambda: Distance(), "The distance is 0; give one above 0"),
        (lambda: Distance(1.0, (-1,)), "The outputs are the tuple (-1,)"),
        (lambda: Holds(("y[0] > 1",)), "what holds is the str 'y[0] > 1'"),  # type: ignore[arg-type]
        (lambda: Holds(((1,),)), "a comparison or class is the int 1"),  # type: ignore[arg-type]
        (lambda: Score("rmse", 1.0), "The score is the str 'rmse'; give one of mse, mae, linf"),
        (lambda: Score("mse", 0.0), "The threshold is the float 0.0; give a number above 0"),
        (lambda: Score("mse", 1.0, "other"), "The decision is the str 'other'"),
    ],
)
def test_senseless_properties_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("wanted", "x", "y", "words", "error"),
    [
        ("y[label] > 0", X, None, "is about labels, and the data have none", DataError),
        ("y[label] > 0", X, [0, 2], "A label is 2, but the network has 2 outputs", DataError),
        ("y[label] > 0", X, [0.5, 1.5], "is about labels, and the data have none", DataError),
        (3, X, None, "The property is the int 3", UsageError),
        ("y[0] > 0", None, None, "The samples are missing", UsageError),
        ("y[0] > 0", (X, X, X), None, "a tuple of 3", DataError),
        ("y[0] > 0", X, [1], "y, has 1 entries for 2 inputs", DataError),
        ("y[0] > 0", np.zeros((2, 3)), None, "the network reads (2,)", DataError),
    ],
)
def test_what_makes_no_sense_is_refused(wanted: Any, x: Any, y: Any, words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        qverify.verify_property(LINE, wanted, x, y, Radii(weight=0.1))
