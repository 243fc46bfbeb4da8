"""The order of the work: the cheap stages of every chunk first, then the exact step sample by sample.

So it is soon known how much there is for the exact step. Who does the work is an `Engine`: processes here
(`local.Local`) or a cluster (`cluster.Cluster`). Rows do not depend on the engine, nor on what was there before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from qverify.errors import InternalError, WorkerError
from qverify.verification.row import Row, Status
from qverify.workers.tasks import Found, Lost, Task

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Container, Iterator, Sequence

_PATIENCE = 0.2
"""Seconds between two looks at whether the run should end."""


class Engine(Protocol):
    """A doer of tasks. `slots`: how many at once; `window`: how many it takes, those waiting included."""

    @property
    def slots(self) -> int: ...

    @property
    def window(self) -> int: ...

    def submit(self, task: Task) -> None:
        """Take a task, to be done as soon as there is room."""

    def get(self, seconds: float) -> tuple[Task, Found | Lost] | None:
        """An answer, None if there is none within some seconds. Raises what a task raised."""


class Watcher(Protocol):
    """A listener to the progress of the work."""

    def chunk(self, samples: int, still_open: int, seconds: float) -> None:
        """The cheap stages are through with so many missing samples."""

    def exact(self, seconds: float) -> None:
        """The exact step is through with one sample."""

    def tick(self) -> None:
        """Called several times a second, whether or not something has happened."""


class Case(Protocol):
    """Samples with the same task, `chunk` of which share one. `timeout`: the time limit of a sample in seconds, None
    for none."""

    @property
    def name(self) -> str: ...

    @property
    def indices(self) -> range: ...

    @property
    def task(self) -> Task: ...

    @property
    def chunk(self) -> int: ...

    @property
    def timeout(self) -> float | None: ...

    def key(self, index: int) -> str:
        """The key of a sample's row."""


class Dispatch:
    """The work of some cases of which the rows under the keys in `done` are there already.

    `keep` takes rows; it must not return before they are safe. `failures`: chunks without an answer, in words.
    """

    def __init__(
        self,
        engine: Engine,
        cases: Sequence[Case],
        done: Container[str],
        keep: Callable[[Sequence[Row]], None],
        watcher: Watcher,
    ):
        self._engine, self._done, self._keep, self._watcher = engine, done, keep, watcher
        self._cases = {case.name: case for case in cases}
        self._chunks = (task for case in cases for task in _chunks(case, done))
        self._open: deque[Task] = deque()
        self._bounded: dict[Task, Row] = {}
        self._flying: set[Task] = set()
        self.failures: list[str] = []

    def run(self, stop: threading.Event) -> None:
        """Work until all is done or `stop` is set; what is under way then is dropped.

        Raises what a task raised; WorkerError at the end if chunks had no answer.
        """
        while not stop.is_set():
            while len(self._flying) < self._engine.window and (task := self._next()) is not None:
                self._flying.add(task)
                self._engine.submit(task)
            if not self._flying and self._engine.window:
                break
            answer = self._engine.get(_PATIENCE)
            if answer is not None:
                self._take(*answer)
            self._watcher.tick()
        if self.failures:
            raise WorkerError(f"{'; '.join(self.failures)}. The rest is kept; start again with fewer jobs.")

    def _next(self) -> Task | None:
        task = next(self._chunks, None)
        if task is None and self._open:
            task = self._open.popleft()
        return task

    def _take(self, task: Task, answer: Found | Lost) -> None:
        """Keep what a task found, and note what it leaves to do."""
        if task not in self._flying:
            return
        self._flying.remove(task)
        case = self._cases[task.case]
        if task.exact:
            before = self._bounded.pop(task)
            found = answer.rows if isinstance(answer, Found) else (_unknown(case, before, answer),)
            found = tuple(_at_least(before, row) for row in found)
            if [row.index for row in found] != [task.start]:
                raise InternalError(f"The exact step on sample {task.start} of {task.case} has {len(found)} answers.")
            self._keep([_signed(case, row) for row in found])
            self._watcher.exact(answer.seconds)
            return
        if isinstance(answer, Lost):
            where = f"samples {task.start}:{task.stop} of {task.case}"
            self.failures.append(f"The bounds of {where} could not be computed: {answer.reason}")
            return
        if sorted(row.index for row in (*answer.rows, *answer.open)) != list(range(task.start, task.stop)):
            raise InternalError(f"The bounds of samples {task.start}:{task.stop} of {task.case} are not complete.")
        decided, still = (
            [row for row in rows if case.key(row.index) not in self._done] for rows in (answer.rows, answer.open)
        )
        late = [row for row in still if _late(case, row)]
        still = [row for row in still if not _late(case, row)]
        decided += [replace(row, detail="time limit", limit=case.timeout) for row in late]
        if decided:
            self._keep([_signed(case, row) for row in decided])
        for row in still:
            one = replace(case.task, start=row.index, stop=row.index + 1, exact=True, spent=row.seconds)
            self._bounded[one] = row
            self._open.append(one)
        self._watcher.chunk(len(decided) + len(still), len(still), answer.seconds)


def _chunks(case: Case, done: Container[str]) -> Iterator[Task]:
    """The chunks in which something is missing."""
    step = case.chunk
    for start in range(case.indices.start // step * step, case.indices.stop, step):
        own = range(max(start, case.indices.start), min(start + step, case.indices.stop))
        if any(case.key(index) not in done for index in own):
            yield replace(case.task, start=own.start, stop=own.stop)


def _signed(case: Case, row: Row) -> Row:
    """The row as a batch keeps it."""
    return replace(row, case=case.name, key=case.key(row.index))


def _late(case: Case, row: Row) -> bool:
    """Whether the cheap stages took all the time that the sample had."""
    return case.timeout is not None and row.seconds >= case.timeout


def _at_least(before: Row, row: Row) -> Row:
    """A row that is unknown, with the bounds that were known before it: less time may have been left for them."""
    if row.status is not Status.UNKNOWN or before.margin_lower is None:
        return row
    lower = before.margin_lower if row.margin_lower is None else max(row.margin_lower, before.margin_lower)
    return replace(row, margin_lower=lower)


def _unknown(case: Case, before: Row, lost: Lost) -> Row:
    """The row of a sample whose exact step has no answer: the bounds of the cheap stages, and the reason."""
    seconds, limit = round(before.seconds + lost.seconds, 6), case.timeout if lost.overdue else before.limit
    return replace(before, seconds=seconds, detail=lost.reason, limit=limit)
