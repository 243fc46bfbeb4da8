"""Parcels: what travels to other processes, packed once."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from qverify.workers.tasks import Parcels, Task


def test_a_parcel_is_found_by_the_hash_of_its_content() -> None:
    parcels = Parcels()
    value = (3, np.arange(4.0))
    name = parcels.add(value)
    assert name == hashlib.sha256(parcels[name]).hexdigest()
    first, array = pickle.loads(parcels[name])
    assert first == 3 and array.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_equal_values_are_packed_once_and_others_apart() -> None:
    parcels = Parcels()
    assert parcels.add([1, 2.5]) == parcels.add([1, 2.5]) != parcels.add([1, 3.5])
    with pytest.raises(KeyError):
        parcels["another"]


def test_a_task_names_all_that_it_needs() -> None:
    task = Task(case="c", network="n", samples="s", setting="t", start=2, stop=5)
    assert sorted(task.parcels) == ["n", "s", "t"] and not task.exact
