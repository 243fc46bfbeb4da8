"""Runs read back for reports: what `qverify verify --out` and `qverify batch` left on disk, as cases.

A case is one question and its rows. A directory of `verify` holds one (run.json), one of `batch` holds many
(batch.json, whose rows name their case). Nothing is written, so a run under way can be reported on too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from qverify.choices import KINDS, QUANTISER
from qverify.errors import DataError, UsageError
from qverify.files.names import file_name, short_names, without_folders
from qverify.runs.folder import RUNS, read_record
from qverify.runs.question import REPORTED, Question
from qverify.runs.start import Start, used_solvers
from qverify.runs.stored import BATCH, CASES, ROWS, RUN, RowLines, batch_faults, record_faults
from qverify.text.brief import Brief
from qverify.text.escapes import printable
from qverify.verification.verdict import SEMANTICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.verification.row import Row


@dataclass(frozen=True, eq=False, repr=False)
class StoredRun(Brief):
    """A directory; `starts` say when and with which solver each start worked on it."""

    folder: Path
    name: str
    starts: list[Start]

    @property
    def solvers(self) -> list[str]:
        """The solvers of all starts with their versions, each once."""
        return list(map(printable, used_solvers(self.starts)))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StoredCase(Brief):
    """`name` is that in the batch, else empty; `title` is for people. One row an index, in the order of the indices.

    `parts`: the cases that were added up to this one (merging.py); none for a case of one run.
    """

    run: StoredRun
    name: str
    title: str
    question: Question
    rows: list[Row]
    notes: tuple[str, ...] = ()
    parts: tuple[StoredCase, ...] = ()

    @property
    def sources(self) -> tuple[StoredCase, ...]:
        """The cases of single runs that this one is made of; itself if it is one."""
        return self.parts or (self,)

    @property
    def asked(self) -> int:
        """How many samples were asked about."""
        start, stop = self.question.samples
        return stop - start

    def source(self, index: int) -> StoredCase:
        """The case of a single run that has the row of a sample."""
        return self._source.get(index, self)

    @cached_property
    def _source(self) -> dict[int, StoredCase]:
        return {row.index: case for case in reversed(self.parts) for row in case.rows}

    @property
    def model(self) -> str:
        """The model's file name without its ending, printable."""
        return printable(PurePath(file_name(self.question.model)).stem)

    @property
    def data(self) -> str:
        """The name of the data set or of its file, printable."""
        return printable(file_name(self.question.data))

    @property
    def bits(self) -> int | None:
        """The bit-width; None for radii from a file."""
        bits = self.question.radii.bits
        return bits if isinstance(bits, int) else None

    @property
    def radii(self) -> str:
        """The radii in a word: the bits, and those of single kinds where they are others; or else the convention."""
        stated = self.question.radii
        if self.bits is None:
            return self.bare(stated.convention)
        own = {kind: value for kind in KINDS if (value := getattr(stated, f"{kind}_bits")) is not None}
        if own.keys() == {"weight", "activation"}:
            return f"W{own['weight']}A{own['activation']} bits"
        return ", ".join([f"{self.bits} bits", *(f"{kind} {value}" for kind, value in own.items())])

    def bare(self, text: str) -> str:
        """`text` for people: printable, and without the folders that files of this run lie in."""
        paths: list[Any] = []
        for asked, folder in ((case.question, case.run.folder) for case in self.sources):
            paths += [asked.model, asked.data, asked.data_source, asked.radii.file]
            for place in (asked.places or {}).values():
                paths += place.values() if isinstance(place, dict) else []
            paths += [str(folder), str(folder.resolve())]
        return printable(without_folders(text, [path for path in paths if isinstance(path, str)]))

    @property
    def convention(self) -> str:
        """The convention of the bits; empty for radii from a file."""
        stated, clip = self.question.radii, self.question.clip_input
        said = {name: getattr(stated, name) for name in QUANTISER if not name.endswith("_bits")}
        words = [f"{name} {value}" for name, value in said.items() if value is not None and self.bits is not None]
        words += [f"inputs within {clip[0]:g} to {clip[1]:g}"] if clip else []
        wanted = self.question.wanted
        words += [f"property: {wanted.get('words', 'not recorded')}"] if wanted is not None else []
        return printable(", ".join(words))

    @property
    def method(self) -> str:
        """The method, printable."""
        return printable(self.question.method)


def read_runs(paths: Sequence[str]) -> list[StoredCase]:
    """The cases of all directories. Raises DataError if one is missing or damaged, UsageError if one is given twice."""
    folders = [Path(path) for path in paths]
    resolved = [Path(os.path.realpath(folder)) for folder in folders]  # as `resolve`, but links may go in a circle
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UsageError(f"The run {printable(str(folder))} is given twice; give each once.")
    names = short_names([str(place) for place in resolved])
    return [case for folder, name in zip(folders, names, strict=True) for case in _cases(folder, printable(name))]


def fresh_case(question: Question, starts: list[Start], rows: Sequence[Row], name: str = "") -> StoredCase:
    """The case of a run that has just ended, as it would be read back; it need not lie on disk."""
    return _case(StoredRun(Path(), name or "this run", starts), name, question, list(rows), [])


def _cases(folder: Path, name: str) -> list[StoredCase]:
    """The cases of one directory, which is called `name` in the report."""
    shown = printable(str(folder))
    found = [name for name in (BATCH, RUN) if (folder / name).exists()]
    if not found:
        raise DataError(
            f"{shown} holds neither {RUN} nor {BATCH}; name a directory that `qverify verify --out` or"
            " `qverify batch` wrote."
        )
    record = _record(folder / found[0])
    run = StoredRun(folder, name, list(map(Start.from_json, record.pop(RUNS))))
    rows, notes = _rows(folder / ROWS)
    if found[0] == RUN:
        return [_case(run, "", Question.from_json(record), rows, notes)]
    asked = record[CASES]
    if not asked:
        raise DataError(f"{shown}/{BATCH} lists no cases; run the batch again into another directory.")
    own: dict[str, list[Row]] = {case: [] for case in asked}
    strangers: list[Row] = []
    for row in rows:
        own.get(row.case, strangers).append(row)
    if strangers:
        notes.append(f"{len(strangers)} rows belong to no case of {BATCH} and are left out.")
    return [
        _case(run, case, _question(asked[case], f"{folder / BATCH}, case {case}"), own[case], notes) for case in asked
    ]


def _case(run: StoredRun, name: str, question: Question, rows: list[Row], notes: list[str]) -> StoredCase:
    """Make one case; `notes` are those on the whole run."""
    title = f"{run.name}: {printable(name)}" if name else run.name
    start, stop = question.samples
    asked = [row for row in rows if start <= row.index < stop]
    latest = {row.index: row for row in asked}  # a sample decided again counts as it was decided last
    said = [f"{run.name}: {note}" for note in notes]
    if len(asked) < len(rows):
        said.append(f"{title}: {len(rows) - len(asked)} rows outside the samples {start}:{stop} are left out.")
    if len(latest) < len(asked):
        said.append(f"{title}: {len(asked) - len(latest)} rows were replaced by later ones of the same sample.")
    seconds = question.timeout
    short = sum(not row.settled(seconds) for row in latest.values())
    if short:
        said.append(f"{title}: {short} samples have had less time than the {_limit(seconds)} asked for.")
    if latest and question.semantics != SEMANTICS:
        other = "decided by another version of qverify, whose verdicts may mean something else; run it again"
        said.append(f"{title}: {other}.")
    said += not_all(title, len(latest), stop - start)
    return StoredCase(
        run=run,
        name=name,
        title=title,
        question=question,
        rows=[latest[index] for index in sorted(latest)],
        notes=tuple(said),
    )


def not_all(title: str, decided: int, asked: int) -> list[str]:
    """The note on a case of which not all samples are decided."""
    return [f"{title}: {decided} of {asked} samples are decided; accuracies refer to these."] * (decided < asked)


def _limit(seconds: float | None) -> str:
    return "unlimited time" if seconds is None else f"{seconds:g} s"


# -- what is read ---------------------------------------------------------------------------------


def _record(path: Path) -> dict[str, Any]:
    """The JSON object of run.json or batch.json. Raises DataError."""
    try:
        if path.name == BATCH:
            return read_record(path, batch_faults)
        return read_record(path, lambda record: record_faults(record, REPORTED))
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:
        raise DataError(
            f"{printable(str(path))} is damaged, so its rows cannot be reported; run it again ({error})."
        ) from None


def _question(asked: Any, where: str) -> Question:
    """The question of a case, if it has what reports need; DataError otherwise."""
    try:
        return Question.from_json(asked)
    except ValueError as error:
        raise DataError(f"{printable(where)} is damaged ({error}); run it again.") from None


def _rows(path: Path) -> tuple[list[Row], list[str]]:
    """The rows in the order of the file, and notes; a torn last line is left out. Raises DataError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], [f"{ROWS} is missing; no sample is decided."]
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions.") from error
    rows, end = RowLines(then=", and --resume decides it again").in_order(path, content)
    return rows, [f"The last line of {ROWS} is torn and left out."] if content[end:].strip() else []
