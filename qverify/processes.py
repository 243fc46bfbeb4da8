"""Programs that run beside this one: how they are started, and how they ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def command(module: str) -> list[str]:
    """The command line that runs `main` of a module of qverify.

    Not from the working directory: a file of the user's called random.py there must not become Python's.
    """
    run = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; main()"
    return [sys.executable, "-c", run]


def environment() -> dict[str, str]:
    """One thread each, and the qverify that runs here."""
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "PYTHONPATH": path}


def ended(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    names: dict[int, Any] = {int(each): each.name for each in signal.Signals}
    hint = ", perhaps for want of memory" if status == -getattr(signal, "SIGKILL", 9) else ""
    return f"was ended by {names.get(-status, -status)}{hint}"
