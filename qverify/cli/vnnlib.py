"""`qverify vnnlib`: queries of the VNN-LIB standard, answered as its chapter on command lines wants it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from qverify.budget import Deadline, parse_memory
from qverify.console.output import echo, say, stdout_kept_clean
from qverify.errors import UsageError
from qverify.family.radii import Radii
from qverify.family.radii_file import load_radii
from qverify.properties.decide import Answer
from qverify.verification.verdict import Options
from qverify.vnnlib.assignments import lines, serialise
from qverify.vnnlib.supports import CAPABILITIES
from qverify.vnnlib.verify import answer

if TYPE_CHECKING:
    from collections.abc import Sequence


def verify(
    query: str,
    networks: Sequence[str],
    *,
    timeout: float | None,
    family: tuple[str | None, int | None],
    folder: str | None,
    memory: str | None,
) -> int:
    """Answer a query: the verdict in the first line of stdout, then what satisfies it. Returns the exit status."""
    began = time.monotonic()
    radii = _radii(*family)
    deadline = Deadline(None if timeout is None else began + timeout, threading.Event())
    options = Options(jobs=1, memory=None if memory is None else parse_memory(memory))
    with stdout_kept_clean():
        found = answer(query, networks, radii=radii, deadline=deadline, options=options)
        if found.answer is Answer.SAT and found.assignment is not None and folder is not None:
            serialise(found.query, found.assignment, folder)
    for remark in found.remarks:
        say(f"note: {remark}.")
    say(f"{found.answer.value} after {time.monotonic() - began:.2f} s")
    echo(found.answer.value)
    if found.answer is Answer.SAT and found.assignment is not None and folder is None:
        for line in lines(found.query, found.assignment):
            echo(line)
    return 0


def _radii(file: str | None, bits: int | None) -> Radii | None:
    if file is not None and bits is not None:
        raise UsageError("--radii and --bits both state a family; give one of them.")
    if file is not None:
        return load_radii(file)
    return None if bits is None else Radii.from_bits(bits)


def supports(asked: Sequence[str]) -> int:
    """Print what the capabilities asked for are; returns the exit status."""
    if len(asked) != 1:
        words = ", ".join(f"--{name}" for name in CAPABILITIES)
        raise UsageError(f"Ask for one capability at a time, of: {words}.")
    for line in CAPABILITIES[asked[0]]():
        echo(line)
    return 0
