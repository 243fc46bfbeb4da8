"""The cases of a plan, assembled for work: questions, samples, and all that processes need, packed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qverify import datasets
from qverify.choices import QUANTISER, RANGED
from qverify.errors import UsageError
from qverify.runs.given import RANGED_ONLY, Given
from qverify.runs.problem import FamilyProblem, doubted, read_network
from qverify.runs.question import Question, case_id, sample_key
from qverify.runs.start import SolverUsed
from qverify.text.brief import Brief
from qverify.workers.tasks import GRACE, Parcels, Setting, Task, chunk_of

if TYPE_CHECKING:
    from qverify.datasets import Samples
    from qverify.datasets.samples import Labels
    from qverify.network import Network
    from qverify.runs.plan import Entry, Plan


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BatchCase(Brief):
    """A case of a batch: its question, the samples asked about, the task that it splits into, and how many of them
    share one."""

    question: Question
    indices: range
    task: Task
    chunk: int

    @property
    def name(self) -> str:
        """A name for people, and enough of a hash to tell it from others."""
        return self.task.case

    @property
    def timeout(self) -> float | None:
        """The time limit of a sample in seconds, None for none."""
        return self.question.timeout

    @cached_property
    def identity(self) -> list[Any]:
        """The identity of the question, `Question.identity`."""
        return self.question.identity()

    def key(self, index: int) -> str:
        """The key of a sample's row."""
        return sample_key(self.identity, index)


class Assembly:
    """The cases of a plan, with all that their work needs: `cases`, `parcels`, `solver`. Raises what is wrong.

    `labels`: those of the samples of each case, by its name. `memory`: bytes for all processes that work.
    """

    def __init__(self, plan: Plan, folder: str, memory: int | None = None):
        self._memory = memory
        self.parcels = Parcels()
        self.solver: SolverUsed | None = None
        self.cases: list[BatchCase] = []
        self.labels: dict[str, Labels] = {}
        self._plan, self._folder = plan, folder
        self._packed: dict[tuple[str, ...], str] = {}
        self._hinted: set[tuple[str, ...]] = set()
        read: dict[tuple[Any, ...], Samples] = {}
        for model in plan.models:
            network = read_network(Given(model=model), f"{Path(model).name}: ")
            for name in plan.data:
                key = name, network.parts
                if key not in read:
                    read[key] = datasets.scaled(datasets.load(name, network.parts), plan.input_scale)
                doubted(network, read[key], f"{network.source} on {name}: ")
            for entry in (entry for entry in plan.entries() if entry.model == model):
                self._add(entry, network, read[entry.data, network.parts])
        self._refuse_twins()

    def _add(self, entry: Entry, network: Network, everything: Samples) -> None:
        problem = FamilyProblem.of(_given(entry, self._plan), network, everything)
        if entry.scheme is not None and (entry.scheme, entry.model, entry.data) not in self._hinted:
            problem.hint(f"{network.source} on {entry.data}: ")
            self._hinted.add((entry.scheme, entry.model, entry.data))
        options = replace(problem.options(), jobs=1, memory=self._memory)
        arrays, places = everything.arrays_sha256, problem.places(self._folder)
        question = replace(problem.question(), arrays_sha256=arrays, places=places)
        self.solver = SolverUsed.of(options) or self.solver
        packed = (entry.data, repr(network.parts))
        if packed not in self._packed:
            labelled = (problem.indices.start, problem.inputs(), problem.samples.y)
            self._packed[packed] = self.parcels.add(labelled)
        if (entry.model,) not in self._packed:
            self._packed[(entry.model,)] = self.parcels.add(network)
        task = Task(
            case=case_id(entry.name, question.identity()),
            network=self._packed[(entry.model,)],
            samples=self._packed[packed],
            setting=self.parcels.add(Setting(problem.radii, options)),
            limit=None if options.seconds is None else options.seconds + GRACE,
        )
        chunk = chunk_of(network, len(problem.indices))
        self.cases.append(BatchCase(question=question, indices=problem.indices, task=task, chunk=chunk))
        self.labels[task.case] = problem.samples.y

    def _refuse_twins(self) -> None:
        """Raise UsageError for two cases that ask the same: they would share their rows."""
        seen: dict[str, BatchCase] = {}
        for case in self.cases:
            before = seen.setdefault(str(case.identity), case)
            if before is not case:
                raise UsageError(
                    f"The plan asks the same twice: {before.name} and {case.name} (models {before.question.model}"
                    f" and {case.question.model}); leave one out."
                )


def _more(entry: Entry, plan: Plan) -> dict[str, Any]:
    """What the plan says of the quantisers of an entry beside its bits, as far as its scheme has it."""
    if entry.bits is None:
        return {}
    names = [name for name in QUANTISER if name not in ("scheme", "rounding")]
    own = {name: getattr(plan, name) for name in names if entry.scheme in RANGED or name not in RANGED_ONLY}
    return own | ({"calibration": plan.calibration} if entry.scheme in RANGED else {})


def _given(entry: Entry, plan: Plan) -> Given:
    """An entry of a plan, as `Given`."""
    return Given(
        model=entry.model,
        data=entry.data,
        bits=entry.bits,
        scheme=entry.scheme,
        rounding=entry.rounding,
        **_more(entry, plan),
        radii=entry.radii,
        samples=plan.samples,
        input_scale=plan.input_scale,
        clip_input=plan.clip_input,
        method=entry.method,
        formulation=plan.formulation,
        solver=plan.solver,
        timeout=plan.timeout,
        jobs=1,
    )
