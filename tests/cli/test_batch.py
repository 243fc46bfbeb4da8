"""`qverify batch`: what it says, what it refuses, and what a rerun does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qverify import datasets
from qverify.runs import batch
from qverify.workers import local as workers
from tests.support.batches import DOZEN, EXACT, NORMAL, PLAN, kept, plan, undisturbed
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS

# --- what it says ---


def test_rows_are_those_of_verify_and_carry_case_and_key(tmp_path: Path) -> None:
    rows = list(undisturbed(PLAN).values())
    assert len(rows) == 80 and len({row["case"] for row in rows}) == 2
    assert {"bp-optimised", "attack", "ibp"} <= {row["method"] for row in rows}
    for model in (DIGITS, NORMAL):
        out = tmp_path / Path(model).stem
        answer("verify", model, "--data", "digits", "--bits", 8, "--samples", "100:140", "--out", out)
        expected = {row["index"]: row for row in read_rows(out)}
        own = [row for row in rows if row["case"].startswith(f"{Path(model).stem}-digits-8bit-paper-any-auto-")]
        assert sorted(row["index"] for row in own) == list(range(100, 140))
        for row in own:
            other = expected[row["index"]]
            assert set(row) | {"seconds"} == set(other) | {"case", "key"}
            same = ("label", "predicted", "status", "scope")
            assert {k: row.get(k) for k in same} == {k: other.get(k) for k in same}


@pytest.mark.slow
def test_a_rerun_computes_nothing_and_a_larger_plan_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, out = undisturbed(PLAN), tmp_path / "out"
    small = PLAN.replace("140", "120").replace(f', "{NORMAL}"', "")
    found = answer("batch", plan(tmp_path, small), "--out", out, "--jobs", 1)
    first = (out / "samples.jsonl").read_bytes()
    assert found["samples"] == 20 == len(kept(out)) and found["missing"] == 0
    monkeypatch.setattr(batch, "_PLAIN_EVERY", 0.0)
    result = qverify("batch", plan(tmp_path), "--out", out, "--jobs", 2)
    lines = [line for line in result.stderr.splitlines() if " of 60: " in line]
    assert " 0 open for the exact step, 0 not looked at yet, 2 of 2 cases complete; " in lines[-1]
    assert lines[-1].startswith("qverify: 60 of 60: ") and "decided by forward" in lines[-1]
    assert result.exit_code == 0 and "20 samples are decided already; 60 are left" in result.stderr
    assert (out / "samples.jsonl").read_bytes().startswith(first)
    same = ("status", "index", "case", "predicted")
    rows = kept(out)
    assert {k: [r[s] for s in same] for k, r in rows.items()} == {k: [r[s] for s in same] for k, r in expected.items()}
    for case in {row["case"] for row in rows.values()}:
        assert case in result.stdout.replace("\n", "") or case[:45] in result.stdout
    monkeypatch.setattr(workers, "COMMAND", ["false"])  # nothing is left to do, so nobody is asked
    before = (out / "samples.jsonl").read_bytes()
    assert answer("batch", plan(tmp_path), "--out", out)["samples"] == 80
    assert answer("batch", plan(tmp_path, small), "--out", out)["samples"] == 20
    assert (out / "samples.jsonl").read_bytes() == before
    record = json.loads((out / "batch.json").read_text())
    assert set(record["cases"]) == {row["case"] for row in rows.values()} and len(record["runs"]) == 4
    question = next(q for name, q in record["cases"].items() if name.startswith("digits-"))
    assert question["method"] == "auto" and question["radii"]["bits"] == 8 and question["samples"] == [100, 120]


@pytest.mark.slow
def test_one_file_read_in_two_ways_is_two_questions(tmp_path: Path) -> None:
    """The digits that ship with qverify, by name and as an .npz: their pixels are divided by 16 and by 255."""
    (tmp_path / "copy.npz").write_bytes(datasets.samples._DIGITS.read_bytes())
    text = PLAN.replace(f', "{NORMAL}"', "")
    both = text.replace('"digits"', '["digits", "copy.npz"]')
    named = answer("batch", plan(tmp_path, text), "--out", tmp_path / "out")
    by_path = answer("batch", plan(tmp_path, text.replace('"digits"', '"copy.npz"')), "--out", tmp_path / "fresh")
    found = answer("batch", plan(tmp_path, both), "--out", tmp_path / "out")["cases"]
    shares = {name: case["guaranteed_accuracy"] for name, case in found.items()}
    alone = {name: case["guaranteed_accuracy"] for name, case in {**named["cases"], **by_path["cases"]}.items()}
    assert len(set(shares.values())) == 2 and shares == alone


@pytest.mark.slow
def test_a_plan_with_more_time_asks_again_about_what_ran_out_of_it(tmp_path: Path) -> None:
    """And rows do not get lost where the file of a model got another name."""
    model, out = tmp_path / "first.onnx", tmp_path / "out"
    model.write_bytes(Path(DIGITS).read_bytes())
    text = EXACT.replace(DIGITS, "first.onnx").replace("8", "5") + "timeout = "
    assert answer("batch", plan(tmp_path, text + "0.001"), "--out", out, "--jobs", 1)["missing"] == 0
    first = read_rows(out)
    limited = {row["index"] for row in first if "limit" in row}
    assert 0 < len(limited) <= len(first) == 12  # how many depends on the machine
    model.rename(tmp_path / "second.onnx")
    text = text.replace("first", "second")
    result = qverify("batch", plan(tmp_path, text + "60"), "--out", out, "--jobs", 1)
    said = f"{12 - len(limited)} samples are decided already; {len(limited)} are left" in result.stderr
    assert said or len(limited) == 12
    rows = [row for row in read_rows(out)[12:] if row["case"].startswith("second-")]
    assert sorted(row["index"] for row in rows) == list(DOZEN) and not any("limit" in row for row in rows)
    before = (out / "samples.jsonl").read_bytes()
    assert answer("batch", plan(tmp_path, text + "30"), "--out", out)["samples"] == 12
    assert (out / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "more", "wording"),
    [
        (PLAN.replace("digits_normal", "gone"), (), "gone.onnx"),
        (PLAN + 'radii = ["gone.toml"]', (), "gone.toml"),
        (PLAN.replace('"digits"', '"gone.npz"'), (), "gone.npz"),
        (PLAN.replace("140", "100"), (), "is empty"),
        (PLAN + "jobs = 3", (), "unknown key 'jobs'"),
        (PLAN, ("--jobs", 2, "--cluster", "local:1"), "exclude each other"),
        (PLAN, ("--cluster", "nonsense"), "'nonsense' is no address of a Dask scheduler"),
        (PLAN, ("--cluster", "local:" + "9" * 400), "is no address of a Dask scheduler"),
    ],
)
def test_refusals_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, more: tuple[Any, ...], wording: str
) -> None:
    monkeypatch.setattr(workers, "COMMAND", ["false"])
    result = qverify("batch", plan(tmp_path, text), "--out", tmp_path / "out", *more)
    said = [line for line in result.stderr.splitlines() if "note: " not in line]
    assert result.exit_code == 2 and len(said) == 1 and wording in said[0] and result.stdout == ""
    assert not (tmp_path / "out" / "samples.jsonl").exists() or not read_rows(tmp_path / "out")


def test_a_plan_that_asks_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "copy.onnx").write_bytes(Path(DIGITS).read_bytes())
    result = qverify("batch", plan(tmp_path, PLAN.replace(NORMAL, "copy.onnx")), "--out", tmp_path / "out")
    assert result.exit_code == 2 and "The plan asks the same twice: digits-digits-8bit" in result.stderr


def test_without_a_place_for_the_rows(tmp_path: Path) -> None:
    result = qverify("batch", plan(tmp_path))
    assert result.exit_code == 2 and "give --out DIR, or add out =" in result.stderr


def test_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = qverify("batch", plan(tmp_path), "--out", tmp_path / "out", "--cluster", "local:1")
    assert result.exit_code == 2 and "pip install 'qverify[cluster]'" in result.stderr
