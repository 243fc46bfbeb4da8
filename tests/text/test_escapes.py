"""Names that hold anything: what each place makes of them, against readers of that place."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from qverify.text.escapes import from_spreadsheet, latex, markdown, printable, shown, spreadsheet

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
NASTY = [
    "\x1b[31mred\x1b]8;;http://x\x07link",
    "two\nlines\r\n\x85\u2028\u2029",
    "\u202eright to left\u2066\u200f",
    "\x00\x08\x7f\x9b31m",
    "\ud800 lone, \udcff surrogates",
    "\U000e0041\u200b\ufeff invisible",
]


@pytest.mark.parametrize("text", NASTY)
def test_nothing_printable_drives_a_terminal(text: str) -> None:
    safe = printable(text)
    assert len(safe) == len(text) and "\ufffd" in safe and len(safe.splitlines()) == 1
    assert {unicodedata.category(letter)[0] for letter in safe} <= set("LMNPSZ") and safe.encode()
    assert not any(unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI") for letter in safe)


def test_plain_text_is_left_alone() -> None:
    text = "dense1/Gewicht, größer als 0: [fett] $5 100 % «層»"
    assert printable(text) is text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("fine", "'fine'"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("x" * 99, "'" + "x" * 56 + "..."),
        ([1.5, None], "[1.5, None]"),
    ],
)
def test_a_value_in_a_message_is_short_and_printable(value: list[float | None] | str, text: str) -> None:
    assert shown(value) == text


def test_values_that_python_cannot_write() -> None:
    assert shown(10**5000) == "a very long int"
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a very long list"


# --- spreadsheets ---


@given(TEXT)
def test_a_cell_is_read_back_and_begins_with_no_formula(text: str) -> None:
    cell = spreadsheet(text)
    assert from_spreadsheet(cell) == text and not re.match(r"[=+\-@\t\r\n＝＋－＠]", cell)
    assert cell == text or cell == "'" + text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'quoted'"])
def test_what_looks_like_a_formula_is_quoted(text: str) -> None:
    assert spreadsheet(text) == "'" + text
    file = io.StringIO()
    csv.writer(file).writerow([spreadsheet(text)])
    ((cell,),) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert from_spreadsheet(cell) == text


# --- Markdown, against a parser of CommonMark and GitHub's tables ---

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def rendered(text: str) -> list[str]:
    """The text of each inline part of a document; None of it may be markup."""
    tokens = [token for token in _PARSER.parse(text) if token.type == "inline"]
    for token in tokens:
        assert {child.type for child in token.children or []} <= {"text", "text_special", "softbreak"}, token
    return ["".join("\n" if c.type == "softbreak" else c.content for c in token.children or []) for token in tokens]


@given(st.text(st.sampled_from("#-+*_=:.)(1 2`~|\\<>&[]!a\"'$\n"), min_size=1, max_size=12))
def test_markdown_shows_the_text_itself(text: str) -> None:
    expected = printable(text).strip()
    if not expected:
        return
    tokens = _PARSER.parse(markdown(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"], tokens
    assert rendered(markdown(text)) == [expected]
    table = f"| a | b |\n| --- | --- |\n| {markdown(text)} | x |\n"
    assert rendered(table) == ["a", "b", expected, "x"]
    assert rendered(f"before\n{markdown(text)}\n") == [f"before\n{expected}"]


# --- LaTeX ---

_COMMANDS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotedbl": '"',
}


def typeset(code: str) -> str:
    """What LaTeX would set, of a grammar in which every special character must be escaped."""
    found = re.sub(r"^\{\}", "", code)
    assert re.fullmatch(r"(\\(text\w+)\{\}|\\[{}$&#%_]|[^\\{}$&#%_~^<>|\"\n])*", found), code
    return re.sub(r"\\(text\w+)\{\}|\\([{}$&#%_])", lambda found: _COMMANDS[found[1]] if found[1] else found[2], found)


@given(TEXT | st.text(st.sampled_from("[]()*% \\\n^"), min_size=1))
@example("[2cm] x")
@example("*")
@example(" (lr) \\\\")
def test_latex_sets_the_text_itself_on_one_line(text: str) -> None:
    code = latex(text)
    assert typeset(code) == printable(text).replace("\ufffd", "?") and "\n" not in code
    assert not code.lstrip().startswith(("[", "*", "("))  # which `\\` or \midrule before it would take
