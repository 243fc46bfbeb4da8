"""What comes from a file is shown without taking over the terminal, the line, or the page."""

from __future__ import annotations

import unicodedata

import pytest

from qverify.text.escapes import printable
from qverify.text.shortened import listed, quoted, shortened

HOSTILE = {
    "escape sequence": "\x1b[31mred\x1b[0m",
    "C1 control": "\x9b31m",
    "title of the window": "\x1b]0;owned\x07",
    "carriage return": "conv1\rqverify: verified",
    "line feed": "conv1\nqverify: verified",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "vertical tab and form feed": "a\x0bb\x0cc",
    "override of direction": "\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "zero width": "a\u200bb\u200d\ufeff",
    "NUL and DEL": "a\x00b\x7f",
    "half of a pair": "a\ud800b",
    "tab": "a\tb",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_but_visible_characters_is_left(case: str) -> None:
    text = HOSTILE[case]
    shown = printable(text)
    assert len(shown) == len(text) and "\ufffd" in shown and len(shown.splitlines()) == 1
    assert not [letter for letter in shown if unicodedata.category(letter)[0] in "CZ" and letter != " "]
    shown.encode()  # a terminal can take it


@pytest.mark.parametrize("text", ["conv1/Gemm_output_0", "Größe, 重み, вес 'a' \"b\" \\ $", "", "a b"])
def test_visible_text_stays(text: str) -> None:
    assert printable(text) == shortened(text) == text


def test_long_text_keeps_both_ends() -> None:
    text = "begin" + 10_000 * "x" + "end"
    for most in range(10, 90):
        shown = shortened(text, most)
        assert len(shown) == most and "..." in shown and shown.startswith("beg") and shown.endswith("end")
    assert shortened("x" * 80) == "x" * 80 and len(shortened("x" * 81)) == 80
    assert len(quoted("\x1b'" * 1_000_000)) < 200


def test_a_long_list_ends_with_a_count() -> None:
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed([str(n) for n in range(99)], 3) == "0, 1, 2 and 96 more"
