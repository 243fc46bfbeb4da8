"""From `Given` to network, samples and family, with everything checked before the work begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qverify import datasets
from qverify.choices import FILE_ROUNDING, QUANTISER, RANGED
from qverify.console.output import say
from qverify.datasets import Samples, units
from qverify.errors import ModelError, UsageError
from qverify.exact.decide import TOLERANCE
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.radii_file import read_family
from qverify.family.steps import Quantiser
from qverify.files.hashes import file_sha256
from qverify.files.places import place
from qverify.fingerprint import fingerprint
from qverify.loading import load
from qverify.remarks import quiet
from qverify.replication.file_ranges import ranges_of_file
from qverify.runs.question import Question, StatedRadii
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.verdict import SEMANTICS, Options
from qverify.version import __version__

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.runs.given import Given

P = TypeVar("P", bound="Problem")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Problem(Brief):
    """A network, and the samples that are asked about: those at `indices` of the data set, `everything`.

    `doubts`: why the data do not seem to be the network's.
    """

    given: Given
    network: Network
    everything: Samples
    samples: Samples
    indices: range
    doubts: tuple[str, ...] = ()

    @classmethod
    def load(cls: type[P], given: Given, classifies: bool = True) -> P:
        """Read what is given; notes and hints go to stderr. Raises what is wrong with it.

        `classifies`: labels are outputs of the network, and there are at least two.
        """
        cls._check(given)
        network = read_network(given)
        everything = read_samples(given, network)
        if everything is None:
            raise UsageError("The samples are missing; give --data NAME or --data FILE.npz.")
        problem = cls.of(given, network, everything, classifies)
        problem.hint()
        return replace(problem, doubts=doubted(network, everything))

    @classmethod
    def of(cls: type[P], given: Given, network: Network, everything: Samples, classifies: bool = True) -> P:
        """The problem for a model and data read before; says nothing on stderr. Raises what is wrong with it."""
        cls._check(given)
        samples, indices = datasets.select(everything, given.samples)
        family = cls._family(given, network, everything)
        (datasets.fit if classifies else datasets.flatten)(samples, network)
        return cls(given=given, network=network, everything=everything, samples=samples, indices=indices, **family)

    @classmethod
    def _check(cls, given: Given) -> None:
        given.check()

    @classmethod
    def _family(cls, given: Given, network: Network, everything: Samples) -> dict[str, Any]:
        """The fields that a subclass has beside these, by their names."""
        return {}

    def hint(self, where: str = "") -> None:
        """Say what of network or samples goes beyond the quantisers that the family stands for; `where` goes before."""

    @property
    def title(self) -> str:
        """Model, data and which samples, for people."""
        whole = len(self.indices) == len(self.everything)
        part = "" if whole else f", samples {self.indices.start}:{self.indices.stop}"
        scale = "" if self.given.input_scale is None else f" times {self.given.input_scale:g}"
        return f"{self.network.source} on {self.given.data}{scale}{part}"

    def inputs(self) -> Array:
        """The samples flattened, (N, n_in)."""
        return self.samples.x.reshape(len(self.samples), -1)

    def label(self, index: int) -> int | None:
        """The label of the sample at an index of the data set; None if it is not asked about."""
        return int(self.samples.y[index - self.indices.start]) if index in self.indices else None

    def asked(self, radii: StatedRadii) -> Question:
        """The question about these samples and the family that `radii` states."""
        given, samples = self.given, self.samples
        return Question(
            qverify=__version__,
            semantics=SEMANTICS,
            model=given.model,
            output=given.output,
            model_sha256=file_sha256(given.model),
            network_sha256=fingerprint(self.network),
            data=str(given.data),
            data_source=samples.source,
            data_sha256=samples.sha256,
            data_samples=len(self.everything),
            input_scale=given.input_scale,
            samples=(self.indices.start, self.indices.stop),
            clip_input=given.clip_input,
            method=given.method,
            formulation=given.formulation,
            solver=given.solver,
            timeout=given.seconds,
            tolerance=TOLERANCE,
            radii=radii,
        )

    def places(self, folder: str) -> dict[str, Any]:
        """The files' places, by what they hold, for a run in `folder`, as it keeps them beside the question."""
        given, samples = self.given, self.samples
        files = {"model": given.model, "radii": given.radii}
        files["data"] = samples.source if Path(samples.source).exists() else None  # some ship with the package
        return {kind: place(path, folder) for kind, path in files.items() if path is not None}

    def options(self) -> Options:
        """The options of the computation. Raises UsageError."""
        return self.given.options()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FamilyProblem(Problem):
    """A problem with the family that its network stands for. `radii_sha256`: of the radii file, if there is one."""

    radii: Radii
    family: Family
    radii_sha256: str | None = None

    @classmethod
    def _family(cls, given: Given, network: Network, everything: Samples) -> dict[str, Any]:
        given.check_file(network.rounds)
        given.require_radii(network.rounds)
        radii, sha256 = stated_radii(given, network, everything)
        assert radii is not None
        family = Family.of(network, radii, given.clip_input)
        return {"radii": radii, "family": family, "radii_sha256": sha256}

    @property
    def calibrated(self) -> bool:
        """Whether the radii follow from ranges on samples."""
        return self.radii.quantiser is not None and self.radii.quantiser.scheme in RANGED

    def hint(self, where: str = "") -> None:
        """Say what of network or samples goes beyond the quantisers that the family stands for; `where` goes before."""
        say_hints(self.network, self.radii, self.samples, where)

    def question(self) -> Question:
        """The question, as run.json keeps it."""
        given, scheme = self.given, self.given.stated_scheme
        stated = StatedRadii(convention=self.radii.convention, largest=self.family.largest())
        if given.radii is not None:
            stated = replace(stated, file=given.radii, sha256=self.radii_sha256)
        elif given.bits is not None:
            stated = with_quantiser(stated, given.quantiser(given.bits))
        if self.network.rounds:
            stated = replace(stated, rounding=given.rounding or FILE_ROUNDING)
        if scheme in RANGED or self.calibrated:
            stated = replace(stated, calibration=given.calibration or calibrated_on_all(len(self.everything)))
        return self.asked(stated)


def calibrated_on_all(samples: int) -> str:
    """What ranges are taken on unless something else is said, for people."""
    return f"all {samples} samples of the data set"


def with_quantiser(stated: StatedRadii, quantiser: Quantiser) -> StatedRadii:
    """The radii of a quantiser, with what was said of it."""
    said: dict[str, Any] = {name: getattr(quantiser, name) for name in ("bits", "scheme", "rounding")}
    if quantiser.scheme in RANGED:
        said |= {name: getattr(quantiser, name) for name in ("kernel", "batchnorm")}
    plain = type(quantiser)(quantiser.bits)
    own = {name: getattr(quantiser, name) for name in QUANTISER if name not in said}
    return replace(stated, **said, **{name: one for name, one in own.items() if one != getattr(plain, name)})


# -- what files hold ------------------------------------------------------------------------------


def read_network(given: Given, where: str = "") -> Network:
    """The model; what its loader notes goes to stderr, after `where`."""
    with quiet():
        network = load(given.model, given.output)
    for note in network.notes:
        say(f"note: {where}{note}")
    return network


def read_file_of(given: Given, trained: Network, path: str, where: str = "") -> Network:
    """The integer file of a float network. Raises ModelError where the two are not a float network and a quantised
    one."""
    if trained.rounds:
        raise ModelError(f"{given.model} is quantised; give the float network first, then the file made of it.")
    file = read_network(replace(given, model=path, output=None), where)
    if not file.rounds:
        raise ModelError(f"{path} is not quantised; give the integer file that was made of {given.model}.")
    return file


def read_samples(given: Given, network: Network | None = None) -> Samples | None:
    """The whole data set, its inputs multiplied as asked, and joined for a network of several; None if none is
    named."""
    parts = None if network is None else network.parts
    return None if given.data is None else datasets.scaled(datasets.load(given.data, parts), given.input_scale)


def doubted(network: Network, everything: Samples, where: str = "") -> tuple[str, ...]:
    """The doubts that the data are the network's; they go to stderr too, after `where`."""
    found = tuple(units.doubts(network, everything))
    for doubt in found:
        say(f"note: {where}{doubt}")
    return found


def stated_radii(given: Given, network: Network, everything: Samples | None) -> tuple[Radii | None, str | None]:
    """The radii asked for, calibrated on all samples of the data set where the scheme needs that and nothing else is
    said; sha256 of a file.

    Both are None where no family is stated.
    """
    given.check_file(network.rounds)
    own = Radii.of_file(network, given.rounding or FILE_ROUNDING) if network.rounds else None  # type: ignore[arg-type]
    if given.radii is not None:
        stated, sha256 = read_family(given.radii)
        if isinstance(stated, Quantiser):
            return _ranged(given, stated, network, everything), sha256
        return (stated if own is None else stated.at_points(own)), sha256
    if own is not None or given.bits is None:
        return own, None
    return _ranged(given, given.quantiser(given.bits), network, everything), None


def _ranged(given: Given, quantiser: Quantiser, network: Network, everything: Samples | None) -> Radii:
    """The radii of a quantiser, its ranges taken on the samples that are to be."""
    if quantiser.scheme not in RANGED:
        return Radii.of(quantiser)
    samples = everything
    if given.calibration is not None and Path(given.calibration).suffix in (".onnx", ".tflite"):
        with quiet():
            file = load(given.calibration)
        return Radii.of(quantiser, network, ranges_of_file(network, file, quantiser))
    if given.calibration is not None:
        name, _, part = given.calibration.removesuffix("]").partition("[")
        samples, _ = datasets.select(
            datasets.scaled(datasets.load(name, network.parts), given.input_scale), part or None
        )
    if samples is None:
        raise UsageError("Ranges of activations are taken from samples; give --data or --calibration too.")
    return Radii.of(quantiser, network, datasets.flatten(samples, network))


def say_hints(network: Network, radii: Radii, samples: Samples | None, where: str = "") -> None:
    """Say what of network or samples goes beyond the quantisers that the radii stand for; `where` goes before."""
    for sentence in hints.of_family(network, radii, None if samples is None else samples.x):
        say(f"note: {where}{sentence}")
