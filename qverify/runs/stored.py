"""The files of runs as they are read back: rows of samples line by line, and questions with their starts.

Whoever reads them, `verify --resume`, `batch`, `sweep`, `radius` or `report`, reads them through here, so that nothing
is counted that qverify would not have written. What may stand in a row says `row.py`, in a question `question.py`, in a
start `start.py`; the columns of CSV files are checked where their rows are defined (`sweeps.SweepRow`, `grid.Bracket`,
`layers.LayerRow`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qverify.files.strict_json import Fits, parsed
from qverify.runs.folder import RUNS, read_lines
from qverify.runs.question import AXIS, RADII, question_faults
from qverify.runs.start import is_start
from qverify.text.escapes import shown
from qverify.text.shortened import VALUE
from qverify.verification.row import Row

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

RUN, BATCH, ROWS = "run.json", "batch.json", "samples.jsonl"
"""The files of a question, of many, and of the rows of samples."""
CASES = "cases"
"""The key of batch.json under which its questions are."""


@dataclass(frozen=True)
class RowLines:
    """Rows as lines of JSON, a `folder.Reader`.

    `name`: the field of a row under which it is found; of several, the last counts. `texts`: more keys that hold text.
    `then`: how the remedy for a damaged line ends.
    """

    name: Literal["index", "key"] = "index"
    texts: tuple[str, ...] = ()
    then: str = ", then use --resume"

    @property
    def header(self) -> bytes:
        """The bytes that the file begins with: none."""
        return b""

    def read(self, path: Path, content: bytes) -> tuple[dict[Any, Row], int]:
        """The rows under their names, and up to which byte `content` is whole. Raises DataError."""
        rows, end = self.in_order(path, content)
        return {getattr(row, self.name): row for row in rows}, end

    def in_order(self, path: Path, content: bytes) -> tuple[list[Row], int]:
        """All rows in the order of the file, and up to which byte `content` is whole. Raises DataError."""
        return read_lines(path, content, self._row, then=self.then)

    def _row(self, line: bytes) -> Row:
        return Row.from_json(parsed(line), self.texts)


def record_faults(record: dict[str, Any], needed: Collection[str] = (), radii: Mapping[str, Fits] = RADII) -> list[str]:
    """The keys that are senseless, or missing though `needed`, of a question with the starts that worked on it."""
    starts = record.get(RUNS)
    sound = isinstance(starts, list) and all(map(is_start, starts))
    return question_faults(record, needed, radii) + [RUNS] * (not sound)


def sweep_faults(record: dict[str, Any]) -> list[str]:
    """The keys of sweep.json that are senseless, or missing."""
    return record_faults(record, (), AXIS)


def batch_faults(record: dict[str, Any]) -> list[str]:
    """The keys of batch.json that are senseless, or missing: many questions, by the names of their cases."""
    cases = record.get(CASES)
    if not isinstance(cases, dict):
        return [*record_faults(record), CASES]
    wrong = record_faults(record)
    for name, asked in cases.items():
        own = question_faults(asked) if isinstance(asked, dict) else ["all"]
        wrong += [f"{key} of case {shown(name, VALUE)}" for key in own]
    return wrong
