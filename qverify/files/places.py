"""Places of the files of a run, by which they are found again from any folder, and after the run has moved.

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
    """The place of the file at `path` for a run in `folder`, by which it is found again."""
    given = Path(path)
    absolute = given.parent.resolve() / given.name  # of a link the name, not what it is a link to
    found = {"absolute": str(absolute)}
    with contextlib.suppress(ValueError):  # another drive
        found["relative"] = Path(os.path.relpath(absolute, Path(folder).resolve())).as_posix()
    return found


def candidates(given: str | None, stated: Any, folder: Path) -> list[Path]:
    """The existing files that may be the one meant, each once, the likeliest first.

    These are the path that `place` states from the run's folder, the path as given, and the path that `place` states
    from the root. `stated` is whatever a file says, and counts if it is about a file of this name; `given` is None for
    what has a name of its own.
    """
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
