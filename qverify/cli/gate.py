"""The gate of `verify` and `batch`: what its options ask for, the exit status, and the summary of a job."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qverify.console.output import say
from qverify.console.signals import INTERRUPTED
from qverify.errors import UsageError
from qverify.report.summary import job_summary
from qverify.report.table import marked
from qverify.runs.folder import writing
from qverify.runs.gate import Gate, failed, read_baseline, read_baselines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.runs.question import Question
    from qverify.runs.reading import StoredCase

FAILED = 1
_GITHUB, _VARIABLE = "github", "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True, kw_only=True)
class GateGiven:
    """The options of the gate as given."""

    fail_on: tuple[str, ...] = ()
    fail_under: float | None = None
    baseline: str | None = None
    job_summary: str | None = None

    @staticmethod
    def taken_from(given: dict[str, Any]) -> GateGiven:
        """The options of the gate, taken out of those of a command."""
        return GateGiven(**{one.name: given.pop(one.name) for one in fields(GateGiven)})

    def prepare(self) -> None:
        """Raise UsageError or OutputError where the summary has no place: not after hours of work."""
        if (path := self._summary()) is not None:
            with writing(path):
                path.open("a").close()

    def of_question(self, question: Question) -> Gate:
        """The gate of `verify`; what to know of the baseline goes to stderr. Raises DataError, UsageError."""
        baseline = None if self.baseline is None else read_baseline(self.baseline)
        for note in [] if baseline is None else baseline.check(question):
            say(f"note: {note}")
        return Gate(fail_on=self.fail_on, fail_under=self.fail_under, baseline=baseline)

    def of_cases(self, questions: Mapping[str, Question]) -> dict[str, Gate]:
        """The gate of each case of a batch, by its name; as `of_question`."""
        baselines = {} if self.baseline is None else read_baselines(self.baseline, questions)
        gates = {}
        for name, question in questions.items():
            baseline = baselines.get(name)
            if baseline is not None:
                for note in baseline.check(question):
                    say(f"note: {name}: {note}")
            elif self.baseline is not None:
                say(f"note: {name}: --baseline has no such case, so nothing of it can be lost.")
            gates[name] = Gate(fail_on=self.fail_on, fail_under=self.fail_under, baseline=baseline)
        return gates

    def ended(self, cases: Sequence[StoredCase], failures: Sequence[Sequence[str]], interrupted: bool) -> int:
        """The exit status, with why it is 1 on stderr; appends the summary. `failures`: of each case."""
        said = dict(zip((case.name for case in cases), failures, strict=True))
        sentence = failed(said)
        if (path := self._summary()) is not None:
            asked = bool(self.fail_on or self.baseline is not None or self.fail_under is not None)
            passed = "interrupted before all samples were decided." if interrupted else sentence
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write(job_summary(marked(cases), passed, asked))
        if interrupted:
            return INTERRUPTED
        if sentence:
            say(sentence)
        return FAILED if sentence else 0

    def _summary(self) -> Path | None:
        """The file of the summary, if one is asked for. Raises UsageError."""
        if self.job_summary != _GITHUB:
            return None if self.job_summary is None else Path(self.job_summary)
        if not os.environ.get(_VARIABLE):
            raise UsageError(
                f"--job-summary {_GITHUB} needs the variable {_VARIABLE}, which GitHub sets in its jobs; name a file"
                " instead."
            )
        return Path(os.environ[_VARIABLE])
