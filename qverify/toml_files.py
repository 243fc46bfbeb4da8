"""Reading TOML that a user wrote."""

from __future__ import annotations

from typing import Any

from qverify.errors import QVerifyError


def read_toml(path: str, what: str, error_type: type[QVerifyError]) -> dict[str, Any]:
    """The content of the file, `what` it is in an error's words; raises `error_type` if it is missing or no TOML."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise error_type(f"Cannot read the {what} {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise error_type(f"{path} is not valid TOML: {error}.") from None
