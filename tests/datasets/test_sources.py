"""Where named data sets are looked for, in which order, and what a download leaves behind."""

from __future__ import annotations

import gzip
import hashlib
import re
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.datasets import load, load_train
from qverify.datasets import sources as data_sources
from qverify.errors import DataError
from tests.support.stored_data import cifar_batches, cifar_tar, idx_folder

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def mnist_file(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.full((count, 28, 28), 255, dtype=np.uint8), np.arange(count, dtype=np.uint8)
    np.savez(folder / "mnist.npz", x_test=x, y_test=y, x_train=x[:1] // 5, y_train=y[:1])


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data set on this machine; everything that is looked at lies in the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QVERIFY_DATA", raising=False)
    return tmp_path


def test_mnist_is_looked_for_in_the_stated_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist_file(nowhere / "cache" / "qverify", 3)
    assert len(load("mnist")) == 3
    monkeypatch.setenv("QVERIFY_DATA", str(nowhere / "mine"))  # it holds nothing yet
    assert len(load("mnist")) == 3
    mnist_file(nowhere / "mine", 4)
    test, train = load("mnist"), load_train("mnist")
    assert test.x.shape == (4, 28, 28) and test.x.max() == 1 and test.source == str(nowhere / "mine" / "mnist.npz")
    assert train.x.shape == (1, 28, 28) and train.x.max() == 0.2


def test_no_folder_beside_a_checkout_is_looked_at(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        data_sources, "__file__", str(nowhere / "src" / "checkout" / "qverify" / "datasets" / "sources.py")
    )
    for place in ("src", "src/checkout", "src/checkout/qverify", "src/checkout/qverify/datasets"):
        mnist_file(nowhere / place / "shared" / "data", 2)
    assert data_sources.find_here("mnist") is None
    monkeypatch.setenv("QVERIFY_DATA", str(nowhere / "src" / "shared" / "data"))
    assert len(load("mnist")) == 2


def unreachable(url: str, target: Path, sha256: str) -> None:
    raise urllib.error.URLError("no route to host")


IDX_PLACES = {
    "mnist": ("mnist", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
}


@pytest.mark.parametrize(("name", "place"), [(name, place) for name in IDX_PLACES for place in IDX_PLACES[name]])
def test_idx_files_are_taken_from_a_folder_of_their_own(nowhere: Path, name: str, place: str) -> None:
    idx_folder(nowhere / "cache" / "qverify" / place, test=3, train=4)
    assert len(load(name)) == 3 and len(load_train(name)) == 4
    assert load(name).source == str(nowhere / "cache" / "qverify" / place)


def test_idx_files_are_never_taken_for_another_set(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sources, "_download", unreachable)
    monkeypatch.setenv("QVERIFY_DATA", str(nowhere / "mine"))
    idx_folder(nowhere / "mine")  # in no folder of their own
    for name in IDX_PLACES:
        with pytest.raises(DataError, match=f"^{name} was not found"):
            load(name)
    idx_folder(nowhere / "mine" / "mnist", test=3)
    with pytest.raises(DataError, match=r"^fashion-mnist was not found"):
        load("fashion-mnist")
    idx_folder(nowhere / "mine" / "FashionMNIST" / "raw", test=5)
    assert len(load("mnist")) == 3 and len(load("fashion-mnist")) == 5


@pytest.mark.parametrize("file", ["fashion-mnist.npz", "fashion_mnist.npz"])
def test_fashion_mnist_as_npz(nowhere: Path, file: str) -> None:
    mnist_file(nowhere / "cache" / "qverify", 3)
    (nowhere / "cache" / "qverify" / "mnist.npz").rename(nowhere / "cache" / "qverify" / file)
    assert len(load("fashion-mnist")) == 3 and load("fashion-mnist").name == "fashion-mnist"


def test_within_a_folder_npz_comes_first_and_an_earlier_folder_before_that(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_folder(nowhere / "cache" / "qverify" / "mnist", test=5)
    mnist_file(nowhere / "cache" / "qverify", 6)
    assert len(load("mnist")) == 6
    monkeypatch.setenv("QVERIFY_DATA", str(nowhere / "mine"))
    (nowhere / "mine" / "mnist").mkdir(parents=True)  # an empty folder holds no data set
    assert len(load("mnist")) == 6
    idx_folder(nowhere / "mine" / "mnist", test=3)
    assert len(load("mnist")) == 3


def test_cifar_is_looked_for_in_the_stated_order(nowhere: Path) -> None:
    cache = nowhere / "cache" / "qverify"
    batches = cifar_batches()
    (cache / "cifar-10-batches-py").mkdir(parents=True)
    (cache / "cifar-10-python.tar.gz").write_bytes(cifar_tar())
    assert load("cifar10").source.endswith("cifar-10-python.tar.gz")
    (cache / "cifar-10-batches-py" / "test_batch").write_bytes(batches["test_batch"])
    assert load("cifar10").source.endswith("cifar-10-batches-py")
    np.savez(cache / "cifar10.npz", x=np.zeros((1, 3, 32, 32)), y=np.array([4]))
    assert load("cifar10").source.endswith("cifar10.npz")


def test_a_folder_that_may_not_be_searched(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, **_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", deny)  # root may search anything, so chmod would test nothing there
    with pytest.raises(DataError, match=r"qverify cannot be searched \(Permission denied\); check its permissions\.$"):
        load("fashion-mnist")


def test_a_relative_xdg_cache_home_is_ignored(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(nowhere / "home"))
    mnist_file(nowhere / "home" / ".cache" / "qverify", 2)
    assert len(load("mnist")) == 2


@pytest.mark.slow
def test_the_real_mnist_if_it_is_here() -> None:
    if data_sources.find_here("mnist") is None:
        pytest.skip("MNIST is not on this machine")
    got = load("mnist")
    assert got.x.shape == (10000, 28, 28) and got.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert len(load_train("mnist")) == 60000


def serve(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str]) -> None:
    """Let a data set be fetched from other addresses, with other hashes."""
    source = replace(data_sources.DOWNLOADS[name], files=files)
    monkeypatch.setitem(data_sources.DOWNLOADS, name, source)


def serve_content(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, contents: dict[str, bytes]) -> None:
    folder.mkdir()
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    hashes = {(folder / file).as_uri(): hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    serve(monkeypatch, name, hashes)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_lands_in_the_cache_whole(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, target: Path, sha256: str) -> None:
        assert url == MNIST_URL and sha256 == MNIST_SHA256 and target.name == "mnist.npz"
        mnist_file(target.parent, 5)

    monkeypatch.setattr(data_sources, "_download", fetch)
    assert len(load("mnist")) == 5
    assert [p.name for p in (nowhere / "cache" / "qverify").iterdir()] == ["mnist.npz"]
    monkeypatch.setattr(data_sources, "_download", None)
    assert len(load("mnist")) == 5


def test_torch_checks_the_hash_of_a_download(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, "mnist", {(nowhere / "fake").as_uri(): MNIST_SHA256})
    (nowhere / "fake").write_bytes(b"not MNIST")
    with pytest.raises(DataError, match=r"invalid hash value.*QVERIFY_DATA"):
        load("mnist")
    assert not (nowhere / "cache").exists()
    serve(monkeypatch, "mnist", {(nowhere / "fake").as_uri(): hashlib.sha256(b"not MNIST").hexdigest()})
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load("mnist")
    assert (nowhere / "cache" / "qverify" / "mnist.npz").read_bytes() == b"not MNIST"


FAILURES = [
    urllib.error.URLError("no route to host"),
    TimeoutError("timed out"),
    RuntimeError("invalid hash value"),
    OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("cache_exists", [False, True])
def test_a_failed_download_leaves_nothing_behind(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, cache_exists: bool
) -> None:
    def fetch(url: str, target: Path, sha256: str) -> None:
        target.write_bytes(b"half of it")
        raise failure

    if cache_exists:
        (nowhere / "cache").mkdir()
    monkeypatch.setattr(data_sources, "_download", fetch)
    with pytest.raises(DataError) as caught:
        load("mnist")
    assert "could not be downloaded" in str(caught.value) and "set $QVERIFY_DATA to that folder" in str(caught.value)
    assert [p.name for p in nowhere.iterdir()] == (["cache"] if cache_exists else [])
    assert not cache_exists or not list((nowhere / "cache").iterdir())


def test_a_connection_cut_short_is_a_data_error(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.client
    import socket

    import torch.hub

    def fetch(*args: object, **options: object) -> None:
        assert socket.getdefaulttimeout() == data_sources.DOWNLOAD_TIMEOUT
        raise http.client.IncompleteRead(b"half")

    before = socket.getdefaulttimeout()
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(DataError, match="connection failed"):
        load("mnist")
    assert socket.getdefaulttimeout() == before


def test_an_unusable_cache_is_a_data_error(nowhere: Path) -> None:
    (nowhere / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"could not be downloaded.*QVERIFY_DATA"):
        load("mnist")


# --- downloads: the sets of several files, and archives ---


def test_addresses_and_hashes_are_whole() -> None:
    for name, source in data_sources.DOWNLOADS.items():
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in source.files.values())
        assert len(set(source.files.values())) == len(source.files) and all(
            u.startswith("https://") for u in source.files
        )
        assert source.place in [place for place, _ in data_sources.LAYOUTS[name]]
    assert list(data_sources.DOWNLOADS) == list(data_sources.LAYOUTS)


def test_fashion_mnist_is_downloaded_as_four_files(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the real function of torch, from the published names."""
    names = [url.rsplit("/", 1)[1] for url in data_sources.DOWNLOADS["fashion-mnist"].files]
    contents = {f"{name}.gz": gzip.compress(content) for name, content in idx_folder(nowhere / "plain").items()}
    assert sorted(names) == sorted(contents)
    serve_content(monkeypatch, nowhere / "server", "fashion-mnist", contents)
    assert len(load("fashion-mnist")) == 3 and len(load_train("fashion-mnist")) == 4
    assert names_in(nowhere / "cache") == sorted(f"qverify/fashion-mnist/{name}" for name in names)
    monkeypatch.setattr(data_sources, "_download", None)
    assert load("fashion-mnist").source == str(nowhere / "cache" / "qverify" / "fashion-mnist")


def test_cifar_is_downloaded_as_it_is_published(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_content(monkeypatch, nowhere / "server", "cifar10", {"cifar-10-python.tar.gz": cifar_tar()})
    assert load("cifar10").shape == (3, 32, 32) and len(load_train("cifar10")) == 20
    assert names_in(nowhere / "cache") == ["qverify/cifar-10-python.tar.gz"]


@pytest.mark.parametrize("failing", range(4))
def test_one_wrong_file_of_four_leaves_none(nowhere: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    contents = {f"{name}.gz": gzip.compress(content) for name, content in idx_folder(nowhere / "plain").items()}
    serve_content(monkeypatch, nowhere / "server", "fashion-mnist", contents)
    (nowhere / "server" / sorted(contents)[failing]).write_bytes(b"another file")
    with pytest.raises(DataError, match="could not be downloaded \\(invalid hash value"):
        load("fashion-mnist")
    assert not (nowhere / "cache").exists()


def test_a_process_that_was_faster_wins(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, target: Path, sha256: str) -> None:
        target.write_bytes(b"")
        idx_folder(nowhere / "cache" / "qverify" / "fashion-mnist", test=6)  # meanwhile, elsewhere

    monkeypatch.setattr(data_sources, "_download", fetch)
    assert len(load("fashion-mnist")) == 6
    assert [path.name for path in (nowhere / "cache" / "qverify").iterdir()] == ["fashion-mnist"]


BY_HAND = {
    "mnist": "put mnist.npz, or a folder mnist with its four IDX files, into a folder and set $QVERIFY_DATA to that",
    "fashion-mnist": "put fashion-mnist.npz, or a folder fashion-mnist with its four IDX files, into a folder and set",
    "cifar10": "put cifar-10-python.tar.gz or cifar10.npz into a folder and set $QVERIFY_DATA to that folder.",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_without_a_network_the_sentence_says_what_to_do(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(data_sources, "_download", unreachable)
    with pytest.raises(DataError) as caught:
        load(name)
    message = str(caught.value)
    assert message.startswith(f"{name} was not found and could not be downloaded (<urlopen error no route to host>);")
    assert BY_HAND[name] in message and message.endswith("to that folder.") and "\n" not in message
    assert not list(nowhere.iterdir())
