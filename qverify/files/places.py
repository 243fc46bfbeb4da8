"""Where the files of a run lie, so that they are found again from any folder, and after the run has moved.

A question keeps paths as they were given, which hold from the folder that the run was started in. Beside them, under
the key `PLACES`, stands per file the way to it from the run's own folder, and from the root. Neither belongs to the
question: files may move, and their hashes say whether they are the same.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from qverify.files.names import file_name

PLACES = "places"


def place(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> dict[str, str]:
    """How to find the file at `path` again, for a run in `folder`."""
    given = Path(path)
    absolute = given.parent.resolve() / given.name  # of a link the name, not what it is a link to
    found = {"absolute": str(absolute)}
    with contextlib.suppress(ValueError):  # another drive
        found["relative"] = Path(os.path.relpath(absolute, Path(folder).resolve())).as_posix()
    return found


def candidates(given: str | None, stated: Any, folder: Path) -> list[Path]:
    """The files that may be the one meant, in order: as `place` states it from the run's folder, as it was given, and
    as `place` states it from the root; those that exist, each once. `stated` is whatever a file says, and counts if it
    is about a file of this name; `given` is None for what has a name of its own."""
    known = stated if isinstance(stated, dict) else {}
    relative, absolute = (
        path if isinstance(path, str) and (given is None or file_name(path) == file_name(given)) else None
        for path in (known.get("relative"), known.get("absolute"))
    )
    paths = [Path(os.path.normpath(folder.resolve() / relative))] if isinstance(relative, str) else []
    paths += [Path(path) for path in (given, absolute) if isinstance(path, str)]
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            if path.exists():
                found.setdefault(path.resolve(), path)
        except (OSError, ValueError, RuntimeError):  # no name that a file can have, or links in a circle
            continue
    return list(found.values())
