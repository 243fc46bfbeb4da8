"""The progress of a run, on stderr: a live line on a terminal, an occasional plain one elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import sys
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from qverify.console.output import say
from qverify.text.escapes import printable

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN_EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""
_BAR = 24
"""Columns of the bar on a terminal."""
_LONG_RUN, _HALF_A_DAY = 600.0, 12 * 3600
"""Seconds still to go from which on the end is told, and from which on with its date."""
_WATCH = 0.5
"""Seconds between two looks at whether it is time for a line."""


class Pace:
    """Rate and time left, from when the answers came.

    Samples pass the cheap stages in batches, and only what these leave open waits for a solver, one by one. So the
    overall rate says nothing about the rest: what is open behind the last sample seen costs what the
    exact step takes for one, and the samples after that cost what those before did, both stages taken together.
    """

    def __init__(self, total: int, exact_step: bool, clock: Callable[[], float] = time.monotonic):
        self.total, self.decided = total, 0
        self._exact_step, self._clock = exact_step, clock
        self._began = self._last = clock()
        self._seen = self._exact = 0
        self._exact_seconds, self._in_exact = 0.0, False

    def add(self, position: int, exact: bool) -> None:
        """The sample at `position` of `total` was decided, by the exact step or before it."""
        now = self._clock()
        self.decided += 1
        self._seen = max(self._seen, position + 1)
        self._in_exact = exact
        if exact:
            self._exact += 1
            self._exact_seconds += now - self._last
        self._last = now

    @property
    def rate(self) -> float:
        """Samples a second so far."""
        return self.decided / max(self._clock() - self._began, 1e-9)

    def left(self) -> float | None:
        """Seconds still to go; None while nothing is known about the stage that counts."""
        now = self._clock()
        if self.decided >= self.total:
            return 0.0
        if not self.decided or (self._exact_step and not self._exact):
            return None
        elapsed = now - self._began
        if not self._in_exact:
            return (self.total - self.decided) * elapsed / self.decided
        each = (self._exact_seconds + now - self._last) / self._exact
        behind = (self._seen - self.decided) * each
        return behind + (self.total - self._seen) * (elapsed + behind) / self._seen


class Course:
    """Rate and time left of a batch, whose two kinds of work are measured apart (dispatch.py).

    What was not looked at yet is taken to be like what was: a share of it will be open, and what is open costs what the
    exact step took so far, the wait for the next answer counted in. `slots()`: how many tasks run at once.
    """

    def __init__(self, total: int, slots: Callable[[], int], clock: Callable[[], float] = time.monotonic):
        self.total, self.decided, self.open, self.unseen = total, 0, 0, total
        self._slots, self._clock = slots, clock
        self._began = self._last = clock()
        self._opened = self._exact = 0
        self._cheap_seconds = self._exact_seconds = 0.0

    def chunk(self, samples: int, still_open: int, seconds: float) -> None:
        """The cheap stages are through with some samples, and left some of them open."""
        self._last = self._clock()
        self.decided += samples - still_open
        self.unseen -= samples
        self.open += still_open
        self._opened += still_open
        self._cheap_seconds += seconds

    def exact(self, seconds: float) -> None:
        """The exact step is through with a sample."""
        self._last = self._clock()
        self.decided += 1
        self.open -= 1
        self._exact += 1
        self._exact_seconds += seconds

    @property
    def rate(self) -> float:
        """Samples a second so far."""
        return self.decided / max(self._clock() - self._began, 1e-9)

    def left(self) -> float | None:
        """Seconds still to go; None while nothing is known about work that is sure to come."""
        slots, seen = self._slots(), self.total - self.unseen
        if self.decided >= self.total:
            return 0.0
        if not slots or not seen:
            return None
        coming = self.open + self.unseen * self._opened / seen
        if coming and not self._exact:
            return None
        waited = slots * (self._clock() - self._last)
        each = (self._exact_seconds + waited) / self._exact if coming else 0.0
        return (self.unseen * self._cheap_seconds / seen + coming * each) / slots


class Progress:
    """Shows a `Pace` or a `Course` and `describe()`, what was found so far; a context manager."""

    def __init__(self, pace: Pace | Course, describe: Callable[[], list[str]], every: float | None = None):
        """`every`: seconds between two plain lines."""
        self._pace, self._describe, self._every = pace, describe, every
        self._told = time.monotonic()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._live: Live | None = None
        self._watcher: threading.Thread | None = None
        if sys.stderr is not None and sys.stderr.isatty():
            console = Console(stderr=True, highlight=False, markup=False, emoji=False)  # names are not markup
            self._live = Live(
                console=console, get_renderable=self._lines, refresh_per_second=4, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        else:  # a single answer may take minutes
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over.set()
        if self._live is not None:
            self._live.stop()
        if self._watcher is not None:  # it must not be the last to hold on to tensors while Python ends
            self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(_WATCH):
            with contextlib.suppress(RuntimeError):  # what is described changes meanwhile
                self.tick()

    def add(self, position: int, exact: bool) -> None:
        """Add to the pace, as `Pace.add` does, and show it."""
        assert isinstance(self._pace, Pace)
        self._pace.add(position, exact)
        self.tick()

    def tick(self) -> None:
        """Write a plain line if it is time for one."""
        every = _PLAIN_EVERY if self._every is None else self._every
        with self._lock:
            if self._live is not None or self._over.is_set() or time.monotonic() - self._told < every:
                return
            self._told = time.monotonic()
            say(f"{self._pace.decided} of {self._pace.total}: {', '.join(self._describe())}; {self._speed()}")

    def _speed(self) -> str:
        left = self._pace.left()
        rate = f"{self._pace.rate:.3g} a second"
        return f"{rate}, time left unknown" if left is None else f"{rate}, {duration(left)} left{_expected(left)}"

    def _lines(self) -> Group:
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._pace.total, completed=self._pace.decided, width=_BAR)
        table.add_row(bar, f"{self._pace.decided} of {self._pace.total}, {self._speed()}")
        return Group(table, *map(printable, self._describe()))


def _expected(left: float) -> str:
    """The time by the clock here when a long run will end; empty for a short one."""
    if left < _LONG_RUN:
        return ""
    end = datetime.datetime.now() + datetime.timedelta(seconds=min(left, 1e9))
    return end.strftime(", ends about %H:%M" if left < _HALF_A_DAY else ", ends about %d %b %H:%M")


def duration(seconds: float) -> str:
    """Seconds in words, roughly, as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
