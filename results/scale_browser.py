"""The page of `qverify report` in Chromium, for `scale.py`: how soon it is shown, and whether its table is the CSV."""

from __future__ import annotations

import base64
import csv
import io
import shutil
import statistics
import subprocess
import time
from decimal import ROUND_DOWN, Decimal
from html.parser import HTMLParser
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from scale_runs import COMMAND, OURS, ScaleBench

from qverify.console.output import say
from qverify.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMES = 5
NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    " disable-sync enable-logging=stderr v=0"
)
ACCURACIES = ("clean", "IBP", "BP", "guaranteed", "attack")
BLANK = "about:blank"


def page(bench: ScaleBench) -> dict[str, Any]:
    """Write page and CSV of an undisturbed run, time the page, and compare what it shows with the CSV."""
    run = bench.undisturbed(OURS, "--jobs", "2")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        return {"absent": "Chromium is not on PATH"}
    html, table = run.folder / "report.html", run.folder / "report.csv"
    _report(run.folder / "out", "html", html)
    _report(run.folder / "out", "csv", table)
    browser = Browser(chromium, run.folder)
    browser.seconds(BLANK)  # makes the profile, which is not timed
    pages = [browser.seconds(html.as_uri()) for _ in range(TIMES)]
    blank = [browser.seconds(BLANK) for _ in range(TIMES)]
    shown, console = browser.dom(html.as_uri())
    cells, wrong = compared(shown, table.read_text())
    say(
        f"the page is shown after {statistics.median(pages):.2f} s, an empty one after {statistics.median(blank):.2f} s"
    )
    return {
        "browser": browser.version(),
        "samples": len(run.rows),
        "kib": html.stat().st_size / 1024,
        "seconds": pages,
        "median": statistics.median(pages),
        "blank_seconds": blank,
        "blank_median": statistics.median(blank),
        "console": console,
        "cells": cells,
        "wrong": wrong,
        "download_is_the_csv": shown.download == table.read_bytes(),
    }


def _report(run: Path, form: str, out: Path) -> None:
    command = [*COMMAND, "report", str(run), "--format", form, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"qverify report ended with status {done.returncode}: {done.stderr.strip()}")


class Browser:
    """Headless Chromium with a profile of its own in a folder."""

    def __init__(self, program: str, folder: Path):
        self._folder = folder
        switches = [f"--{switch}" for switch in SWITCHES.split()]
        self._command = [program, *switches, f"--user-data-dir={folder / 'profile'}"]

    def version(self) -> str:
        """Name and version, without what it was built on."""
        done = subprocess.run([self._command[0], "--version"], capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split()[:2])

    def seconds(self, address: str) -> float:
        """From the start of the browser to its end, with a picture of the page, scripts done, on disk."""
        picture = self._folder / "shown.png"
        picture.unlink(missing_ok=True)
        began = time.perf_counter()
        self._run("--window-size=1200,900", f"--screenshot={picture}", address)
        seconds = time.perf_counter() - began
        if not picture.exists():
            raise InternalError("Chromium ended without a picture of the page.")
        return seconds

    def dom(self, address: str) -> tuple[Shown, int]:
        """What the page is after its scripts, and how many messages came up on the console."""
        done = self._run("--virtual-time-budget=10000", "--dump-dom", address)
        return Shown(done.stdout), sum("CONSOLE" in line for line in done.stderr.splitlines())

    def _run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._command, *more], capture_output=True, text=True, timeout=120, check=True)


class Shown(HTMLParser):
    """The cells of the summary table, headings first, as text; and the file that the page offers."""

    def __init__(self, text: str):
        super().__init__()
        self.lines: list[list[str]] = []
        self.download = b""
        self._inside = self._text = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._inside = given.get("id") == "summary"
        elif tag == "a" and "download" in given:
            self.download = base64.b64decode((given["href"] or "").partition("base64,")[2])
        elif self._inside and tag == "tr":
            self.lines.append([])
        elif self._inside and tag in ("td", "th"):
            self.lines[-1].append("")
            self._text = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "table"
        self._text = self._text and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._text:
            self.lines[-1][-1] += data


def compared(shown: Shown, table: str) -> tuple[int, list[str]]:
    """How many cells the table must have, and those that are not as the CSV says, in words."""
    expected = [_cells(record) for record in csv.DictReader(io.StringIO(table))]
    heads, *lines = shown.lines or [[]]
    found = [dict(zip_longest(heads, line, fillvalue="")) for line in lines]
    nothing: dict[str, str] = {}
    wrong = [
        f"line {number}, {name}: {line.get(name, 'nothing')!r} instead of {cells.get(name, 'nothing')!r}"
        for number, (line, cells) in enumerate(zip_longest(found, expected, fillvalue=nothing), start=1)
        for name in dict.fromkeys((*cells, *line))
        if line.get(name) != cells.get(name)
    ]
    return sum(map(len, expected)), wrong


def _cells(record: dict[str, str]) -> dict[str, str]:
    """The cells of a line of the page that a record of the CSV makes, by their headings; shares are rounded down, and
    0.00 % is none."""
    counts = {name: int(record[name.lower()]) for name in ACCURACIES}
    least = Decimal("0.01")
    shares = {}
    for name, count in counts.items():
        share = (Decimal(100 * count) / int(record["samples"])).quantize(least, ROUND_DOWN)
        shares[name] = f"{max(share, least) if count else share} % {count}"
    first = {"model": record["model"], "radii": f"{record['bits']} bits", "samples": record["samples"]}
    return {**first, **shares, "unknown": record["unknown"], "seconds": f"{float(record['seconds']):.2f}"}
