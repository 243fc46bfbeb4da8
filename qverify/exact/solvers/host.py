"""The process that a solver works in: messages come on stdin, answers go to stdout, and it ends when stdin closes.

So a solver that crashes, hangs or takes all memory ends its own sample and nothing else (`process.py` is the other
side). It imports what programs need and no more: no torch, no ONNX.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qverify.errors import QVerifyError, SolverError
from qverify.exact import solvers
from qverify.exact.branching import Tree
from qverify.exact.program import Program
from qverify.exact.scaling import InUnits, Scaled
from qverify.exact.solvers.base import Session, Solver
from qverify.processes import serving

TREE = "tree"
"""Our branch and bound (branching.py), beside the names of solvers."""


def open_session(solver: Solver | None, program: Program, stop: threading.Event | None = None) -> Session:
    """A session on a program in its own units, by a solver in the units that suit it, or by the tree if None."""
    scaled = Scaled.of(program)
    if solver is None:
        return Tree(scaled, stop)
    return InUnits(scaled, solver.open(scaled.program, threads=1, stop=stop))


class Host:
    """The sessions of one process, under the numbers that the other side gave them."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}

    def open(self, number: int, name: str, program: Program) -> None:
        self._sessions[number] = open_session(None if name == TREE else solvers.get(name), program)

    def minimise(self, number: int, *asked: Any) -> Any:
        return self._sessions[number].minimise(*asked)

    def close(self, number: int) -> None:
        if (session := self._sessions.pop(number, None)) is not None:
            session.close()

    def limit(self, memory: int) -> None:
        """From now on let this process grow by so many bytes and no more, where the system can."""
        try:
            import resource

            with open("/proc/self/statm") as file:
                now = int(file.read().split()[0]) * resource.getpagesize()
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (now + memory, hard))
        except (ImportError, OSError, ValueError):
            pass


def main() -> None:
    """Serve until stdin closes."""
    messages, say = serving()
    host = Host()
    say(None)
    while True:
        verb, arguments = messages.get()
        say(_answer(getattr(host, verb), arguments))


def _answer(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What the method returns, or the error it raises."""
    try:
        return method(*arguments)
    except QVerifyError as error:
        return error
    except MemoryError:
        return SolverError("the solver needs more memory than its share of --memory")
    except Exception as error:
        return SolverError(f"{type(error).__name__}: {error}")
