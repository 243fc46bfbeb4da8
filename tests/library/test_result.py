"""`Result`: a list as before, with numbers counted here by hand."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import types
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import qverify
from qverify import datasets
from qverify.errors import NotProved, PackageMissing, QVerifyError, UsageError
from qverify.library.result import Result
from tests.support.paths import DIGITS

SAMPLES = datasets.load("digits")


@pytest.fixture(scope="module")
def result() -> Result:
    """Samples 20 to 79 at 6 bits: verified, falsified, misclassified."""
    found = qverify.verify(DIGITS, SAMPLES, radii=6, samples="20:80", method="bp")
    assert {"verified", "falsified", "misclassified"} <= set(counts(found))
    return found


def counts(result: Any) -> Counter[str]:
    return Counter(verdict.status.value for verdict in result)


def test_it_is_a_list(result: Result) -> None:
    assert isinstance(result, list) and len(result) == 60 and [one.index for one in result] == list(range(20, 80))
    assert isinstance(result[0], qverify.Verdict) and result[-1] is list(result)[-1]
    assert isinstance(result[:5], Result) and list(result[:5]) == list(result)[:5]
    for other in (pickle.loads(pickle.dumps(result)), copy.copy(result)):
        assert isinstance(other, Result) and counts(other) == counts(result)
        assert other.guaranteed_accuracy == result.guaranteed_accuracy


def test_it_is_short(result: Result) -> None:
    many = Result(list(result) * 20, result.about)
    for text in (repr(result), repr(many), str(many), f"{many[:900]}"):
        assert len(text) < 500 and "\n" not in text
    assert f"{counts(result)['verified']} of 60 samples verified" in repr(result) and "digits.onnx" in repr(result)
    assert len(many._repr_html_()) < 30_000 and "and 1180 more" in many._repr_html_()


def test_accuracies_are_shares_of_what_was_asked(result: Result) -> None:
    found = counts(result)
    assert result.clean_accuracy == (60 - found["misclassified"]) / 60
    assert result.guaranteed_accuracy == found["verified"] / 60
    assert result.attack_accuracy == (found["verified"] + found["unknown"]) / 60
    stopped = Result(list(result)[:30], result.about)
    assert stopped.guaranteed_accuracy == counts(list(result)[:30])["verified"] / 60
    assert result[:30].guaranteed_accuracy == counts(list(result)[:30])["verified"] / 30


def test_the_summary_has_them(result: Result) -> None:
    text, found = result.summary(), counts(result)
    assert f"{found['verified']} of 60  proved right" in text and "samples 20:80; 6 bits, scheme paper" in text
    assert ", ".join(f"{found[status.value]} {status.value}" for status in qverify.Status) in text


def test_html_is_escaped(result: Result) -> None:
    hostile = replace(result.about, data="<script>alert(1)</script>")
    text = Result([replace(result[0], detail="<b>")], hostile)._repr_html_()
    assert "<script>" not in text and "<b>" not in text and "&lt;script&gt;" in text
    assert text.count("<tr>") == 2 and text.count("<td>") == 8


# --- requiring ---


def test_a_share_that_is_reached_passes(result: Result) -> None:
    exactly = counts(result)["verified"] / 60
    assert result.require(exactly - 1e-12) is result and result.require(0) is result
    with pytest.raises(NotProved):
        result.require(exactly + 1e-9)
    seven = Result([replace(result[0], status=qverify.Status.VERIFIED)] * 7, replace(result.about, asked=range(100)))
    assert seven.require(0.07) is seven  # 0.07 * 100 is above 7 in floats


def test_the_error_names_the_worst_samples(result: Result) -> None:
    with pytest.raises(AssertionError) as said:
        result.require(0.99)
    assert isinstance(said.value, QVerifyError)
    text = str(said.value)
    bad = sorted((one for one in result if one.status.value != "verified"), key=lambda one: one.margin_upper)
    assert text.endswith(".") and "\n" not in text and "less than the 99 % required" in text
    named = text.partition("the worst are ")[2]
    assert [int(part.split(" ")[0]) for part in named.split(" and ")[0].split(", ") if part[0].isdigit()] == [
        one.index for one in bad[:5]
    ]
    assert f"and {len(bad) - 5} more" in named


@pytest.mark.parametrize("share", [95, -0.1, "0.9", None, True, np.nan])
def test_what_is_no_share(result: Result, share: Any) -> None:
    with pytest.raises(UsageError, match=r"0\.95 for 95 %"):
        result.require(share)


def test_what_is_not_decided_counts_as_not_verified(result: Result) -> None:
    none = Result([], result.about)
    with pytest.raises(NotProved, match=r"0\.00 % \(0 of 60 samples\).*60 are not decided"):
        none.require(0.5)


# --- other packages ---


def test_without_pandas_one_sentence_says_so(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        PackageMissing, match=r"^to_pandas needs pandas, which is not installed; run pip install pandas\.$"
    ):
        result.to_pandas()


class Column(list[Any]):
    """As much of a column of pandas as is used."""

    def astype(self, kind: str) -> Column:
        return Column(np.asarray(self, dtype=kind).tolist())


class Frame(dict[str, Any]):
    """As much of a DataFrame of pandas as is used."""

    def __init__(self, columns: dict[str, Any]):
        super().__init__({name: Column(values) for name, values in columns.items()})


def test_rows_become_columns(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pandas is not installed, with as much of it as is used."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        stub: Any = types.ModuleType("pandas")
        stub.DataFrame = Frame
        monkeypatch.setitem(sys.modules, "pandas", stub)
    frame = result.to_pandas()
    assert list(frame["index"]) == list(range(20, 80)) and Counter(frame["status"]) == counts(result)
    assert list(frame["label"]) == SAMPLES.y[20:80].tolist()
    for one, low in zip(result, frame["margin_lower"], strict=True):
        assert low == one.margin_lower or (np.isnan(low) and np.isinf(one.margin_lower))


def test_a_figure_has_a_bracket_a_sample(result: Result) -> None:
    figure = result.plot()
    axes: Any
    (axes,) = figure.axes
    drawn: Counter[str] = Counter()
    for lines in axes.collections:
        number, _, status = lines.get_label().partition(" ")
        assert len(lines.get_segments()) == int(number)
        drawn[status] = int(number)
    assert drawn == counts(result)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG") and len(file.getvalue()) > 5000
    assert not any("$" in label.get_text() for label in axes.get_yticklabels())
    hostile = Result(list(result), replace(result.about, data="$\\frac{$_^"))
    hostile.plot().savefig(file, format="png")
    assert Result([], result.about).plot().axes


@pytest.mark.slow
def test_a_figure_needs_no_display_and_no_pyplot() -> None:
    import subprocess

    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
import qverify
qverify.verify({DIGITS!r}, "digits", radii=6, samples=5, method="ibp").plot()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=None)
