"""What a user states, and the combinations that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qverify.errors import UsageError
from qverify.family.steps import Quantiser
from qverify.runs.given import Given


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"bits": 8, "radii": "r.toml"}, "--bits and --radii exclude each other"),
        ({"scheme": "tensor", "data": "digits"}, "give --bits too"),
        ({"bits": 8, "rounding": "double"}, "is one of runtimes|says how runtimes round"),
        ({"bits": "W4"}, "write a number such as 8, or W4A8"),
        ({"bits": 8, "kernel": "any"}, "give one of these too"),
        ({"bits": 8, "scheme": "paper", "batchnorm": "apart"}, "give one of these too"),
        ({"clip_input": (1.0, 0.0)}, "the smaller one first"),
        ({"clip_input": (1.0, 1.0)}, "the smaller one first"),
        ({"clip_input": (0.0, math.inf)}, "two finite numbers"),
        ({"clip_input": (math.nan, 1.0)}, "two finite numbers"),
        ({"input_scale": 2.0}, "give --data too"),
        ({"samples": "0:5"}, "give --data too"),
        ({"bits": 8, "scheme": "channel"}, "ranges of activations from samples; give --data too"),
    ],
)
def test_combinations_that_make_no_sense(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Given(model="m.onnx", **stated).check()


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"bits": 8, "scheme": "paper", "rounding": "any"},
        {"bits": 8, "scheme": "tensor", "kernel": "any", "batchnorm": "folded", "data": "digits"},
        {"radii": "r.toml", "clip_input": (0.0, 1.0)},
        {"data": "digits", "samples": "5", "input_scale": 1 / 255},
    ],
)
def test_combinations_that_do(stated: dict[str, Any]) -> None:
    Given(model="m.onnx", **stated).check()


def test_a_family_has_to_be_stated_where_one_is_needed() -> None:
    with pytest.raises(UsageError, match="The radii are missing"):
        Given(model="m.onnx").require_radii()
    Given(model="m.onnx", bits=8).require_radii()
    Given(model="m.onnx", radii="r.toml").require_radii()


def test_the_scheme_is_paper_unless_another_is_named() -> None:
    assert Given(model="m").stated_scheme is None
    assert Given(model="m", bits=8).stated_scheme == "paper"
    assert Given(model="m", bits=8, scheme="channel").stated_scheme == "channel"


def test_a_quantiser_has_what_was_stated_and_else_its_own_conventions() -> None:
    assert Given(model="m", bits=6).quantiser(8) == Quantiser(8)
    one = Given(model="m", scheme="tensor", rounding="nearest").quantiser(4)
    assert (one.bits, one.scheme, one.rounding, one.kernel) == (4, "tensor", "nearest", Quantiser(8).kernel)


def test_options_say_the_same_in_their_own_words() -> None:
    own = Given(model="m", method="ibp", timeout=math.inf, memory="2G", jobs=3, clip_input=(0.0, 1.0)).options()
    assert (own.method, own.seconds, own.memory, own.jobs, own.clip) == ("ibp", None, 2 * 2**30, 3, (0.0, 1.0))
    assert Given(model="m", timeout=2.5).options().seconds == 2.5 and Given(model="m").options().memory is None
    with pytest.raises(UsageError, match="--memory 'much'"):
        Given(model="m", memory="much").options()
