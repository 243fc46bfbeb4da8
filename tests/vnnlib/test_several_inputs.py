"""Queries about a model with several inputs: answers against linear programs, `sat` replayed on the model itself."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from qverify.errors import UsageError
from qverify.properties.cases import cases
from qverify.vnnlib.models import model_of
from qverify.vnnlib.query import Query
from qverify.vnnlib.version2 import parse
from tests.support.commands import qverify
from tests.support.onnx_models import node
from tests.support.several_inputs import answers, joining

HEAD = "(vnnlib-version <2.0>)\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(a_0 - a_1) + 3 relu(b_0) - b_1, of `a` (1, 2) and `b` (1, 2) in float64."""
    nodes = [
        node("MatMul", "a w", "p"),
        node("Relu", "p", "q"),
        node("Cast", "b", "d", to=TensorProto.FLOAT),
        node("MatMul", "d v", "r"),
        node("Relu", "r", "s"),
        node("Concat", "q s", "t", axis=1),
        node("MatMul", "t u", "y"),
    ]
    constants = {
        "w": np.array([[1.0], [-1.0]]),
        "v": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]),
        "u": np.array([[1.0], [3.0], [-1.0], [1.0]]),
    }
    built = joining(nodes, constants, {"a": ["N", 2], "b": ["N", 2]}, {"b": TensorProto.DOUBLE})
    onnx.save(built, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


BOX = {"a": ([0.0, 0.25], [1.0, 0.5]), "b": ([-1.0, 0.1], [0.5, 2.0])}
"""Where y is at most 0.75 + 1.5 - 0.1 = 2.15."""


def exact(number: float) -> Fraction:
    """What is written."""
    return Fraction(str(number))


def first(limit: float) -> str:
    low, high = (BOX["a"][k] + BOX["b"][k] for k in (0, 1))
    lines = [f"(declare-const X_{i} Real)" for i in range(4)] + ["(declare-const Y_0 Real)"]
    lines += [f"(assert (and (>= X_{i} {low[i]}) (<= X_{i} {high[i]})))" for i in range(4)]
    return "\n".join([*lines, f"(assert (>= Y_0 {limit}))"])


def second(limit: float, order: str = "ab") -> str:
    """`order`: which input of the model is declared first, under names of the query's own."""
    inputs = [f"(declare-input I{name} real [1,2])" for name in order]
    text = [HEAD + "(declare-network f", *inputs, "(declare-output Y real [1,1])", ")"]
    for name, (low, high) in BOX.items():
        text += [f"(assert (and (>= I{name}[0,{i}] {low[i]}) (<= I{name}[0,{i}] {high[i]})))" for i in (0, 1)]
    return "\n".join([*text, f"(assert (>= Y[0,0] {limit}))"])


def asked(tmp_path: Path, query: str, *more: Any) -> Any:
    (tmp_path / "q.vnnlib").write_text(query)
    return qverify("vnnlib", "verify", tmp_path / "q.vnnlib", *more)


def test_version_1_counts_through_all_inputs(tmp_path: Path, model: Path) -> None:
    result = asked(tmp_path, first(2.1), "--network", model)
    words = [line.strip("()").split() for line in result.stdout.splitlines()]
    assert [word[0] for word in words] == ["sat", "X_0", "X_1", "X_2", "X_3", "Y_0"], result.stderr
    x = np.array([float(word[1]) for word in words[1:5]])
    assert all(
        BOX["a"][0][i] <= x[i] <= BOX["a"][1][i] and BOX["b"][0][i] <= x[2 + i] <= BOX["b"][1][i] for i in (0, 1)
    )
    y = answers(onnx.load(str(model)), {"a": x[None, :2], "b": x[None, 2:]})[0, 0]
    assert y == float(words[5][1]) >= 2.1
    assert asked(tmp_path, first(2.16), "--network", model).stdout == "unsat\n"


def test_version_2_has_a_tensor_for_each(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("vnnlib")
    result = asked(tmp_path, second(2.1), "--network", f"f={model}")
    lines = result.stdout.splitlines()
    assert [lines[k] for k in (0, 1, 4, 7)] == ["sat", "Ia real [1,2]", "Ib real [1,2]", "Y real [1,1]"], result.stderr
    given = {name: np.array([[float(lines[k]), float(lines[k + 1])]]) for name, k in (("a", 2), ("b", 5))}
    assert answers(onnx.load(str(model)), given)[0, 0] == float(lines[8]) >= 2.1
    assert asked(tmp_path, second(2.16), "--network", f"f={model}").stdout == "unsat\n"


def test_assignments_are_a_file_for_each(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("vnnlib")
    result = asked(tmp_path, second(2.1), "--network", f"f={model}", "--assignments", tmp_path / "out")
    assert result.stdout == "sat\n"
    read = {p.stem: numpy_helper.to_array(onnx.load_tensor(str(p))) for p in (tmp_path / "out").iterdir()}
    assert {name: array.shape for name, array in read.items()} == {"Ia": (1, 2), "Ib": (1, 2), "Y": (1, 1)}
    assert answers(onnx.load(str(model)), {"a": read["Ia"], "b": read["Ib"]})[0, 0] == read["Y"][0, 0] >= 2.1


def named(text: str, names: list[str | None]) -> Query:
    """A query whose inputs are called so in the model, which the standard has and its parser not yet."""
    query = parse(text, "q")
    inputs = tuple(replace(one, onnx_name=name) for one, name in zip(query.inputs, names, strict=True))
    return replace(query, inputs=inputs)


def test_inputs_are_found_by_name_or_by_order(model: Path) -> None:
    pytest.importorskip("vnnlib")
    low, high = [0.0, 0.25, -1.0, 0.1], [1.0, 0.5, 0.5, 2.0]
    known: list[tuple[str, list[str | None], tuple[list[float], list[float]]]] = [
        (second(2.1), [None, None], (low, high)),
        (second(2.1, "ba"), ["b", "a"], (low, high)),
        (second(2.1, "ba"), [None, None], (low[2:] + low[:2], high[2:] + high[:2])),
    ]
    for text, names, ends in known:
        query = model_of(named(text, names), [f"f={model}"]).query
        (case,) = cases(query.formula, 4, query.input_name)
        assert case.lower == tuple(map(exact, ends[0])) and case.upper == tuple(map(exact, ends[1]))
    assert [query.input_name(k) for k in range(4)] == ["Ib[0,0]", "Ib[0,1]", "Ia[0,0]", "Ia[0,1]"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "c"], "The query calls Ib 'c' in the model, but m.onnx reads 'a', 'b'"),
        (["a", "a"], "or the same for two; say it for each, or for none"),
        (["a", None], "The query says for some inputs only"),
    ],
)
def test_names_that_do_not_fit(names: list[str | None], words: str, model: Path) -> None:
    pytest.importorskip("vnnlib")
    with pytest.raises(UsageError, match=re.escape(words)):
        model_of(named(second(2.1), names), [f"f={model}"])


def test_sizes_that_do_not_fit(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("vnnlib")
    wide = second(2.1).replace("Ib real [1,2]", "Ib real [1,3]") + "(assert (and (>= Ib[0,2] 0.0) (<= Ib[0,2] 0.0)))"
    short = "\n".join(line for line in first(2.1).splitlines() if "X_3" not in line)
    onnx.save(joining([node("Relu", "a", "y")], {}, {"a": ["N", 4]}), tmp_path / "one.onnx")
    for query, path, words in (
        (wide, model, "declares Ib with 3 numbers, but m.onnx reads 2"),
        (short, model, "declares X with 3 numbers, but m.onnx reads 4"),
        (second(2.1), tmp_path / "one.onnx", "declares 2 inputs ('Ia', 'Ib'), but one.onnx reads 1"),
    ):
        result = asked(tmp_path, query, "--network", f"f={path}")
        assert result.exit_code == 2 and words in " ".join(result.stderr.split()), result.stderr
