"""The summary of a job in CI, as Markdown: passed or failed, the table, and what exactly is proved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.report.claim import claim
from qverify.report.text import markdown_table
from qverify.text import escapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.report.table import Line


def job_summary(lines: Sequence[Line], failure: str, asked: bool) -> str:
    """The summary; `failure`: why the gate is shut, empty if it is not; `asked`: whether there is a gate."""
    models = ", ".join(dict.fromkeys(line.model for line in lines))
    word = f"**Failed:** {escapes.markdown(failure)}" if failure else "**Passed.**" if asked else ""
    claims = [f"- {escapes.markdown(claim(line))}" for line in lines]
    parts = [f"## qverify: {escapes.markdown(models)}", word, markdown_table(lines).rstrip(), "\n".join(claims)]
    return "\n\n".join(part for part in parts if part) + "\n\n"
