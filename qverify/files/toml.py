"""Reading TOML that a user wrote."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qverify.kinds import path_like
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from qverify.errors import QVerifyError

_DEEPEST = 64
"""How deep arrays and tables may lie in each other: numpy's arrays have as many axes."""


def read_toml(path: str, what: str, error_type: type[QVerifyError]) -> dict[str, Any]:
    """The content of the file, `what` it is in an error's words.

    Integers fit into 64 bits, as TOML asks for, no finite number became infinite, and no text holds NUL. Raises
    `error_type` if the file is missing or no such TOML.
    """
    return read_hashed_toml(path, what, error_type)[0]


def read_hashed_toml(path: str, what: str, error_type: type[QVerifyError]) -> tuple[dict[str, Any], str]:
    """The content of the file, and the sha256 of its bytes: read once, as the file may be edited or be a pipe."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
    path_like(path, f"The {what}", "the path of a .toml file", error_type)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise error_type(f"Cannot read the {what} {path}: {error.strerror or error}.") from None
    except ValueError:  # NUL
        raise error_type(f"Cannot read the {what} {shown(path)}: no file can have that name.") from None
    try:
        found = tomllib.loads(content.decode(), parse_float=_float)
        _check(found)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, _Senseless) as error:
        raise error_type(f"{path} is not valid TOML: {error}.") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise error_type(f"{path} is not valid TOML: {_Senseless.INTEGER}.") from None
    except RecursionError:
        raise error_type(f"{path} is not valid TOML: {_Senseless.DEEP}.") from None
    return found, hashlib.sha256(content).hexdigest()


class _Senseless(Exception):
    """A value that the parser takes and nobody can mean."""

    INTEGER = "an integer in it does not fit into 64 bits; write a smaller number"
    DEEP = "its arrays or tables are nested too deep; write fewer brackets"


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value) and "inf" not in digits:
        raise _Senseless(f"the number {shown(digits, 30)} is too large; write a smaller one")
    return value


def _check(value: Any, depth: int = 0) -> None:
    """Raise _Senseless for something that no reader of it needs to know."""
    if isinstance(value, (dict, list)):
        if depth > _DEEPEST:
            raise _Senseless(_Senseless.DEEP)
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Senseless(_Senseless.INTEGER)
    elif isinstance(value, str) and "\0" in value:
        raise _Senseless(f"the text {shown(value)} holds the character NUL; take it out")
