"""The file of rows that `--out FILE.jsonl` names."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from qverify.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def rows_file(path: str | None) -> Iterator[TextIO | None]:
    """A new file for the rows; OutputError if it exists or cannot be written."""
    if path is None:
        yield None
        return
    try:
        with Path(path).open("x") as file:
            yield file
    except FileExistsError:
        raise OutputError(f"{path} exists already; name another --out.") from None
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); name another --out.") from error
