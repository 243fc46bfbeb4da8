"""Plans: what they name, what they refuse, and which answers count as the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from qverify.errors import UsageError
from qverify.runs import plan as plans
from qverify.runs import question as questions
from qverify.runs.plan import Plan
from qverify.runs.question import Question, case_id, sample_key

BASE = 'models = ["a.onnx"]\ndata = "digits"\n'
QUESTION: dict[str, Any] = {
    "model": "m.onnx",
    "network_sha256": "n",
    "data_sha256": "f",
    "arrays_sha256": "d",
    "data": "digits",
    "samples": [0, 5],
    "radii": {"bits": 8, "scheme": "paper", "rounding": "any", "convention": "words", "largest": {"input": 0.1}},
    "clip_input": [0.0, 1.0],
    "method": "auto",
    "formulation": "relational",
    "solver": "auto",
    "timeout": 300.0,
    "tolerance": 1e-8,
}


def identity(asked: dict[str, Any]) -> list[Any]:
    return Question.from_json(asked).identity()


def read(folder: Path, text: str) -> Plan:
    (folder / "plan.toml").write_text(text)
    return Plan.read(str(folder / "plan.toml"))


def test_the_product_is_complete_and_paths_are_beside_the_plan(tmp_path: Path) -> None:
    text = """
        models = ["a.onnx", "/b.onnx"]
        data = ["digits", "own.npz"]
        bits = [6, 8, 10]
        schemes = ["paper", "channel"]
        roundings = ["any", "nearest"]
        radii = ["r.toml"]
        methods = ["auto", "ibp"]
        clip-input = [0, 1]
        timeout = 5
        out = "runs"
    """
    plan = read(tmp_path, text)
    entries = plan.entries()
    assert len(entries) == len(set(entries)) == 2 * 2 * (3 * 2 * 2 + 1) * 2
    assert {e.model for e in entries} == {str(tmp_path / "a.onnx"), "/b.onnx"}
    assert {e.data for e in entries} == {"digits", str(tmp_path / "own.npz")}
    assert plan.out == str(tmp_path / "runs") and plan.clip_input == (0.0, 1.0) and plan.timeout == 5.0
    by_file = [e for e in entries if e.radii]
    assert len(by_file) == 8 and all(e.bits is e.scheme is e.rounding is None for e in by_file)
    assert by_file[0].radii == str(tmp_path / "r.toml") and by_file[0].name == "a-digits-r-auto"


@pytest.mark.parametrize(("stated", "wanted"), [("100", "100"), ("'100'", "100"), ("'5:9'", "5:9"), ("-5", "-5")])
def test_samples_are_a_range_or_a_number(tmp_path: Path, stated: str, wanted: str) -> None:
    """Whether there are that many shows when the data are read."""
    assert read(tmp_path, BASE + f"bits = 8\nsamples = {stated}\n").samples == wanted


def test_what_is_left_out_has_the_defaults_of_verify(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, BASE + "bits = 8\n").entries()
    assert entry == plans.Entry(
        model=str(tmp_path / "a.onnx"), data="digits", bits=8, scheme="paper", rounding="any", radii=None, method="auto"
    )


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        (
            BASE + "bits = [8]\nsample = '0:5'\n",
            "has the unknown key 'sample'; the keys are activation-bits, activations, batchnorm, bias-bits, bits",
        ),
        ('data = "digits"\nbits = [8]\n', r"names no models; add models = \[...\]"),
        ('models = ["a.onnx"]\nbits = [8]\n', "names no data; add data"),
        ('models = []\ndata = "digits"\nbits = [8]\n', "models in .* is empty, so there is nothing to verify"),
        (BASE + "bits = []\n", "bits in .* is empty"),
        (BASE, r"states no radii; add bits = \[8\]"),
        (BASE + 'radii = ["r.toml"]\nschemes = ["channel"]\n', "schemes and roundings in .* say what bits means"),
        (BASE + "bits = [8, 8]\n", "bits in .* has 8 more than once"),
        (BASE + "bits = [8.0]\n", "bits in .* has 8.0; write whole numbers"),
        (BASE + "bits = [true]\n", "bits in .* has True; write whole numbers"),
        (BASE + "bits = [8]\nkernel = 'any'\n", "kernel in .* says more of schemes tensor and channel"),
        (BASE + 'bits = [8]\nschemes = ["papper"]\n', "'papper'; choose from: paper, tensor, channel"),
        (BASE + 'bits = [8]\nmethods = ["crown"]\n', "'crown'; choose from: auto, ibp, bp, bp-layers"),
        (BASE + "bits = [8]\ntimeout = '5'\n", "timeout in .* is '5'; write a number"),
        (BASE + "bits = [8]\nsamples = 1e3\n", r'samples in .* is 1000\.0; write "A:B" in quotes, or the number'),
        (BASE + "bits = [8]\nsamples = true\n", "samples in .* is True; write"),
        (BASE + "bits = [8]\nsamples = [0, 5]\n", r"samples in .* is \[0, 5\]; write"),
        (BASE + "bits = [8]\nclip-input = [0]\n", "clip-input in .* write two numbers"),
        ('models = [3]\ndata = "digits"\nbits = [8]\n', "models in .* is 3; write text in quotes"),
        ("models = [", "is not valid TOML"),
    ],
)
def test_refusals_are_one_sentence(tmp_path: Path, text: str, wording: str) -> None:
    with pytest.raises(UsageError, match=wording) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="Cannot read the plan nowhere"):
        Plan.read("nowhere.toml")


# --- keys ---


@pytest.mark.parametrize(
    "change",
    [
        {"network_sha256": "m"},
        {"arrays_sha256": "e"},
        {"bits": 9},
        {"scheme": "channel"},
        {"rounding": "nearest"},
        {"calibration": "all"},
        {"kernel": "any"},
        {"batchnorm": "folded"},
        {"file": "r.toml", "sha256": "ab"},
        {"clip_input": None},
        {"method": "ibp"},
        {"formulation": "bilinear"},
        {"solver": "scip"},
        {"tolerance": 1e-7},
    ],
)
def test_whatever_may_change_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    asked = change.keys() <= QUESTION.keys()
    change = change if asked else {"radii": QUESTION["radii"] | change}
    assert sample_key(identity(QUESTION | change), 3) != sample_key(identity(QUESTION), 3)


def test_keys_are_those_of_the_documented_tuple_and_know_their_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    own = identity(QUESTION)
    radii = {"bits": 8, "scheme": "paper", "rounding": "any"}
    radii |= dict.fromkeys(("kernel", "batchnorm", "sha256", "calibration"))
    method = ["auto", "relational", "auto"]
    stated = [5, "n", "d", radii, [0.0, 1.0], "the output of the label is the largest", method, 1e-8, 3]
    assert sample_key(own, 3) == hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    assert len({sample_key(own, index) for index in range(50)}) == 50
    monkeypatch.setattr(questions, "SEMANTICS", 6)
    assert sample_key(identity(QUESTION), 3) != sample_key(own, 3)


def test_files_that_moved_more_samples_and_more_time_are_the_same_question() -> None:
    moved = {"model": "elsewhere.onnx", "data_source": "there", "samples": [0, 500], "timeout": None, "qverify": "9"}
    radii = QUESTION["radii"] | {"convention": "other words", "largest": {"input": 0.1 + 1e-17}}
    assert identity(QUESTION | moved | {"radii": radii}) == identity(QUESTION)
    assert case_id("name", identity(QUESTION)).startswith("name-")
