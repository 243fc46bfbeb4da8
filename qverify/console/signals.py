"""Ends on request: Ctrl-C (SIGINT) and SIGTERM. Imports nothing that takes time.

Both end in order: the work under way is dropped or ended, rows are kept, and the exit status is 128 + the signal's
number. A signal that is ignored when the command starts, as SIGINT is in the background of a script, stays so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
_terminations: list[int] = []
"""The SIGTERMs that came since the command began."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what KeyboardInterrupt is for Ctrl-C."""


def status_of(status: int) -> int:
    """The exit status of a command that ends with `status`: one that was interrupted says by which signal."""
    return TERMINATED if status == INTERRUPTED and _terminations else status


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated, where `stoppable` does not say otherwise."""
    _terminations.clear()

    def end(number: int, frame: FrameType | None) -> None:
        _terminations.append(number)
        raise Terminated

    with _handled((signal.SIGTERM,), end):
        yield


@contextlib.contextmanager
def stoppable(ending: str = "ending the solves under way") -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that work can end in order.

    The second one raises KeyboardInterrupt or Terminated. `ending` says what the first one leads to.
    """
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        terminated = number == signal.SIGTERM
        if terminated:
            _terminations.append(number)
        if stop.is_set():
            raise Terminated if terminated else KeyboardInterrupt
        stop.set()
        # Not through sys.stderr: the handler may run in the middle of a write to it.
        with contextlib.suppress(OSError):
            os.write(2, f"\nqverify: {ending}; {'SIGTERM' if terminated else 'Ctrl-C'} again ends at once\n".encode())

    with _handled((signal.SIGINT, signal.SIGTERM), ask):
        yield stop


@contextlib.contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have signals handled meanwhile, except those that are ignored, and outside the main thread, which hears none."""
    before: dict[int, Any] = {}
    try:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in numbers:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
