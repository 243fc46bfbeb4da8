"""Remarks that a person should see, for a caller in Python: warnings of one class, as from the caller's own line.

The command line says its notes itself, and `said` shows what else is remarked on in the same way.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from qverify.errors import QVerifyWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def remark(sentences: Iterable[str]) -> None:
    """Warn with each sentence, at the line outside this package that led here."""
    level, frame = 2, sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "qverify":
        level, frame = level + 1, frame.f_back
    for sentence in sentences:
        warnings.warn(sentence, QVerifyWarning, stacklevel=level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence remarks meanwhile: for a caller that says them in another way, or once for many calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QVerifyWarning)
        yield


@contextlib.contextmanager
def said(say: Callable[[str], None]) -> Iterator[None]:
    """Send remarks to `say` meanwhile, each once. Warnings of libraries, which no user can act on, are shown only where
    QVERIFY_DEBUG is 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", QVerifyWarning)
        shown, seen = warnings.showwarning, set[str]()

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, QVerifyWarning):
                if os.environ.get("QVERIFY_DEBUG") == "1":
                    shown(message, category, *where, **more)
            elif str(message) not in seen:
                seen.add(str(message))
                say(str(message))

        warnings.showwarning = show
        yield
