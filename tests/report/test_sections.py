"""Sections of what other commands found: every number is that of the rows, and no sentence says more."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from qverify.report.section import KINDS, Section
from qverify.report.sections import sections_of
from qverify.runs.findings import sorted_out
from tests.support import findings as made
from tests.support.commands import answer, qverify
from tests.support.pages import written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import row, write_run


def only(path: Path) -> Section:
    _, found = sorted_out([str(path)])
    (section,) = sections_of(found)
    assert section.claim.endswith(".") and ". " not in section.claim, "one sentence"
    assert str(path.parent) not in section.claim
    return section


def test_a_sweep_counts_what_its_rows_hold(tmp_path: Path) -> None:
    rows = [
        made.sweep_row("all", 4, 2),
        made.sweep_row("all", 6, 7),
        made.sweep_row("weight", 4, 3, unknown=0, attack=3),
    ]
    section = only(made.write_sweep(tmp_path / "sweep", rows))
    assert "10 samples 0:10 of data.npz" in section.claim and "3 of 21 points are done" in section.claim
    assert "on 2026-01-01" in section.claim and "model net " + "aa" * 32 in section.claim
    (table,) = section.listings
    assert table.headings == ("bits", "weight", "all")
    assert table.rows == (("4", "30.00 %", "20.00 % to 30.00 %"), ("6", "not done", "70.00 % to 80.00 %"))
    assert "clean, the network itself before quantisation: 90.00 %" in table.said


def test_rows_of_a_sweep_that_are_about_something_else_do_not_count(tmp_path: Path) -> None:
    kept, again = made.sweep_row("all", 4, 5), made.sweep_row("all", 4, 6)
    strange = [
        made.sweep_row("all", 5, 8),  # no point of this sweep
        made.sweep_row("all", 6, 8, model="other"),
        made.sweep_row("all", 8, 9, samples=20),
        made.sweep_row("all", 8, 8, method="ibp"),
    ]
    section = only(made.write_sweep(tmp_path / "sweep", [kept, *strange, again]))
    assert section.listings[0].rows == (("4", "60.00 % to 70.00 %"),)
    assert section.notes == (
        "5 rows are about other points or samples, or were replaced by later ones, and are left out.",
    )


def test_a_sweep_whose_rows_disagree_on_the_network_is_refused(tmp_path: Path) -> None:
    rows = [made.sweep_row("all", 4, 5), made.sweep_row("all", 6, 5, clean=8)]
    result = qverify("report", made.write_sweep(tmp_path / "sweep", rows))
    assert result.exit_code == 2 and "differ in how many samples the network gets right" in result.stderr


BRACKETS = [
    made.bracket(0, None, 0.0),
    made.bracket(1, 0.25, 0.5),
    made.bracket(2, 1.0, 1.25),
    made.bracket(3, 2.0, None),
    made.bracket(4, None, 0.125),
]


def test_factors_are_those_of_the_brackets(tmp_path: Path) -> None:
    section = only(made.write_radius(tmp_path / "radius", BRACKETS))
    assert "6 samples 0:6 of data.npz, 5 of them done, 2 (33.33 %) are proved at factor 1" in section.claim
    assert "not covered: 4 samples of these, " in section.claim
    lower, upper = [b["lower"] for b in BRACKETS], [b["upper"] for b in BRACKETS]
    for share, count, proved, fewer in section.listings[0].rows:
        number = int(count)
        assert number >= Fraction(share.removesuffix(" %")) / 100 * 5 > number - 1
        if proved == "none":
            assert sum(end is not None for end in lower) < number
        else:
            assert sum(end is not None and end >= float(proved) for end in lower) >= number
        if fewer == "not known":
            assert sum(end is None for end in upper) >= number
        else:
            assert sum(end is None or end > float(fewer) for end in upper) < number
    assert "Never proved: 2, of which the network itself misclassifies 1." in section.listings[0].said


def test_the_curve_of_factors_is_never_above_what_is_proved(tmp_path: Path) -> None:
    """Read back from the drawing: at every factor the share drawn is that of the samples proved there."""
    section = only(made.write_radius(tmp_path / "radius", BRACKETS))
    path = re.search(r'curve guaranteed"><path d="M([\d.]+) ([\d.]+)([^"]*)"', section.drawing)
    assert path is not None
    places = [(float(path[1]), float(path[2]))]
    for x, y in re.findall(r"H([\d.]+)V([\d.]+)", path[3]):
        places += [(float(x), places[-1][1]), (float(x), float(y))]
    ticks = {float(t): float(x) for x, t in re.findall(r'<text x="([\d.]+)" y="222" [^>]*>([\d.]+)<', section.drawing)}
    unit = (ticks[1.0] - ticks[0.0]) if 1.0 in ticks else (ticks[2.0] - ticks[0.0]) / 2
    for factor in (0.1, 0.3, 0.9, 1.1, 1.9, 2.1):
        x = ticks[0.0] + factor * unit
        drawn = [y for (left, y), (right, _) in itertools.pairwise(places) if left <= x < right]
        proved = sum(b["lower"] is not None and b["lower"] >= factor for b in BRACKETS) / 5
        assert drawn and 1 - (drawn[0] - 12) / 194 == pytest.approx(proved, abs=1e-3)


def test_layers_say_what_was_asked(tmp_path: Path) -> None:
    layers = (
        made.layer_row("dense1"),
        made.layer_row("dense2", None, radius=None, reached=None),
        made.layer_row("d", at_end=True),
    )
    strange = made.layer_row("other", samples=5)
    section = only(made.write_radius(tmp_path / "radius", BRACKETS, (*layers, strange)))
    _, table = section.listings
    assert [cells[2] for cells in table.rows] == ["1.5", "none", "at least 1.5"]
    assert "90 % of the samples or more are proved, by bp" in table.said and len(section.notes) == 1


def test_discrepancies_are_rounded_outwards(tmp_path: Path) -> None:
    rows = [made.ends(0, 1.0000001, 2), made.ends(1, 1 / 3, 2)]
    found = made.discrepancies(2, rows=[r | {"complete": True, "seconds": 0.0} for r in rows])
    section = only(made.write_object(tmp_path / "d.json", found))
    assert "no output moves by more than 1.2501 " in section.claim and "moves one by 0.625" in section.claim
    (table,) = section.listings
    assert table.rows[0] == ("0", "\u22121.0001", "+1.0001", "\u22120.5", "+0.5")
    plain = only(made.write_object(tmp_path / "bp.json", made.discrepancies(met=False)))
    assert "some member" not in plain.claim and plain.listings[0].headings == ("output", "at least", "at most")


def test_claims_say_what_an_exact_step_rests_on(tmp_path: Path) -> None:
    duals, word = (
        "from the duals of every linear program it solved",
        "in which the solver's own bound counts less 1e-08",
    )
    rows = [made.sweep_row("all", 4, 2)]
    assert duals in only(made.write_sweep(tmp_path / "s", rows)).claim
    assert duals in only(made.write_radius(tmp_path / "r", BRACKETS)).claim
    for solver, said in (("highs", duals), ("gurobi", word)):
        found = made.discrepancies(solver={"name": solver, "version": "9"})
        claim = only(made.write_object(tmp_path / f"{solver}.json", found)).claim
        assert said in claim and (said == word or word not in claim)
    assert "by a solver that is not named" in only(made.write_object(tmp_path / "p.json", made.properties())).claim
    plain = only(made.write_object(tmp_path / "bp.json", made.discrepancies(met=False)))
    assert "proved by method bp; " in plain.claim and "exact step" not in plain.claim


def test_what_is_not_certain_is_said(tmp_path: Path) -> None:
    found = made.discrepancies(3, sample_range=[0, 5])
    found["rows"][1]["detail"] = "sums may leave int32"
    section = only(made.write_object(tmp_path / "d.json", found))
    assert "5 samples 0:5 of data.npz, 3 of them done, no output" in section.claim
    assert "not covered: 2 samples of these, " in section.claim and "what the notes say of 1 samples" in section.claim
    assert section.notes == ("Not certain, 1 of 3: sums may leave int32.",)


def test_properties_count_their_rows(tmp_path: Path) -> None:
    section = only(made.write_object(tmp_path / "p.json", made.properties()))
    assert "4 samples 0:4 of data.npz, 2 (50.00 %) are proved to have this property" in section.claim
    assert "the label is among the top 2" in section.claim and "not covered: 2 samples of these" in section.claim
    assert [cells[2] for cells in section.listings[0].rows] == ["2", "1", "1"]
    assert section.listings[0].rows[1][1].endswith("(samples 2)")


def test_a_comparison_says_what_is_proved_and_what_was_met(tmp_path: Path) -> None:
    section = only(made.write_object(tmp_path / "c.json", made.comparison()))
    assert "no output of net_int8.tflite is farther than 3.75 from that of net.onnx" in section.claim
    assert "one is met that is 1.875 away" in section.claim
    assert "within 2.5 on 1 of these samples, beyond it on 0, not known on 2" in section.claim
    around = only(made.write_object(tmp_path / "r.json", made.comparison(input_radius=0.5, clip_input=[0.0, 1.0])))
    assert "and inputs up to 0.5 away from them within 0 to 1, no output" in around.claim
    empty = only(made.write_object(tmp_path / "e.json", made.comparison(0, sample_range=[0, 4], epsilon=None)))
    assert "4 samples 0:4 of data.npz, 0 of them done, nothing is known yet" in empty.claim and not empty.drawing


@pytest.mark.parametrize("outside", [0, 2])
def test_coverage_is_what_all_parts_say(tmp_path: Path, outside: int) -> None:
    section = only(made.write_object(tmp_path / "c.json", made.coverage(outside)))
    assert ("is covered by" in section.claim) is (outside == 0)
    assert ("is NOT covered by" in section.claim and "2 of its 3 parts" in section.claim) is (outside > 0)
    assert ("holds for the file" in section.claim) is (outside == 0)
    assert sum("OUTSIDE" in cells[2] for cells in section.listings[0].rows) == outside


def test_runtimes_count_their_rows(tmp_path: Path) -> None:
    found = made.runtimes(sample_range=[0, 4])
    found["rows"][0]["label"] = 2
    section = only(made.write_object(tmp_path / "r.json", found))
    assert "4 samples 0:4 of data.npz, 3 of them done, 2 (50.00 %) are proved to get one class" in section.claim
    assert (
        "and 1 of these the class of their label" in section.claim
        and "not covered: 2 samples of these" in section.claim
    )
    assert "no output moves by more than 2 " not in section.claim and "moves by more than 1.75;" in section.claim


# --- forms ---


def test_every_form_has_every_section(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0), row(1, "falsified", "attack")])
    paths = made.write_all(tmp_path / "all")
    _, found = sorted_out(list(map(str, paths)))
    sections = sections_of(found)
    assert [section.kind for section in sections] == sorted((s.kind for s in sections), key=list(KINDS).index)
    assert {section.kind for section in sections} == KINDS.keys()
    for form in ("terminal", "markdown", "latex"):
        text = qverify("report", run, *paths, "--format", form).stdout.replace("\\", "")
        flat = " ".join(text.split())
        for section in sections:
            assert f"{KINDS[section.kind][0]}: {section.name}" in flat.replace("{", ""), (form, section.name)
            words = section.claim.partition(" [")[0]
            assert words in flat or form != "terminal"
    page = written(run, *paths)
    assert all(f'<section id="{kind}">' in page and f'href="#{kind}"' in page for kind in KINDS)


def test_numbers_in_latex_and_markdown(tmp_path: Path) -> None:
    """A minus that LaTeX knows; and no escapes in numbers."""
    path = made.write_object(tmp_path / "d.json", made.discrepancies(1, 1))
    assert "0 & $-$1 & +1 & $-$0.5 & +0.5 \\\\\n" in qverify("report", path, "--format", "latex").stdout
    assert "| 0 | \u22121 | +1 | \u22120.5 | +0.5 |\n" in qverify("report", path, "--format", "markdown").stdout


def test_reports_without_a_verification(tmp_path: Path) -> None:
    """They have neither tables of accuracy nor a script."""
    paths = made.write_all(tmp_path / "all")
    page = written(*paths)
    assert "<script" not in page and 'id="accuracy"' not in page and 'id="manifest"' not in page
    assert page.count("<h1>") == 1 and 'id="sweep"' in page
    for more, why in (
        (("--require", 90), "--require is about runs of verify and batch"),
        (("--pivot", "clean"), "--pivot is about runs"),
        (("--format", "csv"), "leave"),
    ):
        result = qverify("report", *paths, *more)
        assert result.exit_code == 2 and why in result.stderr


def test_hostile_words_stay_text(tmp_path: Path) -> None:
    hostile = "</b><script>alert(1)</script>\u2028|`*{}\\"
    found = [
        made.write_object(tmp_path / "p.json", made.properties(property=hostile, model=hostile)),
        made.write_object(tmp_path / "c.json", made.coverage(convention=hostile)),
        made.write_object(tmp_path / "r.json", made.runtimes(data=hostile)),
    ]
    assert "<script" not in written(*found)
    for form in ("terminal", "markdown", "latex"):
        text = qverify("report", *found, "--format", form).stdout
        assert "\u2028" not in text and ("<script" not in text or form != "markdown")


def test_the_real_commands_are_read(tmp_path: Path) -> None:
    """What the commands write today, with nothing in between."""
    given = (DIGITS, "--data", "digits", "--samples", 4)
    (tmp_path / "top.toml").write_text('property = "top-k"\nk = 2\n')
    assert (
        qverify(
            "sweep", *given, "--bits", "6:7", "--parts", "all", "--method", "ibp", "--out", tmp_path / "s"
        ).exit_code
        == 0
    )
    assert qverify("radius", *given, "--bits", 6, "--method", "ibp", "--out", tmp_path / "r").exit_code == 0
    found: dict[str, Any] = {
        "discrepancy": answer("discrepancy", *given, "--bits", 8, "--method", "ibp"),
        "property": answer("property", *given, "--bits", 8, "--property", tmp_path / "top.toml", "--method", "ibp"),
    }
    paths = [made.write_object(tmp_path / f"{name}.json", one) for name, one in found.items()]
    result = qverify("report", tmp_path / "s", tmp_path / "r", *paths, "--format", "markdown")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n## ") + result.stdout.startswith("## ") == 4
