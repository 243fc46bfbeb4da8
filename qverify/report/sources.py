"""The model, the samples and the radii of a case, found again for pictures and layers; never downloaded.

A file is looked for on the way from the run's own folder, then as it was given, then from the root (`places.py`).
Nothing counts as found unless its sha256 is the one recorded. What is missing is said without the folders.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from qverify import datasets
from qverify.choices import QUANTISER, RANGED
from qverify.datasets import Samples
from qverify.datasets import sources as data_sources
from qverify.errors import DataError, QVerifyError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.radii_file import load_radii, read_family
from qverify.family.steps import Quantiser
from qverify.files.hashes import file_sha256
from qverify.files.names import file_name, without_folders
from qverify.files.places import candidates
from qverify.fingerprint import fingerprint
from qverify.loading import load
from qverify.remarks import quiet
from qverify.runs.problem import calibrated_on_all
from qverify.text.escapes import printable
from qverify.text.shortened import listed
from qverify.verification.verdict import SEMANTICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qverify.network import Network
    from qverify.runs.question import StatedRadii
    from qverify.runs.reading import StoredCase

T = TypeVar("T")


class Sources:
    """Reads each file once, however many cases name it. Every method raises DataError that says what is missing."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}

    def network(self, case: StoredCase) -> Network:
        """The model, whose weights may lie in another file."""
        question = case.question
        wanted = question.network_sha256

        def read(path: Path) -> Network:
            with quiet():
                network = load(path, question.output)
            if fingerprint(network) == wanted:
                return network
            if question.semantics != SEMANTICS:  # other versions may hash otherwise
                raise DataError(f"{path.name} is hashed otherwise than by the version that made the run")
            raise DataError(f"the weights of {path.name} have changed since the run")

        return self._file(case, "model", question.model, question.model_sha256, read, str(wanted))

    def samples(self, case: StoredCase) -> Samples:
        """The whole data set."""
        question = case.question
        name, sha256, arrays = question.data, question.data_sha256, question.arrays_sha256
        scale = question.input_scale

        def same(samples: Samples) -> Samples:
            samples = datasets.scaled(samples, scale)
            if samples.sha256 != sha256:
                raise DataError(f"{file_name(name)} has changed since the run")
            if arrays is not None and samples.arrays_sha256 != arrays:
                raise DataError(f"{file_name(name)} is read otherwise than by the version that made the run")
            return samples

        if name not in datasets.NAMES:
            return self._npz(case, same, f"{arrays} {scale}")
        paths = _places(case, "data", None) if name in data_sources.LAYOUTS else []
        ways: list[Callable[[], Samples]] = [lambda: same(_named(name))]
        ways += [lambda path=path: same(datasets.load_at(name, path)) for path in paths]  # type: ignore[misc]
        return self._once(("data", name, sha256, arrays, scale, *paths), paths, lambda: _first(ways))

    def _npz(self, case: StoredCase, same: Callable[[Samples], Samples], *more: str) -> Samples:
        """Samples from a file, in an array for each input where the network has several."""
        try:
            parts = self.network(case).parts
        except DataError:  # it is the samples that are asked for
            parts = None
        name, sha256, known = case.question.data, case.question.data_sha256, [] if parts is None else [repr(parts)]
        return self._file(case, "data", name, sha256, lambda path: same(datasets.load(path, parts)), *known, *more)

    def radii(self, case: StoredCase) -> Radii:
        """Made again as `qverify verify` made them, on the whole data set where the scheme needs ranges."""
        stated = case.question.radii
        if stated.bits is None and stated.rounding is not None:
            return self._of_file(case, stated)
        if stated.file is not None:
            found: Radii | Quantiser = self._file(
                case, "radii", stated.file, stated.sha256, lambda path: read_family(str(path))[0]
            )
        else:
            names = ("bits", *QUANTISER)
            found = Quantiser(**{name: value for name in names if (value := getattr(stated, name)) is not None})
        return found if isinstance(found, Radii) else self._of_quantiser(case, found)

    def _of_quantiser(self, case: StoredCase, quantiser: Quantiser) -> Radii:
        """The radii of a quantiser, its ranges taken on the whole data set."""
        if quantiser.scheme not in RANGED:
            return _as_data_error(lambda: Radii.of(quantiser))
        network, samples = self.network(case), self.samples(case)
        if case.question.radii.calibration not in (None, calibrated_on_all(len(samples))):
            raise DataError("the samples that ranges were taken on are not looked for")
        calibration, _ = datasets.fit(samples, network)
        return _as_data_error(lambda: Radii.of(quantiser, network, calibration))

    def _of_file(self, case: StoredCase, stated: StatedRadii) -> Radii:
        """The radii of a model that was quantised already."""
        network, rounding = self.network(case), stated.rounding
        own = _as_data_error(lambda: Radii.of_file(network, rounding))  # type: ignore[arg-type]
        if stated.file is None:
            return own
        given: Radii = self._file(case, "radii", stated.file, stated.sha256, lambda path: load_radii(str(path)))
        return given.at_points(own)

    def _file(self, case: StoredCase, kind: str, given: str, sha256: Any, read: Callable[[Path], T], *more: str) -> T:
        """Read the first file that may be the one given and has this hash."""
        paths = [path for path in _places(case, kind, given) if path.is_file()]

        def checked(path: Path) -> T:
            if file_sha256(str(path)) != sha256:
                raise DataError(f"{file_name(given)} has changed since the run")
            return read(path)

        def found() -> T:
            if not paths:
                raise DataError(f"{file_name(given)} is not there")
            return _first([lambda path=path: checked(path) for path in paths])  # type: ignore[misc]

        return self._once((kind, given, sha256, *more, *paths), paths, found)

    def _once(self, key: tuple[Any, ...], paths: Sequence[Path], read: Callable[[], T]) -> T:
        """Read once: later calls return or raise as the first did; messages name no folder of `paths`."""
        key = tuple(map(str, key))
        if key not in self._found:
            try:
                self._found[key] = _as_data_error(read)
            except DataError as error:
                known = [part for path in paths for part in (str(path), str(path.resolve()))]
                self._found[key] = DataError(printable(without_folders(str(error), known)))
        found = self._found[key]
        if isinstance(found, DataError):
            raise found
        answer: T = found
        return answer


def strange_labels(cases: Sequence[StoredCase], sources: Sources) -> list[str]:
    """A note on each case with rows whose labels are not those of its data, where these are found."""
    found = []
    for case in cases:
        try:
            labels = sources.samples(case).y
        except DataError:
            continue
        wrong = [row.index for row in case.rows if row.index >= len(labels) or labels[row.index] != row.label]
        if wrong:
            named = listed([str(index) for index in wrong])
            found.append(f"{case.title}: {len(wrong)} rows have labels that the data have not (samples {named}).")
    return found


def clipping(case: StoredCase) -> tuple[float, float] | None:
    """The interval to which quantised inputs were clipped, as `Options.clip` takes it; None for none."""
    return case.question.clip_input


def same_radii(case: StoredCase, network: Network, radii: Radii) -> bool:
    """Whether radii made again are as large as the run recorded: another version may make others of the same words."""
    made, stated = Family.of(network, radii, clipping(case)).largest(), case.question.radii.largest
    return made.keys() == stated.keys() and all(math.isclose(made[kind], stated[kind], rel_tol=1e-9) for kind in made)


def _places(case: StoredCase, kind: str, given: str | None) -> list[Path]:
    found = [
        path
        for one in case.sources
        for path in candidates(given, (one.question.places or {}).get(kind), one.run.folder)
    ]
    return list(dict.fromkeys(found))


def _first(ways: Sequence[Callable[[], T]]) -> T:
    """The result of the first of `ways` that does not fail; if all do, raises the DataError of the first."""
    failures = []
    for way in ways:
        try:
            return _as_data_error(way)
        except DataError as error:
            failures.append(error)
    raise failures[0]


def _named(name: str) -> Samples:
    if name in data_sources.LAYOUTS and data_sources.find_here(name) is None:
        raise DataError(f"the data set {name} is not on this machine")
    return datasets.load(name)


def _as_data_error(read: Callable[[], T]) -> T:
    """Read, and turn every error of a file into a DataError: a reason why something is missing."""
    try:
        return read()
    except DataError:
        raise
    except (QVerifyError, OSError) as error:
        raise DataError(str(error)) from error
