"""The places of the named data sets: folders of this machine, or else the network."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qverify.datasets.formats import CIFAR_BATCH_FOLDER, CIFAR_FOLDER, CIFAR_NPZ, CIFAR_TAR, IDX, NPZ, Format
from qverify.errors import DataError
from qverify.files.paths import new_folder

Layout = tuple[str, Format]

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "mnist": (("mnist.npz", NPZ), ("mnist", IDX), ("MNIST/raw", IDX)),
    "fashion-mnist": (
        ("fashion-mnist.npz", NPZ),
        ("fashion_mnist.npz", NPZ),
        ("fashion-mnist", IDX),
        ("fashion_mnist", IDX),
        ("FashionMNIST/raw", IDX),
    ),
    "cifar10": (
        ("cifar10.npz", CIFAR_NPZ),
        (CIFAR_FOLDER, CIFAR_BATCH_FOLDER),
        ("cifar-10-python.tar.gz", CIFAR_TAR),
    ),
}
"""Per data set, what each folder is searched for, in this order. `X/raw` is where torchvision puts IDX files.

IDX files have the same names whatever they hold, so those that lie in no folder of their own are not taken.
"""


@dataclass(frozen=True)
class Download:
    """Files to download: the sha256 of each URL, and their place in the cache, a file or, for several, a folder."""

    place: str
    files: dict[str, str]
    by_hand: str
    """What a user without a network can put into a folder instead."""


_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

# The sha256 are those that Keras checks at the same addresses; TensorFlow Datasets lists the same for Fashion-MNIST.
DOWNLOADS = {
    "mnist": Download(
        "mnist.npz",
        {_KERAS + "mnist.npz": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
        "mnist.npz, or a folder mnist with its four IDX files,",
    ),
    "fashion-mnist": Download(
        "fashion-mnist",
        {
            _KERAS + name: sha256
            for name, sha256 in (
                ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            )
        },
        "fashion-mnist.npz, or a folder fashion-mnist with its four IDX files,",
    ),
    "cifar10": Download(
        "cifar-10-python.tar.gz",
        {
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz": (
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
            )
        },
        "cifar-10-python.tar.gz or cifar10.npz",
    ),
}
DOWNLOAD_TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up: a firewall that drops packets must not hang a run."""


def find(name: str) -> tuple[Path, Format]:
    """The place of a data set of `LAYOUTS`, and its format.

    It is looked for in $QVERIFY_DATA and the user's cache; else downloaded into the cache.
    Hashes are checked of what is downloaded only: other copies may be packed differently, and theirs is recorded.
    Raises DataError if it lies nowhere and cannot be downloaded.
    """
    return find_here(name) or _fetch(name)


def find_here(name: str) -> tuple[Path, Format] | None:
    """The place and format of a data set on this machine; None where `find` would download.

    Raises DataError for a folder that cannot be searched.
    """
    folders = [_cache()]
    if os.environ.get("QVERIFY_DATA"):
        folders.insert(0, Path(os.environ["QVERIFY_DATA"]))
    for folder in folders:
        found = _find_in(folder, name)
        if found is not None:
            return found
    return None


def _find_in(folder: Path, name: str) -> tuple[Path, Format] | None:
    try:
        for place, stored in LAYOUTS[name]:
            if stored.present(folder / place):
                return folder / place, stored
    except OSError as error:
        raise DataError(f"{folder} cannot be searched ({error.strerror}); check its permissions.") from error
    return None


def _cache() -> Path:
    """The user's cache folder of qverify; it need not exist. XDG says that a relative path is to be ignored."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "qverify"


def _fetch(name: str) -> tuple[Path, Format]:
    """Download a data set into the cache, all of it or nothing."""
    source, cache, failure = DOWNLOADS[name], _cache(), None
    try:
        with new_folder(cache), tempfile.TemporaryDirectory(dir=cache) as temporary:
            partial = Path(temporary) / source.place
            if len(source.files) > 1:
                partial.mkdir()
            for url, sha256 in source.files.items():
                _download(url, partial / url.rsplit("/", 1)[1] if partial.is_dir() else partial, sha256)
            # Same file system, so the rename is atomic: another process sees all files, whole, or none.
            partial.replace(cache / source.place)
    except (OSError, RuntimeError, ValueError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        failure = error
    found = _find_in(cache, name)  # after a failure too: a folder is not replaced if another process was first
    if found is None:
        raise DataError(
            f"{name} was not found and could not be downloaded ({failure});"
            f" put {source.by_hand} into a folder and set $QVERIFY_DATA to that folder."
        ) from failure
    return found


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
