"""Gurobi's licences: what each admits, and what is said without one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qverify.errors import ModelTooLarge
from qverify.exact import solvers
from qverify.exact.program import Products
from qverify.exact.solvers import gurobi
from tests.support.solving import (
    INSTALLED,
    box_program,
    minimise,
)


@pytest.fixture
def small_licence() -> None:
    if "gurobi" not in INSTALLED or solvers.adapter("gurobi").full_licence():  # type: ignore[attr-defined]
        pytest.skip("gurobi: needs the size-limited licence")


def test_model_too_large(small_licence: None) -> None:
    gurobi_solver = solvers.adapter("gurobi")
    assert minimise(gurobi_solver, *box_program(2000)).dual_bound == pytest.approx(1.0)
    with pytest.raises(ModelTooLarge, match=r"2001 variables.*2000 variables.*--solver highs.*GRB_LICENSE_FILE"):
        minimise(gurobi_solver, *box_program(2001))
    product = Products(row=np.array([0]), first=np.array([0]), second=np.array([1]), coefficient=np.ones(1))
    program, objective = box_program(201)
    with pytest.raises(ModelTooLarge, match=r"200 variables once products.*--solver scip"):
        minimise(gurobi_solver, dataclasses.replace(program, products=product), objective)


@pytest.mark.parametrize("content", ["garbage", None])
def test_gurobi_without_a_licence(tmp_path: Path, content: str | None) -> None:
    """In a process of its own: Gurobi reads the licence once. No traceback, nothing on stdout, a remedy."""
    if "gurobi" not in INSTALLED:
        pytest.skip("gurobi")
    if content is not None:
        (tmp_path / "gurobi.lic").write_text(content)
    code = (
        "from qverify.exact import solvers\n"
        "from qverify.errors import SolverError\n"
        "import sys\n"
        "state = solvers.adapter('gurobi').availability()\n"
        "assert not state.works and 'GRB_LICENSE_FILE' in state.remedy, state\n"
        "assert solvers.choose('auto', False).name == 'highs'\n"
        "try:\n    solvers.choose('gurobi', True)\n"
        "except SolverError as error:\n    print(error, file=sys.stderr)\n"
    )
    environment = os.environ | {"GRB_LICENSE_FILE": str(tmp_path / "gurobi.lic")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "" and "no valid licence" in run.stderr and "Traceback" not in run.stderr


def test_every_ending_has_its_name() -> None:
    if "gurobi" not in INSTALLED:
        pytest.skip("gurobi")
    assert set(gurobi._endings().values()) == set(gurobi.ENDINGS.values())
