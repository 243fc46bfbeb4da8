"""Runs read back for reports: what `qverify verify --out` and `qverify batch` left on disk, as cases.

A case is one question and its rows. A directory of `verify` holds one (run.json), one of `batch` holds many
(batch.json, whose rows name their case). Nothing is written, so a run under way can be reported on too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from qverify.errors import DataError, UsageError
from qverify.escapes import printable
from qverify.file_names import file_name, short_names, without_folders
from qverify.places import PLACES
from qverify.records import settled
from qverify.report import STATUSES
from qverify.verdict import SEMANTICS

RUN, BATCH, ROWS = "run.json", "batch.json", "samples.jsonl"


@dataclass(frozen=True, eq=False)
class Run:
    """A directory; `starts` say when and with which solver each start worked on it."""

    folder: Path
    name: str
    starts: list[dict[str, Any]]

    @property
    def solvers(self) -> list[str]:
        """The solvers of all starts with their versions, each once."""
        found = [start["solver"] for start in self.starts if isinstance(start.get("solver"), dict)]
        return list(dict.fromkeys(printable(f"{s.get('name')} {s.get('version')}") for s in found))


@dataclass(frozen=True, eq=False)
class Case:
    """`name` is that in the batch, else empty; `title` is for people. One row an index, in the order of the indices."""

    run: Run
    name: str
    title: str
    question: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        return printable(PurePath(file_name(self.question["model"])).stem)

    @property
    def data(self) -> str:
        return printable(file_name(self.question["data"]))

    @property
    def bits(self) -> int | None:
        bits = self.question["radii"].get("bits")
        return bits if _whole(bits) else None

    @property
    def radii(self) -> str:
        """The radii in a word: the bits, or else the convention."""
        return self.bare(self.question["radii"]["convention"]) if self.bits is None else f"{self.bits} bits"

    def bare(self, text: str) -> str:
        """`text` for people: printable, and without the folders that files of this run lie in."""
        asked, places = self.question, self.question.get(PLACES)
        paths = [asked["model"], asked["data"], asked.get("data_source"), asked["radii"].get("file")]
        for place in places.values() if isinstance(places, dict) else []:
            paths += place.values() if isinstance(place, dict) else []
        known = [path for path in (*paths, str(self.run.folder), str(self.run.folder.resolve())) if _text(path)]
        return printable(without_folders(text, known))

    @property
    def convention(self) -> str:
        """What the bits mean; empty for radii from a file."""
        stated = self.question["radii"]
        scheme = f"scheme {stated.get('scheme')}, rounding {stated.get('rounding')}" if self.bits is not None else ""
        clip = self.question.get("clip_input")
        clipped = f"inputs within {clip[0]:g} to {clip[1]:g}" if clip else ""
        return printable(", ".join(part for part in (scheme, clipped) if part))

    @property
    def method(self) -> str:
        return printable(self.question["method"])


def read_runs(paths: Sequence[str]) -> list[Case]:
    """The cases of all directories. Raises DataError if one is missing or damaged, UsageError if one is given twice."""
    folders = [Path(path) for path in paths]
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UsageError(f"The run {printable(str(folder))} is given twice; give each once.")
    names = short_names([str(place) for place in resolved])
    return [case for folder, name in zip(folders, names, strict=True) for case in _cases(folder, printable(name))]


def _cases(folder: Path, name: str) -> list[Case]:
    """The cases of one directory, which is called `name` in the report."""
    shown = printable(str(folder))
    found = [name for name in (BATCH, RUN) if (folder / name).exists()]
    if not found:
        raise DataError(
            f"{shown} holds neither {RUN} nor {BATCH}; name a directory that `qverify verify --out` or"
            " `qverify batch` wrote."
        )
    record = _record(folder / found[0])
    run = Run(folder, name, [start for start in record["runs"] if isinstance(start, dict)])
    rows, notes = _rows(folder / ROWS)
    if found[0] == RUN:
        question = {key: value for key, value in record.items() if key != "runs"}
        return [_case(run, "", _question(question, str(folder / RUN)), rows, notes)]
    asked = record.get("cases")
    if not isinstance(asked, dict) or not asked:
        raise DataError(f"{shown}/{BATCH} lists no cases; run the batch again into another directory.")
    own: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    strangers: list[dict[str, Any]] = []
    for row in rows:
        case = row.get("case")
        (own[case] if isinstance(case, str) and case in own else strangers).append(row)
    if strangers:
        notes.append(f"{len(strangers)} rows belong to no case of {BATCH} and are left out.")
    return [
        _case(run, case, _question(asked[case], f"{folder / BATCH}, case {case}"), own[case], notes) for case in asked
    ]


def _case(run: Run, name: str, question: dict[str, Any], rows: list[dict[str, Any]], notes: list[str]) -> Case:
    """One case; `notes` are those on the whole run."""
    title = f"{run.name}: {printable(name)}" if name else run.name
    start, stop = question["samples"]
    asked = [row for row in rows if start <= row["index"] < stop]
    latest = {row["index"]: row for row in asked}  # a sample decided again counts as it was decided last
    said = [f"{run.name}: {note}" for note in notes]
    if len(asked) < len(rows):
        said.append(f"{title}: {len(rows) - len(asked)} rows outside the samples {start}:{stop} are left out.")
    if len(latest) < len(asked):
        said.append(f"{title}: {len(asked) - len(latest)} rows were replaced by later ones of the same sample.")
    seconds = question.get("timeout")
    short = sum(not settled(row, seconds) for row in latest.values()) if seconds is None or _number(seconds) else 0
    if short:
        said.append(f"{title}: {short} samples have had less time than the {_limit(seconds)} asked for.")
    if latest and question.get("semantics") != SEMANTICS:
        other = "decided by another version of qverify, whose verdicts may mean something else; run it again"
        said.append(f"{title}: {other}.")
    if len(latest) < stop - start:
        said.append(f"{title}: {len(latest)} of {stop - start} samples are decided; accuracies refer to these.")
    return Case(run, name, title, question, [latest[index] for index in sorted(latest)], tuple(said))


def _limit(seconds: float | None) -> str:
    return "unlimited time" if seconds is None else f"{seconds:g} s"


# -- what is asked --------------------------------------------------------------------------------


def _record(path: Path) -> dict[str, Any]:
    """The JSON object of run.json or batch.json. Raises DataError."""
    try:
        record = json.loads(path.read_bytes(), parse_constant=_refused)
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list):
        raise DataError(f"{printable(str(path))} is damaged, so its rows cannot be reported; run it again.")
    return record


def _question(asked: Any, where: str) -> dict[str, Any]:
    """`asked`, if it has what reports need; DataError otherwise."""
    question: dict[str, Any] = asked if isinstance(asked, dict) else {}
    stated = question.get("radii")
    radii: dict[str, Any] = stated if isinstance(stated, dict) else {}
    wrong = [key for key, fits in _ASKED.items() if not fits(question.get(key))]
    wrong += [f"radii.{key}" for key, fits in _RADII.items() if not fits(radii.get(key))]
    if wrong:
        raise DataError(f"{printable(where)} is damaged ({', '.join(wrong)} missing or senseless); run it again.")
    return question


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _pair(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(fits, value)) and value[0] < value[1]


_ASKED: dict[str, Callable[[Any], bool]] = {
    "model": _text,
    "data": _text,
    "samples": lambda value: _pair(value, _whole),
    "method": _text,
    "formulation": _text,
    "tolerance": _number,
    "clip_input": lambda value: value is None or _pair(value, _number),
}
_RADII: dict[str, Callable[[Any], bool]] = {
    "convention": _text,
    "largest": lambda value: isinstance(value, dict) and all(map(_number, value.values())),
}
"""What a report reads of a question without asking whether it is there."""


# -- rows -----------------------------------------------------------------------------------------


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows in the order of the file, and notes; a torn last line is left out. Raises DataError."""
    shown = printable(str(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], [f"{ROWS} is missing; no sample is decided."]
    except OSError as error:
        raise DataError(f"{shown} cannot be read ({error.strerror}); check its permissions.") from error
    lines = content.split(b"\n")
    torn = lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is None:
            raise DataError(f"Line {number} of {shown} is damaged; delete that line, and --resume decides it again.")
        rows.append(row)
    return rows, [f"The last line of {ROWS} is torn and left out."] if torn.strip() else []


def _row(line: bytes) -> dict[str, Any] | None:
    """One row; None if it is not a whole one."""
    try:
        row = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(fits(row.get(key)) for key, fits in _ROW.items()):
        return None
    return row


def _margin(value: Any) -> bool:
    return value is None or _number(value)


_ROW: dict[str, Callable[[Any], bool]] = {
    "index": _whole,
    "label": _whole,
    "predicted": _whole,
    "status": lambda value: value in STATUSES,
    "margin_lower": _margin,
    "margin_upper": _margin,
    "method": _text,
    "seconds": lambda value: _number(value) and value >= 0,
    "limit": lambda value: value is None or _number(value),
}


def _refused(constant: str) -> Any:
    """NaN and Infinity are no JSON."""
    raise ValueError(constant)
