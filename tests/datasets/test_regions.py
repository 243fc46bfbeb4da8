"""Samples and boxes with labels, targets, or neither, as files and arrays have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.datasets.regions import load_regions, regions_of, selected
from qverify.errors import DataError

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


def stored(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "d.npz", **arrays)
    return tmp_path / "d.npz"


def test_whole_numbers_are_labels_and_targets_and_floats_targets_alone(tmp_path: Path) -> None:
    labelled = load_regions(stored(tmp_path, x=X, y=np.array([2, 0, 1])))
    assert labelled.labelled and labelled.y.tolist() == [2, 0, 1]
    assert labelled.targets is not None and labelled.targets.tolist() == [[2.0], [0.0], [1.0]]
    targeted = load_regions(stored(tmp_path, x_test=X, y_test=np.array([0.5, 1.0, 2.0])))
    assert not targeted.labelled and targeted.targets is not None and targeted.targets.shape == (3, 1)
    several = load_regions(stored(tmp_path, x=X, y=np.ones((3, 4), dtype=int)))
    assert not several.labelled and several.targets is not None and several.targets.shape == (3, 4)
    assert not load_regions(stored(tmp_path, x=X, y=np.array([-1, 0, 1]))).labelled


def test_what_is_there_for_other_samples_does_not_count(tmp_path: Path) -> None:
    found = load_regions(stored(tmp_path, x_test=X, x=X + 9.0, y=np.array([1, 1, 1])))
    assert (found.x == X).all() and found.targets is None and not found.labelled


def test_boxes_come_before_samples_and_are_scaled_and_selected(tmp_path: Path) -> None:
    found = load_regions(stored(tmp_path, x=X, low=X, high=X + 1.0, y=np.array([0.5, 1.5, 2.5])), 0.5)
    lower, upper = found.ends
    assert (lower == X / 2).all() and (upper == X / 2 + 0.5).all() and (found.x == X / 2 + 0.25).all()
    part = selected(found, range(1, 3))
    assert len(part) == 2 and (part.ends[1] == upper[1:]).all()
    assert part.targets is not None and part.targets.tolist() == [[1.5], [2.5]]


def test_integer_pixels_are_divided_as_those_of_samples_are(tmp_path: Path) -> None:
    pixels = np.array([[0, 255], [51, 102]], dtype=np.uint8)
    lower, upper = load_regions(stored(tmp_path, low=pixels, high=np.maximum(pixels, 102).astype(np.uint8))).ends
    assert (lower == pixels / 255).all() and (upper == np.maximum(pixels, 102) / 255).all()


def test_named_data_have_labels() -> None:
    found = load_regions("digits")
    assert found.labelled and found.lower is None and found.ends[0] is found.x


@pytest.mark.parametrize(
    ("ends", "y", "words"),
    [
        ([X, X[:2]], None, "have shapes"),
        ([X + 1.0, X], None, "box 0 has a lower end above"),
        ([X], [1, 2], "has 2 entries for 3 inputs"),
        ([X * np.nan], None, "NaN or infinite"),
        ([X], ["a", "b", "c"], "is no array of labels"),
    ],
)
def test_what_does_not_fit_is_refused(ends: list[Any], y: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        regions_of("the data", ends, y)
