"""The process that a solver works in: messages come on stdin, answers go to stdout, and it ends when stdin closes.

So a solver that crashes, hangs or takes all memory ends its own sample and nothing else (`process.py` is the other
side). It imports what programs need and no more: no torch, no ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qverify.errors import QVerifyError, SolverError
from qverify.exact import solvers
from qverify.exact.branching import Tree
from qverify.exact.scaling import InUnits, Scaled
from qverify.processes import serving

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from qverify.exact.program import Program
    from qverify.exact.solvers.base import Session, Solver

TREE = "tree"
"""Our branch and bound (branching.py), beside the names of solvers."""
NEEDS_MORE = "it needs more memory than its share; more: --memory, fewer --jobs"


class Failed(SolverError):
    """An error of one program; others may be solved."""


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
        self._own: int | None = None
        self._memory: int | None = None
        self._loaded: set[str] = set()

    def open(self, number: int, name: str, program: Program) -> None:
        """Open a session on a program, by the solver of that name or TREE. Raises SolverError."""
        self._load("highs" if name == TREE else name)
        self._sessions[number] = open_session(None if name == TREE else solvers.adapter(name), program)

    def minimise(self, number: int, *asked: Any) -> Any:
        """The outcome of a minimisation by a session; see `Session.minimise`."""
        return self._sessions[number].minimise(*asked)

    def close(self, number: int) -> None:
        """Close a session, if it is open."""
        if (session := self._sessions.pop(number, None)) is not None:
            session.close()

    def limit(self, memory: int | None) -> bool:
        """Set the bytes that this process may take beyond its code, where the system can.

        The code of a solver maps far more than it touches, and is not counted. False if it holds too much already from
        earlier programs: then another process does better.
        """
        self._memory = memory
        try:
            mapped = _mapped()
            self._own = mapped if self._own is None else self._own
            self._allow()
        except (ImportError, OSError, ValueError):
            return True
        return memory is None or mapped - self._own <= memory / 2

    def _allow(self) -> None:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        size = most if self._memory is None or self._own is None else self._own + self._memory
        resource.setrlimit(resource.RLIMIT_AS, (size, most))

    def _load(self, name: str) -> None:
        """Load a solver, if it is there, before its memory is counted."""
        if self._own is None or name in self._loaded:
            return
        memory, self._memory = self._memory, None
        self._allow()
        before = _mapped()
        solvers.adapter(name).availability()
        self._loaded.add(name)
        self._own += _mapped() - before
        self._memory = memory
        self._allow()


def _mapped() -> int:
    """Bytes of address space that this process has. Raises ImportError or OSError where the system does not say."""
    import resource

    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def main() -> None:
    """Serve until stdin closes."""
    messages, say = serving()
    host = Host()
    say(None)
    while True:
        verb, arguments = messages.get()
        say(_reply(getattr(host, verb), arguments))


def _reply(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The return value of the method, or the error it raises."""
    try:
        return method(*arguments)
    except QVerifyError as error:
        return error
    except MemoryError:
        return Failed(NEEDS_MORE)
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}")
