"""Formulas over outputs: closed forms of one layer, members drawn at random, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import Radii
from qverify.errors import UsageError
from qverify.family.family import Family
from qverify.properties.kinds import Holds, Subject
from qverify.properties.reading import read_property
from tests.support.commands import answer, qverify
from tests.support.networks import NETWORKS, sample_members
from tests.support.paths import ROOT
from tests.support.properties import decided, linear

DIGITS = ROOT / "models" / "digits.onnx"
LINE = linear([[1.0], [0.3], [-0.5]], [0.0, 0.0, 0.25])
"""At x = 1 with weights off by 0.1 the outputs fill [0.9, 1.1] x [0.2, 0.4] x [-0.35, -0.15], each by itself."""


@pytest.mark.parametrize(
    ("alternatives", "wanted"),
    [
        ([["y[0] >= 0.89"]], "holds"),
        ([["y[0] >= 0.91"]], "violated"),
        ([["y[0] - y[1] >= 0.49", "y[2] <= -0.14"]], "holds"),
        ([["y[0] - y[1] >= 0.49", "y[2] <= -0.16"]], "violated"),
        ([["y[0] >= 1.0"], ["y[0] <= 1.01"]], "holds"),
        ([["y[0] >= 1.01"], ["y[0] <= 0.99"]], "violated"),
        ([["y[0] >= 1.0", "y[1] >= 0.19"], ["y[0] <= 1.01", "y[2] <= -0.14"]], "holds"),
        ([["y[0] >= 1.0", "y[1] >= 0.3"], ["y[0] <= 1.0", "y[2] <= -0.14"]], "violated"),
        ([["-0.36 <= y[2] <= y[1] <= y[0] <= 1.11"]], "holds"),
        ([["2 * y[0] + 3 * y[1] - y[2] / 2 <= 3.576"]], "holds"),
        ([["2 * y[0] + 3 * y[1] - y[2] / 2 <= 3.574"]], "violated"),
        ([["y[label] >= y[1] + 0.49"]], "holds"),
        ([["y[label] > y[0]"]], "violated"),
    ],
)
def test_the_formulas_of_one_layer_have_a_closed_form(alternatives: list[list[str]], wanted: str) -> None:
    formula = Holds(tuple(map(tuple, alternatives)))
    (row,) = decided(LINE, np.array([[1.0]]), [0], Radii(weight=0.1), formula)
    assert row.status == wanted


def test_a_formula_that_no_outputs_can_break_holds() -> None:
    (row,) = decided(LINE, np.array([[1.0]]), [1], Radii(weight=0.1), Holds((("y[label] >= y[1]",),)))
    assert (row.status, row.detail, row.itself) == ("holds", "whatever the outputs", True)


@pytest.mark.parametrize("name", ["deep", "conv_attributes", "residual"])
def test_no_member_violates_what_holds(name: str) -> None:
    rng = np.random.default_rng(7)
    network = NETWORKS[name](rng)
    radii, seen = Radii(input=0.02, weight=0.01, bias=0.01, activation=0.01), set()
    x = rng.normal(size=(3, network.input_size))
    outputs, family = network.evaluate(x), Family.of(network, radii)
    for shift in (0.02, 0.3, 2.0):
        for index, own in enumerate(outputs):
            a, b = round(float(own[0] - own[1]), 3), round(float(own[1]), 3)
            formula = Holds(((f"y[0] - y[1] >= {a - shift}", f"y[1] <= {b + shift}"), (f"y[1] <= {b - shift}",)))
            (row,) = decided(network, x[index : index + 1], [0], radii, formula)
            seen.add(row.status)
            for corner in (False, True) if row.status == "holds" else ():
                y: Any = sample_members(family, x[index], rng, 200, corner)[-1]
                first = (y[:, 0] - y[:, 1] >= a - shift) & (y[:, 1] <= b + shift)
                assert (first | (y[:, 1] <= b - shift)).all()
    assert {"holds", "violated"} <= seen


def test_the_network_itself_is_told_apart() -> None:
    rows = [
        decided(LINE, np.array([[1.0]]), [0], Radii(weight=0.1), Holds(((text,),)))[0]
        for text in ("y[0] >= 0.95", "y[0] >= 1.05")
    ]
    assert [(row.status, row.itself) for row in rows] == [("violated", True), ("violated", False)]


# --- what is refused ---


@pytest.mark.parametrize(
    ("alternatives", "words"),
    [
        ([["y[0] >= 3", "y[0] <= 1"]], "no outputs meet y[0] >= 3 and y[0] <= 1: the same sum is to be at most 1"),
        ([["y[0] > 1", "y[0] <= 1"]], "at most 1 and at least 1"),
        ([["2 * y[0] - 2 * y[1] >= 4", "y[1] - y[0] >= -1.5"]], "at most 1.5 and at least 2; correct them"),
        ([["y[0] >= 1"], ["3 <= y[label] <= 1"]], "no outputs meet 3 <= y[label] <= 1"),
        ([[]], "an alternative without comparisons"),
        ([[f"y[{i}] >= 0" for i in range(11)]] * 3, "1331 ways to fail"),
    ],
)
def test_what_no_outputs_can_meet_is_refused(alternatives: list[list[str]], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Holds(tuple(map(tuple, alternatives)))


def test_what_only_touches_is_no_contradiction() -> None:
    assert len(Holds((("y[0] >= 1", "y[0] <= 1"),)).stated[0]) == 2


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (Holds((("y[3] >= 0",),)), "names output 3, but the network has 3, from 0 to 2"),
        (Holds((("y[0] >= 0",),), ("a", "b")), "names 2 classes, but the network has 3 outputs"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(formula: Holds, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        formula.clauses(Subject(lower=np.zeros(1), upper=np.zeros(1)), np.zeros(3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("holds = 3", "a formula has tables [[holds]]"),
        ("[[holds]]\nany = ['y[0] > 0']", "table 1 of holds is"),
        ("[[holds]]\nall = 'y[0] > 0'", "table 1 of holds is"),
        ("[[holds]]\nall = []", "table 1 of holds is"),
        ("k = 2\n[[holds]]\nall = ['y[0] > 0']", "'k' is no key of formula"),
        ("classes = [1]\n[[holds]]\nall = ['y[0] > 0']", "classes is [1]"),
        ("classes = ['a', 'a']\n[[holds]]\nall = ['y[0] > 0']", "names two classes alike"),
        ("[[holds]]\nall = ['y[0] * y[0] > 0']", "multiplies variables"),
    ],
)
def test_files_that_state_no_formula_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_property(str(path))


def test_the_command_decides_a_formula_by_names(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(
        'classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]\n'
        '[[holds]]\nall = ["y[label] > y[zero] - 100", "y[label] > y[9] - 100"]\n'
    )
    given = ("property", DIGITS, "--data", "digits", "--samples", "0:2", "--bits", 8, "--property", path)
    found = answer(*given)
    assert (found["holds"], found["itself"]) == (2, 2)
    path.write_text('[[holds]]\nall = ["y[10] > 0"]\n')
    result = qverify(*given)
    assert result.exit_code == 2 and "names output 10, but the network has 10, from 0 to 9" in result.stderr


def test_less_than_asked_for_fails(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[[holds]]\nall = ["y[2] > y[1]"]\n')  # half of the digits below
    given = ("property", DIGITS, "--data", "digits", "--samples", "0:2", "--bits", 8, "--property", path)
    assert answer(*given)["holds"] == 1
    result = qverify(*given, "--fail-under", 51)
    assert result.exit_code == 1 and "50.00 % (1 of 2), less than 51 %" in result.stderr
    assert qverify(*given, "--fail-under", 50).exit_code == 0
