"""Verdicts on random small networks against the truth by linear programs: never a wrong answer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.properties import decide
from tests.support.commands import qverify
from tests.support.vnnlib_queries import Clauses, Drawn, Matrices, drawn, model, text


def verdict(query: Path, network: Path, *more: Any) -> list[str]:
    result = qverify("vnnlib", "verify", query, "--network", f"f={network}", "--timeout", 60, *more)
    assert result.exit_code == 0, result.stderr
    lines: list[str] = result.stdout.splitlines()
    return lines


def numbers(lines: list[str], letter: str) -> Any:
    words = [line.strip("()").split() for line in lines]
    return np.array([float(word[1]) for word in words if word[0].startswith(f"{letter}_")])


def check(found: Drawn) -> str:
    """The verdict is the truth; what is printed satisfies the query in onnxruntime, without a tolerance."""
    lines = verdict(found.query, found.model)
    assert lines[0] == ("sat" if found.least <= 0 else "unsat"), (lines[0], found.least)
    if lines[0] == "sat":
        x, y = numbers(lines[1:], "X"), numbers(lines[1:], "Y")
        free = found.low < found.high  # what is fixed has the nearest float32
        assert ((x >= found.low) & (x <= found.high) | ~free).all()
        assert np.array_equal(x, np.where(free, x, found.low).astype(np.float32).astype(np.float64))
        session = onnxruntime.InferenceSession(str(found.model))
        run = session.run(None, {"input": x[None].astype(np.float32)})[0][0]
        assert np.array_equal(run, y.astype(np.float32))
        assert any(all(a @ run.astype(np.float64) <= b for a, b in clause) for clause in found.clauses)
    return lines[0]


def test_random_questions_have_the_true_answer(tmp_path: Path) -> None:
    assert {check(drawn(seed, tmp_path)) for seed in range(12)} == {"sat", "unsat"}


@pytest.mark.slow
def test_many_random_questions_have_the_true_answer(tmp_path: Path) -> None:
    for seed in range(100, 200):
        check(drawn(seed, tmp_path))


@pytest.mark.parametrize("number", range(8))
def test_boxes_that_are_halved_have_the_true_answer(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, but the cascade decides nothing."""
    unknown = decide.Decision(answer=decide.Answer.UNKNOWN)
    monkeypatch.setattr(decide._Group, "_cascade", lambda *_: unknown)
    check(drawn(500 + number, tmp_path))


def test_the_wide_box_is_halved(tmp_path: Path) -> None:
    """A saw tooth whose bounds are loose on the whole box: what is halved holds, just above and just below its top."""
    tent = [(np.array([[1.0], [1.0]]), np.array([0.0, -1.0])), (np.array([[1.0, -2.0]]), np.array([0.0]))]
    layers: Matrices = []
    for _ in range(3):
        layers += tent if not layers else [(tent[0][0] @ layers.pop()[0], tent[0][1]), tent[1]]
    path, query = model(layers, tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    for limit, wanted in ((1.01, "unsat"), (0.99, "sat")):
        query.write_text(text([0.0], [2.0], [[(np.array([-1.0]), -limit)]]))
        assert verdict(query, path)[0] == wanted


def family_clauses(limit: float) -> Clauses:
    return [[(np.array([-1.0]), -limit)]]


@pytest.mark.parametrize(("share", "wanted"), [(1.001, "unsat"), (0.999, "sat")])
def test_a_family_of_one_layer_has_the_closed_form(share: float, wanted: str, tmp_path: Path) -> None:
    """y = w . x + b: the most over the family is sum max((|w| + r) x) + b + r."""
    weight, bias, radius = np.array([[0.5, -0.25]]), np.array([0.125]), 0.1
    low, high = np.array([0.0, -1.0]), np.array([1.0, 0.5])
    most = 0.6 * 1.0 + 0.35 * 1.0 + 0.125 + radius
    radii, query = tmp_path / "r.toml", tmp_path / "q.vnnlib"
    radii.write_text(f"weight = {radius}\nbias = {radius}\n")
    query.write_text(text(low, high, family_clauses(share * most)))
    lines = verdict(query, model([(weight, bias)], tmp_path / "m.onnx"), "--radii", radii)
    assert lines[0] == wanted
    if wanted == "sat":
        x, (y,) = numbers(lines[1:], "X"), numbers(lines[1:], "Y")
        reached = weight[0] @ x + radius * abs(x).sum() + bias[0] + radius
        assert share * most <= y <= reached + 1e-12
    assert verdict(query, tmp_path / "m.onnx")[0] == "unsat"


def test_bits_are_those_of_the_scheme_paper(tmp_path: Path) -> None:
    """y = x at 4 bits: input 1/16, weights and biases 1/8; the most at x = 1 is 17/16 9/8 + 1/8."""
    path, query = model([(np.eye(1), np.zeros(1))], tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    for limit, wanted in ((1.32, "sat"), (1.3203125 + 1e-6, "unsat")):
        query.write_text(text([0.0], [1.0], family_clauses(limit)))
        assert verdict(query, path, "--bits", 4)[0] == wanted


def test_what_only_real_arithmetic_reaches_is_not_sat(tmp_path: Path) -> None:
    """1 + 1e-9 is 1 in float32, so the model does not confirm it; the same model in float64 does."""
    layers = [(np.eye(1), np.array([1e-9]))]
    query = tmp_path / "q.vnnlib"
    query.write_text(text([0.0], [1.0], family_clauses(1.0000000005)))
    assert verdict(query, model(layers, tmp_path / "single.onnx"))[0] == "unknown"
    assert verdict(query, model(layers, tmp_path / "double.onnx", double=True))[0] == "sat"


def test_an_input_fixed_to_no_float32_has_the_nearest(tmp_path: Path) -> None:
    path, query = model([(np.eye(2), np.zeros(2))], tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    query.write_text(text([0.1, 0.0], [0.1, 1.0], [[(np.array([0.0, -1.0]), -0.5)]]))
    result = qverify("vnnlib", "verify", query, "--network", path)
    assert result.stdout.startswith("sat\n") and numbers(result.stdout.splitlines()[1:], "X")[0] == np.float32(0.1)
    assert "1 inputs are fixed to numbers that float32 lacks" in result.stderr


def test_a_strict_comparison_is_judged_as_strict(tmp_path: Path) -> None:
    path, query = model([(np.eye(1), np.zeros(1))], tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    base = text([0.0], [1.0], family_clauses(1.0))
    for words, wanted in ((base, "sat"), (base.replace("(<= (+", "(< (+"), "unknown")):
        query.write_text(words)
        assert verdict(query, path)[0] == wanted


def test_any_output_will_do_where_none_is_compared(tmp_path: Path) -> None:
    path, query = model([(np.eye(1), np.zeros(1))], tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    query.write_text("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (and (<= X_0 2) (>= X_0 1)))")
    lines = verdict(query, path)
    assert lines[0] == "sat" and 1 <= numbers(lines[1:], "X")[0] <= 2


def test_boxes_of_alternatives_are_all_looked_at(tmp_path: Path) -> None:
    """y = relu(x): above 2 only in the second box; the third is empty and counts for nothing."""
    path, query = model([(np.eye(1), np.zeros(1)), (np.eye(1), np.zeros(1))], tmp_path / "m.onnx"), tmp_path / "q"
    declared = "(declare-const X_0 Real)(declare-const Y_0 Real)"
    for second, wanted in ((2.5, "sat"), (1.5, "unsat")):
        boxes = [f"(and (>= X_0 {low}) (<= X_0 {high}))" for low, high in ((-9, 1), (1.25, second), (5, 4))]
        query.write_text(f"{declared}(assert (or {' '.join(boxes)}))(assert (>= Y_0 2))")
        assert verdict(query, path)[0] == wanted


def test_there_may_be_no_time_limit(tmp_path: Path) -> None:
    path, query = model([(np.eye(2), np.zeros(2))], tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    query.write_text(text([0.0, 0.0], [1.0, 1.0], [[(np.array([-1.0, 0.0]), -1.5)]]))
    assert qverify("vnnlib", "verify", query, "--network", path, "--timeout", "inf").stdout == "unsat\n"


def test_time_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [5, 40, 40, 40, 40, 5]
    layers = [(1.5 * rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)) for n, m in pairwise(sizes)]
    path, query = model(layers, tmp_path / "m.onnx"), tmp_path / "q.vnnlib"
    query.write_text(text([-2.0] * 5, [2.0] * 5, [[(-np.eye(5)[0], -6.0)]]))
    result = qverify("vnnlib", "verify", query, "--network", path, "--timeout", 1)
    assert result.stdout == "timed-out\n" and result.exit_code == 0
