"""The code of README and of the pages runs, page by page in one folder, and prints what they show.

Blocks marked `sh` and `python` run in their order. A block marked `text` shows what the one before it prints, or, where
it ends in `...`, how that begins; left out of the comparison are times, the weights that training on the page gave, and
which of attack and solver found a failing member, which the last digit of a machine's sums may decide.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qverify import datasets
from qverify.choices import STAGES
from tests.support.commands import qverify
from tests.support.paths import MODELS, ROOT

PAGES = (
    "README.md",
    pytest.param("docs/tutorial.md", marks=pytest.mark.slow),
    "docs/api.md",
    *(f"docs/commands/{name}.md" for name in ("verify", "sweep", "discrepancy", "inspect", "solvers", "train")),
)
"""All whose code needs nothing but what ships, and seconds."""
ONLY_PYTHON = ("docs/commands/train.md",)
"""Of these the commands need other data, or long."""
OTHERS = ("make", "pip")
"""Commands that a page may show besides qverify's, and that are not run."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, but for the models that ship, and a model and samples of one's own as README has them."""
    (tmp_path / "models").symlink_to(MODELS)
    (tmp_path / "mine.onnx").write_bytes((MODELS / "digits.onnx").read_bytes())
    samples = datasets.load("digits")
    np.savez(tmp_path / "mine.npz", x=samples.x, y=samples.y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def blocks(page: str) -> Iterator[tuple[str, str]]:
    yield from BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def shell(lines: str, notes: list[str]) -> str:
    """What the last of these commands prints on stdout; what they say on stderr goes to `notes`."""
    out = ""
    for line in lines.splitlines():
        name, *arguments = shlex.split(line, comments=True)
        if name in OTHERS:
            continue
        assert name == "qverify", line
        result = qverify(*arguments)
        assert result.exit_code == 0, result.stderr
        notes += result.stderr.splitlines()
        out = result.stdout
    return out


def python(code: str, names: dict[str, Any]) -> str:
    """What this code prints, run with the names that earlier code made."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "page", "exec"), names)
    return out.getvalue()


def settled(line: str) -> str:
    """A line without times, and without the weights that training made."""
    line = re.sub(r"\bin [\d.]+ (s|min)\b", "in SOME s", " ".join(line.split()))
    line = re.sub(r"-?\d\.\d+ to -?\d\.\d+", "A to B", line) if "/Gemm" in line else line
    first = line.split(" ")[0]
    if first in ("attack", "exact") and "%" not in line:
        return first
    return re.sub(r"( [\d.,]+){2}$", "", line) if first in (*STAGES, "all") else line


def agrees(shown: str, printed: str) -> None:
    wanted, found = ([settled(line) for line in text.rstrip().splitlines()] for text in (shown, printed))
    if wanted[-1] == "...":
        wanted = wanted[:-1]
        found = found[: len(wanted)]
    assert found == wanted


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_and_prints_what_is_shown(page: str, folder: Path) -> None:
    names: dict[str, Any] = {}
    printed, compared, notes = "", 0, list[str]()
    with torch.random.fork_rng(devices=[]):
        for kind, content in blocks(page):
            if kind == "sh" and page not in ONLY_PYTHON:
                printed = shell(content, notes)
            elif kind == "python":
                printed = python(content, names)
            elif kind == "text":
                agrees(content, printed)
                compared += 1
    quoted = re.findall(r"(?:^> .*\n)+", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {re.sub(r"\s*^> ", " ", one, flags=re.MULTILINE).strip() for one in quoted} <= set(notes)
    assert compared == sum(kind == "text" for kind, _ in blocks(page))


def test_every_block_says_what_it_is() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for kind in re.findall(r"^```(.*)\n(?:.*\n)*?```$", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert kind in ("sh", "python", "text", "toml"), path


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("guaranteed 82.97 %  497 of 599", "guaranteed 82.97 %  498 of 599"),
        ("a\n...", "b\nc"),
        ("a", "a\nb"),
        ("bp  6  0.13  22.5", "bp  7  0.13  22.5"),
        ("attack  82.97 %  497 of 599", "attack  82.97 %  498 of 599"),
    ],
)
def test_what_differs_is_seen(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError):
        agrees(shown, printed)
    agrees("digits in 2.1 s\nibp  483  0.41  0.842\n...", "digits in 31 s\nibp  483   2.0   99\nmore")
