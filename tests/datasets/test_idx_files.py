"""IDX files as MNIST publishes them are read right, and damaged ones are refused in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from qverify.datasets import load, load_train
from tests.support.stored_data import IDX, idx_folder, idx_images, idx_labels, offline, refusal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return offline(tmp_path, monkeypatch)


@pytest.mark.parametrize("dots", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files(folder: Path, dots: bool, compressed: bool) -> None:
    idx_folder(folder / "mnist", test=3, train=4, dots=dots, compressed=compressed)
    for got, count, first in ((load("mnist"), 3, 7), (load_train("mnist"), 4, 100)):
        pixels = [(first + n) % 251 / 255 for n in range(count * 15)]
        assert got.x.shape == (count, 3, 5) and got.x.ravel().tolist() == pixels and got.x.dtype == np.float64
        assert got.y.tolist() == [(first + 3 * n) % 10 for n in range(count)]
        assert (got.name, got.source) == ("mnist", str(folder / "mnist"))


def test_idx_hash_is_that_of_both_files_as_they_are_stored(folder: Path) -> None:
    plain = idx_folder(folder / "mnist")
    idx_folder(folder / "fashion-mnist", compressed=True)
    for split, read in (("test", load), ("train", load_train)):
        images, labels = IDX[split]
        assert read("mnist").sha256 == hashlib.sha256(plain[images] + plain[labels]).hexdigest()
        stored = b"".join((folder / "fashion-mnist" / f"{name}.gz").read_bytes() for name in (images, labels))
        assert read("fashion-mnist").sha256 == hashlib.sha256(stored).hexdigest()


def test_idx_compression_is_told_by_the_bytes_not_by_the_name(folder: Path) -> None:
    plain = idx_folder(folder / "mnist")
    images, labels = (folder / "mnist" / name for name in IDX["test"])
    images.with_name(f"{images.name}.gz").write_bytes(images.read_bytes())  # a browser unpacked it and kept the name
    images.unlink()
    labels.write_bytes(gzip.compress(plain[labels.name]))
    assert load("mnist").x.shape == (3, 3, 5) and load("mnist").y.tolist() == [7, 0, 3]


@pytest.mark.parametrize("missing", [*IDX["test"], *IDX["train"]])
def test_each_missing_idx_file_is_named(folder: Path, missing: str) -> None:
    idx_folder(folder / "mnist", compressed=True)
    (folder / "mnist" / f"{missing}.gz").unlink()
    wording = f"{folder / 'mnist'} holds no {missing} or {missing}.gz; put it there, beside the others."
    assert refusal("mnist", train=missing in IDX["train"]) == wording
    assert len((load if missing in IDX["train"] else load_train)("mnist")) > 0  # the other split is whole


def test_every_truncation_of_an_idx_file_is_refused(folder: Path) -> None:
    idx_folder(folder / "mnist")
    for name in IDX["test"]:
        path = folder / "mnist" / name
        content = path.read_bytes()
        for length in range(len(content)):
            path.write_bytes(content[:length])
            assert str(path) in refusal("mnist") and "fetch it again" in refusal("mnist")
        path.write_bytes(content + b"\0")
        assert f"should be of {len(content)} bytes" in refusal("mnist")
        path.write_bytes(content)


def test_every_truncation_of_a_compressed_idx_file_is_refused(folder: Path) -> None:
    idx_folder(folder / "mnist", compressed=True)
    path = folder / "mnist" / f"{IDX['test'][0]}.gz"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert str(path) in refusal("mnist") and "fetch it again" in refusal("mnist")
    for damaged in (content[:10] + b"\xff" + content[11:], content[:-5] + b"\xff" + content[-4:], content + b"rest"):
        path.write_bytes(damaged)
        assert "is damaged or was cut short" in refusal("mnist")


BAD_IMAGES = {
    "labels": (idx_labels([1, 2, 3]), "begins with 00000801, but IDX files of images with 00000803; fetch"),
    "floats": (struct.pack(">IIII", 0x0D03, 1, 1, 1) + bytes(4), "begins with 00000d03, but IDX files of images"),
    "a web page": (b"<!DOCTYPE html>", "begins with 3c21444f, but"),
    "nothing": (b"", "begins with nothing, but"),
    "header only": (
        struct.pack(">IIII", 2051, 3, 3, 5),
        "should be of 61 bytes for the shape (3, 3, 5) that it states",
    ),
    "no images": (struct.pack(">IIII", 2051, 0, 3, 5), "is empty, of shape (0, 3, 5); fetch it again"),
    "no pixels": (struct.pack(">IIII", 2051, 0, 2**32 - 1, 2**32 - 1), "is empty, of shape (0, 4294967295, 42949672"),
    "too many": (struct.pack(">IIII", 2051, 2**31, 2**31, 2**31), "should be of 9903520314283042199192993808 bytes"),
    "two for three": (idx_images(2), "holds 2 samples but 3 labels; store one label for each sample"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_idx_images(folder: Path, case: str) -> None:
    content, wording = BAD_IMAGES[case]
    idx_folder(folder / "mnist")
    (folder / "mnist" / IDX["test"][0]).write_bytes(content)
    assert wording in refusal("mnist")


def test_images_in_place_of_labels(folder: Path) -> None:
    idx_folder(folder / "mnist")
    (folder / "mnist" / IDX["test"][1]).write_bytes(idx_images(3))
    assert "begins with 00000803, but IDX files of labels with 00000801; fetch it again" in refusal("mnist")
