"""`qverify verify`: a verdict for every sample; kept on disk, it can go on later.

    DIR/run.json         the question, and under "runs" when and how each start worked on it
    DIR/samples.jsonl    one object a sample, in the order of the decisions (formats.md, section 2); where a sample
                         was asked about again after its time was up, the last one counts
    DIR/witnesses/       INDEX.onnx and INDEX.npz, the failing member of each falsified sample, if asked for

A row is written whole and at once, so a run that is killed loses what it was working on and nothing else; at worst
the last line is torn, which `start` recognises and removes. `verified` is the whole of it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from qverify.console.output import say
from qverify.console.progress import Pace, Progress
from qverify.console.signals import stoppable
from qverify.errors import InternalError, ModelError, OutputError
from qverify.onnx import reader as onnx_io
from qverify.runs.folder import RUNS, Directory, Files, append, open_folder, writing
from qverify.runs.question import MAY_DIFFER, Question, widened
from qverify.runs.start import SolverUsed, Start
from qverify.runs.stored import ROWS, RUN, RowLines, record_faults
from qverify.text.brief import Brief
from qverify.verification.arguments import checked, usable_device
from qverify.verification.cascade import Cascade
from qverify.verification.row import Row, Status
from qverify.verification.tally import Tally

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.members import Witness
    from qverify.runs.problem import FamilyProblem
    from qverify.verification.verdict import Options, Verdict

WITNESSES = "witnesses"


class RunDirectory(Directory):
    """The directory of one run. `rows`: index -> row; `starts`: all that worked on it, this one included."""

    def __init__(self, path: Path, file: BinaryIO, starts: list[Start], rows: dict[int, Row]):
        super().__init__(path, {ROWS: file})
        self.starts, self.rows = starts, rows

    @staticmethod
    def start(path: str, question: Question, start: Start, resume: bool = False) -> RunDirectory:
        """Begin a run in `path`, or go on with the one there.

        `question` is what run.json must agree on before a run goes on, except that more samples and a longer time
        limit may be asked for; `start` is what may change from one start to the next. Raises UsageError if there is
        a run and `resume` is not set, or if it asked something else; DataError if its files are damaged; OutputError
        if the directory cannot be written or is in use.
        """
        files = Files(
            folder=Path(path),
            question=RUN,
            rows={ROWS: RowLines()},
            may_differ=MAY_DIFFER,
            faults=record_faults,
            changed=widened,
        )
        record, found = open_folder(files, question.to_json(), start.to_json(), resume)
        starts = list(map(Start.from_json, record[RUNS]))
        return RunDirectory(files.folder, found[ROWS][0], starts, found[ROWS][1])

    def add(self, row: Row) -> None:
        """Append one row. Raises OutputError; the rows before it are kept."""
        with writing(self.path / ROWS, self._kept()):
            append(self.files[ROWS], json.dumps(row.to_json(), allow_nan=False).encode() + b"\n")
        self.rows[row.index] = row

    def add_witness(self, index: int, x: Array, witness: Witness) -> None:
        """Write a failing member as a float64 ONNX model, and its input with the sample x (n_in,) as an .npz."""
        folder, shape = self.path / WITNESSES, witness.network.input_shape
        with writing(folder, self._kept()):
            folder.mkdir(exist_ok=True)
            np.savez(
                folder / f"{index}.npz",
                input=witness.input.reshape(shape),
                x=x.reshape(shape),
                label=witness.label,
                rival=witness.rival,
                margin=witness.margin,
            )
        try:
            onnx_io.save(witness.network.with_one_input(), folder / f"{index}.onnx", dtype="float64")
        except ModelError as error:
            raise OutputError(str(error)) from error

    def _kept(self) -> str:
        return f"{len(self.rows)} samples" if self.rows else ""


class VerifyWork:
    """The samples still to decide, and where their verdicts go.

    `tally` and `rows`, by index, are of all that is decided. `witnesses`: failing members are kept too.
    """

    def __init__(
        self, problem: FamilyProblem, options: Options, directory: RunDirectory | None = None, witnesses: bool = False
    ):
        self.problem, self.options, self.directory, self._witnesses = problem, options, directory, witnesses
        done = self.rows = self._done()
        self.tally = Tally.of(done.values())
        self.todo = [index for index in problem.indices if index not in done]
        if directory is not None and directory.rows:
            fitting = sum(map(self._fits, directory.rows.values()))
            if strange := len(directory.rows) - fitting:
                say(f"note: {strange} rows of {directory.path / ROWS} fit no sample asked for and do not count.")
            again = fitting - len(done)
            longer = f", {again} of them again, with a longer time limit" if again else ""
            say(f"{len(done)} samples are decided already; {len(self.todo)} are left{longer}.")

    @property
    def statuses(self) -> dict[int, str]:
        """The statuses of all that is decided, by index."""
        return {index: row.status.value for index, row in self.rows.items()}

    @property
    def missing(self) -> int:
        """The number of samples without a verdict."""
        return len(self.problem.indices) - self.tally.samples

    def _done(self) -> dict[int, Row]:
        """The rows that are there, fit, and need no more time."""
        rows = {} if self.directory is None else self.directory.rows
        return {index: row for index, row in rows.items() if self._fits(row) and row.settled(self.options.seconds)}

    def _fits(self, row: Row) -> bool:
        """Whether a row is about one of the samples, with the label that it has."""
        return row.label == self.problem.label(row.index)

    def verify(self) -> None:
        """Decide what is left to decide; ends early on Ctrl-C."""
        samples = self.problem.samples
        if not self.todo:
            return
        positions = [index - self.problem.indices.start for index in self.todo]
        pace = Pace(len(self.todo), self.options.method in ("auto", "exact"))
        x, y = checked(self.problem.network, samples.x[positions], samples.y[positions])
        with stoppable() as stop:
            cascade = Cascade(self.problem.network, self.problem.radii, self.options, stop)
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
                    self.rows = self._done()
                    self.tally = Tally.of(self.rows.values())

    def _take(self, verdict: Verdict) -> None:
        """Keep one verdict; its witness first, since a sample with a row is never looked at again."""
        row = verdict.row()
        if self.directory is not None:
            if self._witnesses and verdict.status is Status.FALSIFIED:
                witness = verdict.witness()
                assert witness is not None
                sample = self.problem.inputs()[verdict.index - self.problem.indices.start]
                self.directory.add_witness(verdict.index, sample, witness)
            self.directory.add(row)
        self.tally.add(row)
        self.rows[row.index] = row


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Verified(Brief):
    """The end of one start: what was done by then, the question, and all starts that worked on it."""

    work: VerifyWork
    question: Question
    starts: list[Start]


def verified(
    problem: FamilyProblem, *, out: str | None = None, resume: bool = False, witnesses: bool = False
) -> Verified:
    """Decide every sample of a problem, or as many as there were before Ctrl-C; kept in the folder `out`, if given.

    Raises what `RunDirectory.start` and `qverify.verify` raise.
    """
    options, given = problem.options(), problem.given
    usable_device(options.device)
    start = Start(started=Start.now(), solver=SolverUsed.of(options), jobs=options.workers, device=given.device)
    question = replace(problem.question(), witnesses=witnesses)
    with contextlib.ExitStack() as stack:
        directory = None
        if out is not None:
            asked = replace(question, places=problem.places(out))
            directory = stack.enter_context(RunDirectory.start(out, asked, start, resume))
        work = VerifyWork(problem, options, directory, witnesses)
        work.verify()
    return Verified(work=work, question=question, starts=[start] if directory is None else directory.starts)
