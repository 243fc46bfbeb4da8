"""Text of bounded length for messages."""

from __future__ import annotations

import ast

from hypothesis import given
from hypothesis import strategies as st

from qverify.text.shortened import NAME, SENTENCE, first_line, listed, quoted, shortened

PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200)


@given(text=PLAIN, most=st.integers(4, 120))
def test_both_ends_are_kept_evenly(text: str, most: int) -> None:
    short = shortened(text, most)
    if len(text) <= most:
        assert short == text
    else:
        kept = most - 3
        head, tail = (kept + 1) // 2, kept // 2
        assert short == text[:head] + "..." + (text[-tail:] if tail else "")
        assert len(short) == most


@given(name=PLAIN)
def test_a_quoted_name_is_a_literal_of_the_shortened_one(name: str) -> None:
    assert ast.literal_eval(quoted(name)) == shortened(name) and len(shortened(name)) <= NAME


def test_damaged_bytes_are_shown_as_far_as_they_are_text() -> None:
    assert shortened("Größe".encode()) == "Größe" and shortened(b"a\xffb") == "a\ufffdb"


@given(items=st.lists(st.sampled_from("xyz"), max_size=15), most=st.integers(1, 12))
def test_a_list_says_how_many_it_leaves_out(items: list[str], most: int) -> None:
    said = listed(items, most)
    shown, _, rest = said.partition(" and ")
    names = shown.split(", ") if shown else []
    assert names == items[:most]
    assert len(names) + int(rest.removesuffix(" more") or 0) == len(items)


def test_of_an_error_the_first_line_that_says_anything() -> None:
    assert first_line(ValueError("\n\n  what is wrong  \nat line 5\n")) == "what is wrong  "
    assert first_line(KeyError()) == "KeyError" and first_line(OSError("  \n ")) == "OSError"
    assert len(first_line(RuntimeError("x" * 10_000 + "\ny"))) == SENTENCE
    assert first_line(RuntimeError("a\x1b[31mb")) == "a\ufffd[31mb"
