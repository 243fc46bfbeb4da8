"""A browser for the tests of the page, and a run with witnesses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import answer
from tests.support.pages import Browser, Parsed
from tests.support.paths import DIGITS


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Shows a page in headless Chromium; its DOM, after nothing came up on the console."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on PATH")

    def show(text: str, address: str = "", problems: int = 0) -> Parsed:
        (tmp_path / "shown.html").write_text(text)
        switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
        switches += " disable-component-update disable-sync enable-logging=stderr v=0 virtual-time-budget=10000"
        command = [chromium, *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={tmp_path}/profile"]
        command += ["--dump-dom", f"{(tmp_path / 'shown.html').as_uri()}{address}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert len(console) == problems, console
        return Parsed(done.stdout)

    return show


@pytest.fixture
def digits_run(tmp_path: Path) -> Path:
    """60 digits at 6 bits, with witnesses."""
    given = ("--data", "digits", "--bits", 6, "--samples", "20:80", "--out", tmp_path / "run", "--witnesses")
    assert answer("verify", DIGITS, *given)["falsified"] >= 3
    return tmp_path / "run"
