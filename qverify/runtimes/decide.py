"""Is the class of each sample the same on every runtime whose rules are named? (mathematics.md, section 18).

Runs of every rule by itself come first, then bounds over all choices at once, then branch and bound (search.py).
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qverify.choices import RUNTIME_RULES
from qverify.errors import InternalError, UsageError
from qverify.runtimes.engine import STORE, Engine
from qverify.runtimes.integers import IntegerNetwork
from qverify.runtimes.search import Found, Search
from qverify.runtimes.witness import Assignment, choices_of, replayed
from qverify.text.brief import Brief
from qverify.verification.arguments import callbacks, checked_inputs
from qverify.verification.threads import as_they_come

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import Tensor

    from qverify.arrays import Array
    from qverify.network import Network

_CHUNK, _VALUES = 16, 1 << 20
"""Samples that are bounded together, and how many values their largest tensor has in all."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RuntimeAnswer(Brief):
    """One sample: `same` (proved), `differs` (with two assignments of other classes as `witness`), or `unknown`.

    Arrays (n_out,) of real numbers, whole multiples of the step of the outputs: every runtime's outputs lie in
    [lower, upper], and those of some reach the ends of [attained_lower, attained_upper]. `predicted`: the class under
    the first rule named. `seconds`: spent on the sample.
    """

    index: int
    predicted: int
    status: str
    lower: Array
    upper: Array
    attained_lower: Array
    attained_upper: Array
    seconds: float
    witness: tuple[Assignment, Assignment] | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of a line (formats.md, section 7.1)."""
        found: dict[str, Any] = {"index": self.index, "predicted": self.predicted, "status": self.status}
        for name in ("lower", "upper", "attained_lower", "attained_upper"):
            found[name] = getattr(self, name).tolist()
        found["witness"] = None if self.witness is None else [one.to_json() for one in self.witness]
        return found | {"seconds": round(self.seconds, 6)}


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Which rules are covered, the seconds for one sample (None: no limit), how many samples are worked on at once (0:
    one a core), and whether the exact range of every output is looked for once the class is known."""

    rules: tuple[str, ...] = RUNTIME_RULES
    seconds: float | None = 60.0
    jobs: int = 0
    ranges: bool = False

    def __post_init__(self) -> None:
        rules = (self.rules,) if isinstance(self.rules, str) else tuple(self.rules)
        wrong = [rule for rule in rules if rule not in RUNTIME_RULES]
        if wrong or not rules:
            named = f"has no {wrong[0]!r}" if wrong else "is empty"
            raise UsageError(f"The list of rules {named}; give some of {', '.join(RUNTIME_RULES)}.")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"The time limit is {self.seconds!r}; give seconds above 0, or none.")
        if self.jobs < 0:
            raise UsageError(f"The number of jobs is {self.jobs!r}; give 1 or more, or 0 for one a core.")
        object.__setattr__(self, "rules", tuple(rule for rule in RUNTIME_RULES if rule in rules))


def same_on_runtimes(
    network: Network,
    x: Any,
    options: RuntimeOptions | None = None,
    on_result: Callable[[RuntimeAnswer], None] | None = None,
    stop: threading.Event | None = None,
) -> list[RuntimeAnswer]:
    """The answer for every sample, x (N, *input_shape) or (N, n_in); in the order of the samples.

    `network` was read from a file with integer weights and rounding points. `same` and [lower, upper] are proved for
    every runtime that computes each tensor by one of the rules, perhaps another one a tensor; complete given time.
    `on_result` is called in this thread as results come. Raises UnsupportedModel if some of the network is not computed
    in integers, DataError and UsageError for wrong arguments.
    """
    options, stop = options or RuntimeOptions(), stop or threading.Event()
    callbacks(stop, on_result=on_result)
    flat = checked_inputs(network, x)
    work = _Samples(Engine(IntegerNetwork.of(network), options.rules), flat, options, stop)
    found: list[RuntimeAnswer] = []
    with _one_thread(), contextlib.closing(work.run()) as answers:
        for answer in answers:
            found.append(answer)
            if on_result is not None:
                on_result(answer)
    return sorted(found, key=lambda answer: answer.index)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Torch with a single thread: tensors are small, and samples are worked on at once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Samples:
    """The work on all samples x (N, n_in), chunk by chunk."""

    def __init__(self, engine: Engine, x: Array, options: RuntimeOptions, stop: threading.Event):
        self.engine, self.options, self.stop = engine, options, stop
        self.x = torch.tensor(engine.network.integers(x), dtype=STORE)
        self.step = engine.network.output_step

    def run(self) -> Generator[RuntimeAnswer, None, None]:
        """The answers as they come."""
        largest = max(stage.size for stage in self.engine.stages)
        size = max(1, min(_CHUNK, _VALUES // largest))
        jobs = self.options.jobs or os.cpu_count() or 1
        starts = list(range(0, len(self.x), size))
        with contextlib.closing(
            as_they_come(lambda start: self._chunk(start, size), starts, min(jobs, len(starts)), self.stop)
        ) as chunks:
            for _, answers in chunks:
                yield from answers

    def _chunk(self, start: int, size: int) -> list[RuntimeAnswer]:
        """The answers for some samples; fewer once `stop` is set."""
        if self.stop.is_set():
            return []
        began = time.perf_counter()
        engine, x = self.engine, self.x[start : start + size]
        known = torch.stack([engine.run(rule, x)[0][engine.last] for rule in engine.rules], dim=1)  # (N, rules, n_out)
        bounds = engine.bound(1, {0: x}, {0: x}, known[:, 0].argmax(1))
        seconds = (time.perf_counter() - began) / len(x)
        answers = []
        for row in range(len(x)):
            began, limit = time.perf_counter(), self.options.seconds
            deadline = math.inf if limit is None else began + limit - seconds
            one = x[row : row + 1]
            found = self._found(one, known[row], bool(bounds.proved[row]), deadline)
            if bounds.proved[row] or found.witness is not None or not found.complete:
                found.closed(bounds.low[row : row + 1], bounds.high[row : row + 1])
            if self.options.ranges:
                self._tighten(found, one, known[row], deadline)
            if self.stop.is_set():
                break
            answers.append(self._answer(start + row, known[row], found, seconds + time.perf_counter() - began))
        return answers

    def _tighten(self, found: Found, x: Tensor, known: Tensor, deadline: float) -> None:
        """Make the bounds on the outputs those that are attained, if time is enough."""
        search = Search(self.engine, x, int(known[0].argmax()), known, ranges=True)
        ranges = search.run(deadline, self.stop.is_set)
        found.attained_low = torch.minimum(found.attained_low, ranges.attained_low)
        found.attained_high = torch.maximum(found.attained_high, ranges.attained_high)
        if ranges.complete:
            found.low, found.high = found.attained_low, found.attained_high

    def _found(self, x: Tensor, known: Tensor, proved: bool, deadline: float) -> Found:
        """What is found of one sample x (1, n_in), given the outputs (rules, n_out) of the runs.

        `proved`: bounds alone show that it is the same class.
        """
        engine, classes = self.engine, known.argmax(1).tolist()
        for rule, predicted in zip(engine.rules, classes, strict=True):
            if predicted != classes[0]:
                found = Found.of(known)
                found.witness = choices_of(engine, x, rule)
                return found
        if proved:
            return Found.of(known, complete=True)
        return Search(engine, x, classes[0], known).run(deadline, self.stop.is_set)

    def _answer(self, index: int, known: Tensor, found: Found, seconds: float) -> RuntimeAnswer:
        """The answer for one sample; a witness is replayed first. Raises InternalError if it does not hold."""
        predicted, pair = int(known[0].argmax()), None
        if found.witness is not None:
            x = self.x[index : index + 1]
            choices = choices_of(self.engine, x, self.engine.rules[0]), found.witness
            pair = (replayed(self.engine, x, choices[0]), replayed(self.engine, x, choices[1]))
            if pair[0].predicted != predicted or pair[1].predicted == predicted:
                raise InternalError("The witness of a sample does not give another class.")
        names = ("low", "high", "attained_low", "attained_high")
        low, high, attained_low, attained_high = (getattr(found, name).numpy() * self.step for name in names)
        return RuntimeAnswer(
            index=index,
            predicted=predicted,
            status="differs" if pair else "same" if found.complete else "unknown",
            lower=low,
            upper=high,
            attained_lower=attained_low,
            attained_upper=attained_high,
            witness=pair,
            seconds=seconds,
        )
