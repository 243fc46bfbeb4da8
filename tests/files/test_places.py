"""Places of files: the way from the run's folder and from the root, and the order in which they are tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qverify.files.places import candidates, place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "models" / "m.onnx").write_text("m")
    return tmp_path


def test_a_place_leads_back_to_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    found = place("models/m.onnx", "runs/one")
    assert found == {"absolute": str((project / "models" / "m.onnx").resolve()), "relative": "../../models/m.onnx"}
    assert (project / "runs" / "one" / found["relative"]).read_text() == "m"


def test_of_a_link_its_own_name_is_kept(project: Path) -> None:
    link = project / "latest.onnx"
    link.symlink_to(project / "models" / "m.onnx")
    found = place(link, project / "runs")
    assert found["relative"] == "../latest.onnx" and Path(found["absolute"]).name == "latest.onnx"


def test_the_way_from_the_run_comes_first_and_each_file_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = {}
    for name in ("here", "there", "root"):
        (project / name).mkdir()
        copies[name] = project / name / "m.onnx"
        copies[name].write_text(name)
    monkeypatch.chdir(project / "here")
    run = project / "runs" / "one"
    stated = {"relative": "../../there/m.onnx", "absolute": str(copies["root"])}
    found = candidates("m.onnx", stated, run)
    assert [path.read_text() for path in found] == ["there", "here", "root"]
    copies["there"].unlink()
    assert [path.read_text() for path in candidates("m.onnx", stated, run)] == ["here", "root"]
    same = {"relative": "../../here/m.onnx", "absolute": str(copies["here"])}
    assert [path.read_text() for path in candidates("m.onnx", same, run)] == ["here"]


def test_a_place_of_another_name_does_not_count(project: Path) -> None:
    stated = {"relative": "../../models/m.onnx", "absolute": str(project / "models" / "m.onnx")}
    assert candidates("elsewhere/other.onnx", stated, project / "runs" / "one") == []
    assert len(candidates(None, stated, project / "runs" / "one")) == 1  # digits.npz of the package, say


@pytest.mark.parametrize("stated", [None, [], "m.onnx", {"relative": 5, "absolute": None}, {"relative": "m\0.onnx"}])
def test_senseless_places_are_passed_over(project: Path, stated: Any) -> None:
    assert candidates(None, stated, project) == []
    given = str(project / "models" / "m.onnx")
    assert candidates(given, stated, project) == [Path(given)]


def test_links_in_a_circle_are_no_file(project: Path) -> None:
    (project / "a").symlink_to(project / "b")
    (project / "b").symlink_to(project / "a")
    assert candidates(str(project / "a"), None, project) == []
