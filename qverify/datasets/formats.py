"""The formats samples come in: `.npz`, IDX (MNIST's own), and the Python batches of CIFAR-10.

A reader returns the arrays as the file holds them, for `datasets` to check, and the sha256 of exactly the bytes
it read. Files are read whole, and archives are opened in memory: nothing is unpacked to disk. Pickles are refused,
except in CIFAR's batches, which are pickles; there nothing that a pickle names is called or imported.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import math
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.datasets.unpickling import CIFAR_SHAPE, read_batch
from qverify.errors import DataError
from qverify.files.user import Kind, read, recognised, shown_path, unzipped
from qverify.text.brief import Brief
from qverify.text.shortened import listed, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

IDX_FILES = {
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
}
CIFAR_FOLDER = "cifar-10-batches-py"
CIFAR_BATCHES = {False: ("test_batch",), True: tuple(f"data_batch_{number}" for number in range(1, 6))}

_NPZ_KEYS = {False: (("x_test", "y_test"), ("x", "y")), True: (("x_train", "y_train"),)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RawSamples(Brief):
    """Samples as stored at `path`, not yet checked: x and y of any type, and the words for each in refusals.

    `named`: instead of x the arrays of a model's inputs, by their names. `sha256` is that of the bytes read; of several
    files, one after the other, in the order their reader states.
    """

    path: Path
    x: Any
    y: Any
    x_name: str
    y_name: str
    sha256: str
    named: dict[str, Any] | None = None


@dataclass(frozen=True)
class Format:
    """A way samples are stored: whether a path holds any, and how to read the test (False) or training split (True).

    `read` raises DataError if what is there is incomplete or damaged.
    """

    present: Callable[[Path], bool]
    read: Callable[[Path, bool], RawSamples]


def read_npz(path: Path, train: bool, inputs: tuple[str, ...] = ()) -> RawSamples:
    """Read the arrays `x_test, y_test` or, failing these, `x, y`; for training `x_train, y_train`. `inputs`: arrays of
    these names with `y_test` or `y` come first, those of the inputs of a model that has several."""
    wanted = [(*inputs, label) for label in ("y_test", "y") if inputs and label not in inputs]
    found, sha256 = read_arrays(path, (*wanted, *_NPZ_KEYS[train]))
    *keys, last = found
    shown, named = shown_path(path), {key: found[key] for key in keys} if tuple(keys) == inputs else None
    return RawSamples(
        path=path,
        x=None if named else found[keys[0]],
        y=found[last],
        x_name=f"{keys[0]} of {shown}",
        y_name=f"{last} of {shown}",
        sha256=sha256,
        named=named,
    )


def read_arrays(
    path: Path, wanted: tuple[tuple[str, ...], ...], more: tuple[str, ...] = ()
) -> tuple[dict[str, Any], str]:
    """Of an .npz the arrays of the first of `wanted`, groups of names, of which it has all, in their order; then those
    of `more` that it has. And the sha256 of the file. Raises DataError."""
    content = _content(path)
    return _arrays(path, _plain(path, content), wanted, more), hashlib.sha256(content).hexdigest()


def read_cifar_npz(path: Path, train: bool) -> RawSamples:
    """Read an .npz as `read_npz` does, and bring images (N, 32, 32, 3) to (N, 3, 32, 32).

    That is how Keras hands CIFAR-10 out, so files saved from there look like this.
    """
    raw = read_npz(path, train)
    x = raw.x
    if isinstance(x, np.ndarray) and x.shape[1:] == (*CIFAR_SHAPE[1:], CIFAR_SHAPE[0]):
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return replace(raw, x=x)


def read_idx(folder: Path, train: bool) -> RawSamples:
    """The IDX files of one split, compressed or not. Hashed as stored: images, then labels."""
    paths, contents = [], []
    for name in IDX_FILES[train]:
        path = _idx_path(folder, name)
        if path is None:
            raise DataError(f"{folder} holds no {name} or {name}.gz; put it there, beside the others.")
        paths.append(path)
        contents.append(_content(path))
    x, y = (_idx_array(path, content, axes) for path, content, axes in zip(paths, contents, (3, 1), strict=True))
    return RawSamples(
        path=folder,
        x=x,
        y=y,
        x_name=str(paths[0]),
        y_name=str(paths[1]),
        sha256=hashlib.sha256(b"".join(contents)).hexdigest(),
    )


def read_cifar_folder(folder: Path, train: bool) -> RawSamples:
    """The unpacked batches of one split: x (N, 3, 32, 32) uint8. Hashed in the order of their numbers."""
    batches = {}
    for name in CIFAR_BATCHES[train]:
        if not (folder / name).is_file():
            raise DataError(f"{folder} holds no {name}; unpack all of cifar-10-python.tar.gz there.")
        batches[str(folder / name)] = _content(folder / name)
    return _cifar(folder, batches, hashlib.sha256(b"".join(batches.values())).hexdigest())


def read_cifar_tar(path: Path, train: bool) -> RawSamples:
    """The batches of one split from `cifar-10-python.tar.gz`, whose own bytes are hashed: x (N, 3, 32, 32) uint8.

    Only members that are plain files of exactly the expected names are read; links and other paths are not.
    """
    content = _content(path)
    batches = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_plain(path, content)), mode="r:") as archive:
            members = {member.name: member for member in archive if member.isreg()}
            for name in (f"{CIFAR_FOLDER}/{batch}" for batch in CIFAR_BATCHES[train]):
                file = archive.extractfile(members[name]) if name in members else None
                if file is None:
                    raise DataError(f"{path} holds no file {name}; fetch it again from where CIFAR-10 is published.")
                batches[f"{name} of {path}"] = file.read()
    except DataError:
        raise
    except Exception as error:  # TarError, but also ValueError, OverflowError, MemoryError from damaged headers
        raise DataError(f"{path} is not a readable .tar.gz file ({type(error).__name__}); fetch it again.") from error
    return _cifar(path, batches, hashlib.sha256(content).hexdigest())


_KIND = Kind("the path of an .npz file", "give the path of an .npz file", DataError)
_MOST_BYTES = 1 << 36
"""Of a compressed file when it is unpacked: 64 GiB."""


def _content(path: Path) -> bytes:
    return read(path, _KIND)


def _plain(path: Path, content: bytes) -> bytes:
    """The content without its gzip compression, if it has any."""
    try:
        return unzipped(content, _MOST_BYTES)
    except OverflowError:
        raise DataError(f"{shown_path(path)} unpacks to more than 64 GiB; give a smaller file.") from None
    except OSError as error:
        cause = type(error.__cause__ or error).__name__
        raise DataError(f"{shown_path(path)} is damaged or was cut short ({cause}); fetch it again.") from error


def _arrays(path: Path, content: bytes, wanted: tuple[tuple[str, ...], ...], more: tuple[str, ...]) -> dict[str, Any]:
    """The arrays of the first of `wanted` that the archive holds, and those of `more`, by their names."""
    shown, damaged = shown_path(path), "or fetch it again if it was cut short"
    if not zipfile.is_zipfile(io.BytesIO(content)) or recognised(content) == "a PyTorch file":
        raise DataError(_no_npz(path, content))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for keys in wanted:
                if all(key in archive.files for key in keys):
                    return {key: archive[key] for key in (*keys, *more) if key in archive.files}
            found = listed(sorted(map(shortened, archive.files))) or "nothing"
    except Exception as error:  # A damaged archive raises nearly anything: zlib, struct, tokenize, memory errors ...
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise DataError(f"{shown} holds pickled objects, which are not read; store plain number arrays.") from error
        raise DataError(f"{shown} {_NO_NPZ}, {damaged} ({type(error).__name__}).") from error
    expected = " or ".join(f"{listed([shortened(x) for x in keys[:-1]], 5)} and {keys[-1]}" for keys in wanted)
    raise DataError(f"{shown} must hold {expected}, but holds {found}; rename its arrays.")


_NO_NPZ = "is not a readable .npz file; write it with numpy.savez"


def _no_npz(path: Path, content: bytes) -> str:
    """The advice on a file that is no zip archive, by what it is instead."""
    kind, shown = recognised(content), shown_path(path)
    if "model" in (kind or "") or path.name.removesuffix(".gz").endswith(".onnx"):
        return f"{shown} is a model, not samples; give the model first, and samples as --data."
    if kind is None and _is_text(content):
        kind = "text, which numpy.loadtxt can read"
    if kind is None:
        return f"{shown} {_NO_NPZ}, or fetch it again if it was cut short."
    return f"{shown} {_NO_NPZ}(FILE, x=samples, y=labels): it is {_MEANT.get(kind, kind)}."


_MEANT = {
    "a .npy array": "a single .npy array, without labels",
    "a PyTorch file": "a PyTorch file, which torch.load can read",
}


def _is_text(content: bytes) -> bool:
    """Whether content is text, by its beginning, which may end within a character."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content[:4096])
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)


def _idx_path(folder: Path, name: str) -> Path | None:
    """The file of that name: as it is, with `.idx` for `-idx`, or either compressed, whichever is first."""
    candidates = (folder / (stem + end) for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _has_idx(folder: Path) -> bool:
    return any(_idx_path(folder, name) for names in IDX_FILES.values() for name in names)


def _idx_array(path: Path, content: bytes, axes: int) -> Any:
    """An IDX file of unsigned bytes: 0, 0, 8, the number of axes, each length as 4 bytes big-endian, the elements."""
    plain = _plain(path, content)
    magic, start = bytes((0, 0, 8, axes)), 4 + 4 * axes
    if plain[:4] != magic:
        kind = "images" if axes == 3 else "labels"
        begins = plain[:4].hex() or "nothing"
        raise DataError(f"{path} begins with {begins}, but IDX files of {kind} with {magic.hex()}; fetch it again.")
    shape = tuple(int.from_bytes(plain[at : at + 4], "big") for at in range(4, start, 4))
    if len(plain) != start + math.prod(shape):
        raise DataError(
            f"{path} should be of {start + math.prod(shape)} bytes for the shape {shape} that it states,"
            f" but is of {len(plain)}; fetch it again."
        )
    if not all(shape):
        raise DataError(f"{path} is empty, of shape {shape}; fetch it again.")
    return np.frombuffer(plain, np.uint8, offset=start).reshape(shape)


def _has_batches(folder: Path) -> bool:
    return any((folder / name).is_file() for names in CIFAR_BATCHES.values() for name in names)


def _cifar(path: Path, batches: dict[str, bytes], sha256: str) -> RawSamples:
    images, labels = [], []
    for name, content in batches.items():
        data, numbers = read_batch(name, content)
        images.append(data.reshape(-1, *CIFAR_SHAPE))
        labels.extend(numbers)
    return RawSamples(
        path=path,
        x=np.concatenate(images),
        y=np.array(labels),
        x_name=f"data of {path}",
        y_name=f"labels of {path}",
        sha256=sha256,
    )


NPZ = Format(Path.exists, read_npz)
CIFAR_NPZ = Format(Path.exists, read_cifar_npz)
IDX = Format(_has_idx, read_idx)
CIFAR_BATCH_FOLDER = Format(_has_batches, read_cifar_folder)
CIFAR_TAR = Format(Path.is_file, read_cifar_tar)
