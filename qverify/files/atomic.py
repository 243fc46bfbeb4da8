"""Files written whole: a reader finds the old one or the new one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def partial_path(path: Path) -> Path:
    """The path at which a file is written until it is whole."""
    return path.with_name(f"{path.name}.partial")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` make the file beside its place, and move it there. What fails is raised, and nothing is left."""
    partial = partial_path(path)
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
