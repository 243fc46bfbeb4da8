"""The gate in exact numbers, and baselines against sets of indices made by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from qverify.errors import DataError, UsageError
from qverify.runs.gate import Baseline, Gate, below, failed, read_baseline, read_baselines, share
from tests.support.runs_on_disk import asked, question, row, write_batch, write_run

STATUSES = {0: "verified", 1: "falsified", 2: "verified", 3: "unknown", 4: "misclassified"}


@pytest.mark.parametrize("total", [1, 3, 599, 10000])
@pytest.mark.parametrize("percent", [0.0, 33.33, 82.97, 95.0, 99.9999, 100.0])
def test_shares_are_compared_in_exact_numbers(total: int, percent: float) -> None:
    limit = Fraction(str(percent)) / 100
    for verified in {0, total // 3, int(limit * total), min(total, int(limit * total) + 1), total}:
        assert below(verified, total, percent) is (Fraction(verified, total) < limit)


def test_a_limit_that_is_reached_exactly_passes() -> None:
    """0.07 * 100 is 7.000000000000001 in floats."""
    assert not below(7, 100, 7.0) and not below(29, 100, 29.0) and not below(57, 100, 57.0)
    assert below(6, 100, 6.0000001)


def test_a_share_never_looks_like_more() -> None:
    assert share(9499, 10000) == "94.99 %" and share(94999, 100000) == "94.99 %" and share(1, 1) == "100.00 %"


def test_what_is_asked_is_said_in_one_sentence() -> None:
    gate = Gate(fail_on=("unknown",), fail_under=50)
    assert gate.failures(STATUSES, range(5)) == [
        "--fail-on unknown: 1 of 5 samples is unknown (3)",
        "--fail-under 50: 40.00 % (2 of 5 samples) are verified; not so are 1, 3, 4",
    ]
    assert failed({"": ["a", "b"]}) == "a; b." and failed({"x": [], "y": ["a"]}) == "y: a." and failed({"x": []}) == ""
    assert failed(dict.fromkeys("abcdefg", ("bad",))).endswith("e: bad; and 2 more cases.")
    assert Gate(fail_under=40).failures(STATUSES, range(5)) == []
    assert Gate().passed([]) is None and Gate(fail_under=0.0).passed([]) is True


def test_samples_that_are_not_decided_are_not_verified() -> None:
    assert Gate(fail_under=50).failures({0: "verified"}, range(4)) == [
        "--fail-under 50: 25.00 % (1 of 4 samples) are verified; not so are 1, 2, 3"
    ]


# --- baselines ---


def baseline(folder: Path, statuses: dict[int, str], **changes: object) -> Baseline:
    methods = {"verified": "ibp", "falsified": "attack", "unknown": "exact", "misclassified": "forward"}
    rows = [row(index, status, methods[status]) for index, status in statuses.items()]
    return read_baseline(str(write_run(folder, rows, **changes)))


def test_what_was_verified_and_is_not_is_lost(tmp_path: Path) -> None:
    before = baseline(tmp_path / "old", {0: "verified", 1: "verified", 2: "unknown", 3: "verified", 9: "verified"})
    (said,) = Gate(baseline=before).failures(STATUSES, range(5))
    assert said == f"--baseline {tmp_path / 'old'}: 2 of 3 samples verified there are not now (1 falsified, 3 unknown)"
    assert Gate(baseline=before).failures({0: "verified", 2: "falsified"}, range(1)) == []


def test_other_data_and_ranges_are_refused(tmp_path: Path) -> None:
    before = baseline(tmp_path / "old", {0: "verified", 3: "verified"}, samples=[0, 4])
    assert before.check(asked(samples=[3, 9])) == [f"--baseline {before.name}: {note}" for note in before.case.notes]
    for changes in ({"data_sha256": "dd" * 32}, {"input_scale": 0.5}):
        with pytest.raises(UsageError, match="is about other data"):
            before.check(asked(**changes))
    with pytest.raises(UsageError, match=r"samples 0:4, and none of 4:9 is among them"):
        before.check(asked(samples=[4, 9]))
    unnamed = baseline(tmp_path / "older", {0: "verified"}, data_sha256="")
    with pytest.raises(UsageError, match="other data"):
        unnamed.check(asked())


def test_another_family_is_a_note(tmp_path: Path) -> None:
    before = baseline(tmp_path / "old", dict.fromkeys(range(4), "verified"))
    assert before.check(asked()) == []
    six = asked(**{key: value for key, value in question(6).items() if key == "radii"})
    assert before.check(six) == [
        f"--baseline {before.name} is about another family: 8 bits, scheme paper, rounding any."
    ]


def test_cases_of_a_batch_are_found_by_their_names(tmp_path: Path) -> None:
    """A model that has changed has another hash at the end of the name; of two such the last with rows counts."""
    cases = {
        name: question() for name in ("a-8bit-auto-1111111111", "a-8bit-auto-2222222222", "b-8bit-auto-3333333333")
    }
    rows = [row(0) | {"case": name, "key": "k"} for name in cases]
    folder = str(write_batch(tmp_path / "batch", cases, rows))
    found = read_baselines(folder, ["a-8bit-auto-9999999999", "a-8bit-auto-1111111111", "c-8bit-auto-1111111111"])
    names = {name: one.case.name for name, one in found.items()}
    assert names == {
        "a-8bit-auto-9999999999": "a-8bit-auto-2222222222",
        "a-8bit-auto-1111111111": "a-8bit-auto-1111111111",
    }
    with pytest.raises(UsageError, match="has none of the cases of this plan"):
        read_baselines(folder, ["c-8bit-auto-1111111111"])
    with pytest.raises(UsageError, match="holds 3 cases of a batch"):
        read_baseline(folder)


def test_a_run_of_verify_is_the_baseline_of_every_case(tmp_path: Path) -> None:
    folder = str(write_run(tmp_path / "run", [row(0)]))
    assert {name: one.case.name for name, one in read_baselines(folder, ["a", "b"]).items()} == {"a": "", "b": ""}
    with pytest.raises(DataError, match="holds neither"):
        read_baselines(str(tmp_path), ["a"])
