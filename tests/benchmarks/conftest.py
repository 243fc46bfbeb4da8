"""Benchmarks print one table at the end: `make bench`. Timings are noisy, so medians are shown."""

from __future__ import annotations

from typing import Any

import pytest

_ROWS: list[tuple[str, str, str]] = []


@pytest.fixture
def report() -> Any:
    """`report(what, figure, remark)` adds a row to the table."""
    return lambda what, figure, remark="": _ROWS.append((what, figure, remark))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _ROWS:
        return
    terminalreporter.section("qverify benchmarks")
    for row in [("what", "figure", "remark"), ("---", "---", "---"), *_ROWS]:
        terminalreporter.write_line("| " + " | ".join(row) + " |")
