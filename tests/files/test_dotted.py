"""Objects within objects under dotted keys."""

from __future__ import annotations

from qverify.files.dotted import dotted, within


def test_each_value_stands_under_the_keys_above_it() -> None:
    found = dict(dotted({"a": 1, "b": {"c": [2], "d": {"e": None, "f": {}}}, "g": {}}))
    assert found == {"a": 1, "b.c": [2], "b.d.e": None}


def test_a_key_lies_within_itself_and_what_is_above_it() -> None:
    assert within("a.b", "a") and within("a", "a") and within("a.b.c", "a.b")
    assert not within("ab", "a") and not within("a", "a.b")
