"""Runs that invite a page to say more than their rows hold."""

from __future__ import annotations

import itertools
import json
import re
from html import unescape
from pathlib import Path

from qverify.report.claim import claim
from qverify.report.table import labels, lines_of
from qverify.runs.reading import read_runs
from tests.support.commands import answer, qverify
from tests.support.pages import Parsed, written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import question, row, write_run


def words(text: str) -> str:
    """What a reader sees."""
    seen = re.sub(r"<(script|style|noscript).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", seen)).split())


def test_networks_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Everywhere: in the table, the pivot, labels, curves and what --require says."""
    runs = [
        write_run(tmp_path / "a", [row(0)], bits=6),
        write_run(tmp_path / "b", [row(0)], bits=8, model_sha256="dd" * 32),
        write_run(tmp_path / "c", [row(0)], bits=8, model="m/other.onnx"),
    ]
    lines = lines_of(read_runs(list(map(str, runs))))
    assert labels(lines) == ["net (aaaaaaaa), 6 bits", "net (dddddddd), 8 bits", "other, 8 bits"]
    pivot = qverify("report", *runs, "--pivot", "clean", "--format", "csv").stdout
    assert [line.split(",")[0] for line in pivot.splitlines()] == ["model", "net (aaaaaaaa)", "net (dddddddd)", "other"]
    text = written(*runs)
    assert '<section id="curves" hidden>' in text
    assert [cells[0] for cells in Parsed(text).tables["summary"][1:]] == ["net (aaaaaaaa)", "net (dddddddd)", "other"]


def test_data_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / s, [row(0)], data_sha256=s * 32) for s in ("11", "22")]
    shown = qverify("report", *runs).stdout
    assert "(11111111)" in shown and "(22222222)" in shown and "All: scheme paper" in shown


def test_mixed_widths_are_no_single_width(tmp_path: Path) -> None:
    """W4A8 is neither 4 nor 8 bits, and on no curve."""
    mixed = question(8)["radii"] | {"weight_bits": 4, "activation_bits": 8, "convention": "W4A8 bits, scheme paper"}
    inputs = question(8)["radii"] | {"input_bits": 7, "convention": "8 bits, inputs of 7"}
    runs = [
        write_run(tmp_path / "a", [row(0)], radii=mixed),
        write_run(tmp_path / "b", [row(0)], bits=6),
        write_run(tmp_path / "c", [row(0)], radii=inputs),
    ]
    runs[0].joinpath("run.json").write_text(
        json.dumps(json.loads((runs[0] / "run.json").read_text()) | {"radii": mixed})
    )
    runs[2].joinpath("run.json").write_text(
        json.dumps(json.loads((runs[2] / "run.json").read_text()) | {"radii": inputs})
    )
    lines = lines_of(read_runs(list(map(str, runs))))
    assert [line.case.radii for line in lines] == ["6 bits", "8 bits, input 7", "W4A8 bits"]
    assert '<section id="curves" hidden>' in written(*runs)


def test_quantisers_that_differ_otherwise_are_no_curve(tmp_path: Path) -> None:
    runs = []
    for bits, kernel in ((6, "any"), (8, "exact-accumulation")):
        run = write_run(tmp_path / str(bits), [row(0)])
        asked = json.loads((run / "run.json").read_text())
        asked["radii"] = question(bits)["radii"] | {"scheme": "tensor", "rounding": "nearest", "kernel": kernel}
        (run / "run.json").write_text(json.dumps(asked))
        runs.append(run)
    assert '<section id="curves" hidden>' in written(*runs)
    assert "kernel any" in qverify("report", *runs).stdout


def test_a_run_of_nothing(tmp_path: Path) -> None:
    said = words(written(write_run(tmp_path / "run", [])))
    assert "0 of them decided, 0 (0.00 %) are proved" in said and "the other 4 samples (4 not decided)" in said
    assert "No sample that is decided was falsified. Not all samples are decided." in said
    assert "No sample is decided." in said and "100.00 %" not in said


def test_a_run_that_was_interrupted(tmp_path: Path) -> None:
    """All that is decided is verified, and no sentence takes the rest for it."""
    run = write_run(tmp_path / "run", [row(0), row(1)])
    asked = json.loads((run / "run.json").read_text()) | {"samples": [0, 10]}
    (run / "run.json").write_text(json.dumps(asked))
    said = words(written(run))
    assert "2 of them decided, 2 (20.00 %) are proved" in said and "the other 8 samples (8 not decided)" in said
    assert "2 of 10 samples are decided; accuracies refer to these" in said and "Shares of the samples decided" in said
    result = qverify("report", run, "--require", 21)
    assert result.exit_code == 1 and "20.00 % (2 of 10 samples)" in result.stdout


def test_parts_that_are_not_whole_alone_may_be_whole_together(tmp_path: Path) -> None:
    """Accuracies of the sum are about its samples, not about those that one part has."""
    runs = [write_run(tmp_path / "a", [row(k) for k in range(6)]), write_run(tmp_path / "b", [row(8), row(9)])]
    for run, samples in zip(runs, ([0, 8], [5, 10]), strict=True):
        asked = json.loads((run / "run.json").read_text()) | {"samples": samples}
        (run / "run.json").write_text(json.dumps(asked))
    notes = [line for line in qverify("report", *runs).stdout.splitlines() if "are decided" in line]
    assert notes == ["a + b: 8 of 10 samples are decided; accuracies refer to these."]
    (runs[1] / "samples.jsonl").write_text("".join(json.dumps(row(k)) + "\n" for k in (6, 7, 8, 9)))
    assert "are decided" not in qverify("report", *runs).stdout


def test_what_became_of_the_others(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, "falsified", "attack"),
        row(2, "unknown", "exact", detail="time limit"),
        row(3, "misclassified", "forward"),
    ]
    (line,) = lines_of(read_runs([str(write_run(tmp_path / "run", rows))]))
    assert "not covered: the other 3 samples (1 falsified, 1 unknown, 1 misclassified), inputs beyond" in claim(line)


def test_shares_are_never_rounded_up(tmp_path: Path) -> None:
    """Two of three are less than 66.67 %: the same number in the claim, the table and below --require."""
    run = write_run(tmp_path / "run", [row(0), row(1), row(2, "unknown", "exact")])
    out = tmp_path / "page.html"
    qverify("report", run, "--format", "html", "--out", out, "--require", 66.66)
    said = words(out.read_text())
    assert "66.67" not in said and "66.66 % (2 of 3 samples) guaranteed" in said and "2 (66.66 %) are proved" in said


def test_labels_that_the_data_have_not_are_said(tmp_path: Path) -> None:
    """A row edited by hand that names another class, which nothing in the row contradicts."""
    run = tmp_path / "run"
    given = ("--data", "digits", "--bits", 8, "--samples", "0:6", "--method", "ibp", "--out", run)
    assert answer("verify", DIGITS, *given)["verified"] >= 3
    assert "labels that the data have not" not in written(run)
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    edited = next(line for line in lines if line["status"] == "verified")
    edited["label"] = edited["predicted"] = (edited["label"] + 1) % 10
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = words(written(run))
    assert f"1 rows have labels that the data have not (samples {edited['index']})" in said
    assert "cannot tell whether someone has changed rows since" in said


def test_the_command_names_the_output_asked_about(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0)], output="scores")
    (line,) = lines_of(read_runs([str(run)]))
    assert "command: qverify verify net.onnx --data data.npz --samples 0:1 --output scores " in claim(line)


def test_the_page_is_in_order_for_those_who_hear_it(tmp_path: Path) -> None:
    """Headings go down by one, tables have headers for their columns, pictures have words."""
    parsed = Parsed(written(write_run(tmp_path / "run", [row(0), row(1, "falsified", "attack")])))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(found.get("scope") == "col" for tag, found in parsed.elements if tag == "th")
    for tag, found in parsed.elements:
        assert tag != "img" or found.get("alt")
        assert found.get("role") != "img" or found.get("aria-label"), tag
