"""Batches of CIFAR-10 as pickles: what Python's own pickle writes is read, and a pickle that names anything is not."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest

from qverify.datasets.unpickling import read_batch
from qverify.errors import DataError


def batch(count: int = 3) -> dict[Any, Any]:
    data = np.arange(count * 3072, dtype=np.uint8).reshape(count, 3072)
    return {b"data": data, b"labels": list(range(count)), b"batch_label": b"one"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int) -> None:
    x, labels = read_batch("batch", pickle.dumps(batch(), protocol=protocol))
    np.testing.assert_array_equal(x, batch()[b"data"])
    assert labels == [0, 1, 2]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def test_nothing_that_a_pickle_names_is_called(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"batch asks for '.*mkdir', which no batch needs"):
        read_batch("batch", pickle.dumps(batch() | {b"more": Harmful()}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a readable batch"),
        (pickle.dumps([1, 2]), "holds no data of 3072 bytes an image"),
        (pickle.dumps(batch() | {b"data": np.zeros((3, 3072))}), "is not a readable batch"),
        (pickle.dumps(batch() | {b"data": np.zeros((3, 5), np.uint8)}), "holds no data of 3072 bytes an image"),
        (pickle.dumps(batch() | {b"labels": [0, 1.5, 2]}), "holds no list of whole numbers as labels"),
        (pickle.dumps(batch() | {b"labels": [0, 1]}), "holds 3 images but 2 labels"),
    ],
)
def test_what_is_no_batch_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"batch {words}"):
        read_batch("batch", content)
