"""Data sets in the formats they are published in, and a place for them.

What writes them, by struct, pickle and tarfile, shares nothing with qverify.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.datasets import load, load_train
from qverify.datasets import sources as data_sources
from qverify.errors import DataError

IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def idx_images(count: int, rows: int = 3, columns: int = 5, first: int = 0) -> bytes:
    """Images whose bytes count up from `first`, modulo 251."""
    pixels = bytes((first + n) % 251 for n in range(count * rows * columns))
    return struct.pack(">IIII", 2051, count, rows, columns) + pixels


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">II", 2049, len(labels)) + bytes(labels)


def idx_folder(folder: Path, test: int = 3, train: int = 4, **how: Any) -> dict[str, bytes]:
    """The four files, `test` and `train` images long; `dots` and `compressed` change names. What each holds."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for split, count, first in (("test", test, 7), ("train", train, 100)):
        images, labels = IDX[split]
        contents[images] = idx_images(count, first=first)
        contents[labels] = idx_labels([(first + 3 * n) % 10 for n in range(count)])
    for name, content in contents.items():
        path = folder / (name.replace("-idx", ".idx") if how.get("dots") else name)
        if how.get("compressed"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)
    return contents


def cifar_batch(count: int, first: int) -> dict[bytes, Any]:
    """One batch: image n has `first + n` in its red plane, twice that in green, thrice in blue, but for one pixel."""
    data = np.zeros((count, 3072), dtype=np.uint8)
    for n in range(count):
        for plane in range(3):
            data[n, 1024 * plane : 1024 * (plane + 1)] = (plane + 1) * (first + n)
        data[n, 1024 + 32 * 4 + 6] = 255  # green, row 4, column 6
    return {b"data": data, b"labels": [(first + n) % 10 for n in range(count)], b"batch_label": b"a batch"}


def cifar_batches(protocol: int = 2) -> dict[str, bytes]:
    """Six pickled batches of unequal sizes: 2, 3, 4, 5, 6 for training, 2 for the test."""
    sizes = {name: 2 + n for n, name in enumerate(BATCHES[:5])} | {"test_batch": 2}
    return {
        name: pickle.dumps(cifar_batch(size, 10 * n), protocol=protocol) for n, (name, size) in enumerate(sizes.items())
    }


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_tar(batches: dict[str, bytes] | None = None) -> bytes:
    return tar({f"cifar-10-batches-py/{name}": content for name, content in (batches or cifar_batches()).items()})


def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that $QVERIFY_DATA names, where nothing is found elsewhere and there is no network."""

    def no_network(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("QVERIFY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data_sources, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setattr(data_sources, "_download", no_network)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def refusal(name: str, train: bool = False) -> str:
    """The message with which a data set is refused: one sentence, ended by a full stop."""
    with pytest.raises(DataError) as caught:
        (load_train if train else load)(name)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message
    return message


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"
