"""`qverify report` as text: counts against rows counted otherwise, and what damaged or unfinished runs give."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.cli import options
from qverify.report.numbers import footer, outward, percent
from qverify.report.page_rows import packed
from qverify.report.table import identities, labels, lines_of
from qverify.report.text import csv_table, latex_table, markdown_table
from qverify.runs.reading import read_runs
from qverify.verification.tally import Tally
from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import asked, question, random_rows, row, typed, write_batch, write_rows, write_run

HOSTILE = "_%&#$~^{}\\|<b>*`.onnx"


def records(*runs: Any) -> list[dict[str, str]]:
    """What --format csv prints."""
    result = qverify("report", *runs, "--format", "csv")
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


def notes(*runs: Any) -> str:
    """What --format csv says on stderr."""
    result = qverify("report", *runs, "--format", "csv")
    assert result.exit_code == 0
    return result.stderr


# --- numbers ---


def test_counts_are_those_of_the_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 300)
    (found,) = records(write_run(tmp_path / "run", rows))

    def count(statuses: str, methods: str = "") -> int:
        return sum(r["status"] in statuses.split() and (not methods or r["method"] in methods.split()) for r in rows)

    expected = {
        "samples": 300,
        "clean": count("verified falsified unknown"),
        "ibp": count("verified", "ibp"),
        "bp": count("verified", "ibp ties bp bp-layers bp-optimised bp-branched"),
        "guaranteed": count("verified"),
        "attack": count("verified unknown"),
        "falsified": count("falsified"),
        "unknown": count("unknown"),
        "misclassified": count("misclassified"),
    }
    assert {name: int(found[name]) for name in expected} == expected
    assert 0 < expected["ibp"] < expected["bp"] < expected["guaranteed"] < expected["attack"] < expected["clean"] < 300
    for name in ("clean", "ibp", "bp", "guaranteed", "attack"):
        assert float(found[f"{name}_accuracy"]) == expected[name] / 300
    assert float(found["seconds"]) == pytest.approx(sum(r["seconds"] for r in rows), abs=1e-6)
    assert (found["run"], found["case"], found["model"], found["data"]) == ("run", "", "net", "data.npz")
    assert found["model_sha256"] == "aa" * 32 and (found["first"], found["stop"]) == ("0", "300")


def test_a_real_run_agrees_with_what_verify_said(tmp_path: Path) -> None:
    given = ("--data", "digits", "--bits", 6, "--samples", "0:60", "--out", tmp_path / "run")
    said = answer("verify", DIGITS, *given)
    (found,) = records(tmp_path / "run")
    for name in ("clean", "guaranteed", "attack"):
        assert float(found[f"{name}_accuracy"]) == said[f"{name}_accuracy"]
    for name in ("samples", "falsified", "unknown", "misclassified"):
        assert int(found[name]) == said[name]
    assert int(found["ibp"]) == said["by_method"]["ibp"]["verified"]
    assert (found["model_sha256"], found["bits"]) == (said["model_sha256"], "6")


def test_every_form_shows_the_same_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    run = write_run(tmp_path / "run", random_rows(rng, 80))
    (found,) = records(run)
    names = ("clean", "ibp", "bp", "guaranteed", "attack")
    shares = [f"{100 * float(found[f'{name}_accuracy']):.2f}" for name in names]
    (line,) = [r for r in qverify("report", run).stdout.splitlines() if r.startswith("net")]
    end = [found["unknown"], f"{float(found['seconds']):.2f}"]
    assert line.replace(" %", "").split() == ["net", "8", "bits", "80", *shares, *end]
    text = qverify("report", run, "--format", "markdown").stdout
    cells = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
    counted = [f"{share} % ({found[name]})" for share, name in zip(shares, names, strict=True)]
    assert cells == ["net", "8 bits", "80", *counted, *end]
    (body,) = [r for r in qverify("report", run, "--format", "latex").stdout.splitlines() if r.startswith("net")]
    assert body.removesuffix(r" \\").split(" & ") == ["net", "8 bits", "80", *shares, *end]


def test_the_forms_are_written_to_files(tmp_path: Path, rng: np.random.Generator) -> None:
    run = write_run(tmp_path / "run", random_rows(rng, 10))
    for form in ("markdown", "csv", "latex"):
        result = qverify("report", run, "--format", form, "--out", tmp_path / form)
        assert result.exit_code == 0 and result.stdout == "" and "1 cases" in result.stderr
        assert (tmp_path / form).read_text() == qverify("report", run, "--format", form).stdout
    assert set(options.REPORT_FORMS) == {"terminal", "markdown", "csv", "latex", "html"}


# --- order, columns, names ---


def test_lines_are_ordered_and_told_apart(tmp_path: Path) -> None:
    runs = []
    for name, bits, method in (("b", 10, "auto"), ("net10", 8, "auto"), ("c", 8, "exact"), ("net9", 8, "auto")):
        model = f"m/{name}.onnx" if name.startswith("net") else "m/a.onnx"
        asked = question(bits, 1, model=model, method=method)
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(asked | {"runs": []}))
        write_rows(tmp_path / name, [row(0)])
        runs.append(str(tmp_path / name))
    lines = lines_of(read_runs(runs))
    assert [line.case.run.name for line in lines] == ["c", "b", "net9", "net10"]
    shown, common = identities(lines)
    assert list(shown) == ["model", "radii", "method"] and shown["radii"] == ["8 bits", "10 bits", "8 bits", "8 bits"]
    assert common == "scheme paper, rounding any, data data.npz, samples 0:1"
    assert labels(lines) == ["a, 8 bits", "a, 10 bits", "net9, 8 bits", "net10, 8 bits"]
    assert "its IBP and BP are 0" in markdown_table(lines) and "its IBP and BP are 0" not in markdown_table(lines[1:2])


def test_runs_that_ask_the_same_are_told_apart_by_name(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, [row(0)])) for name in ("two", "one")]
    lines = lines_of(read_runs(runs))
    shown, _ = identities(lines)
    assert shown["run"] == ["one", "two"] == [name.removeprefix("net, 8 bits, ") for name in labels(lines)]
    runs = [str(write_run(tmp_path / name / "same", [row(0)])) for name in ("b", "a")]
    assert [line["run"] for line in records(*runs)] == ["a/same", "b/same"]


def test_names_are_escaped(tmp_path: Path) -> None:
    lines = lines_of(read_runs([str(write_run(tmp_path / "run", [row(0)], model=f"m/{HOSTILE}\n\x1b[31m"))]))
    body = latex_table(lines).splitlines()[-3]
    assert body.startswith(
        r"\_\%\&\#\$\textasciitilde{}\textasciicircum{}\{\}\textbackslash{}\textbar{}\textless{}b\textgreater{}*`"
    )
    table = markdown_table(lines).splitlines()[2]
    assert r"\_%&amp;#$\~^{}\\\|&lt;b&gt;\*\`" in table and len(re.findall(r"(?<!\\)\|", table)) == 11
    (found,) = csv.DictReader(io.StringIO(csv_table(lines)))
    assert found["model"].startswith("_%&#$~^{}\\|<b>*`") and "\x1b" not in found["model"]
    assert "\x1b" not in qverify("report", tmp_path / "run").stdout


def test_latex_is_a_whole_booktabs_tabular(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 30)
    cases = {f"case{bits}": question(bits, 30) for bits in (6, 8)}
    named = [r | {"case": case, "key": "k"} for case in cases for r in rows]
    text = qverify("report", write_batch(tmp_path / "b", cases, named), "--format", "latex").stdout
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert lines[0] == r"\begin{tabular}{llrrrrrrrr}" and lines[-1] == r"\end{tabular}"
    assert [lines[1], lines[3], lines[-2]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert {line.count("&") for line in (lines[2], *lines[4:-2])} == {9} and len(lines) == 8


def test_long_names_are_whole_in_the_terminal(tmp_path: Path) -> None:
    """In lines of their own column, not cut to four letters each."""
    names = ["mnist_4x256_robust_8bit_kappa_0.5_seed_42_retrained", "x", "noseparators" * 4]
    cases = {
        f"{name}-{bits}": question(bits, 1, model=f"{name}.onnx", data=f"{name[:20]}.npz", clip_input=[0, bits - 3])
        for name in names
        for bits in (4, 8)
    }
    shown = qverify("report", write_batch(tmp_path / "b", cases, [row(0, case=case) for case in cases])).stdout
    table = shown.partition("Shares of")[0]
    assert "\u2026" not in table
    cells = "".join(line[:30].strip() + " " * line[:30].strip().endswith(",") for line in table.splitlines()[1:])
    for name in names:
        for bits in (4, 8):
            assert f"{name}, {bits} bits, scheme paper, rounding any, inputs within 0 to {bits - 3}".replace(
                " ", ""
            ) in cells.replace(" ", "")
    assert all(len(line) <= 110 for line in table.splitlines())


# --- unfinished and damaged runs ---


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0), row(1, "falsified", "attack")])
    with open(run / "samples.jsonl", "a") as file:
        file.write('{"index": 2, "label"')
    (found,) = records(run)
    assert (found["samples"], found["guaranteed"]) == ("2", "1")
    assert "run: The last line of samples.jsonl is torn and left out." in notes(run)
    assert "torn" in qverify("report", run).stdout and "torn" in qverify("report", run, "--format", "markdown").stdout


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "latex"])
def test_runs_without_rows(tmp_path: Path, form: str) -> None:
    empty, missing = write_run(tmp_path / "empty", []), write_run(tmp_path / "missing", [])
    (missing / "samples.jsonl").unlink()
    result = qverify("report", empty, missing, "--format", form)
    assert result.exit_code == 0
    assert "missing: samples.jsonl is missing" in result.stdout + result.stderr
    assert "empty: 0 of 4 samples are decided" in result.stdout + result.stderr
    if form == "csv":
        assert {r["guaranteed_accuracy"] for r in csv.DictReader(io.StringIO(result.stdout))} == {""}


def test_rows_that_do_not_count(tmp_path: Path) -> None:
    cases = {"one": question(8, 3), "two": question(6, 3)}
    rows = [row(0, "unknown", "exact"), row(0), row(1), row(7, "falsified", "attack")]
    named = [r | {"case": "one", "key": "k"} for r in rows] + [row(0) | {"case": "gone"}, row(1), row(2) | {"case": []}]
    run = write_batch(tmp_path / "batch", cases, named)
    two, one = records(run)
    assert (one["case"], one["samples"], one["guaranteed"], one["falsified"]) == ("one", "2", "2", "0")
    assert (two["case"], two["samples"]) == ("two", "0")
    said = notes(run)
    assert "batch: one: 1 rows were replaced by later ones" in said
    assert "batch: one: 1 rows outside the samples 0:3 are left out" in said
    assert "batch: two: 0 of 3 samples are decided" in said
    assert said.count("batch: 3 rows belong to no case of batch.json") == 1


def refused(*arguments: Any) -> str:
    """The one sentence of a command that ends with status 2."""
    result = qverify("report", *arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"{", "run.json is damaged"),
        (b"\xff", "run.json is damaged"),
        (b"[]", "run.json is damaged"),
        (b'{"runs": 1}', "run.json is damaged"),
        (b'{"runs": []}', "model, data, samples, method, formulation, tolerance, radii.convention, radii.largest"),
        (json.dumps(question(samples=[4, 4]) | {"runs": []}).encode(), "(samples missing or senseless)"),
        (json.dumps(question(tolerance="x", radii=[]) | {"runs": []}).encode(), "(tolerance, radii.convention"),
        (json.dumps(question(clip_input=[0]) | {"runs": []}).encode(), "(clip_input missing"),
    ],
)
def test_damaged_questions(tmp_path: Path, record: bytes, words: str) -> None:
    run = write_run(tmp_path / "run", [row(0)])
    (run / "run.json").write_bytes(record)
    assert words in refused(run)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps(row(1) | {"status": "fine"}),
        json.dumps(row(-1)),
        json.dumps(row(1, seconds=-1)),
        json.dumps(row(1, label=None)),
        json.dumps(row(1, label="x")),
        json.dumps(row(1, margin_lower=float("nan"))),
        json.dumps(row(1)).replace("1.5", "1e999"),
    ],
)
def test_damaged_rows(tmp_path: Path, line: str) -> None:
    run = write_run(tmp_path / "run", [row(0)])
    content = (run / "samples.jsonl").read_text()
    (run / "samples.jsonl").write_text(content + line + "\n" + content)
    assert "Line 2 of " in refused(run) and "samples.jsonl is damaged; delete that line" in refused(run)


def test_other_refusals(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0)])
    assert "holds neither run.json nor batch.json" in refused(tmp_path)
    assert "holds neither" in refused(tmp_path / "nowhere") and "is no object of" in refused(run / "run.json")
    assert "is given twice" in refused(run, Path(run) / ".." / "run")
    assert "give --out FILE.html too" in refused(run, "--format", "html")
    assert "name its --format too" in refused(run, "--out", tmp_path / "x")
    assert "cannot be written" in refused(run, "--format", "csv", "--out", tmp_path / "no" / "x")
    assert "lists no cases" in refused(write_batch(tmp_path / "batch", {}, []))
    damaged = write_batch(tmp_path / "damaged", {"a": question(), "b": {}}, [])
    assert "batch.json, case b is damaged" in refused(damaged)
    (run / "samples.jsonl").unlink()
    (run / "samples.jsonl").mkdir()
    assert "samples.jsonl cannot be read" in refused(run)


def test_the_largest_margin_there_is_can_be_packed(tmp_path: Path) -> None:
    """Rounded outwards to a few digits it would be infinite, which is no JSON."""
    most = sys.float_info.max
    run = write_run(tmp_path, [row(0, margin_lower=most, margin_upper=most), row(1, margin_lower=5e-324)])
    first, second = json.loads(packed(read_runs([str(run)]), ["one"]))["cases"][0]["lower"]
    assert most * 0.999 < first <= most and 0 <= second <= 5e-324
    assert json.loads(packed(read_runs([str(run)]), ["one"]))["cases"][0]["upper"][0] == most


def test_odd_directories(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "holds neither run.json nor batch.json" in refused(tmp_path / "loop")
    assert "ile name too long" in refused(tmp_path / ("x" * 300))
    run = write_run(tmp_path / "run", [row(0)])
    for name in ("run.json", "samples.jsonl"):
        content = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).symlink_to(run / name)
        assert refused(run)
        (run / name).unlink()
        (run / name).write_bytes(content)
    assert records(run)


def test_names_of_thousands_of_digits_are_in_order(tmp_path: Path) -> None:
    """Python refuses to read integers of so many digits."""
    names = ["9" * 5000, "1" + "0" * 5000, "007", "10", "8bit", "８", ""]
    runs = [write_run(tmp_path / str(k), [row(0)], model=f"m/{name}.onnx") for k, name in enumerate(names)]
    found = [line["model"] for line in records(*runs)]
    assert found.index("007") < found.index("8bit") < found.index("10") < found.index(names[0]) < found.index(names[1])


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 7, "0.00 %"),
        (7, 7, "100.00 %"),
        (59_999, 60_000, "99.99 %"),
        (1, 60_000, "0.01 %"),
        (1, 3, "33.33 %"),
        (2, 3, "66.66 %"),
    ],
)
def test_only_all_is_100_percent_and_only_none_is_0(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize("value", [1.23456789, -1.23456789, 0.99999999, -1e-9 / 3, 123456.789, 0.0])
def test_what_is_proved_is_rounded_outwards(value: float) -> None:
    low, high = outward(value, 4, up=False), outward(value, 4, up=True)
    assert float(low) <= value <= float(high) and float(high) - float(low) <= 1e-3 * abs(value)
    assert len(low.lstrip("-0.").replace(".", "").split("e")[0]) <= 6


def test_samples_that_had_less_time_than_is_asked_for_are_named(tmp_path: Path) -> None:
    rows = [row(0, "unknown", "exact", limit=1.0), row(1, "unknown", "exact", limit=300.0), row(2), row(3)]
    assert "1 samples have had less time than the 300 s asked for" in notes(write_run(tmp_path / "a", rows))
    assert "2 samples have had less time than the unlimited time" in notes(
        write_run(tmp_path / "b", rows, timeout=None)
    )
    assert "less time" not in notes(write_run(tmp_path / "c", rows, timeout=1.0))


def test_rows_of_another_version_are_named(tmp_path: Path) -> None:
    """What they meant then may have been mended since."""
    said = "decided by another version of qverify, whose verdicts may mean something else; run it again"
    assert said not in notes(write_run(tmp_path / "now", [row(0)]))
    assert f"then: {said}" in notes(write_run(tmp_path / "then", [row(0)], semantics=1))
    unsaid = write_run(tmp_path / "unsaid", [row(0)])
    record = json.loads((unsaid / "run.json").read_text())
    del record["semantics"]
    (unsaid / "run.json").write_text(json.dumps(record))
    assert f"unsaid: {said}" in notes(unsaid)
    assert said not in notes(write_run(tmp_path / "none", [], semantics=1))


def test_the_reasons_of_unknown_samples_are_counted() -> None:
    """The most common first, those beyond four together; verified samples' details are none of them."""
    many = [row(i, "unknown", detail=f"reason {i % 6 if i % 6 else 1}") for i in range(18)]
    tally = Tally.of(map(typed, [*many, row(18, detail="no reason"), row(19, "unknown")]))
    assert tally.as_dict()["unknown_reasons"] == {"reason 1": 6, **{f"reason {k}": 3 for k in range(2, 6)}, "": 1}
    said = [line for line in footer(tally, asked(), []) if line.startswith("Unknown")]
    assert said[0] == "Unknown, 6 of 19: reason 1." and len(said) == 5
    assert said[-1] == "Unknown, 3 of 19: 1 other reason, in the rows."
