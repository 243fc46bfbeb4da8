"""The program of one sample, loaded: made when a solver is first asked, made again with more binaries, given back."""

from __future__ import annotations

import contextlib
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from qverify.exact import solvers
from qverify.exact.bilinear import Bilinear
from qverify.exact.overstated import Exactly, overstated
from qverify.exact.relational import Relational
from qverify.exact.solvers.host import TREE, open_session
from qverify.exact.solvers.process import Hosted

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from qverify.arrays import Array
    from qverify.bounds.sample import SampleBounds
    from qverify.exact.maps import Maps
    from qverify.exact.solvers.base import Session
    from qverify.exact.solvers.process import Lent

_COORDINATES = 64
"""The most coordinates that get binaries in a round."""


class Loaded:
    """The relational program of a sample, or with `bilinear` set the other one, and the sessions of solvers over it.

    `solver`: as chosen by the user; sessions are in the process `lent`, or here without one. `close` gives program and
    sessions back, and the next question loads them again.
    """

    def __init__(self, maps: Maps, bounds: SampleBounds, solver: str, stop: threading.Event, lent: Lent | None):
        self._maps, self._bounds, self._solver, self._stop, self._lent = maps, bounds, solver, stop, lent
        self.bilinear = False
        self._exact, self._before, self._clear = Exactly(), Exactly(), 0.0
        self._program: Relational | Bilinear | None = None
        self._sessions: dict[str, Session] = {}

    def session(self, relax: bool) -> tuple[Relational | Bilinear, str, Session]:
        """The program, and who minimises over it by what name: our own tree for relaxations and where HiGHS was chosen.

        Raises SolverError without a usable solver, ModelTooLarge where its licence does not admit the program.
        """
        if self._program is None:
            if self.bilinear:
                self._program = Bilinear(self._maps, self._bounds)
            else:
                self._program = Relational(self._maps, self._bounds, self._exact, self._clear)
        name = TREE
        if not relax:
            solver = solvers.choose(self._solver, len(self._program.program.products) > 0)
            name = solver.name if self.bilinear or solver.name != "highs" else TREE
        if name not in self._sessions:
            program = self._program.program
            if self._lent is not None:
                self._sessions[name] = Hosted(self._lent, name, program, self._stop)
            else:
                adapter = None if name == TREE else solvers.adapter(name)
                self._sessions[name] = open_session(adapter, program, self._stop)
        return self._program, name, self._sessions[name]

    def close(self) -> None:
        """Unload program and solvers."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._program = None

    def refine(self, point: Array) -> bool:
        """Give binaries to what a point (n,) overstates most; False if there is nothing."""
        if not isinstance(self._program, Relational):
            return False
        worst = overstated(self._program, point)[:_COORDINATES]
        if worst:
            self._before = deepcopy(self._exact)
            for one in worst:
                places = np.arange(self._maps.family.network.layers[one.layer].size)
                self._exact.add(one.kind, one.layer, places == one.place)
            self.close()
        return bool(worst)

    def undo(self) -> None:
        """Take the binaries of the last `refine` back."""
        self._exact = self._before
        self.close()

    @contextlib.contextmanager
    def cleared(self, share: float) -> Iterator[None]:
        """Within it, the program whose points are clear of the jumps of rounding points, and whose bounds are none."""
        self.close()
        self._clear = share
        try:
            yield
        finally:
            self._clear = 0.0
            self.close()
