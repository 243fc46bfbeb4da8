"""Files and options -> what is to be computed, with everything checked before the work begins."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qverify import datasets
from qverify.arrays import Array
from qverify.budget import parse_memory
from qverify.choices import RANGED
from qverify.cli.options import Given
from qverify.console.output import say
from qverify.datasets import Samples, units
from qverify.errors import UsageError
from qverify.exact import solvers
from qverify.exact.decide import TOLERANCE
from qverify.family.family import Family, Radii, read_radii
from qverify.family.steps import Quantiser
from qverify.files.places import PLACES, place
from qverify.fingerprint import fingerprint
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.remarks import quiet
from qverify.runs.verify import file_sha256
from qverify.text.brief import Brief
from qverify.verification import hints
from qverify.verification.verdict import SEMANTICS, Options
from qverify.version import __version__


@dataclass(frozen=True, eq=False, repr=False)
class Problem(Brief):
    """A network, the samples selected, and the family. `indices` are those of the samples in the data set.

    `everything` is the whole data set. `radii` and `family` are None where no radii were given, `samples` and
    `everything` where no data were (only `inspect` allows it). `radii_sha256`: of the radii file, if there is one.
    `doubts`: why the data do not seem to be the network's.
    """

    given: Given
    network: Network
    radii: Radii | None
    family: Family | None
    samples: Samples | None
    indices: range
    everything: Samples | None
    radii_sha256: str | None = None
    doubts: tuple[str, ...] = ()

    @staticmethod
    def load(given: Given, classifies: bool = True) -> Problem:
        """Read model, data and radii; notes and hints go to stderr. Raises whatever is wrong with them.

        `classifies`: labels are outputs of the network, and there are at least two.
        """
        _check(given)
        with quiet():
            network = onnx_io.load(given.model)
        for note in network.notes:
            say(f"note: {note}")
        everything = None if given.data is None else datasets.scaled(datasets.load(given.data), given.input_scale)
        problem = Problem.of(given, network, everything, classifies)
        hint(problem)
        found = [] if everything is None else units.doubts(network, everything)
        for doubt in found:
            say(f"note: {doubt}")
        return replace(problem, doubts=tuple(found))

    @staticmethod
    def of(given: Given, network: Network, everything: Samples | None, classifies: bool = True) -> Problem:
        """The same for a model and data read before; says nothing."""
        _check(given)
        samples, indices = (None, range(0)) if everything is None else datasets.select(everything, given.samples)
        radii, radii_sha256 = _radii(given, network, everything)
        family = None if radii is None else Family.of(network, radii, given.clip_input)
        if samples is not None and classifies:
            datasets.fit(samples, network)
        elif samples is not None:
            datasets.flatten(samples, network)
        return Problem(given, network, radii, family, samples, indices, everything, radii_sha256)

    @property
    def whole(self) -> int:
        """The number of samples in the data set."""
        return 0 if self.everything is None else len(self.everything)

    @property
    def title(self) -> str:
        """Model, data and which samples, for people."""
        part = "" if len(self.indices) == self.whole else f", samples {self.indices.start}:{self.indices.stop}"
        scale = "" if self.given.input_scale is None else f" times {self.given.input_scale:g}"
        return f"{self.network.source} on {self.given.data}{scale}{part}"

    @property
    def seconds(self) -> float | None:
        """The time limit of one sample; None for none."""
        return None if self.given.timeout == math.inf else self.given.timeout

    def inputs(self) -> Array:
        """The samples flattened, (N, n_in)."""
        assert self.samples is not None
        return self.samples.x.reshape(len(self.samples), -1)

    def question(self) -> dict[str, Any]:
        """What is asked, as run.json keeps it."""
        given, radii = self.given, self.radii
        assert radii is not None and self.family is not None
        stated: dict[str, Any] = {"convention": radii.convention, "largest": self.family.largest()}
        if given.radii is not None:
            stated |= {"file": given.radii, "sha256": self.radii_sha256}
        else:
            stated |= {"bits": given.bits, "scheme": _scheme(given), "rounding": given.rounding or "any"}
        if _scheme(given) in RANGED:
            stated |= of_ranges(given.kernel, given.batchnorm, self.whole)
        return self.asked() | {"radii": stated}

    def asked(self) -> dict[str, Any]:
        """The question without the radii."""
        given, samples = self.given, self.samples
        assert samples is not None
        return {
            "qverify": __version__,
            "semantics": SEMANTICS,
            "model": given.model,
            "model_sha256": file_sha256(given.model),
            "network_sha256": fingerprint(self.network),
            "data": given.data,
            "data_source": samples.source,
            "data_sha256": samples.sha256,
            "input_scale": given.input_scale,
            "samples": [self.indices.start, self.indices.stop],
            "clip_input": given.clip_input,
            "method": given.method,
            "formulation": given.formulation,
            "solver": given.solver,
            "timeout": self.seconds,
            "tolerance": TOLERANCE,
        }

    def places(self, folder: str) -> dict[str, Any]:
        """Where the files lie, for a run in `folder`, as it keeps this beside the question."""
        given, samples = self.given, self.samples
        assert samples is not None
        files = {"model": given.model, "radii": given.radii}
        files["data"] = samples.source if Path(samples.source).exists() else None  # some ship with the package
        return {PLACES: {kind: place(path, folder) for kind, path in files.items() if path is not None}}

    def options(self) -> Options:
        """How to compute. Raises UsageError."""
        given = self.given
        return Options(
            method=given.method,
            formulation=given.formulation,
            solver=given.solver,
            clip=given.clip_input,
            seconds=self.seconds,
            jobs=given.jobs,
            device=given.device,
            memory=None if given.memory is None else parse_memory(given.memory),
        )


def chosen_solver(options: Options) -> dict[str, str] | None:
    """The solver that the exact step will use and its version; None if the method has no such step.

    Asked before the work begins: a licence that is missing should not show after an hour. Raises SolverError.
    """
    if options.method not in ("auto", "exact"):
        return None
    solver = solvers.choose(options.solver, options.formulation == "bilinear")
    state = solver.availability()
    return {"name": solver.name, "version": state.version, "licence": state.licence}


def started() -> str:
    """Now, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _scheme(given: Given) -> str | None:
    return None if given.bits is None else given.scheme or "paper"


def _check(given: Given) -> None:
    """Combinations of options that make no sense."""
    if given.bits is not None and given.radii is not None:
        raise UsageError("--bits and --radii exclude each other; give one of them.")
    if given.bits is None and (given.scheme or given.rounding):
        raise UsageError("--scheme and --rounding say what --bits means; give --bits too.")
    if _scheme(given) not in RANGED and (given.kernel or given.batchnorm):
        raise UsageError("--kernel and --batchnorm say what --scheme tensor and channel mean; give one of these too.")
    if given.clip_input is not None and not -math.inf < given.clip_input[0] < given.clip_input[1] < math.inf:
        raise UsageError("--clip-input takes two finite numbers, the smaller one first; for pixels: 0 1.")
    if given.data is None and given.input_scale is not None:
        raise UsageError("--input-scale multiplies the inputs of a data set; give --data too.")
    if given.data is None and given.samples is not None:
        raise UsageError("--samples selects from a data set; give --data too.")
    if given.data is None and given.scheme in RANGED:
        raise UsageError(f"--scheme {given.scheme} takes the ranges of activations from samples; give --data too.")


def required_radii(given: Given) -> None:
    """Raise UsageError unless the family is stated."""
    if given.bits is None and given.radii is None:
        raise UsageError("The radii are missing; give --bits N, or --radii FILE.toml.")


def _radii(given: Given, network: Network, samples: Samples | None) -> tuple[Radii | None, str | None]:
    """The radii asked for, calibrated on all samples of the data set where the scheme needs that; sha256 of a file."""
    if given.radii is not None:
        return read_radii(given.radii)
    return _radii_of_bits(given, network, samples), None


def _radii_of_bits(given: Given, network: Network, samples: Samples | None) -> Radii | None:
    if given.bits is None:
        return None
    quantiser = quantiser_of(given, given.bits)
    if quantiser.scheme not in RANGED:
        return Radii.of(quantiser)
    assert samples is not None
    calibration = datasets.flatten(samples, network)
    return Radii.of(quantiser, network, calibration)


def quantiser_of(given: Given, bits: int) -> Quantiser:
    """That of the options, with what they leave out."""
    default = Quantiser(bits)
    stated = {name: getattr(given, name) for name in ("scheme", "rounding", "kernel", "batchnorm")}
    return replace(default, **{name: value for name, value in stated.items() if value is not None})


def of_ranges(kernel: str | None, batchnorm: str | None, samples: int) -> dict[str, str]:
    """What a question holds of schemes that take steps from ranges, beside bits, scheme and rounding."""
    default = Quantiser(8)
    return {
        "kernel": kernel or default.kernel,
        "batchnorm": batchnorm or default.batchnorm,
        "calibration": f"all {samples} samples of the data set",
    }


def hint(problem: Problem, where: str = "") -> None:
    """Say what of the network or the samples goes beyond the quantisers that the radii stand for."""
    if problem.radii is not None:
        x = None if problem.samples is None else problem.samples.x
        for sentence in hints.of_family(problem.network, problem.radii, x):
            say(f"note: {where}{sentence}")
