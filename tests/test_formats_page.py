"""docs/formats.md has every field of every file and object, and no field that nobody writes.

Two oracles: the tables that strict readers go by, and what the commands write.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from qverify import cli, datasets
from qverify.analysis.grid import Bracket
from qverify.analysis.layers import LayerRow
from qverify.analysis.sweeps import SweepRow
from qverify.choices import QUANTISER, STAGES
from qverify.errors import QVerifyError
from qverify.family import radii_file
from qverify.family.radii import KINDS
from qverify.family.steps import LayerBits
from qverify.runs import plan
from qverify.runs import question as questions
from qverify.runs import start as starts
from qverify.training.settings import Settings
from qverify.verification import row as rows
from tests.support.paths import ROOT
from tests.support.quantised import onnxruntime_file

DIGITS = ROOT / "models" / "digits.onnx"
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


@cache
def sections() -> dict[str, str]:
    """The text under each numbered heading, without that of headings within."""
    _, *parts = re.split(r"^#{2,} (\d+(?:\.\d+)?) .*$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def listed(section: str, table: int | None = None) -> list[str]:
    """The names in the first column of a section's tables, or of one of them."""
    tables = [
        [name for line in block.splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
        for block in re.findall(r"(?:^\|.*\n)+", sections()[section], re.MULTILINE)
    ]
    return [name for names in tables for name in names] if table is None else tables[table]


def columns(row: type) -> list[str]:
    return [field.name for field in fields(row)]


def run(*arguments: Any) -> str:
    """What a command prints on stdout."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*arguments: Any) -> dict[str, Any]:
    """The object that a command prints."""
    found: dict[str, Any] = json.loads(run(*arguments, "--json").splitlines()[-1])
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def question(path: Path, kind: str) -> dict[str, Any]:
    """A question on disk, all of whose fields are in section 1, in files of this kind; and its radii and starts."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    check_question(record, kind)
    return record


def check_question(record: dict[str, Any], kind: str) -> None:
    table = [line.split("|") for line in sections()["1"].splitlines() if line.startswith("| `")]
    own = {cells[1].strip(" `") for cells in table if cells[2].strip() == "all" or kind in cells[2]}
    assert record.keys() <= own
    assert record.get("radii", {}).keys() <= set(listed("1.1"))
    assert {key for start in record.get("runs", []) for key in start} <= set(listed("1.2"))
    for place in record.get("places", {}).values():
        inner = [place] if "absolute" in place else list(place.values())
        assert {key for one in inner for key in one} <= set(listed("1.3"))


def asked(found: dict[str, Any]) -> set[str]:
    """The fields of an object that are not the question's."""
    return found.keys() - (set(listed("1")) - {"samples", "runs"})


# -- the tables of strict readers -----------------------------------------------------------------


def test_questions_are_those_that_are_read() -> None:
    """`radii`, `places`, `cases` and `runs` are checked beside the table."""
    assert sorted(listed("1")) == sorted({*questions._ASKED, "radii", "places", "cases", "runs"})
    assert sorted(listed("1.1")) == sorted(questions.RADII | questions.AXIS)
    assert sorted(listed("1.2")) == sorted(starts._START)
    assert all(f"`{kind}`" in sections()["1.1"] for kind in KINDS)


def test_rows_are_those_that_are_read() -> None:
    assert sorted(listed("2", 0)) == sorted([*rows._FIELDS, *rows._FIELDS_MORE])
    assert listed("2", 1) == ["case", "key"]
    assert all(f"`{word}`" in sections()["2"] for word in (*rows.STATUSES, *STAGES))


@pytest.mark.parametrize(("section", "row"), [("5", SweepRow), ("6.1", Bracket), ("6.2", LayerRow)])
def test_columns_are_those_of_the_rows_in_their_order(section: str, row: type[Any]) -> None:
    assert listed(section) == columns(row)


def test_keys_of_files_that_people_write(tmp_path: Path) -> None:
    assert sorted(listed("9")) == sorted(plan._READERS)
    assert listed("8") == [*KINDS, "layers", "points"]
    assert listed("8.1") == list(radii_file.POINT_KEYS)
    assert listed("8.2") == ["bits", *QUANTISER]
    assert all(f"`{name}`" in sections()["8.2"] for name in columns(LayerBits))
    options = {name.removeprefix("--") for option in cli.main.commands["train"].params for name in option.opts}
    assert sorted(listed("10.2")) == sorted(options - {"config", "resume", "json"})
    assert all(f"`{name}`" in sections()["10.1"] for name in columns(Settings))


def test_exit_statuses_of_errors() -> None:
    statuses = {line.split("|")[1].strip() for line in sections()["14"].splitlines() if re.match(r"\| \d", line)}

    def below(kind: type[QVerifyError]) -> set[int]:
        return {kind.exit_code}.union(*(below(one) for one in kind.__subclasses__()))

    assert {str(status) for status in below(QVerifyError)} <= statuses


# -- what is written ------------------------------------------------------------------------------


def test_verify_writes_what_is_listed(tmp_path: Path) -> None:
    """Of samples 0 to 22 at 6 bits some are verified, some falsified, one is misclassified."""
    out = tmp_path / "run"
    found = answer("verify", DIGITS, "--data", "digits", "--samples", "0:23", "--bits", 6, "--out", out, "--witnesses")
    question(out / "run.json", "run")
    rows = lines(out / "samples.jsonl")
    assert {row["status"] for row in rows} >= {"verified", "falsified", "misclassified"}
    assert {key for row in rows for key in row} <= set(listed("2", 0))
    assert asked(found) <= set(listed("12.1")) <= found.keys()
    falsified = next(row["index"] for row in rows if row["status"] == "falsified")
    assert (out / "witnesses" / f"{falsified}.onnx").exists()
    with np.load(out / "witnesses" / f"{falsified}.npz") as arrays:
        assert sorted(arrays) == sorted(listed("3"))
    report = csv.reader(run("report", out, "--format", "csv").splitlines())
    assert next(report) == listed("11")


def test_radii_of_ranges_and_files_are_listed(tmp_path: Path) -> None:
    stated = tmp_path / "radii.toml"
    stated.write_text('input = 0.01\n[layers."dense1"]\nweight = 0.01\n')
    common = ("verify", DIGITS, "--data", "digits", "--samples", "0:2", "--method", "ibp")
    run(*common, "--bits", 8, "--scheme", "channel", "--out", tmp_path / "a")
    run(*common, "--radii", stated, "--out", tmp_path / "b")
    for name in "ab":
        question(tmp_path / name / "run.json", "run")


@pytest.mark.slow
def test_batch_writes_what_is_listed(tmp_path: Path) -> None:
    text = f'models = ["{DIGITS}"]\ndata = ["digits"]\nbits = [8]\nmethods = ["ibp"]\nsamples = 4\nout = "out"\n'
    (tmp_path / "plan.toml").write_text(text)
    found = answer("batch", tmp_path / "plan.toml", "--jobs", 1)
    record = question(tmp_path / "out" / "batch.json", "batch")
    for case in record["cases"].values():
        check_question(case, "batch")
    rows = lines(tmp_path / "out" / "samples.jsonl")
    assert {key for row in rows for key in row} <= set(listed("2"))
    assert {*listed("2", 1)} <= rows[0].keys()
    assert sorted(found) == sorted(listed("12.2"))
    (case,) = found["cases"].values()
    assert list(case) == listed("12.1")[: len(case)]


def test_sweep_writes_what_is_listed(tmp_path: Path) -> None:
    common = ("sweep", DIGITS, "--data", "digits", "--samples", "0:3", "--parts", "all", "--method", "ibp")
    found = answer(*common, "--bits", "8", "--out", tmp_path / "bits")
    question(tmp_path / "bits" / "sweep.json", "sweep")
    assert next(csv.reader((tmp_path / "bits" / "sweep.csv").open())) == listed("5")
    run(*common, "--values", "0.01", "--out", tmp_path / "values")
    question(tmp_path / "values" / "sweep.json", "sweep")
    assert asked(found) == set(listed("12.3"))


def test_radius_writes_what_is_listed(tmp_path: Path) -> None:
    common = ("radius", DIGITS, "--data", "digits", "--samples", "2:4", "--bits", 6, "--method", "ibp")
    found = answer(*common, "--accuracy", "0.5", "--layer-method", "ibp", "--precision", "0.5", "--out", tmp_path / "r")
    question(tmp_path / "r" / "radius.json", "radius")
    for name, section in (("factors", "6.1"), ("layers", "6.2")):
        assert next(csv.reader((tmp_path / "r" / f"{name}.csv").open())) == listed(section)
    assert asked(found) == set(listed("12.4"))
    assert all(f"`{name}`" in sections()["12.4"] for name in found["quantiles"])


def test_discrepancy_and_inspect_give_what_is_listed(tmp_path: Path) -> None:
    common = ("--data", "digits", "--samples", "0:1", "--bits", 8)
    found = answer("discrepancy", DIGITS, *common, "--method", "exact", "--out", tmp_path / "rows.jsonl")
    (row,) = lines(tmp_path / "rows.jsonl")
    assert row.keys() <= set(listed("7")) <= row.keys() | {"detail"}
    assert asked(found) | {"solver"} == set(listed("12.5"))
    found = answer("inspect", DIGITS, *common, "--scheme", "channel", "--points", "tflite")
    assert sorted(found) == sorted(listed("12.6", 0))
    found_keys = {key for layer in found["layers"] for key in layer}
    assert found_keys | {"function"} == set(listed("12.6", 1))  # which this model, with Relus alone, has none of


def test_compare_and_covers_give_what_is_listed(tmp_path: Path) -> None:
    onnxruntime_file(str(DIGITS), datasets.load("digits").x[:50], tmp_path / "int8.onnx")
    given = (DIGITS, tmp_path / "int8.onnx", "--data", "digits")
    found = answer("compare", *given, "--samples", 2, "--epsilon", 1, "--out", tmp_path / "evidence.json")
    assert sorted(found) == sorted(listed("12.9", 0))
    assert json.loads((tmp_path / "evidence.json").read_text()).keys() == found.keys()
    assert all(sorted(tensor) == sorted(listed("12.9", 1)) for tensor in found["tensors"])
    assert all(sorted(row) == sorted(listed("12.9", 2)) for row in found["rows"])
    found = json.loads(CliRunner().invoke(cli.main, [*map(str, ("covers", *given)), "--bits", "8", "--json"]).stdout)
    assert sorted(found) == sorted(listed("12.10", 0))
    assert all(sorted(part) == sorted(listed("12.10", 1)) for part in found["parts"])


def test_property_gives_what_is_listed(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('property = "top-k"\nk = 2\n')
    given = ("--data", "digits", "--samples", "0:1", "--bits", 8)
    found = answer("property", DIGITS, *given, "--property", tmp_path / "p.toml")
    assert asked(found) == set(listed("12.12", 0))
    assert [sorted(row) for row in found["rows"]] == [sorted(listed("12.12", 1))]


def test_solvers_gives_what_is_listed() -> None:
    found = answer("solvers")
    assert sorted(found) == sorted(listed("12.8", 0))
    assert all(sorted(one) == sorted(listed("12.8", 1)) for one in found["solvers"].values())


def test_train_writes_what_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    keep = torch.save

    def saved(content: Any, file: Any) -> None:
        kept.append(content)
        keep(content, file)

    monkeypatch.setattr("qverify.cli.train._KEEP_EVERY", 0.0)
    monkeypatch.setattr(torch, "save", saved)
    out = tmp_path / "small.onnx"
    common = ("--data", "digits", "--arch", "mlp:4", "--epochs", 2, "--threads", 1, "--input-scale", "1")
    found = answer("train", *common, "--bits", 8, "--out", out)
    assert json.loads(out.with_suffix(".json").read_text()) == found
    assert sorted(found) == sorted(listed("10.1"))
    for part in ("radii", "settings", "validation", "versions"):
        assert all(f"`{key}`" in sections()["10.1"] for key in found[part])
    (checkpoint,) = kept
    assert sorted(checkpoint) == sorted(listed("10.3"))
    assert all(f"`{key}`" in sections()["10.3"] for key in (*checkpoint["question"], *checkpoint["state"]))
