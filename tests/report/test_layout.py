"""The page on a phone, a tablet, a laptop, a desk and on paper: nothing sticks out, no name comes in crumbs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.commands import answer, qverify
from tests.support.findings import comparison, properties, runtimes, write_all, write_object
from tests.support.marks import mostly_slow
from tests.support.pages import written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import question, random_rows, row, write_batch, write_run

LONG = "mnist_4x256_robust_8bit_kappa_0.5_seed_42_retrained_with_augmentation"
WIDTHS = (360, 390, 600, 768, 1024, 1152, 1280, 1440)
DETAIL = "the time limit of 300 s ended the exact step before its bound was positive"


def many(
    folder: Path, rng: np.random.Generator, models: Any = (LONG, "x", "noseparators" * 7), count: int = 60
) -> Path:
    """A batch of models x bits x methods, half of the cases with clipping; all columns of the table are needed."""
    cases: dict[str, Any] = {}
    rows = []
    for model in models:
        for bits, method in ((4, "auto"), (4, "exact"), (32, "auto"), (32, "ibp")):
            name = f"{model}-{bits}-{method}"
            clip = [0.0, 1.0] if bits == 4 else None
            asked = {"model": f"models/{model}.onnx", "data": f"data/{model}.npz", "method": method, "clip_input": clip}
            cases[name] = question(bits, count + 7 * len(cases), timeout=None, **asked)
            for found in random_rows(rng, count):
                more = {"scope": "independent positions", "detail": DETAIL} if found["status"] == "unknown" else {}
                rows.append(found | more | {"case": name})
    return write_batch(folder, cases, rows)


def required(folder: Path, *runs: Path) -> str:
    """A page with a title and a requirement that fails."""
    out = folder / "required.html"
    more = ("--require", 99, "--title", f"Acceptance of {LONG}", "--pivot", "guaranteed")
    assert qverify("report", *runs, "--format", "html", "--out", out, *more).exit_code == 1
    return out.read_text()


def long_findings(folder: Path) -> list[Path]:
    """Sections with long names, many outputs and long reasons."""
    words = f"every output of {LONG} is less than 0.0001 from what the network itself gives"
    detail = properties(("unknown",) * 12 + ("violated",) * 30, property=words)
    for line in detail["rows"]:
        line["detail"] = f"{DETAIL} ({line['index'] % 6})"
    found = {
        "wide": comparison(40, 60),
        "property": detail,
        "runtimes": runtimes(("same", "differs", "unknown") * 40, model=f"m/{LONG}.tflite"),
    }
    return [write_object(folder / f"{LONG}_{name}.json", one) for name, one in found.items()]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pages by name: of one case with pictures and long layers, of two with short names, and of many with long ones."""
    folder, rng = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    given = ("--data", "digits", "--bits", 6, "--samples", "20:80", "--out", folder / "one", "--witnesses")
    assert answer("verify", DIGITS, *given)["falsified"] >= 3
    short = {f"at{bits}": question(bits, 60, model="net.onnx") for bits in (6, 8)}
    two = write_batch(folder / "two", short, [r | {"case": c} for c in short for r in random_rows(rng, 60)])
    large = write_run(folder / "large", random_rows(rng, 3000), model=f"m/{LONG}.onnx")
    rows = random_rows(rng, 50)
    long_numbers = {"margin_lower": -1.23456e-05, "margin_upper": -1.23456e-06, "predicted": rows[0]["label"]}
    rows[0] |= {"status": "falsified", "method": "attack", **long_numbers}
    parts = [
        write_run(folder / f"part{k}", [r for r in rows if r["index"] // 30 == k], model=f"m/{LONG}.onnx")
        for k in (0, 1)
    ]
    ranges = json.loads((parts[1] / "run.json").read_text()) | {"samples": [25, 50]}
    (parts[1] / "run.json").write_text(json.dumps(ranges))
    return {
        "sections": required(folder, *parts, folder / "one", *write_all(folder / "all"), *long_findings(folder)),
        "alone": written(*write_all(folder / "again", LONG)),
        "one": written(folder / "one"),
        "two": written(two),
        "large": written(large),
        "many": written(many(folder / "many", rng), folder / "one"),
    }


MEASURE = """
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const root = frame.contentDocument.documentElement, narrow = [], outside = [], cut = [], over = [];
    for (const one of root.querySelectorAll("details")) one.open = true;
    const texts = "td, th, h1, h2, h3, dt, dd, label, figcaption, summary, li, p, td > span";
    for (const one of root.querySelectorAll(texts)) {
      const text = one.textContent.trim(), box = one.getBoundingClientRect(), style = getComputedStyle(one);
      if (!text || !box.width || !box.height) continue;
      const room = box.width - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      const word = Math.max(...text.split(/\\s+/).map(piece => piece.length));
      if (style.display !== "inline" && room < 0.45 * parseFloat(style.fontSize) * Math.min(8, word))
        narrow.push(one.tagName + ": " + text.slice(0, 40) + " in " + room);
      if (style.overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1)
        cut.push(one.tagName + ": " + text.slice(0, 40));
      if (box.left < 0 || box.right > root.clientWidth + 0.5) outside.push(one.tagName + ": " + text.slice(0, 40));
    }
    const cells = [...root.querySelectorAll("td > span, th, svg text, p, li, figcaption, h1, h2, h3")]
      .filter(one => one.textContent.trim() && !one.closest("#brackets"));
    const within = one => one.closest("tr, svg, section, header");
    for (const parent of new Set(cells.map(within))) {
      const boxes = cells.filter(one => within(one) === parent).map(one => [one, one.getBoundingClientRect()]);
      for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
        const [a, p] = boxes[i], [b, q] = boxes[j];
        if (a.contains(b) || b.contains(a) || !p.width || !q.width) continue;
        const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (wide > 1.5 && high > 3.5)
          over.push(a.textContent.trim().slice(0, 30) + " | " + b.textContent.trim().slice(0, 30));
      }
    }
    const rows = [...root.querySelectorAll("#summary tbody tr, #brackets tbody tr")];
    found[frame.width] = { inner: root.clientWidth, content: root.scrollWidth, narrow, outside, cut, over,
      rows: rows.length, tallest: Math.max(0, ...rows.map(one => one.getBoundingClientRect().height)) };
  }
  document.body.dataset.found = JSON.stringify(found);
"""


def measure(text: str, browser: Callable[..., Any], widths: tuple[int, ...]) -> dict[str, Any]:
    """What `MEASURE` finds of a page, by width."""
    frames = "".join(f'<iframe srcdoc="{escape(text)}" width="{width}" height="900"></iframe>' for width in widths)
    script = f'window.addEventListener("load", () => {{{MEASURE}}});'
    parsed = browser(f"<!DOCTYPE html><body>{frames}<script>{script}</script></body>")
    (body,) = [found for tag, found in parsed.elements if tag == "body"]
    measured: dict[str, Any] = json.loads(body["data-found"] or "")
    assert set(measured) == {str(width) for width in widths}
    return measured


PAPER = 718
"""Pixels between the margins of a sheet of A4 (186 mm are 703), and those of a scrollbar."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "many", "sections", "alone"])
def test_it_can_be_read_on_paper(pages: dict[str, str], browser: Callable[..., Any], name: str) -> None:
    """The rules of print hold for a frame as wide as a sheet."""
    text = pages[name].replace("@media print", "@media all").replace("@media screen", "@media not all")
    (found,) = measure(text, browser, (PAPER,)).values()
    assert found["inner"] == found["content"], found["outside"][:3]
    assert found["narrow"] == found["outside"] == found["cut"] == found["over"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "two", "large", "many", "sections", "alone"])
def test_it_can_be_read_at_every_width(pages: dict[str, str], browser: Callable[..., Any], name: str) -> None:
    measured = measure(pages[name], browser, WIDTHS)
    for width, found in measured.items():
        assert int(width) - 30 < found["inner"] == found["content"], f"sticks out at {width}: {found['outside'][:3]}"
        assert found["narrow"] == [] and found["outside"] == [] and found["cut"] == [], f"at {width}"
        assert found["over"] == [], f"at {width}"
        assert (found["rows"] > 0 or name == "alone") and found["tallest"] <= (420 if int(width) < 768 else 240), (
            f"at {width}"
        )


Printer = Callable[[str], bytes]


@pytest.fixture
def printer(tmp_path: Path) -> Printer:
    """Prints a page in headless Chromium: a PDF."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on PATH")

    def to_pdf(text: str) -> bytes:
        (tmp_path / "printed.html").write_text(text)
        switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
        switches += " disable-component-update disable-sync virtual-time-budget=10000 no-pdf-header-footer"
        command = [chromium, *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={tmp_path}/profile"]
        command += [f"--print-to-pdf={tmp_path}/printed.pdf", (tmp_path / "printed.html").as_uri()]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        return (tmp_path / "printed.pdf").read_bytes()

    return to_pdf


def sheets(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *mostly_slow(
            [("two", 7), ("one", 5), ("large", 5), ("many", 26), ("alone", 8), ("sections", 22)], several=True
        ),
    ],
)
def test_few_sheets_of_paper(pages: dict[str, str], printer: Printer, name: str, most: int) -> None:
    """One case takes four pages and an appendix at most, and so does each of many; sections are short."""
    number = sheets(printer(pages[name]))
    assert 2 <= number <= most


def test_what_is_on_paper(pages: dict[str, str], printer: Printer, tmp_path: Path) -> None:
    """No controls and no table with filters; all that is folded on the screen; and how many of the rows are drawn."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not on PATH")

    def words(text: str) -> str:
        (tmp_path / "page.pdf").write_bytes(printer(text))
        command = ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"]
        return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    text = words(pages["one"])
    assert "All 60 samples decided; worst at the left." in text and "The 20 samples with the lowest margins" in text
    assert (
        "page 1 of 2" not in text
        and "All samples, with filters" not in text
        and "next" not in text
        and "The same as CSV" not in text
    )
    assert "network_sha256" in text and "start 1: solver.name highs" in text
    text = words(pages["large"])
    assert "The 400 samples with the lowest margins, of 3000 decided" in text
    assert LONG in text.replace(" ", "")


@pytest.mark.slow
def test_a_page_is_as_it_was_after_printing(pages: dict[str, str], browser: Callable[..., Any]) -> None:
    script = """
      const count = () => document.querySelectorAll("#brackets tbody tr").length;
      const open = () => document.querySelectorAll("details[open]").length;
      const colour = () => getComputedStyle(document.documentElement).getPropertyValue("--ground").trim();
      const seen = [document.querySelectorAll("details").length, [count(), open(), colour()]];
      document.querySelector("details").open = true;
      for (const name of ["beforeprint", "afterprint"]) {
        window.dispatchEvent(new Event(name));
        seen.push([count(), open(), colour()]);
      }
      document.body.dataset.seen = JSON.stringify(seen);
    """
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", pages["many"])
    parsed = browser(text.replace("</body>", f"<script>{script}</script></body>"))
    (body,) = [found for tag, found in parsed.elements if tag == "body"]
    total, before, during, after = json.loads(body["data-seen"] or "")
    assert before[:2] == [50, 0] and during == [50, total - 1, "#ffffff"] and after[:2] == [50, 1]
    assert before[2] == after[2]


def test_paper_is_white_also_where_the_screen_is_dark(pages: dict[str, str]) -> None:
    """Dark colours hold for screens alone."""
    style = pages["one"].partition("<style>")[2].partition("</style>")[0]
    for query in re.findall(r"@media ([^{]*prefers-color-scheme: dark[^{]*){", style):
        assert query.startswith("screen and ")
    assert "print-color-adjust: exact" in style and "@media print" in style


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1])
def test_pages_of_next_to_nothing(tmp_path: Path, browser: Callable[..., Any], printer: Printer, count: int) -> None:
    text = written(write_run(tmp_path / "run", [row(k) for k in range(count)]))
    browser(text)
    assert sheets(printer(text)) == 2
