"""Starts: as JSON and back, their solvers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from qverify.runs.start import SolverUsed, Start, used_solvers
from qverify.verification.verdict import Options

SOLVER = {"name": "highs", "version": "1.2.3", "licence": "MIT"}
STARTS: dict[str, dict[str, Any]] = {
    "run": {"started": "now", "solver": SOLVER, "jobs": 2, "device": "cpu"},
    "cluster": {"started": "now", "solver": None, "cluster": "tcp://h:1"},
    "sweep": {"started": "now", "solver": None},
    "radius": {"solver": None, "jobs": 1, "device": "cpu", "accuracy": 0.9, "layer_method": "bp"},
    "radius without layers": {"solver": None, "jobs": 1, "device": "cpu", "accuracy": None, "layer_method": None},
    "without a licence": {"solver": {"name": "scip", "version": "9"}},
    "of a later version": {"started": "now", "solver": None, "host": "h"},
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_comes_back_as_it_was(kind: str) -> None:
    start = Start.from_json(STARTS[kind])
    assert start.to_json() == STARTS[kind] and Start.from_json(start.to_json()) == start


@pytest.mark.parametrize(
    "value", [None, [], 1, "x", {"jobs": "4"}, {"solver": []}, {"solver": {"name": "highs"}}, {"accuracy": -1}]
)
def test_what_is_no_start_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="senseless"):
        Start.from_json(value)


def test_each_solver_is_named_once_in_the_order_of_the_starts() -> None:
    starts = [Start.from_json(STARTS[kind]) for kind in ("without a licence", "run", "sweep", "run")]
    assert used_solvers(starts) == ["scip 9", "highs 1.2.3"]


def test_only_methods_with_an_exact_step_have_a_solver() -> None:
    assert SolverUsed.of(Options(method="bp")) is None
    found = SolverUsed.of(Options(method="exact", solver="highs"))
    assert found is not None and found.name == "highs" and found.version[0].isdigit()
