"""Reading TOML that a user wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from qverify.errors import QVerifyError


def read_toml(path: str, what: str, error_type: type[QVerifyError]) -> dict[str, Any]:
    """The content of the file, `what` it is in an error's words; raises `error_type` if it is missing or no TOML."""
    return read_hashed_toml(path, what, error_type)[0]


def read_hashed_toml(path: str, what: str, error_type: type[QVerifyError]) -> tuple[dict[str, Any], str]:
    """The same, and the sha256 of the bytes read: they are read once, as the file may be edited or be a pipe."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
    try:
        content = Path(path).read_bytes()
        return tomllib.loads(content.decode()), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise error_type(f"Cannot read the {what} {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise error_type(f"{path} is not valid TOML: {error}.") from None
