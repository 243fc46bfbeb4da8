"""VNN-LIB 2.0 through the standard's own parser, and what qverify refuses of it."""

from __future__ import annotations

import re
import sys
from fractions import Fraction

import pytest

from qverify.errors import PackageMissing, UsageError
from qverify.properties.formula import holds
from qverify.vnnlib.version2 import parse

HEAD = "(vnnlib-version <2.0>)\n"
NETWORK = HEAD + "(declare-network f\n(declare-input X real [1,2])\n(declare-output Y real [2,2])\n)\n"


def met(assertion: str, y: list[str]) -> bool:
    pytest.importorskip("vnnlib")
    return holds(
        parse(f"{NETWORK}(assert {assertion})", "q").formula, [Fraction(1), Fraction(2)], list(map(Fraction, y))
    )


@pytest.mark.parametrize(
    ("assertion", "wanted"),
    [
        ("(<= Y[0,1] 0.1)", True),
        ("(< Y[0,1] 0.1)", False),
        ("(== Y[1,0] -2.5)", True),
        ("(!= Y[1,0] -2.5)", False),
        ("(>= X[0,1] 2.0)", True),
        ("(and (<= Y[0,0] 0.0) (or (> Y[1,1] 7.0) (>= Y[1,1] 6.0)))", True),
        ("(<= (+ (* 2.0 Y[0,1]) (- Y[1,1]) (- X[0,0] 1.0 0.2)) -6.0)", True),
        ("(<= (* 2.0 (+ X[0,0] 1.0)) 3.9)", False),
    ],
)
def test_assertions_mean_what_they_say(assertion: str, wanted: bool) -> None:
    assert met(assertion, ["0", "0.1", "-2.5", "6"]) is wanted


def test_names_types_and_shapes() -> None:
    pytest.importorskip("vnnlib")
    query = parse(f"{NETWORK}(assert (<= Y[0,1] 0.5))", "q")
    assert (query.network, query.inputs[0].name, query.inputs[0].type, query.output.shape) == ("f", "X", "real", (2, 2))
    assert (query.input_name(1), query.output.element(2)) == ("X[0,1]", "Y[1,0]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NETWORK + "(assert (<= Z[0] 1.0))", "q: line 6: Undeclared variable 'Z'"),
        (NETWORK + "(assert (<= Y[0,9] 1.0))", "q: line 6: Index out of bounds for variable 'Y[0,9]'"),
        (NETWORK + "(assert (<= Y[0,0]", "q: Parse error"),
        (NETWORK + "(assert (<= (* Y[0,0] Y[0,1]) 1.0))", "multiplies variables"),
        (
            NETWORK.replace("real", "float32") + "(assert (<= Y[0,0] 1.0))",
            "X is declared float32, which qverify cannot",
        ),
        (
            NETWORK.replace("(declare-output", '(declare-hidden H real [3] "h")\n(declare-output')
            + "(assert (<= H[0] 1.0))",
            "the query has the hidden node 'H'",
        ),
        (
            NETWORK
            + NETWORK.removeprefix(HEAD).replace(" f", " g").replace("X", "V").replace("Y", "W")
            + "(assert (<= Y[0,0] 1.0))",
            "the query has 2 networks ('f', 'g')",
        ),
        (
            NETWORK.replace(")\n)", ")\n(declare-output V real [3])\n)") + "(assert (<= V[0] 1.0))",
            "the query has 1 inputs and 2 outputs ('Y', 'V')",
        ),
    ],
)
def test_what_is_not_supported_is_refused(text: str, words: str) -> None:
    pytest.importorskip("vnnlib")
    with pytest.raises(UsageError, match=re.escape(words)) as error:
        parse(text, "q")
    assert "\n" not in str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vnnlib", None)
    with pytest.raises(PackageMissing, match=re.escape("pip install 'qverify[vnnlib]'")):
        parse(NETWORK, "q")
