"""Samples and labels: the digits that ship with qverify, MNIST, and any `.npz`.

Every array is checked when it is read, so that nothing further down has to: what `load` returns is
finite, of one shape, and labelled by integers >= 0. Files are read whole and hashed before they are
parsed, so `Samples.sha256` is the hash of exactly the bytes the samples came from. Pickles are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import DataError, UsageError

if TYPE_CHECKING:
    from qverify.network import Network

Array = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
DOWNLOAD_TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up: a firewall that drops packets must not hang a run."""

_DIGITS = Path(__file__).resolve().parent / "data" / "digits.npz"
_TEST_KEYS = (("x_test", "y_test"), ("x", "y"))
_TRAIN_KEYS = (("x_train", "y_train"),)


@dataclass(frozen=True, eq=False)
class Samples:
    """N labelled samples: x (N, *shape) float64, y (N,) int64 >= 0.

    `sha256` is that of the whole file read, whatever was selected from it since; `source` says where it lay.
    """

    name: str
    x: Array
    y: Labels
    sha256: str
    source: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])


def load(name_or_path: str | os.PathLike[str]) -> Samples:
    """The samples to verify: `digits`, `mnist` (their test splits), or the path of an `.npz`.

    The `.npz` holds `x_test, y_test` or, failing these, `x, y`. Integer pixels (0 to 255) are divided by
    255, those of `digits` (0 to 16) by 16; floats are taken as they are.

    Raises DataError if the file is missing, damaged, or holds anything but finite samples and labels.
    """
    name = os.fspath(name_or_path)
    if name == "digits":
        return _read(_DIGITS, name, _TEST_KEYS, 16)
    if name == "mnist":
        return _read(_find_mnist(), name, _TEST_KEYS)
    path = Path(name)
    if not path.exists() and path.suffix != ".npz":
        raise DataError(f"There is no data set or file {name!r}; name 'digits', 'mnist', or the path of an .npz file.")
    return _read(path, path.stem, _TEST_KEYS)


def load_train(name: str) -> Samples:
    """The training split of `digits` or `mnist`, which shares no sample with that of `load`. Raises DataError."""
    if name == "digits":
        return _read(_DIGITS, name, _TRAIN_KEYS, 16)
    if name == "mnist":
        return _read(_find_mnist(), name, _TRAIN_KEYS)
    raise DataError(f"There is no training split of {name!r}; only 'digits' and 'mnist' have one.")


def select(samples: Samples, text: str | None) -> tuple[Samples, range]:
    """The samples `A:B` (from A up to but without B, counted from 0) and their indices; None selects all.

    Either number may be left out. Raises UsageError if `text` is not such a range, is empty, reversed or
    negative, and DataError if it reaches beyond the set.
    """
    size = len(samples)
    if text is None:
        return samples, range(size)
    if re.fullmatch(r"\s*-\s*\d+\s*:.*|[^:]*:\s*-\s*\d+\s*", text, re.ASCII):
        raise UsageError(f"The sample range {text!r} is negative; count from 0, for example 0:{size}.")
    match = re.fullmatch(r"\s*(\d{0,18})\s*:\s*(\d{0,18})\s*", text, re.ASCII)
    if match is None:
        raise UsageError(f"The sample range {text!r} is not of the form A:B; write for example 0:{size}.")
    start, stop = int(match[1] or 0), int(match[2] or size)
    if start >= size or stop > size:
        raise DataError(
            f"The sample range {text!r} reaches beyond {samples.name}, which has {size} samples (0:{size})."
        )
    if start >= stop:
        raise UsageError(f"The sample range {text!r} is empty; the first number must be smaller than the second.")
    return replace(samples, x=samples.x[start:stop], y=samples.y[start:stop]), range(start, stop)


def flatten(samples: Samples, network: Network) -> Array:
    """The samples as (N, n_in) for `network`.

    Axes of length 1 do not matter, and neither does flattening in C order: (28, 28) fits (1, 28, 28) and
    (784,). Axes in another order are refused although the number of elements agrees, because reshaping
    would scramble every image. Raises DataError.
    """
    have, want = samples.shape, network.input_shape
    if samples.x[0].size != network.input_size:
        raise DataError(f"The samples of {samples.name} have shape {have}, but the network reads {want}; use its data.")
    core, wanted_core = ([n for n in shape if n != 1] for shape in (have, want))
    if core != wanted_core and len(core) > 1 and len(wanted_core) > 1:
        raise DataError(
            f"The samples of {samples.name} have shape {have}, but the network reads {want};"
            " bring the axes into its order."
        )
    return samples.x.reshape(len(samples), network.input_size)


def fit(samples: Samples, network: Network) -> tuple[Array, Labels]:
    """The samples flattened for `network`: x (N, n_in) and y (N,).

    Raises DataError as `flatten` does, and if a label has no output or there is no rival output.
    """
    x = flatten(samples, network)
    if network.output_size < 2:
        raise DataError(f"The network has {network.output_size} output; a classifier needs at least 2.")
    largest = int(samples.y.max())
    if largest >= network.output_size:
        raise DataError(
            f"The largest label of {samples.name} is {largest}, but the network has {network.output_size} outputs;"
            " labels count from 0."
        )
    return x, samples.y


def _read(path: Path, name: str, wanted: tuple[tuple[str, str], ...], scale: int = 255) -> Samples:
    """Read and check one pair of arrays; `scale` is what integer pixels are divided by, and their largest value."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of an .npz file.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory; give the path of an .npz file in it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    keys, x, y = _arrays(path, content, wanted)
    pixels, labels = _pixels(f"{keys[0]} of {path}", x, scale), _labels(f"{keys[1]} of {path}", y)
    if len(pixels) != len(labels):
        raise DataError(
            f"{path} holds {len(pixels)} samples but {len(labels)} labels; store one label for each sample."
        )
    source = "shipped with qverify" if path == _DIGITS else str(path)
    return Samples(name, pixels, labels, hashlib.sha256(content).hexdigest(), source)


def _arrays(path: Path, content: bytes, wanted: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], Any, Any]:
    """The first pair of `wanted` keys that the archive holds, and its two arrays."""
    damaged = f"{path} is not a readable .npz file; write it with numpy.savez, or fetch it again if it was cut short"
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DataError(f"{damaged}.")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for keys in wanted:
                if all(key in archive.files for key in keys):
                    return keys, archive[keys[0]], archive[keys[1]]
            found = ", ".join(sorted(archive.files)) or "nothing"
    except Exception as error:  # A damaged archive raises nearly anything: zlib, struct, tokenize, memory errors ...
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise DataError(f"{path} holds pickled objects, which are not read; store plain number arrays.") from error
        raise DataError(f"{damaged} ({type(error).__name__}).") from error
    expected = " or ".join(f"{x} and {y}" for x, y in wanted)
    raise DataError(f"{path} must hold {expected}, but holds {found}; rename its arrays.")


def _pixels(what: str, x: Any, scale: int) -> Array:
    """(N, *shape) of any real number type -> float64."""
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "uifb":
        raise DataError(f"{what} is not an array of real numbers; store floats, or integers from 0 to {scale}.")
    if x.ndim < 2:
        raise DataError(f"{what} has shape {x.shape}; store the samples along the first of at least two axes.")
    if not x.size:
        raise DataError(f"{what} is empty, of shape {x.shape}; store at least one sample.")
    if x.dtype.kind in "ui":
        if x.min() < 0 or x.max() > scale:
            raise DataError(
                f"{what} holds integers from {x.min()} to {x.max()}, but integer pixels go from 0 to {scale};"
                " store floats in the units of the network."
            )
        return x.astype(np.float64) / scale
    values = x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        raise DataError(f"{what} holds {len(bad)} NaN or infinite values, the first at index {first}; repair the data.")
    return values


def _labels(what: str, y: Any) -> Labels:
    """(N,) of any integer type -> int64."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "ui":
        kind = y.dtype if isinstance(y, np.ndarray) else type(y).__name__
        raise DataError(f"{what} is of type {kind}; labels must be integers that number the classes from 0.")
    if y.ndim != 1:
        raise DataError(f"{what} has shape {y.shape}; store one class number for each sample (argmax, if one-hot).")
    labels = y.astype(np.int64)
    if len(labels) and labels.min() < 0:
        first = int(np.argmax(labels < 0))
        raise DataError(f"{what} holds the negative label {labels[first]} at index {first}; number the classes from 0.")
    return labels


def _cache() -> Path:
    """The user's cache folder of qverify; it need not exist. XDG says that a relative path is to be ignored."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "qverify"


def _find_mnist() -> Path:
    """`mnist.npz` in $QVERIFY_DATA, the user's cache or beside a source checkout; else downloaded into the cache.

    The hash is checked of what is downloaded only: other copies may be packed differently, and theirs is recorded.
    """
    folders = [_cache(), Path(__file__).resolve().parents[2] / "shared" / "data"]
    if os.environ.get("QVERIFY_DATA"):
        folders.insert(0, Path(os.environ["QVERIFY_DATA"]))
    for folder in folders:
        if (folder / "mnist.npz").exists():
            return folder / "mnist.npz"
    target = _cache() / "mnist.npz"
    try:
        with _new_folder(target.parent), tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            partial = Path(temporary) / "mnist.npz"
            _download(MNIST_URL, partial, MNIST_SHA256)
            # Same file system, so the rename is atomic: another process sees the whole file or none.
            partial.replace(target)
    except (OSError, RuntimeError, ValueError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise DataError(
            f"MNIST was not found and could not be downloaded ({error});"
            " put mnist.npz into a folder and set $QVERIFY_DATA to that folder."
        ) from error
    return target


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; if the body fails, remove those that were made and are still empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _download(url: str, target: Path, sha256: str) -> None:
    """Fetch a file and check its whole hash. Raises OSError (no network) or RuntimeError (wrong hash)."""
    import http.client
    import socket

    from torch.hub import download_url_to_file

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torch's function takes no timeout
    try:
        download_url_to_file(url, str(target), hash_prefix=sha256, progress=sys.stderr.isatty())
    except http.client.HTTPException as error:  # a connection cut short; not an OSError
        raise OSError(f"the connection failed: {error!r}") from error
    finally:
        socket.setdefaulttimeout(before)
