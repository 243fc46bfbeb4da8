"""`qverify runtimes`: what it prints and writes, and its status."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qverify as package
from qverify.network import Network
from qverify.runtimes.decide import RuntimeAnswer, RuntimeOptions, same_on_runtimes
from tests.support.commands import answer, qverify
from tests.support.integer_networks import Maker
from tests.support.paths import DIGITS, ROOT


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Network, np.ndarray, list[Any]]:
    """A small network as if a file held it, samples of which some differ, and the arguments for both."""
    made = Maker(np.random.default_rng(4), (2, 2, 2))
    hidden = made.rounded(made.conv(1, 2, groups=2, pads=(0, 0, 1, 1), strides=(2, 2)), 0.5, -15)
    made.rounded(made.dense(hidden, 3), 0.5, -15)
    network, x = made.network(), np.concatenate([made.sample()[0] for _ in range(30)])
    np.savez(tmp_path / "data.npz", x=x.reshape(30, 2, 2, 2), y=network.evaluate(x).argmax(1))
    (tmp_path / "small.tflite").write_bytes(b"a file")
    monkeypatch.setattr("qverify.runs.problem.load", lambda path, output=None: network)
    return network, x, ["runtimes", tmp_path / "small.tflite", "--data", tmp_path / "data.npz"]


def test_answers_are_those_of_the_library(given: tuple[Network, np.ndarray, list[Any]], tmp_path: Path) -> None:
    network, x, arguments = given
    expected = same_on_runtimes(network, x[3:28])
    found = answer(*arguments, "--samples", "3:28", "--out", tmp_path / "rows.jsonl")
    assert [row["index"] for row in found["rows"]] == list(range(3, 28))
    for row, one in zip(found["rows"], expected, strict=True):
        assert {**one.to_json(), "index": row["index"], "seconds": row["seconds"]} == {
            name: value for name, value in row.items() if name != "label"
        }
    statuses = [one.status for one in expected]
    assert {status: found[status] for status in ("same", "differs")} == {
        status: statuses.count(status) for status in ("same", "differs")
    }
    assert 0 < found["differs"] < 25 and found["samples"] == 25 and found["right"] <= found["same"]
    assert found["widest"] == max(float((one.upper - one.lower).max()) for one in expected)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda row: row["index"]) == found["rows"]
    again = qverify(*arguments, "--out", tmp_path / "rows.jsonl")
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_tables_say_what_was_found(given: tuple[Network, np.ndarray, list[Any]]) -> None:
    network, x, arguments = given
    statuses = [one.status for one in same_on_runtimes(network, x)]
    shown = qverify(*arguments).stdout
    assert re.search(rf"^same +{statuses.count('same')} ", shown, re.MULTILINE)
    told = [int(index) for index in re.findall(r"^Sample (\d+): class \d, or \d with ", shown, re.MULTILINE)]
    assert told == [i for i, status in enumerate(statuses) if status == "differs"]
    assert all(f"Rule {rule}: " in shown for rule in ("float32", "single", "double"))
    assert "Rule double" not in qverify(*arguments, "--rules", "single,float32").stdout


def test_ranges_are_exact_if_asked_for(given: tuple[Network, np.ndarray, list[Any]]) -> None:
    *_, arguments = given
    plain, exact = answer(*arguments), answer(*arguments, "--ranges")
    assert all(row["lower"] == row["attained_lower"] and row["upper"] == row["attained_upper"] for row in exact["rows"])
    assert [row["status"] for row in plain["rows"]] == [row["status"] for row in exact["rows"]]
    assert exact["widest"] == exact["widest_attained"] <= plain["widest"]


def test_fail_on(given: tuple[Network, np.ndarray, list[Any]]) -> None:
    *_, arguments = given
    result = qverify(*arguments, "--fail-on", "unknown,differs")
    assert result.exit_code == 1 and re.search(
        r"--fail-on unknown,differs: of 30 samples \d+ differs \(", result.stderr
    )
    assert qverify(*arguments, "--fail-on", "unknown").exit_code == 0
    wrong = qverify(*arguments, "--fail-on", "falsified")
    assert wrong.exit_code == 2 and "none of differs, unknown, misclassified" in wrong.stderr
    assert qverify(*arguments, "--rules", "half").exit_code == 2


def test_an_interrupted_run_keeps_its_rows(
    given: tuple[Network, np.ndarray, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(network: Network, x: Any, options: RuntimeOptions, tell: Any, stop: Any) -> None:
        def told(one: RuntimeAnswer) -> None:
            tell(one)
            os.kill(os.getpid(), signal.SIGINT)

        same_on_runtimes(network, x, options, told, stop)

    *_, arguments = given
    monkeypatch.setattr("qverify.cli.runtimes.same_on_runtimes", interrupted)
    result = qverify(*arguments, "--jobs", 1, "--out", tmp_path / "rows.jsonl", "--json")
    assert result.exit_code == 130 and "of 30 samples are done" in result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert 1 <= len(rows) < 30 and len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(rows)


def test_a_network_of_floats_is_refused() -> None:
    result = qverify("runtimes", DIGITS, "--data", "digits", "--samples", 2)
    assert result.exit_code == 2 and "not quantised" in result.stderr and result.stdout == ""


def test_formats_have_every_field(given: tuple[Network, np.ndarray, list[Any]], tmp_path: Path) -> None:
    *_, arguments = given
    found = answer(*arguments)
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")

    def listed(number: str) -> set[str]:
        text = re.split(rf"^#+ {re.escape(number)} .*$", page, flags=re.MULTILINE)[1]
        text = re.split(r"^#", text, flags=re.MULTILINE)[0]
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}

    assert listed("12.11") == found.keys()
    witness = next(row["witness"] for row in found["rows"] if row["witness"])
    assert listed("7.1") == found["rows"][0].keys() | witness[0].keys()
    assert package.same_on_runtimes is same_on_runtimes
