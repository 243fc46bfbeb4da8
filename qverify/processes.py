"""Programs that run beside this one: how they are started, how they hear and answer, and how they ended."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


TOO_LITTLE = 71
"""The status with which a process that serves ends where it cannot even take in a question for want of memory."""


def command(module: str) -> list[str]:
    """The command line that runs `main` of a module of qverify.

    Not from the working directory: a file of the user's called random.py there must not become Python's.
    """
    run = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; main()"
    return [sys.executable, "-c", run]


def environment() -> dict[str, str]:
    """The environment for a process beside this one: one thread, this qverify, no warnings of libraries."""
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    silent = {} if os.environ.get("QVERIFY_DEBUG") == "1" else {"PYTHONWARNINGS": "ignore"}
    return {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), **silent, "PYTHONPATH": path}


def serving() -> tuple[queue.Queue[Any], Callable[[Any], None]]:
    """The two ends of a process that serves another: the messages from stdin, and a function that answers on stdout.

    Output of libraries is dropped. The process ends when stdin closes, even in the middle of work, since then nobody
    waits for its answer; solvers work outside Python's lock, so that is noticed during a solve too.
    """
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)

    def say(answer: Any) -> None:
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    messages: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    return messages, say


def _listen(messages: queue.Queue[Any]) -> None:
    try:
        while True:
            messages.put(pickle.load(sys.stdin.buffer))
    except MemoryError:
        os._exit(TOO_LITTLE)
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(0)


def ended(status: int) -> str:
    """A status in words: how a process ended."""
    if status == TOO_LITTLE:
        return "ended for want of memory"
    if status >= 0:
        return f"ended with status {status}"
    names: dict[int, Any] = {int(each): each.name for each in signal.Signals}
    hint = ", perhaps for want of memory" if status == -getattr(signal, "SIGKILL", 9) else ""
    return f"was ended by {names.get(-status, -status)}{hint}"
