"""`qverify runtimes`: is the class of a quantised file the same on every runtime, and how far can each output move?"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from rich.table import Table

from qverify.cli.rows import rows_file
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.files.hashes import file_sha256
from qverify.fingerprint import fingerprint
from qverify.remarks import quiet
from qverify.report.numbers import percent
from qverify.runs.problem import Problem
from qverify.runtimes.decide import RuntimeAnswer, RuntimeOptions, same_on_runtimes
from qverify.runtimes.rules import RUNTIMES
from qverify.text.brief import Brief
from qverify.text.shortened import listed
from qverify.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.runs.given import Given

_FAILED = 1
_MEANING = {
    "same": "one class, proved for every choice of rules, layer by layer",
    "differs": "two choices of rules give two classes",
    "unknown": "neither, within the time limit",
}


def run(
    given: Given, rules: tuple[str, ...], *, ranges: bool, out: str | None, fail_on: Sequence[str], as_json: bool
) -> int:
    """Run the command; returns the exit status."""
    began = time.perf_counter()
    options = RuntimeOptions(rules=rules, seconds=given.seconds, jobs=given.jobs, ranges=ranges)
    with stdout_kept_clean():
        problem = Problem.load(given)
        with rows_file(out) as file:
            rows = _computed(problem, options, file)
    missing = len(problem.indices) - len(rows)
    result = _Result(problem, options, rows, time.perf_counter() - began)
    if as_json:
        show_json(result.to_json())
    else:
        result.show()
    if missing:
        say(f"interrupted: {len(rows)} of {len(problem.indices)} samples are done.")
        return INTERRUPTED
    hit = {status: result.indices(status) for status in dict.fromkeys(fail_on)}
    if any(hit.values()):
        found = (f"{len(each)} {status} ({listed(list(map(str, each)))})" for status, each in hit.items() if each)
        say(f"--fail-on {','.join(fail_on)}: of {len(rows)} samples {', '.join(found)}.")
        return _FAILED
    return 0


def _computed(problem: Problem, options: RuntimeOptions, file: TextIO | None) -> list[RuntimeAnswer]:
    """An answer for every sample, with its index in the data set; fewer after Ctrl-C."""
    rows: list[RuntimeAnswer] = []
    counts: Counter[str] = Counter()
    pace = Pace(len(problem.indices), False)

    def described() -> list[str]:
        return [f"{status} {counts[status]}" for status in _MEANING]

    with stoppable() as stop, Progress(pace, described) as progress:

        def tell(answer: RuntimeAnswer) -> None:
            rows.append(replace(answer, index=problem.indices[answer.index]))
            counts[answer.status] += 1
            if file is not None:
                file.write(json.dumps(_row(problem, rows[-1]), allow_nan=False) + "\n")
                file.flush()
            progress.add(answer.index, False)

        with contextlib.suppress(KeyboardInterrupt), quiet():
            same_on_runtimes(problem.network, problem.inputs(), options, tell, stop)
    return sorted(rows, key=lambda row: row.index)


def _row(problem: Problem, answer: RuntimeAnswer) -> dict[str, Any]:
    """The object of a line (formats.md, section 7.1)."""
    return {"index": answer.index, "label": problem.label(answer.index)} | answer.to_json()


@dataclass(frozen=True, eq=False, repr=False)
class _Result(Brief):
    """The answers about some samples, by their indices."""

    problem: Problem
    options: RuntimeOptions
    rows: list[RuntimeAnswer]
    seconds: float

    def indices(self, status: str) -> list[int]:
        """The samples of a status; `misclassified`: those whose class under the first rule is not their label."""
        wrong = status == "misclassified"
        return [row.index for row in self.rows if (self._wrong(row) if wrong else row.status == status)]

    def _wrong(self, row: RuntimeAnswer) -> bool:
        return row.predicted != self.problem.label(row.index)

    @property
    def counts(self) -> dict[str, int]:
        """How many samples have each status, and how many are right on every runtime."""
        found = {status: len(self.indices(status)) for status in _MEANING}
        return found | {"right": sum(row.status == "same" and not self._wrong(row) for row in self.rows)}

    @property
    def moved(self) -> tuple[float, float]:
        """The widest range of an output over all samples: proved, and attained."""
        ends = (("lower", "upper"), ("attained_lower", "attained_upper"))
        proved, attained = (
            max((float((getattr(row, high) - getattr(row, low)).max()) for row in self.rows), default=0.0)
            for low, high in ends
        )
        return proved, attained

    def to_json(self) -> dict[str, Any]:
        """The object of --json (formats.md, section 12.11)."""
        problem, given, samples = self.problem, self.problem.given, self.problem.samples
        proved, attained = self.moved
        return {
            "qverify": __version__,
            "model": given.model,
            "model_sha256": file_sha256(given.model),
            "network_sha256": fingerprint(problem.network),
            "data": given.data,
            "data_sha256": samples.sha256,
            "input_scale": given.input_scale,
            "sample_range": [problem.indices.start, problem.indices.stop],
            "rules": {rule: RUNTIMES[rule] for rule in self.options.rules},
            "timeout": self.options.seconds,
            "samples": len(self.rows),
            **self.counts,
            "widest": proved,
            "widest_attained": attained,
            "seconds": round(self.seconds, 3),
            "interrupted": len(self.rows) < len(problem.indices),
            "rows": [_row(problem, row) for row in self.rows],
        }

    def show(self) -> None:
        """Write tables and lines to stdout."""
        total, counts = len(self.rows), self.counts
        table = Table("class", "samples", "", "", box=None, padding=(0, 2, 0, 0))
        for status, meaning in _MEANING.items():
            table.add_row(status, str(counts[status]), percent(counts[status], total), meaning)
        table.add_row("right", str(counts["right"]), percent(counts["right"], total), "same, and as the label says")
        show(f"{self.problem.title}: {total} samples in {duration(self.seconds)}", "", table, "")
        for row in self.rows:
            if row.witness is not None:
                show(f"Sample {row.index}: {_told(row)}.")
        proved, attained = self.moved
        show(f"An output moves by at most {proved:.6g} from one runtime to another; by {attained:.6g} one was seen to.")
        show(*(f"Rule {rule}: {RUNTIMES[rule]}." for rule in self.options.rules))


def _told(row: RuntimeAnswer) -> str:
    """The two classes of a sample and what the second choice does in another way than the first."""
    assert row.witness is not None
    first, second = row.witness
    other = Counter(mine for mine, theirs in zip(second.rules, first.rules, strict=True) if mine != theirs)
    pushed = sum(map(len, second.entries))
    how = [f"{count} layers by {rule}" for rule, count in other.items()]
    how += [f"{pushed} entries at a tie" for _ in range(bool(pushed))]
    return f"class {first.predicted}, or {second.predicted} with {' and '.join(how)}"
