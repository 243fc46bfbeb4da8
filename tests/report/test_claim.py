"""The claim: nothing in it is more than what was proved, and its command asks the same again."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.report.claim import claim, command, required
from qverify.report.table import lines_of
from qverify.runs.reading import read_runs
from tests.support.commands import qverify, read_rows
from tests.support.pages import Parsed, written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import row, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three samples of four, one of them by the exact step."""
    return write_run(tmp_path / "run", [row(0), row(1, "falsified", "attack"), row(3, "verified", "exact")])


def test_a_claim_says_all_that_it_rests_on(run: Path) -> None:
    (line,) = lines_of(read_runs([str(run)]))
    said = claim(line)
    assert "semantics" not in said and said.endswith(".") and ". " not in said and str(run.parent) not in said
    for words in (
        "Of the 4 samples 0:4 of data.npz, 3 of them decided, 2 (50.00 %) are proved",
        "family of net.onnx [8 bits, scheme paper, rounding any; radii at most input 0.003906, weight 0.007812",
        "(1 of them by the exact step, from the duals of every linear program it solved",
        "decided by qverify 0.1.0 on 2026-01-01",
        f"sha256 of model {'aa' * 32}, data {'cc' * 32}, rows ",
        "not covered: the other 2 samples (1 falsified, 1 not decided), inputs beyond these radii",
    ):
        assert words in said, words


def test_rows_of_another_semantics_are_called_so(tmp_path: Path) -> None:
    (line,) = lines_of(read_runs([str(write_run(tmp_path / "run", [row(0)], semantics=3))]))
    assert "in rows of semantics 3, which may mean something else" in claim(line)


def test_radii_are_not_rounded_up(run: Path) -> None:
    """A claim about a smaller family follows from the proof; one about a larger would not."""
    (line,) = lines_of(read_runs([str(run)]))
    stated = dict(re.findall(r"(input|weight|bias|activation) (\d[\d.e-]*)", claim(line)))
    largest = line.case.question.radii.largest
    assert stated.keys() == largest.keys()
    assert all(Fraction(stated[kind]) <= Fraction(largest[kind]) for kind in largest)


def test_the_hash_of_rows_is_that_of_their_lines(run: Path) -> None:
    """Also where the file has them in another order, and one of them twice."""
    lines = (run / "samples.jsonl").read_text().splitlines()
    wanted = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    (run / "samples.jsonl").write_text("\n".join([lines[2], lines[0], lines[1], lines[0]]) + "\n")
    (line,) = lines_of(read_runs([str(run)]))
    assert f"rows {wanted}" in claim(line)
    lines[2] = lines[2].replace("0.25", "0.26")
    (run / "samples.jsonl").write_text("\n".join(lines) + "\n")
    (line,) = lines_of(read_runs([str(run)]))
    assert f"rows {wanted}" not in claim(line)


@pytest.mark.parametrize(
    "given",
    [
        ("--bits", 6),
        ("--bits", "W4A8", "--method", "bp", "--timeout", "inf", "--clip-input", 0, 1),
        ("--bits", 8, "--scheme", "channel", "--rounding", "nearest", "--input-bits", 7, "--method", "ibp"),
        ("--bits", 8, "--scheme", "tensor", "--calibration", "digits[0:50]", "--points", "onnxruntime"),
        ("--radii", "mine.toml", "--timeout", 7.5, "--input-scale", 0.5, "--solver", "highs"),
    ],
    ids=lambda given: " ".join(map(str, given[:2])),
)
def test_the_command_asks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(Path(DIGITS).read_bytes())
    Path("mine.toml").write_text("weight = 0.001\n")
    samples = datasets.load("digits")
    np.savez("mine.npz", x=samples.x, y=samples.y)
    first = qverify("verify", "net.onnx", "--data", "mine.npz", "--samples", "5:9", *given, "--out", "a")
    assert first.exit_code == 0, first.stderr
    (case,) = read_runs(["a"])
    name, *words = shlex.split(command(case))
    assert name == "qverify" and qverify(*words, "--out", "b").exit_code == 0
    (again,) = read_runs(["b"])
    assert case.question.identity() == again.question.identity()
    assert case.question.input_scale == again.question.input_scale
    assert "samples 5:9 of mine.npz, which has 599, " in claim(lines_of([case])[0])
    assert case.question.samples == again.question.samples and case.question.timeout == again.question.timeout
    assert {r["index"]: r["status"] for r in read_rows(Path("a"))} == {
        r["index"]: r["status"] for r in read_rows(Path("b"))
    }


# --- what is required ---


def test_each_line_passes_or_fails(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", [row(k) for k in range(4)], model="m/good.onnx")
    bad = write_run(tmp_path / "bad", [row(0), row(1), row(2), row(3, "unknown", "exact")], model="m/bad.onnx")
    lines = lines_of(read_runs([str(good), str(bad)]))
    passed, said = required(lines, ["bad", "good"], 75.0)
    assert passed and all(one.startswith("passed: ") for one in said)
    passed, said = required(lines, ["bad", "good"], 75.1)
    assert not passed and said == [
        "FAILED: bad: 75.00 % (3 of 4 samples) guaranteed, less than the 75.1 % required.",
        "passed: good: 100.00 % (4 of 4 samples) guaranteed, at least the 75.1 % required.",
    ]


def test_samples_that_are_not_decided_count(run: Path) -> None:
    """Two of the three decided are verified, but four were asked about."""
    assert qverify("report", run, "--require", 50).exit_code == 0
    assert qverify("report", run, "--require", 51).exit_code == 1


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "latex"])
def test_every_form_says_it(run: Path, form: str) -> None:
    title = () if form == "csv" else ("--title", "My & title")
    result = qverify("report", run, "--format", form, "--require", 95, *title)
    assert result.exit_code == 1 and "--require 95: net, 8 bits: 50.00 %" in result.stderr.splitlines()[-1]
    place = result.stderr if form == "csv" else result.stdout
    assert "FAILED: net, 8 bits: 50.00 % " in place.replace("\\", "")
    assert form == "csv" or result.stdout.splitlines()[0].endswith("title")
    passing = qverify("report", run, "--format", form, "--require", 50)
    assert passing.exit_code == 0 and "FAILED" not in passing.stdout + passing.stderr


def test_a_csv_file_has_no_title(run: Path) -> None:
    result = qverify("report", run, "--format", "csv", "--title", "x")
    assert result.exit_code == 2 and "has no place for --title" in result.stderr


def test_the_page_begins_with_it(run: Path, tmp_path: Path) -> None:
    for require, kind in ((50, "passed"), (95, "failed")):
        out = tmp_path / f"{kind}.html"
        result = qverify("report", run, "--format", "html", "--out", out, "--require", require, "--title", "<Mine>")
        text = out.read_text()
        assert result.exit_code == (kind == "failed")
        header = text.partition("<header>")[2].partition("</header>")[0]
        assert "<h1>&lt;Mine&gt;</h1>" in header and "<title>&lt;Mine&gt;</title>" in text
        assert header.index(f'<p class="{kind}">') < header.index('<p class="claim"><b>Of the 4 samples 0:4')
        assert ("FAILED: " in header) is (kind == "failed")
    plain = written(run)
    assert "<h1>qverify report</h1>" in plain and 'class="passed"' not in plain and Parsed(plain).tables["summary"]


def test_hostile_names_in_claims_stay_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0)], model="m/<script>alert(1)</script>.onnx", data="x`|*y.npz")
    place = tmp_path / "page.html"
    assert qverify("report", run, "--format", "html", "--out", place).exit_code == 0
    assert "<script>alert" not in place.read_text()
    assert json.loads((run / "run.json").read_text())["model"].startswith("m/<script>")
