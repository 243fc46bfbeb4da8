"""`Given`: model, samples, family and method of a run as a user states them, in words and paths. Imports nothing heavy.

The command line fills it from its options, a plan for each of its cases; `problem.py` reads what it names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qverify.choices import PLAIN_ROUNDINGS, QUANTISER, RANGED
from qverify.errors import UsageError
from qverify.family.widths import widths
from qverify.runs.quantiser_words import QuantiserWords

if TYPE_CHECKING:
    from qverify.family.steps import Quantiser
    from qverify.verification.verdict import Options


RANGED_ONLY = ("kernel", "batchnorm", "bias_bits", "points", "input", "activations", "ranges")
"""What means something only where steps are taken from ranges."""


def option(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Given(QuantiserWords):
    """Model, samples, family and method as stated, by the names of options of `qverify verify`; None if left out."""

    model: str
    output: str | None = None
    data: str | None = None
    bits: int | str | None = None
    scheme: str | None = None
    rounding: str | None = None
    radii: str | None = None
    samples: str | None = None
    input_scale: float | None = None
    clip_input: tuple[float, float] | None = None
    method: str = "auto"
    formulation: str = "relational"
    solver: str = "auto"
    timeout: float = 300.0
    jobs: int = 0
    device: str = "cpu"
    memory: str | None = None

    @property
    def seconds(self) -> float | None:
        """The time limit of one sample; None for none."""
        return None if self.timeout == math.inf else self.timeout

    @property
    def stated_scheme(self) -> str | None:
        """The scheme, `paper` if none is named; None without bits."""
        return None if self.bits is None else self.scheme or "paper"

    def __post_init__(self) -> None:
        if isinstance(self.bits, str):
            for name, value in widths(self.bits).items():
                object.__setattr__(self, name, value)

    def without_family(self) -> Given:
        """The same without all that states a family by bits."""
        nothing: dict[str, Any] = dict.fromkeys(("bits", "calibration", *QUANTISER))
        return replace(self, **nothing)

    def check(self) -> None:
        """Raise UsageError for combinations that make no sense."""
        if self.bits is not None and self.radii is not None:
            raise UsageError("--bits and --radii exclude each other; give one of them.")
        said = [name for name in QUANTISER if getattr(self, name) is not None]
        alone = [name for name in said if name != "rounding"] if self.bits is None else []
        if alone:
            raise UsageError(f"{option(alone[0])} says what --bits means; give --bits too.")
        if self.stated_scheme not in (None, *RANGED) and self.rounding not in (None, *PLAIN_ROUNDINGS):
            raise UsageError(
                f"--rounding {self.rounding} says how runtimes round; give --scheme tensor or channel too."
            )
        ranged = [name for name in said if name in RANGED_ONLY]
        if self.stated_scheme not in RANGED and ranged:
            raise UsageError(f"{option(ranged[0])} says what --scheme tensor and channel mean; give one of these too.")
        if self.calibration is not None and self.stated_scheme not in RANGED and self.radii is None:
            raise UsageError("--calibration takes ranges for --scheme tensor and channel; give one of these too.")
        if self.clip_input is not None and not -math.inf < self.clip_input[0] < self.clip_input[1] < math.inf:
            raise UsageError("--clip-input takes two finite numbers, the smaller one first; for pixels: 0 1.")
        if self.data is None and self.input_scale is not None:
            raise UsageError("--input-scale multiplies the inputs of a data set; give --data too.")
        if self.data is None and self.samples is not None:
            raise UsageError("--samples selects from a data set; give --data too.")
        if self.data is None and self.calibration is None and self.scheme in RANGED:
            raise UsageError(f"--scheme {self.scheme} takes the ranges of activations from samples; give --data too.")

    def check_file(self, quantised: bool) -> None:
        """Raise UsageError for a family that the model cannot have, which is `quantised` already or not."""
        if quantised and self.bits is not None:
            raise UsageError(
                f"{self.model} is quantised already, so --bits has nothing to say; leave it out (--rounding names the"
                " rule by which its runtimes round), or give the float model that it was made from."
            )
        if not quantised and self.bits is None and self.rounding:
            raise UsageError("--rounding says what --bits means; give --bits too.")

    def require_radii(self, quantised: bool = False) -> None:
        """Raise UsageError unless the family is stated, which a model that is `quantised` already states itself."""
        if self.bits is None and self.radii is None and not quantised:
            raise UsageError("The radii are missing; give --bits N, or --radii FILE.toml.")

    def quantiser(self, bits: Any) -> Quantiser:
        """The quantiser of so many bits, its conventions those stated; `Radii.of` refuses senseless ones."""
        from qverify.family.steps import Quantiser

        stated = {name: getattr(self, name) for name in QUANTISER}
        return replace(Quantiser(bits), **{name: value for name, value in stated.items() if value is not None})

    def options(self) -> Options:
        """The options of the computation. Raises UsageError."""
        from qverify.budget import parse_memory
        from qverify.verification.verdict import Options

        return Options(
            method=self.method,
            formulation=self.formulation,
            solver=self.solver,
            clip=self.clip_input,
            seconds=self.seconds,
            jobs=self.jobs,
            device=self.device,
            memory=None if self.memory is None else parse_memory(self.memory),
        )
