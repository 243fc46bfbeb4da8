"""Options that are refused, and the row that a verdict becomes."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from qverify.errors import UsageError
from qverify.verification.verdict import Options, Status, Verdict


def verdict(**more: Any) -> Verdict:
    known = {"index": 3, "label": 1, "predicted": 2, "status": Status.UNKNOWN, "margin_lower": -1.5}
    return Verdict(**{**known, "margin_upper": 0.25, "method": "bp", "seconds": 1.23456789, **more})


def test_a_row_is_json_with_its_keys_in_order() -> None:
    row = verdict().row().to_json()
    assert (
        json.loads(json.dumps(row, allow_nan=False))
        == row
        == {
            "index": 3,
            "label": 1,
            "predicted": 2,
            "status": "unknown",
            "margin_lower": -1.5,
            "margin_upper": 0.25,
            "method": "bp",
            "seconds": 1.234568,
        }
    )
    assert list(row) == ["index", "label", "predicted", "status", "margin_lower", "margin_upper", "method", "seconds"]


def test_margins_without_a_bound_are_null_and_what_is_empty_is_left_out() -> None:
    nothing = verdict(margin_lower=-math.inf, margin_upper=math.inf, scope="exact", detail="time limit", limit=2.0)
    row = nothing.row().to_json()
    assert row["margin_lower"] is None and row["margin_upper"] is None
    assert list(row)[8:] == ["scope", "detail", "limit"]
    assert row["scope"] == "exact" and row["detail"] == "time limit" and row["limit"] == 2.0


def test_margins_cannot_be_swapped_unseen() -> None:
    with pytest.raises(TypeError, match="positional"):
        Verdict(3, 1, 2, Status.UNKNOWN, -1.5, 0.25, "bp", 1.0)  # type: ignore[call-arg]


def test_without_a_recipe_there_is_no_witness() -> None:
    assert verdict().witness() is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": "best"}, "There is no method 'best'; choose one of: "),
        ({"solver": 3}, "There is no solver 3"),
        ({"seconds": 0}, "The time limit is 0 seconds; give a number above 0"),
        ({"seconds": math.nan}, "The time limit is nan seconds"),
        ({"jobs": -1}, "The number of jobs is -1"),
        ({"jobs": True}, "The number of jobs is True"),
        ({"memory": 1 << 20}, "The memory is 1048576 bytes"),
        ({"clip": (0.0,)}, "The range to clip inputs to is"),
        ({"attack": "no"}, "attack"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace("(", r"\(")):
        Options(**wrong)


def test_defaults_and_workers() -> None:
    assert Options.given(None) == Options() and Options.given(None, Options("bp")) == Options("bp")
    assert Options.given(Options("ibp"), Options("bp")) == Options("ibp")
    with pytest.raises(UsageError):
        Options.given("ibp")  # type: ignore[arg-type]
    assert Options(jobs=3).workers == 3 and 1 <= Options().workers <= (os.cpu_count() or 1)
