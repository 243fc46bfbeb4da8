"""`qverify verify`: a verdict for every sample, kept on disk if asked, and the accuracies over all of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qverify.arrays import Array
from qverify.cli.options import Given
from qverify.console.output import say, show, show_json, stdout_kept_clean
from qverify.console.progress import Pace, Progress, duration
from qverify.console.signals import INTERRUPTED, stoppable
from qverify.errors import InternalError, UsageError
from qverify.report.numbers import Tally, accuracy_table, footer, stage_table
from qverify.runs.folder import settled
from qverify.runs.problem import Problem, chosen_solver, required_radii, started
from qverify.runs.stored import solvers
from qverify.runs.verify import ROWS, RunDirectory
from qverify.text.shortened import listed
from qverify.verification.arguments import checked, usable_device
from qverify.verification.cascade import Cascade
from qverify.verification.verdict import Options, Status, Verdict

_FAILED = 1


def run(given: Given) -> int:
    """The whole command; returns the exit status."""
    if (given.resume or given.witnesses) and given.out is None:
        raise UsageError("--resume and --witnesses need a directory; give --out DIR too.")
    required_radii(given)
    began = time.perf_counter()
    with stdout_kept_clean():
        problem = Problem.load(given)
        options = problem.options()
        usable_device(options.device)
        session = {
            "started": started(),
            "solver": chosen_solver(options),
            "jobs": options.workers,
            "device": given.device,
        }
        question = problem.question() | {"witnesses": given.witnesses}
        with contextlib.ExitStack() as stack:
            directory = None
            if given.out is not None:
                asked = question | problem.places(given.out)
                directory = stack.enter_context(RunDirectory.start(given.out, asked, session, given.resume))
            work = VerifyWork(problem, options, directory)
            work.verify()
    runs = [session] if directory is None else directory.record["runs"]
    _report(work, question, runs, time.perf_counter() - began)
    if work.missing:
        where = (
            f"kept in {given.out}; go on with the same command and --resume" if directory else "lost; --out keeps them"
        )
        say(f"interrupted: {work.tally.samples} of {len(problem.indices)} samples are decided and {where}.")
        return INTERRUPTED
    if any(work.tally.statuses[status] for status in given.fail_on):
        say(_failure(given.fail_on, work.statuses))
        return _FAILED
    return 0


def _failure(asked: Sequence[str], statuses: dict[int, str]) -> str:
    """Which samples made --fail-on end the run with status 1; `statuses` by their indices."""
    hit: list[str] = []
    for status in dict.fromkeys(asked):
        if indices := sorted(index for index, found in statuses.items() if found == status):
            of = "" if hit else f" of {len(statuses)} samples"
            verb = "is" if len(indices) == 1 else "are"
            hit.append(f"{len(indices)}{of} {verb} {status} ({listed(list(map(str, indices)))})")
    return f"--fail-on {','.join(asked)}: {', '.join(hit)}."


class VerifyWork:
    """The samples still to decide, and where their verdicts go."""

    def __init__(self, problem: Problem, options: Options, directory: RunDirectory | None):
        self.problem, self.options, self.directory = problem, options, directory
        done = self._done()
        self.tally = Tally.of(done.values())
        self.statuses = {index: row["status"] for index, row in done.items()}
        self.todo = [index for index in problem.indices if index not in done]
        if directory is not None and directory.rows:
            fitting = sum(map(self._fits, directory.rows.values()))
            if strange := len(directory.rows) - fitting:
                say(f"note: {strange} rows of {directory.path / ROWS} fit no sample asked for and do not count.")
            again = fitting - len(done)
            longer = f", {again} of them again, with a longer time limit" if again else ""
            say(f"{len(done)} samples are decided already; {len(self.todo)} are left{longer}.")

    @property
    def missing(self) -> int:
        """How many samples have no verdict."""
        return len(self.problem.indices) - self.tally.samples

    def _done(self) -> dict[int, dict[str, Any]]:
        """The rows that are there, fit, and need no more time."""
        rows = {} if self.directory is None else self.directory.rows
        return {index: row for index, row in rows.items() if self._fits(row) and settled(row, self.options.seconds)}

    def _fits(self, row: dict[str, Any]) -> bool:
        """Whether a row is about one of the samples, with the label that it has."""
        index, indices, samples = row["index"], self.problem.indices, self.problem.samples
        return samples is not None and index in indices and row["label"] == samples.y[index - indices.start]

    def verify(self) -> None:
        """Decide what is left to decide; ends early on Ctrl-C."""
        samples, radii = self.problem.samples, self.problem.radii
        if not self.todo or samples is None or radii is None:
            return
        positions = [index - self.problem.indices.start for index in self.todo]
        pace = Pace(len(self.todo), self.options.method in ("auto", "exact"))
        x, y = checked(self.problem.network, samples.x[positions], samples.y[positions])
        with stoppable() as stop:
            cascade = Cascade(self.problem.network, radii, self.options, stop)
            self._decide(cascade, (x, y), pace)
        if self.missing and not stop.is_set():
            raise InternalError(f"{self.missing} samples were passed over without a verdict.")

    def _decide(self, cascade: Cascade, samples: tuple[Array, Array], pace: Pace) -> None:
        """Take the samples (x, y) of `todo` through the cascade."""
        with Progress(pace, lambda: [*self.tally.lines(), *filter(None, [cascade.where])]) as progress:

            def tell(verdict: Verdict) -> None:
                self._take(replace(verdict, index=self.todo[verdict.index]))
                progress.add(verdict.index, verdict.method == "exact")

            try:
                cascade.run(*samples, tell)
            except KeyboardInterrupt:  # the second Ctrl-C, perhaps between a row and its count
                cascade.stop.set()
                if self.directory is not None:
                    done = self._done()
                    self.tally = Tally.of(done.values())
                    self.statuses = {index: row["status"] for index, row in done.items()}

    def _take(self, verdict: Verdict) -> None:
        """Keep one verdict; its witness first, since a sample with a row is never looked at again."""
        row = verdict.row()
        if self.directory is not None:
            if self.problem.given.witnesses and verdict.status is Status.FALSIFIED:
                witness = verdict.witness()
                assert witness is not None
                sample = self.problem.inputs()[verdict.index - self.problem.indices.start]
                self.directory.add_witness(verdict.index, sample, witness)
            self.directory.add(row)
        self.tally.add(row)
        self.statuses[row["index"]] = row["status"]


def _report(work: VerifyWork, question: dict[str, Any], runs: list[dict[str, Any]], seconds: float) -> None:
    """The result on stdout, over all rows, those of earlier starts included."""
    tally, problem = work.tally, work.problem
    used = solvers(runs)
    if problem.given.as_json:
        result = tally.as_dict() | {"seconds": round(seconds, 3), "interrupted": bool(work.missing)}
        asked = {key: value for key, value in question.items() if key != "samples"}
        asked |= {"sample_range": question["samples"], "convention": question["radii"]["convention"]}
        show_json(result | asked | {"solver": ", ".join(used) or None, "runs": runs})
        return
    decided = f"{tally.samples} samples in {duration(seconds)}"
    if work.missing:
        decided += f", interrupted: {work.missing} are not decided"
    show(f"{problem.title}: {decided}", "", accuracy_table(tally), "", stage_table(tally), "")
    if work.missing and tally.samples:
        show("Shares of what is decided so far; hard samples come last, so those of all samples will be others.")
    show(*footer(tally, question, used))
    if tally.limited:
        how = "the same command with a larger one" + (" and --resume" if work.directory is not None else "")
        show(f"{tally.limited} samples ran into the time limit; {how} asks about these again.")
    if work.directory is not None:
        show(f"Kept in {work.directory.path}: run.json says what was asked, samples.jsonl has a line a sample.")
