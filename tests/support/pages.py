"""Pages of `qverify report`: written, and parsed without a browser."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.support.commands import qverify


class Parsed(HTMLParser):
    """Elements with their attributes, and the cells of every table with an id, as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table, self._text = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._table = dict(attrs).get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._text = True

    def handle_endtag(self, tag: str) -> None:
        self._text = self._text and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._text:
            self.tables[self._table][-1][-1] += data


Browser = Callable[..., Parsed]


def written(*runs: Any) -> str:
    """What --format html writes."""
    out = Path(runs[0]).parent / "page.html"
    result = qverify("report", *runs, "--format", "html", "--out", out)
    assert result.exit_code == 0 and result.stdout == "", result.stderr
    return out.read_text()
