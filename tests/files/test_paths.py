"""Paths made of what a file says stay inside their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qverify.errors import DataError
from qverify.files.paths import inside, new_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "witnesses" / "case").mkdir(parents=True)
    (tmp_path / "run-other").mkdir()
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.mark.parametrize(
    "parts", [("witnesses", "case", "3.npz"), ("witnesses", "", "3.npz"), ("a", "..", "b"), (), ("sub/..", "not/there")]
)
def test_what_stays_inside(run: Path, parts: tuple[str, ...]) -> None:
    place = inside(run, *parts)
    assert place == Path(os.path.realpath(run.joinpath(*parts))) and run.resolve() in (place, *place.parents)


@pytest.mark.parametrize(
    "parts",
    [
        ("..",),
        ("..", "secret"),
        ("witnesses", "../../secret"),
        ("witnesses/case/../../../secret",),
        ("/etc/passwd",),
        ("witnesses", "/etc/passwd"),
        ("..", "run-other"),  # begins with the same letters
        ("not/there/../../..", "secret"),
    ],
)
def test_what_leads_out_is_refused(run: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"leads out of the folder it is read in, .*; rename it\.$") as caught:
        inside(run, *parts)
    assert "\n" not in str(caught.value)


def test_links_are_followed_before_they_are_judged(run: Path, tmp_path: Path) -> None:
    (run / "out").symlink_to(tmp_path)
    (run / "file").symlink_to(tmp_path / "secret")
    (run / "dangling").symlink_to(tmp_path / "gone")
    (run / "in").symlink_to(run / "witnesses")
    for parts in (("out", "secret"), ("file",), ("dangling",), ("in", "..", "..", "secret")):
        with pytest.raises(DataError, match="leads out"):
            inside(run, *parts)
    assert inside(run, "in", "case") == run.resolve() / "witnesses" / "case"
    (tmp_path / "link").symlink_to(run)
    assert inside(tmp_path / "link", "witnesses") == run.resolve() / "witnesses"
    (run / "circle").symlink_to(run / "circle")
    with pytest.raises(DataError, match="'circle/x'"):
        inside(run, "circle", "x")


@pytest.mark.parametrize("name", ["a\0b", "\0", "x" * 300, "y/" * 5000, "\ud800", "\x1b[31m" + "z" * 300])
def test_names_that_no_file_can_have(run: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(.*\); rename it\.$") as caught:
        inside(run, "witnesses", name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_folders_that_were_made_in_vain_are_taken_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b"):
        raise KeyError
    assert not (tmp_path / "a").exists()
    with pytest.raises(KeyError), new_folder(tmp_path / "c" / "d"):  # noqa: PT012
        (tmp_path / "c" / "kept").write_text("")
        raise KeyError
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["kept"]
    with new_folder(tmp_path / "e" / "f"):
        pass
    assert (tmp_path / "e" / "f").is_dir()
