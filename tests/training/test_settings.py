"""Settings of a training that are refused."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from qverify.errors import UsageError
from qverify.training.settings import Settings


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        *(("lr", 1e-9, 10.0), ("kappa", 0.0, 1.0), ("ramp", 0.0, 1.0), ("factor", 0.0, 100.0)),
        *(("weight_limit", 0.0, 1e6), ("distortion", 0.0, 1.0), ("validation", 0.0, 0.5)),
    ],
)
def test_shares_and_sizes_have_ends(name: str, least: float, most: float) -> None:
    for value in (least, most):
        assert getattr(Settings(**{name: value}), name) == value  # type: ignore[arg-type]
    for wrong in (math.nextafter(least, -1), math.nextafter(most, math.inf), math.nan, "0.1", True, None):
        with pytest.raises(UsageError, match=f"^{name} is .*; give a number from"):
            Settings(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "least"), [("epochs", 1), ("batch_size", 1), ("seed", 0), ("threads", 0)])
def test_counts_are_whole_numbers(name: str, least: int) -> None:
    assert getattr(Settings(**{name: least}), name) == least  # type: ignore[arg-type]
    for wrong in (least - 1, 2**31, 1.5, "3", True):
        with pytest.raises(UsageError, match=f"^{name} is .*; give a whole number from {least}"):
            Settings(**{name: wrong})  # type: ignore[arg-type]


def test_the_range_to_clip_to_is_a_pair_in_order() -> None:
    assert Settings(clip=(0.0, 1.0)).clip == (0.0, 1.0)
    for wrong in ((1.0, 0.0), (0.0,), "01", (0.0, math.nan)):
        with pytest.raises(UsageError):
            Settings(clip=wrong)  # type: ignore[arg-type]


def test_settings_are_found_where_they_lay_and_are_plain_data() -> None:
    from qverify.training import Settings as handed_on
    from qverify.training.loop import Settings as before  # type: ignore[attr-defined]

    assert before is handed_on is Settings
    assert Settings(**asdict(Settings(epochs=3))) == Settings(epochs=3)
