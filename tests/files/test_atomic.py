"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qverify.files.atomic import partial_path, write_atomically


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def write(partial: Path) -> None:
        assert partial == partial_path(path) != path
        partial.write_text("ne")
        assert path.read_text() == "old"
        partial.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("no")])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Any) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def write(partial: Path) -> None:
        partial.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
