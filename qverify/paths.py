"""Paths that come from files: what they may reach."""

from __future__ import annotations

from pathlib import Path

from qverify.errors import DataError


def inside(folder: Path, *parts: str) -> Path:
    """The resolved path of `parts` under `folder`. Raises DataError if it leaves the folder, or is no usable path."""
    try:
        path = folder.joinpath(*parts).resolve()
        if path.is_relative_to(folder.resolve()):
            return path
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        pass
    raise DataError(f"{'/'.join(parts)!r} is no path inside the folder it belongs to; rename it there.")
