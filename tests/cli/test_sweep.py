"""`qverify sweep`: what it writes, goes on with and refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.analysis import sweeps as sweep
from qverify.analysis.sweeps import Point
from qverify.arrays import Array
from qverify.family.radii import Radii
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.runs.sweep import SweepDirectory
from qverify.verification.verdict import Options
from tests.support.commands import answer, qverify, same
from tests.support.paths import DIGITS
from tests.support.refusals import refusal
from tests.support.stored_data import npz

NORMAL = str(Path(DIGITS).with_name("digits_normal.onnx"))
FIRST = ("--data", "digits", "--samples", "30:90")
VALUES = ("--values", "0,0.01,0.02")
COLUMNS = "model,part,bits,value,input,weight,bias,activation,method,samples,clean,guaranteed,attack,unknown,seconds"


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_point_is_what_verify_says_of_the_same_radii_in_a_file(tmp_path: Path) -> None:
    for method in ("ibp", "auto"):
        found = answer("sweep", DIGITS, *FIRST, "--values", "0.01,0.03", "--method", method)
        assert [r["part"] for r in found["rows"]] == [part for part in sweep.PARTS for _ in range(2)]
        for row in found["rows"]:
            lines = [f"{kind} = {row['value']}" for kind in sweep.PARTS[row["part"]]]
            (tmp_path / "r.toml").write_text("\n".join(lines))
            expected = answer("verify", DIGITS, *FIRST, "--radii", tmp_path / "r.toml", "--method", method)
            assert row["guaranteed"] == expected["verified"] and row["samples"] == 60
            assert row["clean"] == 60 - expected["misclassified"]
            assert {kind: row[kind] for kind in ("input", "weight", "bias", "activation")} == expected["radii"][
                "largest"
            ]
            if method == "auto":
                assert (row["attack"], row["unknown"]) == (round(60 * expected["attack_accuracy"]), expected["unknown"])
            else:
                assert row["attack"] is None and row["unknown"] == row["clean"] - row["guaranteed"]


def test_bits_are_those_of_verify() -> None:
    given = ("--scheme", "channel", "--rounding", "nearest", "--method", "bp")
    found = answer("sweep", DIGITS, *FIRST, "--bits", "5:7", "--parts", "all", *given)
    assert [r["bits"] for r in found["rows"]] == [5, 6, 7] and {r["value"] for r in found["rows"]} == {None}
    for row in found["rows"]:
        expected = answer("verify", DIGITS, *FIRST, "--bits", row["bits"], *given)
        assert row["guaranteed"] == expected["verified"]
        assert {k: row[k] for k in expected["radii"]["largest"]} == expected["radii"]["largest"]
    assert found["convention"] == "bits under scheme channel, rounding nearest"
    assert found["radii"]["calibration"] == "all 599 samples of the data set"


def test_the_file_the_object_and_the_table_agree(tmp_path: Path) -> None:
    given = ("sweep", DIGITS, NORMAL, *FIRST, *VALUES, "--method", "ibp", "--out", tmp_path)
    found = answer(*given)
    lines = read(tmp_path)
    assert ",".join(lines[0]) == COLUMNS == ",".join(found["rows"][0]) and len(lines) == len(found["rows"]) == 42
    assert all(same(row, line) for row, line in zip(found["rows"], lines, strict=True))
    assert found["sample_range"] == [30, 90] and found["interrupted"] is False and found["attack"] is False
    table = qverify(*given, "--resume").stdout
    for name in ("digits", "digits_normal"):
        clean = next(r["clean"] for r in found["rows"] if r["model"] == name)
        assert f"{name}: clean {clean / 0.6:.2f} %" in table
    cells = [f"{r['guaranteed'] / 0.6:.2f}" for r in found["rows"] if (r["model"], r["value"]) == ("digits", 0.02)]
    assert " ".join(["0.02", *cells]) in " ".join(table.split())
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record["radii"] == {"values": [0, 0.01, 0.02], "parts": list(sweep.PARTS)} and record["method"] == "ibp"
    assert record["data_sha256"] == found["data_sha256"] and set(record["models"]) == {"digits", "digits_normal"}
    assert "A point" not in table and (tmp_path / "sweep.png").stat().st_size > 5000
    svg = (tmp_path / "sweep.svg").read_text()
    assert "60 samples of digits, by ibp; radius (half-width)" in svg and "digits_normal" in svg
    assert not (tmp_path / "none").exists() and "Kept in" not in qverify(*given[:-2]).stdout


def test_undecided_samples_show_as_a_range(tmp_path: Path) -> None:
    given = ("--values", "0.05", "--parts", "all", "--timeout", "0.0001", "--data", "digits", "--samples", ":40")
    table = qverify("sweep", DIGITS, *given, "--out", tmp_path).stdout
    (row,) = csv.DictReader((tmp_path / "sweep.csv").open())
    guaranteed, attack, unknown = (int(row[name]) for name in ("guaranteed", "attack", "unknown"))
    assert unknown > 0 and attack == guaranteed + unknown
    assert f"{guaranteed / 0.4:.2f} to {attack / 0.4:.2f}" in table and "the rest is unknown" in table


def test_models_of_one_name_keep_their_paths(tmp_path: Path) -> None:
    shutil.copy(NORMAL, tmp_path / "digits.onnx")
    found = answer("sweep", DIGITS, tmp_path / "digits.onnx", *FIRST, "--values", "0.01", "--parts", "all")
    assert [r["model"] for r in found["rows"]] == [DIGITS, str(tmp_path / "digits.onnx")]
    assert found["rows"][0]["guaranteed"] > found["rows"][1]["guaranteed"]


# --- going on ---


def test_only_what_is_missing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("sweep", DIGITS, NORMAL, *FIRST, *VALUES, "--method", "ibp", "--out", tmp_path)
    whole = answer(*given)
    lines = (tmp_path / "sweep.csv").read_text().splitlines(keepends=True)
    gone = [3, 17, 42]
    kept = [line for number, line in enumerate(lines) if number not in gone]
    (tmp_path / "sweep.csv").write_text("".join(kept) + lines[42][:20])
    asked: list[Any] = []

    def counted(network: Network, x: Array, y: np.ndarray, cases: list[tuple[str, Point]], *more: Any) -> Iterator[Any]:
        cases = list(cases)
        asked.extend((network.source, part, point.value) for part, point in cases)
        return own(network, x, y, cases, *more)

    own = sweep.sweep
    monkeypatch.setattr(sweep, "sweep", counted)
    shutil.move(shutil.copy(DIGITS, tmp_path / "moved"), tmp_path / "digits.onnx")
    result = qverify("sweep", tmp_path / "digits.onnx", *given[2:], "--resume", "--json")
    assert "39 points are done already; 3 are left" in result.stderr
    again = json.loads(result.stdout)
    rows = whole["rows"]
    assert asked == [(f"{rows[n - 1]['model']}.onnx", rows[n - 1]["part"], rows[n - 1]["value"]) for n in gone]
    assert [{**r, "seconds": 0} for r in again["rows"]] == [{**r, "seconds": 0} for r in rows]
    assert (tmp_path / "sweep.csv").read_text().startswith("".join(kept)) and len(read(tmp_path)) == 42


@pytest.mark.slow
def test_ctrl_c_keeps_the_points_that_are_done(tmp_path: Path) -> None:
    """In a process of its own, which interrupts itself after the second row."""
    code = "import os, signal; from qverify.runs.sweep import SweepDirectory as D; from qverify.cli import main; "
    code += "add = D.add; D.add = lambda self, row: (add(self, row), "
    code += "len(self.rows) == 2 and os.kill(os.getpid(), signal.SIGINT)); main(prog_name='qverify')"
    given = ("sweep", DIGITS, *FIRST, *VALUES, "--method", "ibp", "--out", str(tmp_path), "--json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=False, env=environment
    )
    assert found.returncode == 130 and "Traceback" not in found.stderr
    assert f"interrupted: 2 of 21 points are done and kept in {tmp_path}; go on with" in found.stderr
    result = json.loads(found.stdout)
    assert result["interrupted"] is True and len(result["rows"]) == len(read(tmp_path)) == 2
    assert len(answer(*given[:-1], "--resume")["rows"]) == 21


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Any, row: Any) -> None:
        add(self, row)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    add = SweepDirectory.add
    monkeypatch.setattr(SweepDirectory, "add", twice)
    before = signal.getsignal(signal.SIGINT)
    result = qverify("sweep", DIGITS, *FIRST, *VALUES, "--method", "ibp", "--out", tmp_path)
    assert result.exit_code == 130 and len(read(tmp_path)) == 1 and signal.getsignal(signal.SIGINT) is before


# --- refusals ---


def test_what_is_there_already(tmp_path: Path) -> None:
    given: tuple[Any, ...] = (
        "sweep",
        DIGITS,
        *FIRST,
        "--values",
        "0,0.01",
        "--parts",
        "all",
        "--method",
        "ibp",
        "--out",
        tmp_path,
    )
    answer(*given)
    before = (tmp_path / "sweep.csv").read_text()
    assert "holds a run already; add --resume to go on with it, or name another --out" in refusal(*given)
    changes: dict[Any, Any]
    for changes, wording in (
        ({"ibp": "bp"}, 'method was "ibp" and is "bp" now'),
        ({"30:90": "30:91"}, "samples was [30, 90] and is [30, 91] now"),
        ({"0,0.01": "0,0.02"}, "radii.values was [0.0, 0.01] and is [0.0, 0.02] now"),
        ({"all": "input"}, 'radii.parts was ["all"] and is ["input"] now'),
        ({DIGITS: NORMAL}, "models.digits_normal.model_sha256 was not given"),
    ):
        assert wording in refusal(*(changes.get(word, word) for word in given), "--resume")
    assert (tmp_path / "sweep.csv").read_text() == before
    (tmp_path / "sweep.json").unlink()
    assert "sweep.json is missing or damaged" in refusal(*given, "--resume")


@pytest.mark.parametrize(
    ("given", "wording"),
    [
        ((), "either as --bits LO:HI or as --values LIST"),
        (("--bits", "4:6", "--values", "0"), "either as --bits LO:HI or as --values LIST"),
        (("--values", "0,x"), "The radius 'x' in --values is no finite number of at least 0"),
        (("--values", "-1"), "The radius '-1' in --values"),
        (("--values", "nan"), "The radius 'nan' in --values"),
        (("--values", "inf"), "The radius 'inf' in --values"),
        (("--values", "0,"), "The radius '' in --values"),
        (("--values", "0.1,1e-1"), "--values has 0.1 more than once"),
        (("--values", "0", "--scheme", "tensor"), "with --values it means nothing"),
        (("--bits", "8:4"), "'8:4' are empty; the smaller number comes first"),
        (("--bits", "4-8"), "'4-8' are not of the form LO:HI"),
        (("--bits", "0:3"), "The bit-width is 0; it must be a whole number from 1 to 32"),
        (("--bits", "1:3", "--scheme", "channel"), "The bit-width is 1; it must be a whole number from 2 to 32"),
        (
            ("--values", "0", "--parts", "weights"),
            "There is no part 'weights'; the parts are input, weight, activation",
        ),
        (("--values", "0", "--parts", "all,all"), "--parts has all more than once"),
        (("--values", "0", "--clip-input", "1", "0"), "--clip-input takes two finite numbers"),
        (("--values", "0", "--device", "nowhere"), "The device 'nowhere' cannot be used"),
        (("--values", "0", "--timeout", "-1"), "The time limit is -1.0 seconds"),
        (("--values", "0", "--samples", "5:900"), "reaches beyond digits"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, given: tuple[str, ...], wording: str) -> None:
    assert wording in refusal("sweep", DIGITS, "--data", "digits", "--out", tmp_path / "new", *given)
    assert not (tmp_path / "new").exists() or not given


def test_models_that_do_not_go_together(tmp_path: Path) -> None:
    values = ("--data", "digits", "--values", "0")
    assert "A model is given twice" in refusal("sweep", DIGITS, Path(DIGITS).parent / "." / "digits.onnx", *values)
    assert "does not exist; check the path" in refusal("sweep", DIGITS, tmp_path / "none.onnx", *values)
    data = npz(tmp_path, x=[[0.0, 1.0]], y=[0])
    assert "have shape (2,)" in refusal("sweep", DIGITS, "--data", data, "--values", "0")
    assert "--resume needs a directory; give --out DIR too" in refusal("sweep", DIGITS, *values, "--resume")
    result = qverify("sweep", *values)
    assert result.exit_code == 2 and "Missing argument 'MODEL...'" in result.stderr


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def watched(
        network: Network, x: Array, y: np.ndarray, cases: list[tuple[str, Point]], options: Options, *more: Any
    ) -> Iterator[Any]:
        seen.append(options)
        return iter(own(network, x, y, list(cases), options, *more))

    own = sweep.sweep
    monkeypatch.setattr(sweep, "sweep", watched)
    given = (
        "--clip-input",
        0,
        1,
        "--timeout",
        7,
        "--jobs",
        1,
        "--method",
        "bp",
        "--values",
        "0.05",
        "--parts",
        "input",
    )
    (row,) = answer("sweep", DIGITS, *FIRST, *given)["rows"]
    assert seen == [Options(method="bp", clip=(0.0, 1.0), seconds=7.0, jobs=1, attack=False)]
    network = onnx_io.load(DIGITS)
    assert network.source == "digits.onnx" and row["model"] == "digits"
    free = answer("sweep", DIGITS, *FIRST, "--method", "bp", "--values", "0.05", "--parts", "input")["rows"][0]
    assert row["guaranteed"] > free["guaranteed"] and Radii(0.05).input == row["input"]
