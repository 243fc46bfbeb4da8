"""The model, the samples and the radii of a case, found again for pictures and layers; never downloaded.

Nothing counts as found unless its sha256 is the one recorded. Paths are those of the run, so relative ones are
looked for from the folder in which the run was started.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qverify import data_sources, datasets, onnx_io
from qverify.batch import file_sha256, fingerprint
from qverify.datasets import Samples
from qverify.errors import DataError, QVerifyError
from qverify.escapes import printable
from qverify.network import Network
from qverify.quantisation import Radii, load_radii
from qverify.report_runs import Case

T = TypeVar("T")


class Sources:
    """Reads each file once, however many cases name it. Every method raises DataError that says what is missing."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], Any] = {}

    def network(self, case: Case) -> Network:
        path, sha256 = case.question["model"], case.question.get("model_sha256")
        return self._once(("model", path, str(sha256)), lambda: _network(path, case.question))

    def samples(self, case: Case) -> Samples:
        name, sha256 = case.question["data"], str(case.question.get("data_sha256"))
        return self._once(("data", name, sha256), lambda: _samples(name, sha256))

    def radii(self, case: Case) -> Radii:
        """Made again as `qverify verify` made them, on the whole data set where the scheme needs ranges."""
        stated = case.question["radii"]
        if "file" in stated:
            return _as_data_error(lambda: _radii_file(str(stated["file"]), stated.get("sha256")))
        scheme: Any = stated.get("scheme")
        rounding: Any = stated.get("rounding")
        bits: Any = stated.get("bits")
        if scheme not in ("tensor", "channel"):
            return _as_data_error(lambda: Radii.from_bits(bits, scheme, rounding))
        network, samples = self.network(case), self.samples(case)
        calibration, _ = datasets.fit(samples, network)
        return _as_data_error(lambda: Radii.from_bits(bits, scheme, rounding, network, calibration))

    def _once(self, key: tuple[str, ...], read: Callable[[], T]) -> T:
        """What `read` returned or raised the first time."""
        if key not in self._found:
            try:
                self._found[key] = _as_data_error(read)
            except DataError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, DataError):
            raise found
        return found


def clipping(case: Case) -> tuple[float, float] | None:
    """Where quantised inputs were kept, as `Options.clip` takes it."""
    clip = case.question.get("clip_input")
    return None if clip is None else (clip[0], clip[1])


def _network(path: str, question: dict[str, Any]) -> Network:
    _same(path, question.get("model_sha256"))
    network = onnx_io.load(path)
    if fingerprint(network) != question.get("network_sha256"):
        raise DataError(f"the weights of {printable(path)} have changed since the run")
    return network


def _samples(name: str, sha256: str) -> Samples:
    if name in data_sources.LAYOUTS and data_sources.find_here(name) is None:
        raise DataError(f"the data set {name} is not on this machine")
    if name not in datasets.NAMES and not Path(name).is_file():
        raise DataError(f"{printable(name)} is not there")
    samples = datasets.load(name)
    if samples.sha256 != sha256:
        raise DataError(f"{printable(name)} has changed since the run")
    return samples


def _radii_file(path: str, sha256: Any) -> Radii:
    _same(path, sha256)
    return load_radii(path)


def _same(path: str, expected: Any) -> None:
    """Raise DataError unless the file is there and has the hash expected."""
    if not Path(path).is_file():
        raise DataError(f"{printable(path)} is not there")
    if file_sha256(path) != expected:
        raise DataError(f"{printable(path)} has changed since the run")


def _as_data_error(read: Callable[[], T]) -> T:
    """Whatever is wrong with a file is a reason why something is missing."""
    try:
        return read()
    except DataError:
        raise
    except (QVerifyError, OSError) as error:
        raise DataError(str(error)) from error
