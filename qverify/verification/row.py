"""The row of a sample, as `samples.jsonl` keeps it: one typed object, with what may stand in its fields beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from qverify.choices import FALSIFYING, PROVING, STAGES
from qverify.files.strict_json import Fits, at_least_0, faults, number, optional, positive, text, whole, word, written

if TYPE_CHECKING:
    from collections.abc import Iterable

_CROSSING = 1e-9
"""As in exact/decide.py: by how much, relative to its size, a margin attained may lie below the bound proved."""


class Status(str, Enum):
    """The four answers (mathematics.md, section 1)."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    MISCLASSIFIED = "misclassified"


STATUSES = tuple(status.value for status in Status)
"""The answers as rows name them, in the order in which tables have them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The answer for one sample (formats.md, section 2); a margin that has no bound is None.

    `index` is that in the data set; `method` the stage that decided; `seconds` the sample's share of work on many and
    its own exact step; `scope`, `detail` and `grid` are empty, `limit` is None, where there is nothing to say. `grid`:
    whether the numbers of the failing member lie `on` the grid of a quantiser, or `off` it, as those of a family may.
    `case` and `key` are of rows of a batch.
    """

    index: int
    label: int
    predicted: int
    status: Status
    margin_lower: float | None
    margin_upper: float | None
    method: str
    seconds: float
    scope: str = ""
    detail: str = ""
    limit: float | None = None
    grid: str = ""
    case: str = ""
    key: str = ""

    def settled(self, seconds: float | None) -> bool:
        """Whether this is the answer also with a time limit of `seconds`, None for none: no shorter one ended it."""
        return self.limit is None or (seconds is not None and seconds <= self.limit)

    def to_json(self) -> dict[str, Any]:
        """The object of a line; what there is nothing to say of is left out."""
        found = {name: getattr(self, name) for name in _FIELDS} | {"status": self.status.value}
        return found | {name: value for name in _MORE if (value := getattr(self, name))}

    @staticmethod
    def from_json(line: dict[str, Any], texts: Iterable[str] = ()) -> Row:
        """The row that a line holds. `texts`: more keys that it must have, as text.

        Raises ValueError, which says in a few words what is wrong.
        """
        if wrong := row_fault(line, texts):
            raise ValueError(wrong)
        own = {name: line[name] for name in _FIELDS} | {"status": Status(line["status"])}
        more = {name: line[name] for name in _FIELDS_MORE if name in line}
        batch = {name: line[name] for name in _BATCH if isinstance(line.get(name), str)}
        return Row(**own, **more, **batch)


# -- what may stand in a line ---------------------------------------------------------------------

_DECIDED_BY = {
    Status.VERIFIED.value: (*PROVING, "exact"),
    Status.FALSIFIED.value: FALSIFYING,
    Status.UNKNOWN.value: STAGES,
    Status.MISCLASSIFIED.value: ("forward",),
}
_FIELDS: dict[str, Fits] = {
    "index": whole,
    "label": whole,
    "predicted": whole,
    "status": word(*STATUSES),
    "margin_lower": optional(number),
    "margin_upper": optional(number),
    "method": word(*STAGES),
    "seconds": lambda value: at_least_0(value) and value < 1e10,
}
_FIELDS_MORE: dict[str, Fits] = {
    "scope": word("exact", "independent positions", "relaxed products"),
    "detail": text,
    "limit": positive,
    "grid": word("on", "off"),
}
"""What a line need not have."""
_BATCH = ("case", "key")
_MORE = (*_FIELDS_MORE, *_BATCH)


def row_fault(line: dict[str, Any], texts: Iterable[str] = ()) -> str:
    """The fault of a line of samples.jsonl, in a few words; empty if it has none.

    A row says what it rests on, and must not contradict it: a verified sample has a margin proved above 0, one that is
    falsified or misclassified a margin attained that is not.
    """
    table = _FIELDS | dict.fromkeys(texts, text)
    if missing := [key for key in table if key not in line]:
        return f"{missing[0]} is missing"
    if wrong := faults(line, table | _FIELDS_MORE):
        return f"{wrong[0]} is {written(line[wrong[0]])}"
    status, method = line["status"], line["method"]
    if method not in _DECIDED_BY[status]:
        return f"method is {written(method)}, which decides no sample to be {status}"
    if status != "misclassified" and line["predicted"] != line["label"]:
        return f"status is {written(status)}, but predicted is not the label"
    end, above = ("margin_lower", True) if status == "verified" else ("margin_upper", False)
    if status != "unknown" and (line[end] is None or (line[end] > 0) is not above):
        return f"status is {written(status)}, but {end} is {written(line[end])}"
    lower, upper = line["margin_lower"], line["margin_upper"]
    if lower is not None and upper is not None and lower > upper + _CROSSING * (1.0 + abs(upper)):
        return f"margin_lower is {written(lower)}, above margin_upper"
    return ""
