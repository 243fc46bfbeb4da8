"""`verify` and `batch` as gates: statuses, one sentence on stderr, and the summary of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qverify import datasets
from qverify.runs.verify import VerifyWork
from tests.support.commands import qverify, read_rows
from tests.support.paths import DIGITS

GIVEN = ("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", "0:30", "--method", "bp")


def sentences(result: Result) -> list[str]:
    """What is on stderr besides notes."""
    return [line for line in result.stderr.splitlines() if not line.startswith("qverify: note: ")]


def indices(folder: Path, status: str) -> set[int]:
    return {row["index"] for row in read_rows(folder) if row["status"] == status}


def test_fail_under_counts_all_samples_asked_about(tmp_path: Path) -> None:
    first = qverify(*GIVEN, "--out", tmp_path, "--json")
    verified = len(indices(tmp_path, "verified"))
    assert first.exit_code == 0 and json.loads(first.stdout)["passed"] is None and 0 < verified < 30
    exactly, more = 100 * verified / 30, 100 * (verified + 1) / 30
    passing = qverify(*GIVEN, "--fail-under", f"{exactly - 0.01:.2f}", "--json")
    assert passing.exit_code == 0 and sentences(passing) == [] and json.loads(passing.stdout)["passed"] is True
    failing = qverify(*GIVEN, "--fail-under", f"{more:.2f}", "--json")
    assert failing.exit_code == 1 and json.loads(failing.stdout)["passed"] is False
    (said,) = sentences(failing)
    assert said.startswith(f"qverify: --fail-under {more:.4g}") and f"({verified} of 30 samples) are verified" in said


@pytest.mark.parametrize("percent", ["-1", "100.5", "nan", "ninety"])
def test_shares_that_make_no_sense(percent: str) -> None:
    result = qverify(*GIVEN, f"--fail-under={percent}")
    assert result.exit_code == 2 and "Traceback" not in result.stderr


def test_a_baseline_names_what_is_lost(tmp_path: Path) -> None:
    assert qverify(*GIVEN, "--out", tmp_path / "old").exit_code == 0
    same = qverify(*GIVEN, "--baseline", tmp_path / "old")
    assert same.exit_code == 0 and sentences(same) == []
    given = [*GIVEN]
    given[given.index(6)] = 5
    worse = qverify(*given, "--baseline", tmp_path / "old", "--out", tmp_path / "new")
    lost = indices(tmp_path / "old", "verified") - indices(tmp_path / "new", "verified")
    assert worse.exit_code == 1 and lost
    (said,) = sentences(worse)
    assert f"{len(lost)} of {len(indices(tmp_path / 'old', 'verified'))} samples verified there" in said
    named = said.partition("(")[2]
    assert all(f"{index} " in named for index in sorted(lost)[:10])
    assert "another family: 6 bits" in worse.stderr


def test_a_baseline_of_other_data_is_refused_before_the_work(tmp_path: Path) -> None:
    samples = datasets.load("digits")
    np.savez(tmp_path / "other.npz", x=samples.x[:40], y=samples.y[:40])
    given = [*GIVEN]
    given[given.index("digits")] = tmp_path / "other.npz"
    assert qverify(*given, "--out", tmp_path / "old").exit_code == 0
    for arguments, words in (
        ((*GIVEN, "--baseline", tmp_path / "old"), "is about other data (other.npz) than this run"),
        ((*given[:-4], "--samples", "30:40", "--baseline", tmp_path / "old"), "none of 30:40 is among them"),
        ((*GIVEN, "--baseline", tmp_path / "nothing"), "holds neither run.json nor batch.json"),
    ):
        result = qverify(*arguments, "--out", tmp_path / "new")
        (said,) = sentences(result)
        assert result.exit_code == 2 and words in said and not (tmp_path / "new").exists()


# --- the summary ---


def test_a_summary_is_appended(tmp_path: Path) -> None:
    place = tmp_path / "summary.md"
    place.write_text("# before\n")
    assert qverify(*GIVEN, "--job-summary", place).exit_code == 0
    assert "Passed" not in place.read_text() and "Failed" not in place.read_text()  # nothing was asked for
    assert qverify(*GIVEN, "--fail-under", 10, "--job-summary", place).exit_code == 0
    assert qverify(*GIVEN, "--fail-under", 99, "--job-summary", place).exit_code == 1
    text = place.read_text()
    assert text.startswith("# before\n") and text.count("## qverify: digits") == 3
    assert text.count("**Passed.**") == 1 and text.count("**Failed:**") == 1 and "fail-under 99" in text
    assert text.count("| digits | 6 bits | 30 |") == 3
    assert text.count("- Of the 30 samples 0:30 of digits, which has 599, ") == 3 and str(tmp_path) not in text


def test_the_summary_of_github_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    assert qverify(*GIVEN).exit_code == 0 and not (tmp_path / "step.md").exists()
    assert qverify(*GIVEN, "--job-summary", "github").exit_code == 0 and (tmp_path / "step.md").exists()
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    result = qverify(*GIVEN, "--job-summary", "github")
    assert result.exit_code == 2 and "needs the variable GITHUB_STEP_SUMMARY" in result.stderr


def test_a_summary_without_a_place_ends_before_the_work(tmp_path: Path) -> None:
    result = qverify(*GIVEN, "--job-summary", tmp_path / "no" / "summary.md", "--out", tmp_path / "run")
    assert result.exit_code == 2 and "cannot be written" in result.stderr and not (tmp_path / "run").exists()


# --- batches ---

PLAN = f'models = "{DIGITS}"\ndata = "digits"\nbits = [5, 6]\nmethods = "bp"\nsamples = "0:30"\n'


def batch(folder: Path, *more: Any) -> Result:
    (folder / "plan.toml").write_text(PLAN)
    return qverify("batch", folder / "plan.toml", "--jobs", 1, *more)


@pytest.mark.slow
def test_every_case_of_a_batch_is_judged_by_itself(tmp_path: Path) -> None:
    assert qverify(*GIVEN, "--out", tmp_path / "six").exit_code == 0
    verified = len(indices(tmp_path / "six", "verified"))
    limit = f"{100 * verified / 30 - 0.01:.2f}"
    result = batch(tmp_path, "--out", tmp_path / "out", "--fail-under", limit, "--job-summary", tmp_path / "s.md")
    said = [line for line in sentences(result) if "--fail-under" in line]
    assert result.exit_code == 1 and len(said) == 1
    assert "digits-digits-5bit-paper-any-bp-" in said[0] and "6bit" not in said[0]
    assert "**Failed:**" in (tmp_path / "s.md").read_text()
    again = batch(tmp_path, "--out", tmp_path / "out", "--baseline", tmp_path / "out", "--json")
    assert again.exit_code == 0
    assert {case["passed"] for case in json.loads(again.stdout)["cases"].values()} == {True}
    against = batch(tmp_path, "--out", tmp_path / "new", "--baseline", tmp_path / "six")
    lost = [line for line in sentences(against) if "--baseline" in line]
    assert against.exit_code == 1 and len(lost) == 1 and "5bit" in lost[0] and "6bit" not in lost[0]
    on = batch(tmp_path, "--out", tmp_path / "out", "--fail-on", "misclassified")
    assert on.exit_code == 1 and any("--fail-on misclassified" in line for line in sentences(on))


def test_an_interruption_is_neither_passed_nor_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """130, whatever is asked for: what is not decided yet may still be verified."""
    monkeypatch.setattr(VerifyWork, "verify", lambda work: None)  # as if Ctrl-C had come at once
    result = qverify(*GIVEN, "--fail-under", 50, "--job-summary", tmp_path / "s.md", "--json")
    assert result.exit_code == 130 and "--fail-under" not in result.stderr
    found = json.loads(result.stdout)
    assert found["interrupted"] is True and found["passed"] is None
    assert "interrupted before all samples were decided" in (tmp_path / "s.md").read_text()
