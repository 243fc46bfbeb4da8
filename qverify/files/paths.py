"""Paths that are made of what a file says: they stay inside the folder they belong to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from qverify.errors import DataError
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def inside(folder: Path, *parts: str) -> Path:
    """The place of `folder / parts`, links followed; it need not exist.

    For every path of which a part comes out of a file. Raises DataError if it would lie outside `folder`, by `..`, as
    an absolute path or through a link, or if no file can have that name.
    """
    name = "/".join(parts)
    try:
        root = folder.resolve()
        place = root.joinpath(*parts).resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()
    except (OSError, ValueError, RuntimeError) as error:  # too long; NUL, no UTF-8; links in a circle
        why = getattr(error, "strerror", None) or "no file can have that name"
        raise DataError(f"{shown(name)} cannot be read ({why}); rename it.") from error
    if not place.is_relative_to(root):
        raise DataError(f"{shown(name)} leads out of the folder it is read in, so nothing is read there; rename it.")
    return place


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; if the body fails, remove those that were made and are still empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
