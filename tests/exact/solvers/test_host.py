"""The messages of a solver process, answered in this one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.errors import SolverError
from qverify.exact.program import Objective, Program
from qverify.exact.solvers import host
from tests.support.solving import (
    INSTALLED,
    NOTHING,
    integer_optimum,
    random_program,
)


@pytest.mark.parametrize("name", [host.TREE, *INSTALLED])
def test_sessions_by_number(name: str) -> None:
    """Two programs at once, each with its optimum by enumeration, in its own units."""
    here, asked = host.Host(), {number: random_program(100 + number, 3, 3, 5) for number in (3, 8)}
    if name == host.TREE:  # binaries only
        asked = {number: binary(*pair) for number, pair in asked.items()}
    for number, (program, _) in asked.items():
        here.open(number, name, program)
    for number, (program, objective) in asked.items():
        outcome, truth = here.minimise(number, objective, NOTHING, False), integer_optimum(program, objective)
        assert outcome.dual_bound == pytest.approx(truth, abs=1e-6)
        here.close(number)
        here.close(number)  # a number that is not there is no error
        with pytest.raises(KeyError):
            here.minimise(number, objective, NOTHING, False)


def binary(program: Program, objective: Objective) -> tuple[Program, Objective]:
    """The same program with its integers moved to 0 and 1, and no more of them."""
    shift = np.where(program.integer, program.lower, 0.0)
    activity = program.rows @ shift
    moved = replace(
        program,
        lower=program.lower - shift,
        upper=np.where(program.integer, 1.0, program.upper),
        row_lower=program.row_lower - activity,
        row_upper=program.row_upper - activity,
    )
    return moved, Objective(objective.cost, objective.offset + float(objective.cost @ shift))


def test_errors_are_answers() -> None:
    def raising(error: Any) -> Any:
        def method() -> None:
            raise error

        return host._reply(method, ())

    known = SolverError("No licence.")
    assert raising(known) is known
    for error, said in ((MemoryError(), "more memory"), (ValueError("odd"), "ValueError: odd")):
        answer = raising(error)
        assert isinstance(answer, host.Failed) and said in str(answer)
    assert host._reply(lambda a, b: a + b, (1, 2)) == 3
