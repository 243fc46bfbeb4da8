"""The sha256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qverify.errors import DataError


def file_sha256(path: str) -> str:
    """sha256 of a file that was read before; raises DataError if it has gone since."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); do not move it during a run.") from error
