"""Names of files for people, without folders: the place of a file is its owner's business alone."""

from __future__ import annotations

import re
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_LETTERS = r"[^\s'\"<>|:;,/\\]"
_FOLDERS = re.compile(rf"(?<![\w/.~<:-])(?:~?/(?:{_LETTERS}+/)+|~/|[A-Za-z]:\\(?:{_LETTERS}+\\)*)")
"""Of a path from the root or from home in a text, all but the last part."""


def file_name(path: str) -> str:
    """The last part of a path of any system; the path itself if it has none."""
    return _pure(path).name or path


def short_names(paths: Sequence[str]) -> list[str]:
    """For each path the shortest end of it that none of the others has: `net`, or `a/net` and `b/net`."""
    parts = [_parts(path) for path in paths]
    found = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(own[-depth:] == other[-depth:] for other in parts) > 1:
            depth += 1
        found.append("/".join(own[-depth:]))
    return found


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path without the root or the drive."""
    pure = _pure(path)
    return pure.parts[1:] if pure.anchor and len(pure.parts) > 1 else pure.parts or (path,)


def _pure(path: str) -> PurePath:
    return PureWindowsPath(path) if _WINDOWS.match(path) else PurePosixPath(path)


def without_folders(text: str, known: Sequence[str] = ()) -> str:
    """`text` with file names where it has `known` paths, or others from the root or from home."""
    for path in sorted({path for path in known if file_name(path) != path}, key=len, reverse=True):
        text = text.replace(path, file_name(path))
    return _FOLDERS.sub("", text)
