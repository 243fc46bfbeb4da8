"""`qverify radius`: what it prints, writes, goes on with and refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.analysis import factors as radius
from qverify.analysis import grid
from qverify.analysis.grid import Grid
from qverify.arrays import Array
from qverify.cli.radius import quantiles
from qverify.runs.radius import RadiusDirectory
from qverify.verification.verdict import Options
from tests.support.commands import answer, qverify, same
from tests.support.paths import DIGITS
from tests.support.refusals import refusal

FIRST = ("--data", "digits", "--samples", "30:70", "--bits", 6)
FEW = ("--data", "digits", "--samples", "30:54", "--bits", 6)
QUICK = ("--precision", 0.1, "--max-factor", 4)
FINE = ("--precision", 0.01, "--max-factor", 4)
"""Bounds and attacks meet at factors less fine; here some are left to the exact step."""
BP = ("--method", "bp", *QUICK)
LAYERS = ("--accuracy", 0.85, "--layer-method", "ibp")
COLUMNS = "index,label,predicted,lower,upper,proved_by,broken_by,detail,seconds"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ends(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What does not depend on the time it took."""
    return [tuple(v for k, v in row.items() if k != "seconds") for row in found["brackets"]]


def test_the_choices_are_those_of_the_library() -> None:
    shown = " ".join(qverify("radius", "--help").stdout.split())
    assert f"[default: {grid.MAX_FACTOR}]" in shown and f"[default: {grid.PRECISION}]" in shown


@pytest.mark.slow
def test_factor_1_counts_what_verify_counts() -> None:
    """With everything that decides: bounds, attack, solver."""
    found = answer("radius", DIGITS, *FEW, *FINE)
    expected = answer("verify", DIGITS, *FEW)
    assert found["verified_at_1"] == expected["verified"] and found["samples"] == 24
    assert found["misclassified"] == expected["misclassified"] > 0
    assert found["radii"] == expected["radii"] and found["convention"] == expected["convention"]
    assert found["sample_range"] == [30, 54] and found["attack"] is True and found["layers"] is None
    brackets = found["brackets"]
    assert [b["index"] for b in brackets] == list(range(30, 54))
    for b in brackets:
        if b["broken_by"] == "forward":
            assert (b["lower"], b["upper"]) == (None, 0.0) and b["predicted"] != b["label"]
        else:
            assert b["lower"] < b["upper"] <= b["lower"] * 1.0101 and b["predicted"] == b["label"]
    assert {b["broken_by"] for b in brackets} >= {"forward", "attack"}
    assert {b[by] for b in brackets for by in ("proved_by", "broken_by")} >= {"bp-optimised", "exact"}
    factors = sorted(b["lower"] or 0.0 for b in brackets)
    assert list(found["quantiles"].values()) == [factors[i] for i in (0, 2, 11, 20, 23)]


def test_quantiles_are_factors_that_enough_samples_reach() -> None:
    values = [float(v) for v in (3, 1, 2, 2, 5, 8, 0, 9, 4, 7, 6)]
    found = quantiles(values)
    assert found == {"minimum": 0, "10 %": 1, "median": 4, "90 %": 8, "maximum": 9} and quantiles([]) == {}
    assert sum(v >= found["10 %"] for v in values) >= 0.9 * len(values)


def test_the_files_the_object_and_the_table_agree(tmp_path: Path) -> None:
    given = ("radius", DIGITS, *FIRST, *BP, *LAYERS, "--out", tmp_path)
    found = answer(*given)
    lines, layers = read(tmp_path / "factors.csv"), read(tmp_path / "layers.csv")
    assert ",".join(lines[0]) == COLUMNS == ",".join(found["brackets"][0]) and len(lines) == 40
    in_order = sorted(lines, key=lambda line: int(line["index"]))
    assert all(same(row, line) for row, line in zip(found["brackets"], in_order, strict=True))
    assert all(same(row, line) for row, line in zip(found["layers"], layers, strict=True))
    assert [(row["layer"], row["kind"]) for row in layers[:3]] == [
        ("input", "input"),
        ("dense1", "weight"),
        ("relu1", "activation"),
    ]
    record = json.loads((tmp_path / "radius.json").read_text())
    assert (record["max_factor"], record["precision"], record["method"]) == (4, 0.1, "bp")
    assert record["runs"][0]["accuracy"] == 0.85 and record["data_sha256"] == found["data_sha256"]
    table = qverify(*given, "--resume").stdout
    for name, factor in found["quantiles"].items():
        shown = float(" ".join(table.split()).split(f"{name} ")[1].split()[0])
        assert 0.999 * factor <= shown <= factor  # what is proved is rounded down
    assert "digits.onnx on digits, samples 30:70: 40 samples in" in table and "fails" not in table
    assert f"Verified at factor 1: {found['verified_at_1']} of 40" in table
    assert f"Counted as 0: {found['misclassified']} misclassified by the network itself." in table
    assert "at which 85 % are proved, by ibp" in table and ">= 4" in table
    row = found["layers"][1]
    cells = ["dense1", "weight", f"{row['factor']:.4g}", *2 * [f"{row['radius']:.4g}"], f"{100 * row['reached']:.2f} %"]
    assert " ".join(cells) in " ".join(table.split())
    svg = (tmp_path / "radius.svg").read_text()
    assert "40 samples of digits, by bp" in svg and "6 bits, scheme paper" in svg
    assert (tmp_path / "radius.png").read_bytes().startswith(b"\x89PNG")


def test_radii_from_a_file_some_of_them_zero(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('weight = 0.02\n[layers."dense1"]\nweight = 0.0\nbias = 0.05\n')
    given = ("--data", "digits", "--samples", ":20", "--radii", tmp_path / "r.toml", *BP, *LAYERS)
    found = answer("radius", DIGITS, *given)
    assert [(r["layer"], r["kind"]) for r in found["layers"]] == [(f"dense{k}", "weight") for k in (1, 2, 3)]
    assert found["layers"][0]["radius"] == 0 and found["layers"][0]["bias_radius"] > 0.05
    assert found["layers"][1]["bias_radius"] == 0 and found["layers"][1]["radius"] > 0.02
    (tmp_path / "r.toml").write_text("weight = 0.0\n")
    assert "All radii are 0, and so is every multiple" in refusal("radius", DIGITS, *given[:-4])


@pytest.mark.slow
def test_undecided_brackets_are_said_to_be_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qverify.verification.exact_step.ExactStep._seconds", lambda self, sample: 1e-4)
    given = ("--data", "digits", "--samples", "17:20", "--bits", 6, *FINE, "--timeout", 60, "--jobs", 1)
    brackets = answer("radius", DIGITS, *given)["brackets"]
    wide = [b for b in brackets if b["detail"]]
    assert wide and all("time limit" in b["detail"] and b["lower"] * 1.0101 < b["upper"] for b in wide)
    shown = qverify("radius", DIGITS, *given).stdout
    assert "Wider than 1 %: " in shown and "fails" in shown and "Broken by attack" in shown


def test_a_table_for_samples_0_to_100_has_no_emoji() -> None:
    assert "samples 0:100: 100 samples in" in qverify("verify", DIGITS, *FIRST[:3], "0:100", *FIRST[4:]).stdout


# --- going on ---


@pytest.mark.slow
def test_only_what_is_missing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("radius", DIGITS, *FIRST, *BP, "--out", tmp_path)
    whole = answer(*given)
    lines = (tmp_path / "factors.csv").read_text().splitlines(keepends=True)
    (tmp_path / "factors.csv").write_text("".join(lines[:31]) + lines[31][:9])
    asked = []

    def counted(self: radius.FactorSearch, x: Array, y: np.ndarray, *more: Any) -> Any:
        asked.append(len(x))
        return own(self, x, y, *more)

    own = radius.FactorSearch.run
    monkeypatch.setattr(radius.FactorSearch, "run", counted)
    result = qverify(*given, *LAYERS, "--resume", "--json")  # and layers, which were not asked for before
    again = json.loads(result.stdout)
    assert "30 of 40 samples and 0 of 6 layers are done already" in result.stderr
    assert asked == [10] and ends(again) == ends(whole) and len(again["layers"]) == 6
    others = qverify(*given, "--accuracy", 0.8, "--layer-method", "ibp", "--resume", "--json")
    assert asked == [10] and len(read(tmp_path / "layers.csv")) == 12
    rows = zip(again["layers"], json.loads(others.stdout)["layers"], strict=True)
    assert all(other["factor"] >= row["factor"] for row, other in rows)


@pytest.mark.slow
def test_ctrl_c_keeps_the_samples_that_are_done(tmp_path: Path) -> None:
    """In a process of its own, which interrupts itself after the second bracket."""
    code = "import os, signal; from qverify.runs.radius import RadiusDirectory as D; "
    code += "from qverify.cli import main; add = D.add; D.add = lambda self, row: (add(self, row), "
    code += "len(self.brackets) == 2 and os.kill(os.getpid(), signal.SIGINT)); main(prog_name='qverify')"
    given = ("radius", DIGITS, *FIRST[:3], "30:45", *FIRST[4:], *BP, "--out", tmp_path, *LAYERS, "--json")
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 130 and "Traceback" not in found.stderr
    result = json.loads(found.stdout)
    done = len(result["brackets"])
    assert 2 <= done < 15 and result["interrupted"] is True and result["layers"] == []
    assert f"interrupted: {done} of 15 samples and 0 of 6 layers are done and kept in {tmp_path}" in found.stderr
    assert len(read(tmp_path / "factors.csv")) == done
    again = answer(*given[:-1], "--resume")
    assert len(again["brackets"]) == 15 and len(again["layers"]) == 6 and again["interrupted"] is False
    kept = [ends(again).index(row) for row in ends(result)]
    assert len(kept) == done


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Any, bracket: Any) -> None:
        add(self, bracket)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    add = RadiusDirectory.add
    monkeypatch.setattr(RadiusDirectory, "add", twice)
    before = signal.getsignal(signal.SIGINT)
    result = qverify("radius", DIGITS, *FIRST, *BP, "--out", tmp_path)
    assert result.exit_code == 130 and len(read(tmp_path / "factors.csv")) == 1
    assert "1 of 40 samples" in result.stdout and signal.getsignal(signal.SIGINT) is before


# --- refusals ---


def test_what_is_there_already(tmp_path: Path) -> None:
    given: tuple[Any, ...] = ("radius", DIGITS, *FIRST, "--method", "ibp", *QUICK, "--out", tmp_path)
    answer(*given)
    before = (tmp_path / "factors.csv").read_text()
    assert "holds a run already; add --resume to go on with it, or name another --out" in refusal(*given)
    changes: dict[Any, Any]
    for changes, wording in (
        ({"ibp": "bp"}, 'method was "ibp" and is "bp" now'),
        ({0.1: 0.2}, "precision was 0.1 and is 0.2 now"),
        ({4: 8}, "max_factor was 4.0 and is 8.0 now"),
        ({6: 7}, "radii.bits was 6 and is 7 now"),
    ):
        changed = [changes.get(word, word) for word in given]
        assert wording in refusal(*changed, "--resume")
    assert (tmp_path / "factors.csv").read_text() == before


@pytest.mark.parametrize(
    ("given", "wording"),
    [
        ((), "The radii are missing; give --bits N, or --radii FILE.toml"),
        (("--bits", "8", "--radii", "r.toml"), "--bits and --radii exclude each other"),
        (("--bits", "0"), "The bit-width is 0"),
        (("--bits", "8", "--max-factor", "0"), "The largest factor is 0; give a number above 0, up to 1e+06"),
        (("--bits", "8", "--max-factor", "nan"), "The largest factor is nan"),
        (("--bits", "8", "--max-factor", "inf"), "The largest factor is inf"),
        (("--bits", "8", "--precision", "0"), "The precision is 0; give a number from 0.0001 to 1, such as 0.01"),
        (("--bits", "8", "--precision", "-1"), "The precision is -1"),
        (("--bits", "8", "--accuracy", "90"), "The accuracy is 90; give a share above 0 and up to 1, for example 0.9"),
        (("--bits", "8", "--accuracy", "0.999"), "right on 96.49 % of the samples, so no radius guarantees 99.9 %"),
        (("--bits", "8", "--clip-input", "1", "0"), "--clip-input takes two finite numbers"),
        (("--bits", "8", "--device", "nowhere"), "The device 'nowhere' cannot be used"),
        (("--bits", "8", "--timeout", "-1"), "The time limit is -1.0 seconds"),
        (("--bits", "8", "--samples", "5:900"), "reaches beyond digits"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, given: tuple[str, ...], wording: str) -> None:
    assert wording in refusal("radius", DIGITS, "--data", "digits", "--out", tmp_path / "new", *given)
    assert not (tmp_path / "new").exists()


def test_other_refusals(tmp_path: Path) -> None:
    assert "--resume needs a directory; give --out DIR too" in refusal("radius", DIGITS, *FIRST, "--resume")
    assert "does not exist; check the path" in refusal("radius", tmp_path / "none.onnx", *FIRST)
    result = qverify("radius", DIGITS, *FIRST, "--method", "exact")
    assert result.exit_code == 2 and "'exact' is not one of 'auto', 'ibp', 'bp'" in result.stderr


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Options, Grid]] = []

    def watched(self: radius.FactorSearch, *more: Any) -> Any:
        seen.append((self.options, self.grid))
        return own(self, *more)

    own = radius.FactorSearch.run
    monkeypatch.setattr(radius.FactorSearch, "run", watched)
    given = ("--clip-input", 0, 1, "--timeout", 7, "--jobs", 1, *BP)
    found = answer("radius", DIGITS, *FIRST, *given)
    wanted = Options(method="bp", clip=(0.0, 1.0), seconds=7.0, jobs=1, attack=False)
    assert seen == [(wanted, Grid(4.0, 0.1))]
    free = answer("radius", DIGITS, *FIRST, *BP)
    pairs = list(zip(free["brackets"], found["brackets"], strict=True))
    assert all((a["lower"] or 0) <= (b["lower"] or 0) for a, b in pairs)
    assert sum(a["lower"] != b["lower"] for a, b in pairs) > 5
