"""Branch and bound over what runtimes may compute: is the class of one sample the same under every choice?

States are exact: a state at tensor t is one possible value of every tensor below t that is still read. Its accumulators
for tensor t are exact too, and every way of the stage makes one tensor of them, or a set of tensors, in which some
entries lie between two ends. Bounds over everything from there on prove most states. Of the others all ways are taken,
one after the other; where entries are open, those that matter most are fixed first, at either end or between. What
comes out as a tensor that was seen before is dropped. So the search ends with a proof, or with a state at the last
tensor whose class differs, and all choices that lead to it; or it is cut off.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from qverify.bounds.ties import halves
from qverify.errors import InternalError
from qverify.runtimes.engine import STORE
from qverify.runtimes.witness import Choice, with_open
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qverify.runtimes.engine import Engine

_BATCH, _VALUES = 64, 1 << 19
"""States that are looked at together, and how many values their largest tensor has in all."""
_FIXED = 3
"""Open entries that are fixed together."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class States(Brief):
    """Some states at tensor t: exact `tensors` (N, size) below t, and the choices that led there.

    `low`, `high` (N, size): where tensor t lies, if its way is chosen already, and some of its entries are open; else
    None. `fresh`: whether they were narrowed since bounds failed to prove them.
    """

    t: int
    tensors: dict[int, Tensor]
    trails: list[tuple[Choice, ...]]
    low: Tensor | None = None
    high: Tensor | None = None
    fresh: bool = True

    def __len__(self) -> int:
        return len(self.trails)

    def take(self, rows: list[int]) -> States:
        """Some of the states."""
        some = torch.tensor(rows, dtype=torch.long)
        return replace(
            self,
            tensors={t: x[some] for t, x in self.tensors.items()},
            trails=[self.trails[row] for row in rows],
            low=None if self.low is None else self.low[some],
            high=None if self.high is None else self.high[some],
        )


@dataclass(eq=False, repr=False, kw_only=True)
class Found(Brief):
    """What the search knows of one sample.

    `low`, `high` (n_out,): bounds on the outputs of all states that are closed, and `attained_low`, `attained_high` the
    ends of those that were reached. `witness`: choices for every tensor that end in another class. `complete`: no
    state is left open.
    """

    low: Tensor
    high: Tensor
    attained_low: Tensor
    attained_high: Tensor
    witness: tuple[Choice, ...] | None = None
    complete: bool = False
    states: int = 0

    @staticmethod
    def of(known: Tensor, complete: bool = False) -> Found:
        """What is known from the outputs (N, n_out) of some runs."""
        low, high = known.amin(0), known.amax(0)
        return Found(low=low, high=high, attained_low=low, attained_high=high, complete=complete)

    def closed(self, low: Tensor, high: Tensor) -> None:
        """Outputs (N, n_out) of states that are proved lie between these."""
        if len(low):
            self.low = torch.minimum(self.low, low.amin(0))
            self.high = torch.maximum(self.high, high.amax(0))

    def reached(self, outputs: Tensor) -> None:
        """These outputs (N, n_out) are some runtime's."""
        self.attained_low = torch.minimum(self.attained_low, outputs.amin(0))
        self.attained_high = torch.maximum(self.attained_high, outputs.amax(0))


class Search:
    """The search for one sample: `x` (1, n_in) integers, its class, and the outputs (N, n_out) of some known runs.

    `ranges`: instead of another class, the exact range of every output is looked for, so a state is closed only where
    it cannot go beyond what is attained.
    """

    def __init__(self, engine: Engine, x: Tensor, label: int, known: Tensor, ranges: bool = False):
        self.engine, self.label, self.ranges = engine, label, ranges
        self.pending: list[list[States]] = [[] for _ in range(engine.last + 1)]
        self.seen: set[bytes] = set()
        self.batch = max(1, min(_BATCH, _VALUES // max(stage.size for stage in engine.stages)))
        self.found = Found.of(known)
        self._push(States(t=1, tensors={0: x}, trails=[()], fresh=False))

    def run(self, deadline: float, stopped: Callable[[], bool]) -> Found:
        """Search until all states are closed, a witness is found, or time is up (`time.perf_counter`)."""
        while self.found.witness is None and time.perf_counter() < deadline and not stopped():
            states = self._next()
            if states is None:
                self.found.complete = True
                break
            self.found.states += len(states)
            if states.low is None:
                self._exact(states)
            else:
                self._open(states)
        return self.found

    # -- the states that wait -------------------------------------------------------------------------

    def _push(self, states: States) -> None:
        if len(states):
            self.pending[states.t].append(states)

    def _next(self) -> States | None:
        """Some of the deepest states that wait."""
        for waiting in reversed(self.pending):
            if waiting:
                states = waiting.pop()
                if len(states) > self.batch:
                    waiting.append(states.take(list(range(self.batch, len(states)))))
                    states = states.take(list(range(self.batch)))
                return states
        return None

    def _advance(self, states: States, tensor: Tensor, choices: list[Choice], fresh: bool) -> None:
        """Push the states after tensor t (N, size) was chosen; those seen before are dropped."""
        t = states.t + 1
        kept = {s: states.tensors[s] for s in self.engine.alive[t] if s < states.t}
        if states.t in self.engine.alive[t]:
            kept[states.t] = tensor
        rows = []
        for row in range(len(states)):
            digest = hashlib.blake2b(bytes([t % 256]), digest_size=16)
            for s in sorted(kept):
                digest.update(kept[s][row].numpy().tobytes())
            if digest.digest() not in self.seen:
                self.seen.add(digest.digest())
                rows.append(row)
        trails = [(*trail, choice) for trail, choice in zip(states.trails, choices, strict=True)]
        self._push(States(t=t, tensors=kept, trails=trails, fresh=fresh).take(rows))

    # -- one step -----------------------------------------------------------------------------------------

    def _labels(self, states: States) -> Tensor:
        return torch.full((len(states),), self.label)

    def _bounded(self, states: States, low: Tensor, high: Tensor) -> States:
        """The states that bounds from tensor t + 1 on leave open, tensor t (N, size) being between two ends."""
        t, label = states.t, self._labels(states)
        outputs = self.engine.bound(t + 1, states.tensors | {t: low}, states.tensors | {t: high}, label)
        closed = outputs.proved
        if self.ranges:
            found = self.found
            closed = (outputs.low >= found.attained_low).all(1) & (outputs.high <= found.attained_high).all(1)
        self.found.closed(outputs.low[closed], outputs.high[closed])
        return states.take(torch.nonzero(~closed)[:, 0].tolist())

    def _exact(self, states: States) -> None:
        """States whose tensor t is to be computed: bounds over all ways, then every way of its own."""
        t, engine = states.t, self.engine
        accumulators = engine.accumulators(t, states.tensors)
        if t == engine.last:
            self._ends(states, accumulators)
            return
        if states.fresh:
            low, high = engine.union(t, accumulators, accumulators)
            states = self._bounded(states, low, high)
            if not len(states):
                return
            accumulators = engine.accumulators(t, states.tensors)
        made = [(way.low(*accumulators).to(STORE), way.high(*accumulators).to(STORE)) for way in engine.ways[t - 1]]
        narrowed = len(made) > 1 or bool((made[0][0] < made[0][1]).any())
        taken: list[tuple[Tensor, Tensor]] = []
        for index, (low, high) in enumerate(made):
            inside = torch.zeros(len(states), dtype=torch.bool)
            for other_low, other_high in taken:
                inside |= ((other_low <= low) & (high <= other_high)).all(1)
            taken.append((low, high))
            rows = torch.nonzero(~inside)[:, 0].tolist()
            if rows:
                self._take_way(states.take(rows), index, low[rows], high[rows], narrowed)

    def _take_way(self, states: States, way: int, low: Tensor, high: Tensor, narrowed: bool) -> None:
        """Push what one way of tensor t makes of states: exact ones, and those with open entries."""
        is_open = (low < high).any(1)
        done, rest = (torch.nonzero(rows)[:, 0].tolist() for rows in (~is_open, is_open))
        if done:
            self._advance(states.take(done), low[done], [Choice(way)] * len(done), narrowed)
        if rest:
            trails = [(*states.trails[row], with_open(way, low[row], high[row])) for row in rest]
            opened = replace(states.take(rest), trails=trails, low=low[rest], high=high[rest])
            self._push(replace(opened, fresh=len(self.engine.ways[states.t - 1]) > 1))

    def _open(self, states: States) -> None:
        """States with open entries in tensor t: bounds, then some of the entries are narrowed."""
        assert states.low is not None and states.high is not None
        if states.fresh:
            states = self._bounded(states, states.low, states.high)
        for row in range(len(states)):
            self._split(states.take([row]))

    def _split(self, state: States) -> None:
        """Halve the ranges of the open entries of one state that matter most."""
        assert state.low is not None and state.high is not None
        entries = torch.nonzero(state.low[0] < state.high[0])[:, 0]
        weight = self.engine.influence[state.t][entries]
        chosen = entries[weight.argsort(descending=True)[:_FIXED]].tolist()
        low, high = halves(state.low[0], state.high[0], chosen)
        children = replace(state.take([0] * len(low)), low=low, high=high, fresh=True)
        is_open = (low < high).any(1)
        done = torch.nonzero(~is_open)[:, 0].tolist()
        self._push(children.take(torch.nonzero(is_open)[:, 0].tolist()))
        if done:
            choices = [state.trails[0][-1].filled(low[row]) for row in done]
            before = children.take(done)
            before = replace(before, trails=[trail[:-1] for trail in before.trails])
            self._advance(before, low[done], choices, True)

    def _ends(self, states: States, accumulators: tuple[Tensor, ...]) -> None:
        """States with exact inputs of the last stage: each way proves them, or gives another class."""
        label = self._labels(states)
        for index, way in enumerate(self.engine.ways[-1]):
            low, high = way.low(*accumulators), way.high(*accumulators)
            outputs = self.engine.decide(states.tensors, (low, high), label)
            self.found.closed(low, high)
            self.found.reached(low)
            self.found.reached(high)
            for row in [] if self.ranges else torch.nonzero(~outputs.proved)[:, 0].tolist():
                self._other_class(states, row, Choice(index), low[row], high[row])
                return

    def _other_class(self, states: States, row: int, choice: Choice, low: Tensor, high: Tensor) -> None:
        """The witness of a state whose class may be another: one output at its upper end, all others at their lower."""
        for j in range(len(low)):
            outputs = low.clone()
            outputs[j] = high[j]
            if int(outputs.argmax()) != self.label:
                choice = with_open(choice.way, low, high).filled(outputs)
                self.found.witness = (*states.trails[row], choice)
                return
        raise InternalError("A state is neither proved nor refuted.")
