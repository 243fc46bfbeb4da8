"""CIFAR-10 as published is read right; what is damaged or malicious is refused in one sentence, and nothing is run."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.datasets import load, load_train
from tests.support import stored_data
from tests.support.stored_data import BATCHES, cifar_batch, cifar_batches, cifar_tar, offline, refusal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return offline(tmp_path, monkeypatch)


# --- batches ---


def batch_folder(folder: Path, batches: dict[str, bytes] | None = None) -> Path:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name, content in (batches or cifar_batches()).items():
        (place / name).write_bytes(content)
    return place


def check_cifar() -> None:
    """The test split, then the training split: batches in order, planes apart, rows before columns."""
    for got, firsts in ((load("cifar10"), [(50, 2)]), (load_train("cifar10"), [(10 * n, 2 + n) for n in range(5)])):
        values = [first + n for first, count in firsts for n in range(count)]
        assert got.x.shape == (len(values), 3, 32, 32) and got.name == "cifar10"
        assert got.y.tolist() == [value % 10 for value in values]
        for image, value in zip(got.x * 255, values, strict=True):
            assert np.rint(image[:, 4, 6]).tolist() == [value, 255, 3 * value]
            image[1, 4, 6] = 2 * value
            for plane in range(3):
                assert set(np.rint(image[plane]).ravel()) == {(plane + 1) * value}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cifar_batches(folder: Path, protocol: int) -> None:
    batches = cifar_batches(protocol)
    place = batch_folder(folder, batches)
    check_cifar()
    assert load("cifar10").sha256 == hashlib.sha256(batches["test_batch"]).hexdigest()
    joined = b"".join(batches[name] for name in BATCHES[:5])
    assert load_train("cifar10").sha256 == hashlib.sha256(joined).hexdigest()
    assert load("cifar10").source == str(place)


def python2_batch(count: int) -> bytes:
    """A batch with the opcodes of the published ones: byte strings for text, numpy's old names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    data = bytes(n % 253 for n in range(count * 3072))
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    kind = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    state = (
        b"(K\x01K" + bytes([count]) + b"M\x00\x0c\x86" + kind + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([n]) for n in range(count)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + labels + b"u."


def test_a_batch_as_python_2_wrote_it(folder: Path) -> None:
    batch = python2_batch(3)
    oracle = pickle.loads(batch, encoding="bytes")
    assert oracle[b"data"].shape == (3, 3072) and oracle[b"labels"] == [0, 1, 2]
    batch_folder(folder, {"test_batch": batch})
    got = load("cifar10")
    assert got.x.shape == (3, 3, 32, 32) and got.y.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(got.x.reshape(3, -1), oracle[b"data"] / 255.0)


def test_arrays_stored_by_columns_and_text_keys(folder: Path) -> None:
    batch = cifar_batch(3, 9)
    written = {"data": np.asfortranarray(batch[b"data"]), "labels": batch[b"labels"]}
    for protocol in (2, 5):
        (folder / "cifar-10-batches-py").mkdir(exist_ok=True)
        (folder / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(written, protocol=protocol))
        np.testing.assert_array_equal(load("cifar10").x.reshape(3, -1), batch[b"data"] / 255.0)


@pytest.mark.parametrize("missing", BATCHES)
def test_each_missing_batch_is_named(folder: Path, missing: str) -> None:
    place = batch_folder(folder)
    (place / missing).unlink()
    wording = f"{place} holds no {missing}; unpack all of cifar-10-python.tar.gz there."
    assert refusal("cifar10", train=missing != "test_batch") == wording


class Malicious:
    """Asks for a call when it is read."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("train", [False, True])
def test_a_malicious_batch_is_refused_and_not_run(folder: Path, tmp_path: Path, protocol: int, train: bool) -> None:
    batch = cifar_batch(2, 0) | {b"extra": Malicious(os.mkdir, str(tmp_path / "harm"))}
    name = "data_batch_4" if train else "test_batch"
    place = batch_folder(folder, cifar_batches() | {name: pickle.dumps(batch, protocol=protocol)})
    wording = f"{place / name} asks for 'posix.mkdir', which no batch needs; fetch CIFAR-10 again."
    assert refusal("cifar10", train).replace("'nt.", "'posix.") == wording
    assert not (tmp_path / "harm").exists()
    pickle.loads((place / name).read_bytes())  # it would have done harm
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.frombuffer, np.lib.format.read_array])
def test_no_name_but_those_of_arrays_is_found(folder: Path, function: Callable[..., Any]) -> None:
    batch_folder(folder, {"test_batch": pickle.dumps({b"data": Malicious(function, "1")}, protocol=4)})
    assert "which no batch needs" in refusal("cifar10")


def test_a_name_is_shown_short_and_without_line_breaks(folder: Path) -> None:
    batch_folder(folder, {"test_batch": b"\x80\x04\x8c\x02o\n\x8c\xc8" + b"x" * 200 + b"\x93."})
    assert "asks for 'o\\n.xxx" in refusal("cifar10") and len(refusal("cifar10")) < len(str(folder)) + 200


def test_the_false_flags_of_a_type_are_not_believed(folder: Path) -> None:
    """numpy itself would take each 8 bytes for a pointer to a Python object."""
    content = pickle.dumps({b"data": np.zeros((1, 3072), dtype=np.uint8), b"labels": [1]}, protocol=2)
    flags = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    assert flags in content
    batch_folder(folder, {"test_batch": content.replace(flags, flags[:-2] + b"\x3ft")})
    got = load("cifar10")
    assert got.x.shape == (1, 3, 32, 32) and not got.x.any() and got.y.tolist() == [1]


BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "a list": ([1, 2], "holds no data of 3072 bytes an image; fetch CIFAR-10, not another set"),
    "no data": ({b"labels": [1]}, "holds no data of 3072 bytes"),
    "narrow": (cifar_batch(2, 0) | {b"data": np.zeros((2, 784), np.uint8)}, "holds no data of 3072 bytes"),
    "one axis": (cifar_batch(2, 0) | {b"data": np.zeros(3072, np.uint8)}, "holds no data of 3072 bytes"),
    "a list of data": (cifar_batch(2, 0) | {b"data": [[0] * 3072] * 2}, "holds no data of 3072 bytes"),
    "floats": (cifar_batch(2, 0) | {b"data": np.zeros((2, 3072))}, "is not a readable batch of CIFAR-10 (ValueError)"),
    "CIFAR-100": ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1, 2]}, "holds no list of whole numbers"),
    "text labels": (cifar_batch(2, 0) | {b"labels": ["cat", "dog"]}, "holds no list of whole numbers as labels"),
    "one label": (cifar_batch(2, 0) | {b"labels": [1]}, "holds 2 images but 1 labels; fetch it again"),
    "negative": (cifar_batch(2, 0) | {b"labels": [1, -1]}, "holds the negative label -1 at index 1"),
    "a huge label": (cifar_batch(2, 0) | {b"labels": [1, 2**70]}, "is of type object; labels must be integers"),
    "no images": (cifar_batch(0, 0), "is empty, of shape (0, 3, 32, 32)"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batches(folder: Path, case: str) -> None:
    batch, wording = BAD_BATCHES[case]
    batch_folder(folder, {"test_batch": pickle.dumps(batch, protocol=4)})
    assert wording in refusal("cifar10")


def test_counts_must_agree_in_each_batch_not_in_their_sum(folder: Path) -> None:
    batches = cifar_batches()
    for name, labels in (("data_batch_1", [1]), ("data_batch_2", [1, 2, 3, 4])):
        batches[name] = pickle.dumps(pickle.loads(batches[name]) | {b"labels": labels})
    batch_folder(folder, batches)
    assert "data_batch_1 holds 2 images but 1 labels" in refusal("cifar10", train=True)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_truncated_batches_are_refused(folder: Path, protocol: int) -> None:
    content = cifar_batches(protocol)["test_batch"]
    place = batch_folder(folder, {"test_batch": content})
    for length in [*range(0, len(content), 97), len(content) - 1]:
        (place / "test_batch").write_bytes(content[:length])
        assert "is not a readable batch of CIFAR-10" in refusal("cifar10")


# --- the archive ---


def test_cifar_archive(folder: Path) -> None:
    content = cifar_tar()
    path = folder / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    check_cifar()
    assert load("cifar10").sha256 == load_train("cifar10").sha256 == hashlib.sha256(content).hexdigest()
    assert load("cifar10").source == str(path) and list(folder.iterdir()) == [path]
    path.write_bytes(gzip.decompress(content))
    check_cifar()


def test_truncated_archives_are_refused(folder: Path) -> None:
    path = folder / "cifar-10-python.tar.gz"
    content, plain = cifar_tar(), gzip.decompress(cifar_tar())
    for length in [*range(2, len(content), len(content) // 50), len(content) - 1]:
        path.write_bytes(content[:length])
        assert f"{path} is damaged or was cut short (EOFError); fetch it again." == refusal("cifar10")
    for length in [0, 1, *range(600, len(plain) - 12_000, 5000)]:  # up to the last batch, after which is padding
        path.write_bytes(gzip.compress(plain[:length], 1))
        assert str(path) in refusal("cifar10") and "fetch" in refusal("cifar10")


def test_what_is_no_archive(folder: Path) -> None:
    for content in (b"", b"hello " * 999, gzip.compress(b"hello " * 999)):
        (folder / "cifar-10-python.tar.gz").write_bytes(content)
        assert "is not a readable .tar.gz file (ReadError); fetch it again" in refusal("cifar10")


def link(kind: bytes, target: str) -> bytes:
    """An archive whose test batch is a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.type, member.linkname = kind, target
        content = cifar_batches()["test_batch"]
        other = tarfile.TarInfo("other")
        other.size = len(content)
        archive.addfile(other, io.BytesIO(content))
        archive.addfile(member)
    return buffer.getvalue()


TRICKS = {
    "outside": lambda batch: stored_data.tar({"../cifar-10-batches-py/test_batch": batch}),
    "absolute": lambda batch: stored_data.tar({"/cifar-10-batches-py/test_batch": batch}),
    "back in": lambda batch: stored_data.tar({"cifar-10-batches-py/../cifar-10-batches-py/test_batch": batch}),
    "other case": lambda batch: stored_data.tar({"CIFAR-10-batches-py/test_batch": batch}),
    "symbolic link": lambda batch: link(tarfile.SYMTYPE, "../other"),
    "symbolic link outside": lambda batch: link(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": lambda batch: link(tarfile.LNKTYPE, "other"),
    "device": lambda batch: link(tarfile.CHRTYPE, ""),
    "folder": lambda batch: link(tarfile.DIRTYPE, ""),
}


@pytest.mark.parametrize("case", TRICKS)
def test_only_plain_files_of_the_expected_names_are_read(folder: Path, tmp_path: Path, case: str) -> None:
    (folder / "cifar-10-python.tar.gz").write_bytes(TRICKS[case](cifar_batches()["test_batch"]))
    assert "holds no file cifar-10-batches-py/test_batch; fetch it again from where" in refusal("cifar10")
    assert [path.name for path in tmp_path.iterdir()] == ["data"] and len(list(folder.iterdir())) == 1


def test_other_members_are_left_alone(folder: Path, tmp_path: Path) -> None:
    members = {f"cifar-10-batches-py/{name}": content for name, content in cifar_batches().items()}
    (folder / "cifar-10-python.tar.gz").write_bytes(stored_data.tar({"../../harm": b"x", **members}))
    check_cifar()
    assert [path.name for path in tmp_path.iterdir()] == ["data"] and len(list(folder.iterdir())) == 1


def test_a_malicious_batch_in_an_archive(folder: Path, tmp_path: Path) -> None:
    batch = pickle.dumps({b"data": Malicious(os.mkdir, str(tmp_path / "harm"))})
    (folder / "cifar-10-python.tar.gz").write_bytes(cifar_tar({"test_batch": batch}))
    assert "cifar-10-batches-py/test_batch of" in refusal("cifar10") and "asks for" in refusal("cifar10")
    assert not (tmp_path / "harm").exists()


# --- .npz ---


def test_cifar_npz_comes_out_with_channels_first(folder: Path) -> None:
    """As Keras hands it out: colours last, labels in a column."""
    first = np.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32) % 256
    last = np.moveaxis(first, 1, -1).astype(np.uint8)
    labels = np.array([[3], [8]], dtype=np.uint8)
    np.savez(folder / "cifar10.npz", x_test=last, y_test=labels, x_train=first.astype(np.uint8), y_train=labels[:, 0])
    for got in (load("cifar10"), load_train("cifar10")):
        np.testing.assert_array_equal(got.x, first / 255.0)
        assert got.y.tolist() == [3, 8] and got.source == str(folder / "cifar10.npz")
    assert load("cifar10").sha256 == hashlib.sha256((folder / "cifar10.npz").read_bytes()).hexdigest()


def test_an_npz_given_by_its_path_is_not_transposed(folder: Path) -> None:
    np.savez(folder / "cifar10.npz", x=np.zeros((2, 32, 32, 3), dtype=np.uint8), y=np.array([0, 1]))
    assert load(folder / "cifar10.npz").shape == (32, 32, 3)
    assert load("cifar10").shape == (3, 32, 32)
