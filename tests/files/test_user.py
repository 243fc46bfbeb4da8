"""Files that are not what was meant: what they are, and what to do, for models and for samples."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from qverify import datasets
from qverify.arrays import Array
from qverify.errors import DataError, ModelError, QVerifyError
from qverify.files import user as user_files
from qverify.onnx.reader import load
from tests.support.onnx_models import agree, model, node, weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def built(rng: np.random.Generator) -> onnx.ModelProto:
    return model([node("Gemm", "x w", "a"), node("Relu", "a", "y")], {"w": weights(rng, 40, 3)}, ["N", 40])


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def saved(save: Any, *values: Array) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *values)
    return buffer.getvalue()


def refusal(read: Callable[..., Any], path: Any) -> str:
    with pytest.raises(QVerifyError) as caught:
        read(path)
    message = str(caught.value)
    assert message.endswith(".") and message.isprintable() and ". " not in message and len(message) < 1000
    assert type(caught.value) is (ModelError if read is load else DataError)
    return message


# --- compressed -------------------------------------------------------------------------------------------


def test_a_compressed_model_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    made = built(rng)
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(made.SerializeToString()))
    network = load(tmp_path / "m.onnx.gz")
    assert network.source == "m.onnx.gz"
    agree(network, made, rng)
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx.gz").read_bytes())  # what counts are the bytes
    agree(load(tmp_path / "m.onnx"), made, rng)


def test_compressed_samples_are_read(tmp_path: Any) -> None:
    content = saved(lambda file: np.savez(file, x=np.eye(3), y=np.arange(3)))
    (tmp_path / "s.npz.gz").write_bytes(gzip.compress(content[:99]) + gzip.compress(content[99:]))  # in two parts
    np.testing.assert_array_equal(datasets.load(tmp_path / "s.npz.gz").x, np.eye(3))


def test_damaged_compression_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    content = gzip.compress(built(rng).SerializeToString())
    for broken in (content[:-5], content[:40], content[:30] + b"\xff" * 30 + content[60:], content[:-8] + b"\0" * 8):
        (tmp_path / "m.onnx.gz").write_bytes(broken)
        assert "is damaged or was cut short" in refusal(load, tmp_path / "m.onnx.gz")
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(b""))
    assert "is empty" in refusal(load, tmp_path / "m.onnx.gz")


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    monkeypatch.setattr("qverify.onnx.file._MOST_BYTES", 1 << 19)
    monkeypatch.setattr("qverify.datasets.formats._MOST_BYTES", 1 << 19)
    assert "unpacks to more than 2 GiB" in refusal(load, tmp_path / "m.onnx.gz")
    assert "unpacks to more than 64 GiB" in refusal(datasets.load, tmp_path / "m.onnx.gz")


# --- Git LFS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [load, datasets.load], ids=["model", "samples"])
def test_a_pointer_of_git_lfs(tmp_path: Path, read: Callable[..., Any]) -> None:
    for name in ("m.onnx", "m.npz", "m"):
        (tmp_path / name).write_bytes(POINTER)
        assert "is a pointer of Git LFS, not the file itself; run `git lfs pull`" in refusal(read, tmp_path / name)


@pytest.mark.parametrize("shape", [(4, 4), (3, 3), (40, 30)])
def test_a_pointer_of_git_lfs_in_place_of_the_weights(
    tmp_path: Path, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    """It is 108 bytes long, which is enough for 4 x 4 weights: those were read as if nothing had happened."""
    made = model([node("Gemm", "x w", "y")], {"w": weights(rng, *shape)}, ["N", shape[0]])
    apart = onnx.ModelProto.FromString(made.SerializeToString())  # which saving changes
    onnx.save_model(apart, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    agree(load(tmp_path / "m.onnx"), made, rng)
    (tmp_path / "weights.bin").write_bytes(POINTER)
    assert "keeps weights in 'weights.bin', which is a pointer of Git LFS" in refusal(load, tmp_path / "m.onnx")


@pytest.mark.parametrize("place", ["../weights.bin", "/etc/hostname", "link.bin"])
def test_weights_outside_the_folder_are_not_read(tmp_path: Path, place: str, rng: np.random.Generator) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    made = model([node("Gemm", "x w", "y")], {"w": weights(rng, 2, 2)}, ["N", 2])
    onnx.save_model(made, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    content = onnx.load(folder / "m.onnx", load_external_data=False)
    content.graph.initializer[0].external_data[0].value = place
    (folder / "m.onnx").write_bytes(content.SerializeToString())
    assert "keeps weights in another file that is missing or damaged" in refusal(load, folder / "m.onnx")


# --- something else ---------------------------------------------------------------------------------------

NPZ = saved(lambda file: np.savez(file, x=np.eye(3), y=np.arange(3)))
NPY = saved(np.save, np.eye(3))
TORCH = saved(lambda file: torch.save({"x": torch.eye(3)}, file))
ORT = b"\x20\0\0\0ORTM" + bytes(40)
TFLITE = b"\x1c\0\0\0TFL3" + bytes(40)
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(40)
FIRST = "the model comes first, as in `qverify verify MODEL.onnx --data DATA.npz`"

# Name: (content, what is said where a model is wanted, what is said where samples are wanted)
FOREIGN = {
    "npz": (NPZ, f"is an .npz archive, not an ONNX file; {FIRST}", None),
    "npy": (NPY, f"is a .npy array, not an ONNX file; {FIRST}", "y=labels): it is a single .npy array, without labels"),
    "pt": (TORCH, "is a PyTorch file, not an ONNX file; write one with torch.onnx.export", "which torch.load can read"),
    "tflite": (
        TFLITE,
        "is a TensorFlow Lite model, not an ONNX file; qverify.load and qverify.tflite.load read it",
        "is a model, not sampl",
    ),
    "ort": (
        ORT,
        "is a model in ORT format, not an ONNX file; give the .onnx file that it was",
        "is a model, not sampl",
    ),
    "h5": (HDF5, "is an HDF5 file, not an ONNX file; convert it", "y=labels): it is an HDF5 file"),
    "keras": (archive(model_dot_weights_dot_h5=b"", config_dot_json=b"{}"), "is a Keras file", "must hold x_test"),
    "pkl": (pickle.dumps({"x": [1, 2]}), "is a pickle, not an ONNX file; give an .onnx file", "it is a pickle"),
    "zip": (archive(models__net_dot_onnx=b"x"), "is a zip archive with 'models/net.onnx' in it", "must hold x_test"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "is a PNG image, not an ONNX file", "it is a PNG image"),
    "csv": (
        b"label,p0,p1\n5,0.1,0.2\n",
        "is truncated or not an ONNX file",
        "it is text, which numpy.loadtxt can read",
    ),
    "Größen.csv": ("Größe;1,5\r\n".encode() * 999, "not an ONNX file", "it is text, which numpy.loadtxt can read"),
    "bin": (
        bytes(range(200, 256)),
        "is truncated or not an ONNX file; export or download",
        "or fetch it again if it w",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_called_by_what_it_is(tmp_path: Path, name: str) -> None:
    content, wanted_model, wanted_samples = FOREIGN[name]
    for path in (tmp_path / f"file.{name}", tmp_path / "file"):
        path.write_bytes(content)
        assert wanted_model in refusal(load, path)
        if wanted_samples is not None:
            assert wanted_samples in refusal(datasets.load, path)


def test_a_model_given_as_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("m.onnx", "m.onnx.gz"):
        (tmp_path / name).write_bytes(gzip.compress(built(rng).SerializeToString()))
        message = refusal(datasets.load, tmp_path / name)
        assert message.endswith(f"{name} is a model, not samples; give the model first, and samples as --data.")


# --- missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "asked", "meant"),
    [
        ("digits.onnx", "digit.onnx", "digits.onnx"),
        ("Digits.ONNX", "digits.onnx", "Digits.ONNX"),
        ("net-4x256.onnx", "net_4x256.onnx", "net-4x256.onnx"),
        ("samples.npz", "sample.npz", "samples.npz"),
        ("samples.npz", "sampels", "samples.npz"),
        ("m.onnx.gz", "m.onnx", "m.onnx.gz"),
        ("a.onnx", "b.onnx", None),
        ("a\x1b[31mb.onnx", "a[31mb.onnx", "a\ufffd[31mb.onnx"),
        ("digits.onnx", "other.onnx", None),
    ],
)
def test_a_file_with_nearly_the_same_name_is_offered(tmp_path: Path, there: str, asked: str, meant: str | None) -> None:
    (tmp_path / there).write_bytes(b"x")
    for read in (load, datasets.load):
        message = refusal(read, tmp_path / asked)
        assert (f" (did you mean '{meant}'?)" in message) == (meant is not None), message
        assert "does not exist" in message or "There is no data set or file" in message


def test_missing_folders_and_names_that_are_none(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "no" / "m.onnx", tmp_path / "file" / "m.onnx"):
        assert "does not exist" in refusal(load, path)
        assert "There is no data set or file" in refusal(datasets.load, path)
    for read in (load, datasets.load):
        assert "cannot be read (File name too long); check the path" in refusal(read, tmp_path / ("m" * 999))
        assert "is not the path of a file" in refusal(read, Path(f"{tmp_path}/m\0.npz"))
        assert "is a directory" in refusal(read, tmp_path)
    assert "; a plan for `qverify batch` takes several." in refusal(datasets.load, "mnist,digits")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path: Any) -> None:
    (tmp_path / "m.npz").write_bytes(NPZ)
    (tmp_path / "m.npz").chmod(0)
    for read in (load, datasets.load):
        assert "cannot be read (Permission denied); check its permissions" in refusal(read, tmp_path / "m.npz")


def test_a_folder_of_very_many_files_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(30):
        (tmp_path / f"net{n}.onnx").write_bytes(b"")
    monkeypatch.setattr(user_files, "_MOST_NAMES", 5)
    assert user_files.did_you_mean(tmp_path / "net.onnx").startswith(" (did you mean 'net")
