"""`qverify solvers`."""

from __future__ import annotations

import pytest

from qverify.exact.solvers import ADAPTERS
from qverify.exact.solvers.base import Availability
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS


def test_solvers_lists_all_and_what_auto_takes() -> None:
    found = answer("solvers")
    assert set(found["solvers"]) == set(ADAPTERS)
    assert set(found["solvers"]["highs"]) == {"works", "version", "licence", "limits", "remedy"}
    assert ADAPTERS[found["auto"]["bilinear"]].products
    assert found["solvers"]["highs"]["works"] and found["auto"]["relational"] in ADAPTERS
    assert "--solver auto takes " + found["auto"]["relational"] in qverify("solvers").stdout


def test_no_solver_at_all_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Availability(works=False, remedy="Install it.")
    for solver in ADAPTERS.values():
        monkeypatch.setattr(type(solver), "availability", lambda self: gone)
    monkeypatch.setattr(type(ADAPTERS["gurobi"]), "full_licence", lambda self: False)
    result = qverify("solvers")
    assert result.exit_code == 3 and "highs: Install it." in result.stdout and "takes none" in result.stdout
    assert qverify("verify", DIGITS, "--data", "digits", "--bits", 8).exit_code == 3
    assert qverify("verify", DIGITS, "--data", "digits", "--bits", 8, "--method", "bp").exit_code == 0
