"""Commands of qverify in this process, and what they print and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from qverify.cli import app as cli


def qverify(*arguments: Any) -> Result:
    """The command in this process; `.exit_code`, `.stdout`, `.stderr`."""
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def answer(*arguments: Any) -> dict[str, Any]:
    """What `--json` prints, which is all there is on stdout."""
    result = qverify(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1 and result.stdout.endswith("\n")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def same(row: dict[str, Any], line: dict[str, str]) -> bool:
    """A row of the JSON object and a line of the file; floats as Python reads them."""
    return all(
        line[k] == "" if v is None else (float(line[k]) == v if isinstance(v, float) else line[k] == str(v))
        for k, v in row.items()
    )
