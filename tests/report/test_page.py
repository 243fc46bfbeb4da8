"""The page of `qverify report`: its numbers are the CSV's, it needs nothing but itself, and a browser shows it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from decimal import Decimal
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.report.curves import curves
from qverify.report.numbers import footer
from qverify.report.page import page
from qverify.report.page_rows import packed
from qverify.report.table import lines_of
from qverify.runs.question import Question
from qverify.runs.reading import read_runs
from qverify.text.escapes import printable
from qverify.verification.tally import Tally
from tests.support.commands import answer, qverify
from tests.support.pages import Parsed, written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import Line, question, random_rows, row, typed, write_batch, write_run

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'\ud800\u2028"


def summed_up(parsed: Parsed) -> list[dict[str, str]]:
    """The rows of the summary table by their headings."""
    heads, *rows = parsed.tables["summary"]
    return [dict(zip(heads, cells, strict=True)) for cells in rows]


def check_summary(parsed: Parsed, runs: list[Any]) -> None:
    """The table is the CSV, line by line; so is the file it offers."""
    text = qverify("report", *runs, "--format", "csv").stdout
    lines = summed_up(parsed)
    expected = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == len(expected) > 0
    for line, record in zip(lines, expected, strict=True):
        for heading in ("clean", "IBP", "BP", "guaranteed", "attack"):
            count = int(record[heading.lower()])
            share = 10000 * count // int(record["samples"])  # rounded downwards
            assert line[heading] == f"{share / 100:.2f} % {count}"
        assert (line["samples"], line["unknown"]) == (record["samples"], record["unknown"])
        assert line["seconds"] == f"{float(record['seconds']):.2f}" and line["model"] == record["model"]
        assert line["radii"] == f"{record['bits']} bits"
    (link,) = [attributes["href"] for tag, attributes in parsed.elements if tag == "a" and "download" in attributes]
    assert base64.b64decode((link or "").partition("base64,")[2]).decode() == text


@pytest.fixture
def two_cases(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, dict[str, list[Line]]]:
    """A batch of one model at 6 and 8 bits, 120 samples each."""
    rows = {f"at{bits}": random_rows(rng, 120) for bits in (6, 8)}
    cases = {name: question(int(name[2:]), 120) for name in rows}
    named = [r | {"case": name, "key": "k"} for name, own in rows.items() for r in own]
    return write_batch(tmp_path / "batch", cases, named), rows


# --- the page as a file ---


def test_the_table_equals_the_csv(
    two_cases: tuple[Path, dict[str, list[Line]]], tmp_path: Path, rng: np.random.Generator
) -> None:
    run = write_run(tmp_path / "run", random_rows(rng, 50), model="m/other.onnx")
    check_summary(Parsed(written(two_cases[0], run)), [two_cases[0], run])


def test_the_page_asks_for_nothing_else(tmp_path: Path) -> None:
    given = ("--data", "digits", "--bits", 6, "--samples", "0:40", "--out", tmp_path / "run", "--witnesses")
    answer("verify", DIGITS, *given)
    text = written(tmp_path / "run")
    parsed = Parsed(text)
    links = [v or "" for _, found in parsed.elements for k, v in found.items() if k in ("src", "href", "srcset")]
    assert len(links) > 10 and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", text)
    (policy,) = [found["content"] for tag, found in parsed.elements if found.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "@@" not in text and text.count("<script") == 2


def test_rows_are_packed_with_margins_rounded_outwards(tmp_path: Path, rng: np.random.Generator) -> None:
    tiny = row(200, margin_lower=1e-9 / 3, margin_upper=-1e-9 / 3)
    rows = [*random_rows(rng, 200), tiny, row(201, "unknown")]
    rows[-1] |= {"scope": "independent positions", "detail": HOSTILE}
    cases = read_runs([str(write_run(tmp_path / "run", rows))])
    text = packed(cases, ["one"])
    assert not set("<>&") & set(text)
    data = json.loads(text)
    (case,) = data["cases"]
    ordered = sorted(rows, key=lambda r: r["index"])
    assert case["index"] == list(range(202)) and case["label"] == [r["label"] for r in ordered]
    assert [data["statuses"][k] for k in case["status"]] == [r["status"] for r in ordered]
    assert [data["methods"][k] for k in case["method"]] == [r["method"] for r in ordered]
    assert (
        data["details"][case["detail"][201]] == f"independent positions; {printable(HOSTILE)}"
        and case["detail"][0] == 0
    )
    digits = json.loads(text, parse_float=Decimal)["cases"][0]
    for low, high, r in zip(digits["lower"], digits["upper"], ordered, strict=True):
        assert (low is None) == (r["margin_lower"] is None)
        if low is not None:
            assert 0 <= Decimal(r["margin_lower"]) - low <= abs(Decimal(r["margin_lower"])) / 10**4
        assert 0 <= high - Decimal(r["margin_upper"]) <= abs(Decimal(r["margin_upper"])) / 10**4


def test_the_page_of_a_large_run_is_small(tmp_path: Path, rng: np.random.Generator) -> None:
    text = written(write_run(tmp_path / "run", random_rows(rng, 10_000)))
    assert len(text.encode()) < 1 << 20
    check_summary(Parsed(text), [tmp_path / "run"])


def test_curves_are_of_cases_that_differ_by_bits_alone(
    two_cases: tuple[Path, dict[str, list[Line]]], tmp_path: Path
) -> None:
    others = [
        write_run(tmp_path / "alone", [row(0)], model_sha256="dd" * 32),
        write_run(tmp_path / "clipped", [row(0)], bits=10, clip_input=[0.0, 1.0]),
        write_run(tmp_path / "empty", []),
    ]
    cases = lines_of(read_runs([str(two_cases[0]), *map(str, others)]))
    (curve,) = curves(cases)
    assert [line.case.bits for line in curve.lines] == [6, 8]
    assert curve.title == "net (aaaaaaaa) on data.npz, samples 0:120, scheme paper, rounding any, method auto"
    text = page(cases)
    for name, rows in two_cases[1].items():
        share = 10000 * sum(r["status"] == "verified" for r in rows) // 120
        assert f"<title>guaranteed, {name[2:]} bits: {share / 100:.2f} %</title>" in text
    assert '<section id="curves" >' in text
    assert '<section id="curves" hidden>' in page(cases[-1:])


def test_the_manifest_states_hashes_versions_radii_and_notes(tmp_path: Path) -> None:
    text = unescape(written(write_run(tmp_path / "run", [row(0), row(1, "verified", "exact"), row(7)])))
    for words in (
        *("aa" * 32, "bb" * 32, "cc" * 32, "<dt>qverify</dt><dd>0.1.0</dd>", "<dt>tolerance</dt><dd>1e-08</dd>"),
        *("<dt>radii.largest.weight</dt><dd>0.0078125</dd>", "<dt>clip_input</dt><dd>null</dd>"),
        *("<dt>start 1: solver.version</dt><dd>1.2.3</dd>", "<dt>samples</dt><dd>[0, 8]</dd>"),
        *("Verified: 2 by bounds in float64", "1 by the exact step, from the duals of every linear program"),
        *(
            "largest radii (half-widths, twice that is the diameter) input 0.003906",
            "highs 1.2.3, formulation relational",
        ),
        "run: 3 of 8 samples are decided",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("solver", "formulation"), [("highs", "relational"), ("gurobi", "relational"), ("scip", "bilinear"), ("", "")]
)
def test_the_page_trusts_what_the_terminal_trusts(tmp_path: Path, solver: str, formulation: str) -> None:
    """The sentence below `qverify verify` stands in the row of the exact step and in the claim, and nothing else."""
    asked = question(6, 2, formulation=formulation or "relational", tolerance=2e-8)
    rows = [row(0, "verified", "exact"), row(1)]
    run = write_run(tmp_path / "run", rows, **asked)
    starts = [{"solver": {"name": solver, "version": "9"} if solver else None}]
    (run / "run.json").write_text(json.dumps(asked | {"runs": starts}))
    (verified,) = [
        s
        for s in footer(Tally.of(map(typed, rows)), Question.from_json(asked), [f"{solver} 9"] if solver else [])
        if "Verified:" in s
    ]
    trusted = verified.partition("1 by the exact step, ")[2].rstrip(".")
    duals = "from the duals of every linear program it solved"
    word = "solver's own bound counts less 2e-08 times the network's gain"
    if (solver, formulation) == ("highs", "relational"):
        assert trusted == f"{duals} (in bilinear programs the {word})"
    else:
        assert trusted == f"in which the {word}"
    text = written(run)
    stages = {cells[0]: cells[1:] for cells in Parsed(text).tables["stages"][1:]}
    assert stages["exact"][1] == f"verified: {trusted}; falsified: as attack"
    assert text.count(word.replace("'", "&#x27;")) == 3 and "dual bound" not in text
    assert list(stages) == [
        "forward",
        "ibp",
        "attack",
        "ties",
        "bp",
        "bp-layers",
        "bp-optimised",
        "bp-branched",
        "halving",
        "exact",
    ]
    shown = qverify("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", "0:40").stdout
    for name, (does, _) in stages.items():
        assert f"{name} = {does}" in shown or f"{name} = " not in shown


def test_runs_with_different_trust_are_both_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [row(0, "verified", "exact")], method="exact") for name in ("a", "b")]
    record = json.loads((runs[1] / "run.json").read_text())
    record["runs"].append({"solver": {"name": "gurobi", "version": "11"}})  # one start is enough
    (runs[1] / "run.json").write_text(json.dumps(record))
    (rests,) = [cells[2] for cells in Parsed(written(*runs)).tables["stages"] if cells[0] == "exact"]
    assert rests.count("verified: from the duals") == 1 and rests.count("verified: in which the solver's own") == 1
    runs = [write_run(tmp_path / "c", [row(0)], method="ibp")]
    assert "not asked for here" in written(*runs)


# --- in a browser ---


def brackets(parsed: Parsed) -> tuple[int, list[dict[str, str]]]:
    """How many lines the table of brackets shows, and these by their headings."""
    head, *rows = parsed.tables["brackets"]
    lines = [dict(zip(head[-len(cells) :], cells, strict=True)) for cells in rows]
    return len(lines), lines


def test_the_browser_reports_mistakes(browser: Callable[..., Any]) -> None:
    browser("<script>nowhere()</script>", problems=1)


def test_the_browser_shows_the_table_and_all_brackets(
    two_cases: tuple[Path, dict[str, list[Line]]], browser: Callable[..., Any]
) -> None:
    parsed = browser(written(two_cases[0]))
    check_summary(parsed, [two_cases[0]])
    shown, lines = brackets(parsed)
    assert shown == 50 and [line["sample"] for line in lines[:4]] == ["0", "0", "1", "1"]
    (root,) = [found for tag, found in parsed.elements if tag == "html"]
    assert int(root["data-shown"] or "") >= 0


def test_filters_select_and_order(two_cases: tuple[Path, dict[str, list[Line]]], browser: Callable[..., Any]) -> None:
    folder, rows = two_cases
    text = written(folder)
    chosen = [r for r in rows["at8"] if r["status"] == "verified" and r["method"] == "exact"]
    label = chosen[0]["label"]
    _, lines = brackets(browser(text, f"#case=1&status=verified&method=exact&label={label}&sort=lower"))
    expected = sorted((r for r in chosen if r["label"] == label), key=lambda r: r["margin_lower"])
    assert [int(line["sample"]) for line in lines] == [r["index"] for r in expected]
    for line, r in zip(lines, expected, strict=True):
        assert (line["status"], line["method"], line["label"]) == ("verified", "exact", str(label))
        assert line["case"] == "net, 8 bits"
        assert float(line["lower"].replace("\u2212", "-")) == pytest.approx(r["margin_lower"], rel=1e-4)
        assert float(line["upper"].replace("\u2212", "-")) == pytest.approx(r["margin_upper"], rel=1e-4)


@pytest.mark.slow
def test_pages_and_unknown_choices(two_cases: tuple[Path, dict[str, list[Line]]], browser: Callable[..., Any]) -> None:
    folder, rows = two_cases
    text = written(folder)
    for address, expected in (("#case=0&page=3", 20), ("#case=0&page=99", 20), ("#status=nonsense&sort=7&page=x", 50)):
        shown, lines = brackets(browser(text, address))
        assert shown == expected, address
    ordered = sorted(rows["at6"], key=lambda r: r["seconds"])
    shown, lines = brackets(browser(text, "#case=0&sort=ms"))
    assert float(lines[0]["ms"]) == pytest.approx(1000 * ordered[-1]["seconds"], rel=1e-2)
    misclassified = [r for r in rows["at6"] if r["status"] == "misclassified"]
    shown, lines = brackets(browser(text, "#case=0&status=misclassified"))
    assert shown == len(misclassified) and {line["lower"] for line in lines} == {"none"}
    assert all(re.fullmatch(r"misclassifiedanswers \d", line["status"]) for line in lines)


def test_choosing_in_the_form_and_paging(
    two_cases: tuple[Path, dict[str, list[Line]]], browser: Callable[..., Any]
) -> None:
    """A second script, allowed for this test only, uses the page as a reader does."""
    script = """
      const form = document.getElementById("filters");
      form.elements.status.value = "verified";
      form.dispatchEvent(new Event("change"));
      document.querySelector("#pager [data-step=on]").click();
      document.body.dataset.count = document.getElementById("count").textContent;
      document.body.dataset.pages = document.querySelector("#pager span").textContent;
      document.body.dataset.address = location.hash;
    """
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", written(two_cases[0]))
    parsed = browser(text.replace("</body>", f"<script>{script}</script></body>"))
    (body,) = [found for tag, found in parsed.elements if tag == "body"]
    verified = sum(r["status"] == "verified" for rows in two_cases[1].values() for r in rows)
    assert body["data-count"] == f"{verified} samples selected"
    assert body["data-pages"] == f"page 2 of {-(-verified // 50)}"
    assert body["data-address"] == "#status=verified&page=2"


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out(tmp_path: Path, digits_run: Path, browser: Callable[..., Any], width: int) -> None:
    """On a phone and on a desk, with a name that is long."""
    long = write_run(tmp_path / ("long" * 20), [row(0), row(1, "falsified", "attack")], model=f"m/{'name' * 25}.onnx")
    frame = f'<iframe srcdoc="{escape(written(digits_run, long))}" style="width:{width}px; height: 900px"></iframe>'
    script = """
      const frame = document.querySelector("iframe");
      frame.addEventListener("load", () => {
        const root = frame.contentDocument.documentElement;
        Object.assign(document.body.dataset, { inner: root.clientWidth, content: root.scrollWidth });
      });
    """
    parsed = browser(f"<!DOCTYPE html><body>{frame}<script>{script}</script></body>")
    (body,) = [found for tag, found in parsed.elements if tag == "body"]
    assert width - 30 < int(body["data-inner"] or 0) == int(body["data-content"] or 0)


def test_hostile_names_stay_text(tmp_path: Path, browser: Callable[..., Any]) -> None:
    rows = [row(0, "unknown", "exact", detail=HOSTILE, scope="independent positions"), row(1)]
    asked: dict[str, Any] = {"model": HOSTILE + ".onnx", "data": HOSTILE, "data_source": HOSTILE, "qverify": HOSTILE}
    asked["radii"] = question(6)["radii"] | {"convention": HOSTILE, "calibration": HOSTILE}
    cases = {HOSTILE: question(6, 2, **asked), "b": question(8, 2, **{**asked, HOSTILE: HOSTILE})}
    named = [r | {"case": case} for case in cases for r in rows]
    text = written(write_batch(tmp_path / "run <b>", cases, named))
    assert text.count("<script") == 2
    parsed = browser(text)
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    assert not [found for _, found in parsed.elements if "onerror" in found or found.get("src") == "x"]
    assert any(HOSTILE[:9] in line["status"] for line in brackets(parsed)[1])


@pytest.mark.slow
def test_a_large_run_and_an_empty_one_in_the_browser(
    tmp_path: Path, rng: np.random.Generator, browser: Callable[..., Any]
) -> None:
    large, empty = write_run(tmp_path / "large", random_rows(rng, 10_000)), write_run(tmp_path / "empty", [])
    parsed = browser(written(large))
    check_summary(parsed, [large])
    assert brackets(parsed)[0] == 50
    parsed = browser(written(empty))
    assert brackets(parsed)[0] == 0 and summed_up(parsed)[0]["guaranteed"] == "- 0"
