"""What is refused, by a function or by a command, as one sentence."""

from __future__ import annotations

from typing import Any

from tests.support.commands import qverify


def sentence(caught: Any) -> str:
    """The message of a refusal: one sentence on one line."""
    message = str(caught.value)
    assert message.endswith(".") and message.isprintable()
    return message


def refusal(*arguments: Any, status: int = 2) -> str:
    """What a command says that ends with `status`; nothing of it on stdout."""
    result = qverify(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("qverify: note:")]
    assert len(lines) == 1 and lines[0].startswith("qverify: ") and lines[0].endswith(".")
    return lines[0].removeprefix("qverify: ")
