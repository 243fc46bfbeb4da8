"""What may stand in the rows and questions that qverify keeps as JSON: the one place that says so.

Whoever reads them back, `verify --resume`, `batch`, `sweep`, `radius` or `report`, reads them through here, so that
nothing is counted that qverify would not have written. The columns of CSV files are checked where their rows are
defined (`sweeps.Row`, `grid.Bracket`, `layers.LayerRow`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from qverify.choices import (
    FORMULATIONS,
    KERNELS,
    KINDS,
    SOLVER_CHOICES,
    STAGES,
    VERIFY_METHODS,
    Batchnorm,
    Rounding,
    Scheme,
)
from qverify.files.strict_json import (
    Fits,
    ascending,
    at_least_0,
    every,
    faults,
    mapping,
    number,
    optional,
    parsed,
    positive,
    text,
    truth,
    whole,
    word,
    written,
)
from qverify.runs.folder import read_lines
from qverify.text.escapes import shown
from qverify.verification.verdict import Status

Row = dict[str, Any]

STATUSES = tuple(status.value for status in Status)
"""What can decide a sample, in the order of the cascade (cascade.py)."""

_DECIDED_BY = {
    "verified": ("ibp", "bp", "bp-layers", "exact"),
    "falsified": ("attack", "exact"),
    "unknown": STAGES,
    "misclassified": ("forward",),
}

_CROSSING = 1e-9
"""As in exact/decide.py: by how much, relative to its size, a margin attained may lie below the bound proved."""

# -- rows -----------------------------------------------------------------------------------------

_ROW: dict[str, Fits] = {
    "index": whole,
    "label": whole,
    "predicted": whole,
    "status": word(*STATUSES),
    "margin_lower": optional(number),
    "margin_upper": optional(number),
    "method": word(*STAGES),
    "seconds": lambda value: at_least_0(value) and value < 1e10,
}
_ROW_MORE: dict[str, Fits] = {
    "scope": word("exact", "independent positions"),
    "detail": text,
    "limit": positive,
}
"""What a row need not have."""


@dataclass(frozen=True)
class RowLines:
    """Rows as lines of JSON, a `folder.Reader`. `name`: the key of a row under which it is found; of several, the last
    counts. `texts`: more keys that hold text. `then`: how the remedy for a damaged line ends."""

    name: str = "index"
    texts: tuple[str, ...] = ()
    then: str = ", then use --resume"

    @property
    def header(self) -> bytes:
        return b""

    def read(self, path: Path, content: bytes) -> tuple[dict[Any, Row], int]:
        """The rows under their names, and up to which byte `content` is whole. Raises DataError."""
        rows, end = self.in_order(path, content)
        return {row[self.name]: row for row in rows}, end

    def in_order(self, path: Path, content: bytes) -> tuple[list[Row], int]:
        """The same with all rows as they come."""
        return read_lines(path, content, self._row, then=self.then)

    def _row(self, line: bytes) -> Row:
        row = parsed(line)
        if wrong := row_fault(row, self.texts):
            raise ValueError(wrong)
        return row


def row_fault(row: Row, texts: Iterable[str] = ()) -> str:
    """What is wrong with a row of samples.jsonl, in a few words; empty if nothing is.

    A row says what it rests on, and must not contradict it: a verified sample has a margin proved above 0, one that is
    falsified or misclassified a margin attained that is not.
    """
    table = _ROW | dict.fromkeys(texts, text)
    if missing := [key for key in table if key not in row]:
        return f"{missing[0]} is missing"
    if wrong := faults(row, table | _ROW_MORE):
        return f"{wrong[0]} is {written(row[wrong[0]])}"
    status, method = row["status"], row["method"]
    if method not in _DECIDED_BY[status]:
        return f"method is {written(method)}, which decides no sample to be {status}"
    if status != "misclassified" and row["predicted"] != row["label"]:
        return f"status is {written(status)}, but predicted is not the label"
    end, above = ("margin_lower", True) if status == "verified" else ("margin_upper", False)
    if status != "unknown" and (row[end] is None or (row[end] > 0) is not above):
        return f"status is {written(status)}, but {end} is {written(row[end])}"
    lower, upper = row["margin_lower"], row["margin_upper"]
    if lower is not None and upper is not None and lower > upper + _CROSSING * (1.0 + abs(upper)):
        return f"margin_lower is {written(lower)}, above margin_upper"
    return ""


# -- questions ------------------------------------------------------------------------------------

_ASKED: dict[str, Fits] = {
    "model": text,
    "data": text,
    "samples": ascending(whole),
    "input_scale": optional(positive),
    "method": word(*VERIFY_METHODS),
    "formulation": word(*FORMULATIONS),
    "tolerance": at_least_0,
    "clip_input": optional(ascending(number)),
    "timeout": optional(positive),
    "solver": word(*SOLVER_CHOICES),
    "format": whole,
    "semantics": whole,
    **dict.fromkeys(("qverify", "model_sha256", "network_sha256", "data_source", "data_sha256", "arrays_sha256"), text),
    **dict.fromkeys(("witnesses", "attack"), truth),
    "max_factor": positive,
    "precision": positive,
    "models": mapping(mapping(text)),
    "model_files": every(text),
}
_RADII: dict[str, Fits] = {
    "convention": text,
    "largest": mapping(at_least_0, *KINDS),
    "bits": whole,
    "scheme": word(*get_args(Scheme)),
    "rounding": word(*get_args(Rounding)),
    "kernel": word(*KERNELS),
    "batchnorm": word(*get_args(Batchnorm)),
    **dict.fromkeys(("calibration", "file", "sha256"), text),
}
_AXIS = _RADII | {"bits": every(whole), "values": every(at_least_0), "parts": every(text)}
"""The radii of a sweep."""
_START: dict[str, Fits] = {
    "started": text,
    "solver": optional(
        lambda value: mapping(text)(value) and not faults(value, {"name": text, "version": text}, ("name", "version"))
    ),
    "jobs": whole,
    "device": text,
    "cluster": text,
    "accuracy": optional(positive),
    "layer_method": optional(word(*VERIFY_METHODS)),
}

REPORTED = ("model", "data", "samples", "method", "formulation", "tolerance", "radii.convention", "radii.largest")
"""What a report reads of a question without asking whether it is there; and so it does `clip_input`, where null is."""


def question_faults(asked: Any, needed: Collection[str] = (), radii: Mapping[str, Fits] = _RADII) -> list[str]:
    """The keys of a question that are senseless, and those `needed` that are missing."""
    question: dict[str, Any] = asked if isinstance(asked, dict) else {}
    stated = question.get("radii", {})
    wrong = faults(question, _ASKED, needed)
    wrong += [f"radii.{key}" for key in faults(stated, radii, [name.removeprefix("radii.") for name in needed])]
    return wrong if isinstance(stated, dict) or len(wrong) else ["radii"]


def record_faults(
    record: dict[str, Any], needed: Collection[str] = (), radii: Mapping[str, Fits] = _RADII
) -> list[str]:
    """The same of a question with the starts that worked on it: run.json, radius.json."""
    runs = record.get("runs")
    starts = isinstance(runs, list) and all(isinstance(one, dict) and not faults(one, _START) for one in runs)
    return question_faults(record, needed, radii) + ["runs"] * (not starts)


def sweep_faults(record: dict[str, Any]) -> list[str]:
    """The same of sweep.json."""
    return record_faults(record, (), _AXIS)


def batch_faults(record: dict[str, Any]) -> list[str]:
    """The same of batch.json: many questions, by the names of their cases."""
    cases = record.get("cases")
    if not isinstance(cases, dict):
        return [*record_faults(record), "cases"]
    wrong = record_faults(record)
    for name, asked in cases.items():
        own = question_faults(asked) if isinstance(asked, dict) else ["all"]
        wrong += [f"{key} of case {shown(name, 40)}" for key in own]
    return wrong


def solvers(starts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The solvers of all starts with their versions, each once."""
    found = [start["solver"] for start in starts if start.get("solver")]
    return list(dict.fromkeys(f"{solver['name']} {solver['version']}" for solver in found))
