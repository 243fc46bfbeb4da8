"""Pictures beside rows: drawn, or missing and said so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from qverify.cli.pictures import draw, shown_by


def test_both_pictures_are_drawn_and_named(tmp_path: Path) -> None:
    assert shown_by(tmp_path / "sweep") == ""
    draw(tmp_path / "sweep", lambda plots: Figure())
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "sweep.svg").read_text()
    assert shown_by(tmp_path / "sweep") == ", sweep.png and sweep.svg show them"
    (tmp_path / "sweep.svg").unlink()
    assert shown_by(tmp_path / "sweep") == ""


def test_one_that_cannot_be_drawn_takes_the_old_ones_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["sweep.png", "sweep.svg", "sweep.png.partial", "sweep.csv", "radius.png"]
    for name in names:
        (tmp_path / name).write_text("earlier")

    def fails(plots: Any) -> Any:
        raise ValueError("no room for it; use another\nand a trace")

    draw(tmp_path / "sweep", fails)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["radius.png", "sweep.csv"]
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1
    assert "the picture sweep.png is missing (no room for it); the rows are kept" in said
