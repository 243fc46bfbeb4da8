"""Helpers around commands fail where a command does not do what they say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.commands import answer, same
from tests.support.paths import DIGITS
from tests.support.refusals import refusal, sentence


def test_an_answer_is_that_of_a_command_that_went_well() -> None:
    assert answer("inspect", DIGITS)["layers"]
    with pytest.raises(AssertionError):
        answer("inspect", "nowhere.onnx")


def test_a_refusal_is_that_of_a_command_that_was_refused() -> None:
    assert "nowhere.onnx" in refusal("inspect", "nowhere.onnx")
    for arguments, status in ((("inspect", DIGITS), 2), (("inspect", "nowhere.onnx"), 3)):
        with pytest.raises(AssertionError):
            refusal(*arguments, status=status)


def test_a_sentence_is_one() -> None:
    assert sentence(SimpleNamespace(value="This is one.")) == "This is one."
    for text in ("no full stop", "two\nlines."):
        with pytest.raises(AssertionError):
            sentence(SimpleNamespace(value=text))


def test_rows_are_the_same_to_the_last_digit() -> None:
    row = {"a": 0.1, "b": None, "c": "x", "d": 7}
    line = {"a": "0.1", "b": "", "c": "x", "d": "7"}
    assert same(row, line)
    for key, other in (("a", "0.10000000000000002"), ("b", "None"), ("c", "y"), ("d", "8")):
        assert not same(row, line | {key: other})
