"""Time and memory that work may take, asked between pieces that are small in both.

A `Deadline` is passed to everything that works in pieces: it says when to stop, and hears from a stop from outside.
`pieces` says how large a piece may be: few enough bytes for the
memory, and few enough operations that the deadline is asked about once a second or more often.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from qverify.errors import UsageError
from qverify.kinds import expected

SHARE = 0.5
"""Of the machine's memory, that a run takes at most where nothing else was said."""
LEAST = 384 << 20
"""Bytes below which there is no working: Python and torch alone take 270 MiB (measured)."""
_FLOOR = 64 << 20
"""Bytes that a small network can always work in."""
PIECE = 1 << 30
"""Bytes that temporary arrays of one piece take at most: larger ones are no faster."""
OPERATIONS = 2e9
"""Multiplications in one piece: about a second of one core in float64."""
_UNITS = {"": 2**30, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class Deadline:
    """The time when work has to end; `until` is a time of `time.monotonic`, None for never."""

    until: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def after(seconds: float | None, stop: threading.Event) -> Deadline:
        """The deadline so many seconds ahead; None for a deadline that never passes."""
        return Deadline(None if seconds is None else time.monotonic() + seconds, stop)

    @property
    def left(self) -> float:
        """The seconds left, at least 0; inf without a deadline."""
        return math.inf if self.until is None else max(0.0, self.until - time.monotonic())

    def share(self, part: float) -> Deadline:
        """The deadline that comes when this part of the time left is over."""
        return Deadline.after(None if self.until is None else part * self.left, self.stop)

    def passed(self) -> bool:
        """Whether to end now, because time is up or the run was stopped."""
        return self.stop.is_set() or self.left <= 0.0


def pieces(floats: float, operations: float, memory: int) -> int:
    """The rows or samples in a piece, at least 1, where each takes so many floats in memory and so many operations."""
    by_memory = memory / (8.0 * max(1.0, floats))
    return max(1, int(min(by_memory, OPERATIONS / max(1.0, operations), 2**31)))


def parse_memory(text: str) -> int:
    """Bytes from `4G`, `500M` or `4` (GiB). Raises UsageError."""
    expected(text, str, "The memory", "text such as 4G or 800M")
    match = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*(?:([KMGT])(?:i?B)?)?\s*", text, re.ASCII | re.IGNORECASE)
    size = 0 if match is None else int(float(match[1]) * _UNITS[(match[2] or "").upper()])
    if size < LEAST:
        raise UsageError(f"--memory {text!r} is no size of at least {LEAST >> 20}M; write for example 4G or 800M.")
    return size


def machine_memory() -> int:
    """Bytes of memory here: what is built in, or what a container allows if that is less."""
    sizes = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min((size for size in sizes if size > 0), default=4 << 30)


def resident() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def share_of(memory: int | None, shares: int) -> int:
    """Bytes for one of several processes on this machine, which take `memory` in all, or a share of the machine's.

    Raises UsageError if `memory` is too little for so many.
    """
    whole = int(machine_memory() * SHARE) if memory is None else memory
    share = whole // max(1, shares)
    if memory is not None and share < LEAST:
        raise UsageError(
            f"--memory leaves {share >> 20}M to each of {shares} processes, and each needs {LEAST >> 20}M; give"
            " fewer --jobs or more --memory."
        )
    return max(LEAST, share)


def part_of(memory: int | None, parts: int) -> int:
    """The bytes to give as `memory` to each of several pieces of work that go on in this process together.

    What the process holds already is in each, since `working_memory` takes it off again.
    """
    held = resident()
    return max(LEAST, held + (share_of(memory, 1) - held) // max(1, parts))


def working_memory(memory: int | None, needed: int) -> int:
    """Bytes that arrays may take beyond what this process holds already, of `memory` or a share of the machine's.

    `needed`: bytes that have to be held before any work. Raises UsageError if these are too many already.
    """
    whole = share_of(memory, 1)
    free = max(_FLOOR, whole - resident())
    if needed > free:
        wanted = math.ceil(10 * (needed + resident() + _FLOOR) / 2**30) / 10
        raise UsageError(
            f"The network and its radii take about {needed / 2**30:.2g} GiB, more than is left of the"
            f" {whole / 2**30:.2g} GiB that qverify may take; give --memory {wanted:.1f}G or more, or fewer --jobs."
        )
    return max(_FLOOR, free - needed)
