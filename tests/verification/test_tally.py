"""Tallies: counts by the definitions of the accuracies."""

from __future__ import annotations

from qverify.verification.tally import Tally
from tests.support.runs_on_disk import row, typed

STAGE = {"verified": "ibp", "falsified": "attack", "unknown": "exact", "misclassified": "forward"}


def test_a_tally_counts_by_the_definitions() -> None:
    statuses = ["verified"] * 5 + ["falsified"] * 2 + ["unknown"] * 2 + ["misclassified"]
    lines = [row(index, status, STAGE[status]) for index, status in enumerate(statuses)]
    lines[0] |= {"method": "exact", "scope": "exact"}
    for line in lines[7:9]:
        line |= {"scope": "independent positions", "detail": "why"}
    lines[8]["limit"] = 2.5
    tally = Tally.of(map(typed, lines))
    found = tally.as_dict()
    assert (found["samples"], found["clean_accuracy"]) == (10, 0.9)
    assert (found["guaranteed_accuracy"], found["attack_accuracy"]) == (0.5, 0.7)
    assert [found[s] for s in STAGE] == [5, 2, 2, 1]
    assert found["independent_positions"] == 2 and found["unknown_reasons"] == {"why": 2} and tally.limited == 1
    assert (tally.ibp, tally.bp) == (4, 4)
    assert found["by_method"] == {
        "forward": {"misclassified": 1, "seconds": 0.25},
        "ibp": {"verified": 4, "seconds": 1.0},
        "attack": {"falsified": 2, "seconds": 0.5},
        "exact": {"verified": 1, "unknown": 2, "seconds": 0.75},
    }


def test_shares_of_nothing_are_not_there() -> None:
    assert Tally().as_dict()["clean_accuracy"] is None
