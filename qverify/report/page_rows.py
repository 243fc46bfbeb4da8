"""The rows of all cases packed for the page's script: columns instead of objects, and margins in few digits."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import TYPE_CHECKING, Any

from qverify.choices import STAGES
from qverify.text.escapes import printable
from qverify.verification.row import STATUSES, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qverify.runs.reading import StoredCase

DIGITS = 5
_DOWN, _UP = Context(prec=DIGITS, rounding=ROUND_FLOOR), Context(prec=DIGITS, rounding=ROUND_CEILING)


def packed(cases: Sequence[StoredCase], labels: Sequence[str]) -> str:
    """JSON that may stand inside a script element.

    Per case, under its label, a column a key; status, method and detail are positions in lists that all cases share.
    Margins are rounded outwards, so that what is shown is still proved; seconds become milliseconds.
    """
    details = ["", *sorted({remark(row) for case in cases for row in case.rows} - {""})]
    place = {detail: number for number, detail in enumerate(details)}
    found = {
        "statuses": STATUSES,
        "methods": STAGES,
        "details": details,
        "cases": [{"name": label} | _columns(case.rows, place) for case, label in zip(cases, labels, strict=True)],
    }
    text = json.dumps(found, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _columns(rows: Sequence[Row], details: Mapping[str, int]) -> dict[str, Any]:
    return {
        "index": [row.index for row in rows],
        "label": [row.label for row in rows],
        "predicted": [row.predicted for row in rows],
        "status": [STATUSES.index(row.status.value) for row in rows],
        "method": [STAGES.index(row.method) for row in rows],
        "detail": [details[remark(row)] for row in rows],
        "lower": [_rounded(row.margin_lower, _DOWN) for row in rows],
        "upper": [_rounded(row.margin_upper, _UP) for row in rows],
        "ms": [_short(1000 * row.seconds) for row in rows],
    }


def remark(row: Row) -> str:
    """The remark on a row beside its verdict: the scope of the exact step, and why it is unknown."""
    return printable("; ".join(part for part in (row.scope, row.detail) if part and part != "exact"))


def _rounded(margin: float | None, direction: Context) -> float | None:
    if margin is None:
        return None
    rounded = float(direction.create_decimal(margin))
    return rounded if math.isfinite(rounded) else margin  # the largest number there is, in all its digits


def _short(number: float) -> float:
    """A number rounded to three significant digits."""
    return float(f"{number:.3g}")
