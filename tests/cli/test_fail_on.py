"""`qverify verify --fail-on`: status 1 never comes without the samples it is about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.commands import qverify, read_rows
from tests.support.paths import DIGITS

GIVEN = ("verify", DIGITS, "--data", "digits", "--bits", 6, "--method", "ibp", "--samples", "50:150")


def _by_status(folder: Path) -> dict[str, list[int]]:
    found: dict[Any, Any] = {}
    for row in sorted(read_rows(folder), key=lambda row: row["index"]):
        found.setdefault(row["status"], []).append(row["index"])
    return found


def _lines(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if "--fail-on" in line]


@pytest.mark.parametrize("words", ["falsified", "misclassified", "unknown", "falsified,unknown", "unknown, falsified"])
@pytest.mark.parametrize("extra", [(), ("--json",)], ids=["tables", "json"])
def test_one_sentence_names_the_samples(tmp_path: Path, words: str, extra: tuple[str, ...]) -> None:
    result = qverify(*GIVEN, "--fail-on", words, "--out", tmp_path, *extra)
    found, asked = _by_status(tmp_path), [word.strip() for word in words.split(",")]
    assert result.exit_code == 1 and all(found[word] for word in asked)
    (line,) = _lines(result)
    assert line.startswith(f"qverify: --fail-on {','.join(asked)}: {len(found[asked[0]])} of 100 samples ")
    for word in asked:
        count = len(found[word])
        listed = re.search(rf"\b{count}(?: of 100 samples)? (is|are) {word} \(([^)]*)\)", line)
        assert listed and (listed[1] == "is") == (count == 1)
        shown, _, more = listed[2].partition(" and ")
        assert [int(index) for index in shown.split(", ")] == found[word][:10]
        assert more == (f"{count - 10} more" if count > 10 else "")
    assert "--fail-on" not in result.stdout and (not extra or json.loads(result.stdout)["samples"] == 100)


def test_nothing_is_said_where_nothing_was_hit(tmp_path: Path) -> None:
    given = (
        "verify",
        DIGITS,
        "--data",
        "digits",
        "--bits",
        12,
        "--samples",
        "100:103",
        "--fail-on",
        "falsified,unknown",
    )
    result = qverify(*given, "--out", tmp_path)
    assert result.exit_code == 0 and not _lines(result) and set(_by_status(tmp_path)) == {"verified"}


def test_samples_of_an_earlier_start_count(tmp_path: Path) -> None:
    first = qverify(*GIVEN, "--fail-on", "falsified", "--out", tmp_path)
    again = qverify(*GIVEN, "--fail-on", "falsified", "--out", tmp_path, "--resume")
    assert (first.exit_code, again.exit_code) == (1, 1) and _lines(first) == _lines(again)
