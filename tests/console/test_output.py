"""What reaches the terminal: one line a message, and nothing that drives it, whatever names are in files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from qverify.cli import guarded
from qverify.console import output, progress
from qverify.errors import DataError, InternalError
from qverify.onnx import reader as onnx_io
from tests.support.commands import qverify
from tests.support.paths import DIGITS
from tests.support.processes import COMMAND, ENVIRONMENT, run
from tests.support.runs_on_disk import question, row, write_batch, write_run

NASTY = "a\x1b[31mb\x1b]0;owned\x07c\nd\re\u202ef\u2028g\x9bh\0i\ud800j"
SAFE = re.sub(r"[^a-z\[\]0-9;]", "\ufffd", NASTY)


def on_a_terminal(show: Any, *parts: Any) -> str:
    """What a terminal gets."""
    master, terminal = pty.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8", newline="") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "200")
        patch.delenv("NO_COLOR", raising=False)
        show(*parts)
    found = b""
    with contextlib.suppress(OSError):  # the other end is closed: that is how its end is told
        while part := os.read(master, 1 << 16):  # a terminal hands out what it has, line by line
            found += part
    os.close(master)
    return found.decode()


def table() -> Table:
    found = Table(NASTY, "plain", title=None)
    found.add_row(NASTY, Text("styled", style="bold red"))
    found.add_row("x", "y")
    return found


def test_tables_and_lines_are_printable_and_keep_their_own_styles(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(table(), NASTY, "")
    piped = capsys.readouterr().out
    assert piped.count(SAFE) == 3 and "styled" in piped
    assert all(line.isprintable() for line in piped.split("\n"))
    shown = on_a_terminal(output.show, table(), NASTY)
    assert shown.count(SAFE) == 3 and "\x1b[1;31mstyled\x1b[0m" in shown
    without_styles = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert all(line.isprintable() for line in without_styles.split("\r\n"))
    assert shown.count("\x1b[31m") == 0


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"note: {NASTY} is odd.")
    assert capsys.readouterr().err == f"qverify: note: {SAFE} is odd.\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError(f"{NASTY} is damaged."), 2),
        (InternalError(f"{NASTY} crosses."), 4),
        (OSError(5, NASTY, NASTY), 2),
        (OSError(NASTY), 2),
        (OSError(36, "File name too long", "x" * 300), 2),
        (ZeroDivisionError(NASTY), 4),
        (KeyError(NASTY), 4),
        (UnicodeEncodeError("utf-8", NASTY, 0, 1, NASTY), 4),
    ],
)
def test_what_went_wrong_is_one_line_too(capsys: pytest.CaptureFixture[str], error: Any, status: int) -> None:
    assert guarded.explained(error) == status
    said = capsys.readouterr().err
    assert said.startswith("qverify: ") and said.endswith(".\n") and said[:-1].isprintable()
    assert "free some space" not in said or "too long" not in said


def test_numbers_that_json_lacks_and_names_it_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({NASTY: NASTY})
    said = capsys.readouterr().out
    assert json.loads(said) == {NASTY: NASTY} and said.count("\n") == 1 and said[:-1].isprintable()


@pytest.mark.parametrize("name", ["[/]", "[/red] [bold]", "[link=http://x]y", ":smile:", NASTY])
def test_names_are_no_markup_of_the_live_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """rich would raise MarkupError for a tag that nothing opened."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "300")
    with progress.Progress(progress.Pace(3, False), lambda: [f"layer {name}"]) as live:
        live.add(0, False)
        assert live._live is not None
        live._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert ("layer " + (SAFE if name is NASTY else name)) in text and "\x1b]0" not in text


# --- end to end ---

FILE_NAMES = ["=1+1\x1b[31m", "two\nlines", "\u202egnp", "[red]x[bold]", "$a_b$", "-x", "sp\t", "'q", "no\udcffutf8"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_model_with_an_odd_name_goes_through_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = f"./{name}.onnx"
    Path(model).write_bytes(Path(DIGITS).read_bytes())
    given = ("--data", "digits", "--samples", "0:6", "--bits", 6)
    swept = ("--data", "digits", "--samples", "0:6", "--values", "0.01", "--parts", "input", "--method", "ibp")
    commands = [
        ("inspect", model),
        ("verify", model, *given, "--method", "bp", "--out", "run"),
        ("verify", model, *given, "--method", "bp", "--out", "run", "--resume"),
        ("report", "run"),
        ("report", "run", "--format", "csv"),
        ("report", "run", "--format", "latex"),
        ("report", "run", "--format", "markdown"),
        ("radius", model, *given, "--method", "ibp", "--precision", 1, "--max-factor", 2),
        ("sweep", model, *swept, "--values", "0.01"),
        ("discrepancy", model, *given, "--method", "ibp"),
    ]
    for command in commands:
        result = qverify(*command)
        assert result.exit_code == 0, (command, result.stderr)
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable(), (command, line)
        assert all(line.startswith("qverify: ") for line in result.stderr.splitlines())


@pytest.mark.slow
def test_rows_of_a_model_with_an_odd_name_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are layers: a row is one line of the file whatever its name."""
    from qverify.report import plots

    monkeypatch.setattr(plots, "save_figure", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    for name in FILE_NAMES:
        model = f"./{name}.onnx"
        Path(model).write_bytes(Path(DIGITS).read_bytes())
        given: tuple[str, ...] = (
            "sweep",
            model,
            "--data",
            "digits",
            "--samples",
            "0:6",
            "--values",
            "0.01,0.02",
            "--parts",
            "input",
        )
        given += ("--method", "ibp", "--out", f"./{name}")
        assert qverify(*given).exit_code == 0
        before = Path(name, "sweep.csv").read_bytes()
        again = qverify(*given, "--resume")
        assert again.exit_code == 0 and "2 points are done already; 0 are left" in again.stderr
        assert Path(name, "sweep.csv").read_bytes() == before and before.count(b"\n") == 3
        assert not re.search(rb"^[=+@\t\r-]", before, re.MULTILINE)


def test_layers_with_odd_names_reach_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    network = onnx_io.load(DIGITS)
    renamed = network.with_layers(
        {i: replace(layer, name=f"{layer.name}{NASTY}") for i, layer in enumerate(network.layers)}
    )
    noted = replace(renamed, notes=(NASTY,), source=f"{NASTY}.onnx")
    monkeypatch.setattr(onnx_io, "load", lambda path, output=None: noted)
    given = ("--data", "digits", "--samples", "0:4", "--bits", 6, "--method", "ibp", "--precision", 1)
    for command in (("inspect", DIGITS), ("radius", DIGITS, *given, "--accuracy", 0.5, "--layer-method", "ibp")):
        result = qverify(*command)
        assert result.exit_code == 0, result.stderr
        assert SAFE in result.stderr and SAFE[:9] in result.stdout
        assert all(line.isprintable() for line in (result.stdout + result.stderr).split("\n"))
    (tmp_path / "r.toml").write_text('[layers."x\\u001b[31m\\u202e"]\nweight = 0.1\n')
    result = qverify("verify", DIGITS, "--data", "digits", "--radii", tmp_path / "r.toml")
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].isprintable()


def test_names_in_a_run_reach_no_terminal_and_no_formula(tmp_path: Path) -> None:
    asked = {"model": "=" + NASTY, "data": "@" + NASTY, "radii": question()["radii"] | {"convention": "+" + NASTY}}
    single = write_run(tmp_path / "run", [row(0)], **asked)
    case = {"-" + NASTY: question(6, 1, **asked)}
    several = write_batch(tmp_path / "batch", case, [row(0, case="-" + NASTY, key="k")])
    for form in ("terminal", "csv", "latex", "markdown"):
        result = qverify("report", single, several, "--format", form)
        assert result.exit_code == 0, result.stderr
        assert all(line.isprintable() for line in (result.stdout + result.stderr).split("\n"))
        if form == "csv":
            assert not re.search(r'(^|,)"?[=+@-](?![0-9.])', result.stdout, re.MULTILINE)
        if form == "latex":
            body = result.stdout.split("\\begin{tabular}")
            assert all(line.startswith("% ") for line in body[0].splitlines()) and len(body) == 2


@pytest.mark.slow
def test_a_stdout_that_lacks_letters(tmp_path: Path) -> None:
    """As under a locale of 1990: what cannot be written is replaced, not a fault."""
    model = tmp_path / "größe\u2248\u202e.onnx"
    model.write_bytes(Path(DIGITS).read_bytes())
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    assert COMMAND
    given = ("--data", "digits", "--samples", "0:4", "--bits", 6, "--method", "ibp", "--out", tmp_path / "run")
    found = run("verify", model, *given, env=environment)
    assert found.returncode == 0, found.stderr
    found = run("report", tmp_path / "run", "--format", "csv", env=environment)
    assert found.returncode == 0 and "gr??e" in found.stdout, found.stderr
