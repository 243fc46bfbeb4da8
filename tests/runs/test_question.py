"""Questions: as JSON and back, what makes two the same, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from qverify.runs.question import Question, StatedRadii, widened
from tests.support.runs_on_disk import question

HASHES = {"model_sha256": "ab", "network_sha256": "cd"}
BATCH = question() | {
    "input_scale": 0.5,
    "data_samples": 9,
    "arrays_sha256": "dd" * 32,
    "places": {"model": {"absolute": "/m.onnx"}},
}
RADIUS = question() | {"input_scale": None, "max_factor": 16.0, "precision": 0.01, "attack": True}
FILE = {"convention": "radii file r.toml", "largest": {"weight": 0.1}, "file": "r.toml", "sha256": "ee" * 32}
RANGES = {"kernel": "any", "batchnorm": "folded", "calibration": "all 3 samples of the data set"}
SWEEP = {key: value for key, value in question().items() if key not in ("model", *HASHES)}
SWEEP |= {"models": {"net": HASHES}, "model_files": ["net.onnx"], "attack": False, "input_scale": None}
MIXED: dict[str, Any] = {"weight_bits": 4, "activation_bits": 8, "input_bits": 8, "bias_bits": 16}
MIXED |= {"points": "tflite", "input": "exact", "activations": "symmetric", "ranges": "entropy"}
KINDS: dict[str, dict[str, Any]] = {
    "run": question(clip_input=[0.0, 1.0], witnesses=False, input_scale=None, output="scores"),
    "batch": BATCH,
    "radius": RADIUS | {"timeout": None},
    "file": RADIUS | {"radii": FILE},
    "ranges": BATCH | {"radii": BATCH["radii"] | RANGES},
    "mixed widths": BATCH | {"radii": BATCH["radii"] | RANGES | MIXED},
    "sweep of bits": SWEEP | {"radii": {"bits": [4, 5], "scheme": "paper", "rounding": "any", "parts": ["all"]}},
    "sweep of values": SWEEP | {"radii": {"values": [0.0, 0.5], "parts": ["all", "input"]}},
    "property": question(input_scale=None, wanted={"words": "y[0] > 1", "statement": "Holds(...)", "of": "samples"}),
    "of a later version": BATCH | {"shape": [1, 2], "radii": BATCH["radii"] | {"zero_points": "any"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_comes_back_as_it_was(kind: str) -> None:
    asked = Question.from_json(KINDS[kind])
    assert asked.to_json() == KINDS[kind]
    again = Question.from_json(json.loads(json.dumps(asked.to_json(), allow_nan=False)))
    assert again == asked and list(again.to_json()) == list(asked.to_json())


def test_every_field_is_in_one_of_them() -> None:
    """So that the round trip has seen each."""
    assert {key for asked in KINDS.values() for key in asked} - {"shape"} == names(Question)
    assert {key for asked in KINDS.values() for key in asked["radii"]} - {"zero_points"} == names(StatedRadii)


def names(of: type) -> set[str]:
    return {field.name for field in fields(of)} - {"more"}


def test_null_is_kept_where_it_means_something() -> None:
    few = {key: value for key, value in question().items() if key not in ("clip_input", "solver", "qverify")}
    found = Question.from_json(few).to_json()
    assert found["clip_input"] is None and found["input_scale"] is None and "solver" not in found


@pytest.mark.parametrize("asked", [None, [], 3, "x", {}, {"models": {}}])
def test_what_is_no_question_is_refused(asked: Any) -> None:
    with pytest.raises(ValueError, match="missing or senseless"):
        Question.from_json(asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "crown"}, "method missing or senseless"),
        ({"samples": [4, 2], "tolerance": -1.0}, "samples, tolerance missing or senseless"),
        ({"radii": {"convention": "c"}}, "radii.largest missing or senseless"),
        ({"radii": {"convention": "c", "largest": {}, "bits": [8]}}, "radii.bits missing or senseless"),
    ],
)
def test_refusals_name_what_is_wrong(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="missing or senseless") as caught:
        Question.from_json(question() | change)
    assert str(caught.value) == words


def test_places_of_another_form_are_left_out() -> None:
    assert Question.from_json(question() | {"places": 3}).places is None


def test_the_part_of_an_answer_says_which_samples() -> None:
    found = Question.from_json(question(6, 4)).summary()
    assert found["sample_range"] == [0, 4] and "samples" not in found
    assert found["convention"] == "6 bits, scheme paper, rounding any"


@pytest.mark.parametrize(
    ("now", "wider"),
    [
        ({"samples": [0, 9]}, {"samples": [0, 9]}),
        ({"samples": [1, 9]}, None),
        ({"timeout": 301.0}, {"timeout": 301.0}),
        ({"timeout": None, "samples": [0, 5]}, {"timeout": None, "samples": [0, 5]}),
        ({"timeout": 299.0}, {}),
    ],
)
def test_a_question_is_widened_by_what_contains_it(now: dict[str, Any], wider: dict[str, Any] | None) -> None:
    found = widened(question(), question() | now)
    assert found == ({} if wider is None else {"samples": [0, 4]} | wider)  # the same samples contain themselves


def test_an_unlimited_time_is_not_made_longer() -> None:
    kept = Question.from_json(question(timeout=None))
    assert "timeout" not in widened(kept.to_json(), replace(kept, timeout=9.0).to_json())
