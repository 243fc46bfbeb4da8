"""Directories with one thing changed in them: every command goes on rightly, or refuses in one sentence."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qverify.choices import BOUNDS
from qverify.cli import radius, sweep
from qverify.runs.batch import BatchWork
from qverify.runs.reading import read_runs
from tests.support.commands import qverify
from tests.support.paths import DIGITS

FIRST, COUNT = 43, 8
"""Samples of digits with eight labels that all differ, so that no row can stand for another sample."""
GIVEN = ("--data", "digits", "--samples", f"{FIRST}:{FIRST + COUNT}")
SWEPT = ("--values", "0.01,0.03", "--parts", "all,input", "--method", "ibp")
SOUGHT = ("--bits", 6, "--method", "ibp", "--precision", 0.5, "--max-factor", 4, "--accuracy", 0.5)
COMMANDS: dict[str, tuple[Any, ...]] = {
    "run": ("verify", DIGITS, *GIVEN, "--bits", 5, "--method", "bp", "--out", "run", "--resume", "--json"),
    "batch": ("batch", "plan.toml", "--out", "batch", "--jobs", 1, "--json"),
    "sweep": ("sweep", DIGITS, *GIVEN, *SWEPT, "--out", "sweep", "--resume", "--json"),
    "radius": ("radius", DIGITS, *GIVEN, *SOUGHT, "--layer-method", "ibp", "--out", "radius", "--resume", "--json"),
}
PLAN = f'models = ["{DIGITS}"]\ndata = "digits"\nbits = [5]\nmethods = ["bp"]\nsamples = "{FIRST}:{FIRST + COUNT}"\n'
ODD = [
    *("null", "true", "false", "[]", "{}", '""', '"x"', "0", "-1", "1", "1.5", "NaN", "Infinity", "-Infinity", "1e999"),
    *("9" * 400, "1" * 5000, "[" * 2000 + "]" * 2000, '{"a": ' * 200 + "1" + "}" * 200, '"\\u0000"', '"\\ud800"'),
    *('"verified"', '"falsified"', '"misclassified"', '"ibp"', '"exact"', '"\\u001b[31m"', "[1, 2]", "1e-320"),
]
CELLS = [
    *(
        "",
        "x",
        "-1",
        "0",
        "1",
        "7",
        "9",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "1_0",
        "１",
        "True",
        "=1+1",
        "ibp",
        "exact",
        '"',
    ),
    *("9" * 400, "1" * 5000, "\x1b[31m", "\0", "'", '"""\\u0000"""', '"""x'),
]


@dataclass
class Bench:
    """A folder with a directory of each command, what their files hold, and what the commands say of them."""

    folder: Path
    files: dict[str, bytes]
    truth: dict[str, Any]

    def put(self, changes: dict[str, bytes]) -> None:
        for name, content in (self.files | changes).items():
            (self.folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "plan.toml").write_text(PLAN)
        first = [qverify(*command) for command in COMMANDS.values()]
        assert [found.exit_code for found in first] == [0] * len(COMMANDS)
    names = [path for path in folder.glob("*/*") if path.suffix in (".json", ".jsonl", ".csv")]
    truth = {name: json.loads(found.stdout) for name, found in zip(COMMANDS, first, strict=True)}
    return Bench(folder, {str(path.relative_to(folder)): path.read_bytes() for path in names}, truth)


# --- one change ---


def flipped(content: bytes, chance: random.Random) -> bytes:
    found, place = bytearray(content), chance.randrange(len(content))
    found[place] ^= 1 << chance.randrange(8)
    return bytes(found)


def shortened(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + content[place + chance.choice([1, 1, 2, 5, 30, 400]) :]


def lengthened(content: bytes, chance: random.Random) -> bytes:
    place, count = chance.randrange(len(content) + 1), chance.choice([1, 1, 2, 5, 30])
    alphabet = chance.choice([bytes(range(256)), b'0123456789.e-",:[]{}\n', b"\0", b"\n", b"9"])
    return content[:place] + bytes(chance.choices(alphabet, k=count)) + content[place:]


def reordered(content: bytes, chance: random.Random) -> bytes:
    """Lines swapped, repeated, joined or left out."""
    lines = content.splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    how = chance.randrange(4)
    if how == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif how == 1:
        lines.insert(other, lines[one])
    elif how == 2:
        lines[one] = lines[one].rstrip(b"\n")
    else:
        del lines[one]
    return b"".join(lines)


def replaced(content: bytes, chance: random.Random) -> bytes:
    """A value, or a cell, that is odd."""
    text = content.decode()
    if text.lstrip().startswith("{"):
        values = list(re.finditer(r'(?<=: )("(\\.|[^"\\])*"|[-\w.+]+|\[[^][{}]*\])', text))
        literal = chance.choice(ODD)
    else:
        values = list(re.finditer(r"(?<=[,\n])[^,\n]*(?=[,\n])", text))
        literal = chance.choice(CELLS)
    one = chance.choice(values)
    return (text[: one.start()] + literal + text[one.end() :]).encode()


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [flipped, shortened, lengthened, reordered, replaced, replaced]

# --- what may come of it ---


def refused_in_a_sentence(result: Any) -> None:
    lines = [line for line in result.stderr.splitlines() if not line.startswith("qverify: note: ")]
    assert result.exit_code == 2 and result.stdout == "" and len(lines) == 1, result.stderr
    assert lines[0].startswith("qverify: ") and lines[0].endswith(".") and lines[0].isprintable()
    assert "Unexpected" not in lines[0] and "fault" not in lines[0] and len(lines[0]) < 1000


def of_a_row(row: dict[str, Any]) -> bool:
    """Whether qverify can have written a row, by a reading of formats.md, section 2, of its own."""
    whole = all(type(row[key]) is int and row[key] >= 0 for key in ("index", "label", "predicted"))
    margins = [row["margin_lower"], row["margin_upper"]]
    finite = all(one is None or (type(one) in (int, float) and abs(one) < float("inf")) for one in margins)
    low, high = (float("-inf") if margins[0] is None else margins[0]), margins[1]
    agrees = {
        "verified": low > 0 and row["method"] in (*BOUNDS, "ties", "halving", "exact"),
        "falsified": high is not None and high <= 0 and row["method"] in ("attack", "ties", "halving", "exact"),
        "unknown": row["method"] in ("ibp", "bp", "exact", "bp-layers", "bp-optimised", "attack", "forward"),
        "misclassified": high is not None and high <= 0 and row["method"] == "forward",
    }
    right = row["predicted"] == row["label"] or row["status"] == "misclassified"
    return whole and finite and agrees[row["status"]] and right and 0 <= row["seconds"] < 1e12


def check_counts(found: dict[str, Any], truth: dict[str, Any]) -> None:
    """Nothing is verified or falsified that is not, and all samples are accounted for."""
    assert found["verified"] <= truth["verified"] and found["falsified"] <= truth["falsified"]
    assert found["misclassified"] <= truth["misclassified"] and found["samples"] <= COUNT
    assert sum(found[name] for name in ("verified", "falsified", "unknown", "misclassified")) == found["samples"]


def on_the_grid(factor: float | None) -> bool:
    """0, or at most 4 and a whole number of steps of 4^(1/4), the largest below 1.5, from 1."""
    steps = 0 if not factor else math.log(factor) / math.log(4 ** (1 / 4))
    return abs(steps - round(steps)) < 1e-6 and (factor or 0) <= 4


def check(name: str, result: Any, truth: Any) -> None:
    """The result of a command that went on."""
    found = json.loads(result.stdout)
    if name == "run":
        check_counts(found, truth)
        assert found["samples"] == COUNT
    elif name == "batch":
        (case,), (own,) = found["cases"].values(), truth["cases"].values()
        check_counts(case, own)
        assert found["missing"] == COUNT - case["samples"]
    elif name == "sweep":
        for row, own in zip(found["rows"], truth["rows"], strict=True):
            assert (row["model"], row["part"], row["value"]) == (own["model"], own["part"], own["value"])
            assert row["samples"] == COUNT >= row["clean"] >= row["guaranteed"] and row["attack"] is None
            assert row["guaranteed"] <= own["guaranteed"]
    else:
        assert [b["index"] for b in found["brackets"]] == list(range(FIRST, FIRST + COUNT))
        for bracket, own in zip(found["brackets"], truth["brackets"], strict=True):
            assert bracket["label"] == own["label"]
            assert all(on_the_grid(bracket[end]) for end in ("lower", "upper"))
        assert [(one["layer"], one["kind"]) for one in found["layers"]] == [
            (one["layer"], one["kind"]) for one in truth["layers"]
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_one_change_in_a_directory_does_no_harm(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    chance = random.Random(name)
    monkeypatch.chdir(bench.folder)
    monkeypatch.setattr(BatchWork, "run", lambda *_: None)  # what is missing is left out: processes take seconds
    monkeypatch.setattr(sweep, "_plot", lambda *_: None)
    monkeypatch.setattr(radius, "_plot", lambda *_: None)
    own = [file for file in bench.files if file.startswith(f"{name}/")]
    went_on = refused = 0
    for _ in range(150):
        file = chance.choice(own)
        content = chance.choice(CHANGES)(bench.files[file], chance)
        bench.put({file: content})
        result = qverify(*COMMANDS[name])
        if result.exit_code in (0, 130) and not isinstance(result.exception, Exception):
            assert result.exit_code == 0 or name == "batch", result.stderr
            check(name, result, bench.truth[name])
            went_on += 1
        else:
            refused_in_a_sentence(result)
            refused += 1
            kept = {each: (bench.folder / each).read_bytes() for each in own}
            assert kept == {each: bench.files[each] for each in own} | {file: content}, "a refusal changed a file"
    assert went_on > 20 and refused > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "batch"])
def test_one_change_in_a_directory_does_no_harm_to_its_report(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chance = random.Random(f"report {name}")
    monkeypatch.chdir(bench.folder)
    own = [file for file in bench.files if file.startswith(f"{name}/")]
    went_on = refused = 0
    for number in range(200):
        file = chance.choice(own)
        bench.put({file: chance.choice(CHANGES)(bench.files[file], chance)})
        html = number % 8 == 0
        form = ("--format", "html", "--out", "page.html") if html else ("--format", "csv")
        result = qverify("report", name, *form)
        if result.exit_code != 0:
            refused_in_a_sentence(result)
            refused += 1
            continue
        went_on += 1
        assert all(line.startswith("qverify: ") and line.isprintable() for line in result.stderr.splitlines())
        (case,) = read_runs([name])
        assert len(case.rows) <= COUNT * 20 and all(of_a_row(row.to_json()) for row in case.rows)
        if not html:
            (record,) = csv.DictReader(io.StringIO(result.stdout))
            count = sum(row.status.value == "verified" for row in case.rows)
            assert int(record["guaranteed"]) == count and int(record["samples"]) == len(case.rows)
    assert went_on > 20 and refused > 20
