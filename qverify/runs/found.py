"""What the objects of `discrepancy`, `property`, `compare`, `covers` and `runtimes` hold; objects.py reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.runs.question import Question

Ends = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SampleFound:
    """What was found of one sample; what a command does not say of it is empty.

    `lower`, `upper`: proved ends, per output; `attained_lower`, `attained_upper`: ends that were met, None if none
    were sought. `predicted`: the class, -1 for none. `witness`: the two classes of two runtimes.
    """

    index: int
    status: str = ""
    lower: Ends = ()
    upper: Ends = ()
    attained_lower: Ends | None = None
    attained_upper: Ends | None = None
    label: int = -1
    predicted: int = -1
    complete: bool = True
    detail: str = ""
    witness: tuple[int, ...] = ()

    @property
    def worst(self) -> float:
        """The largest size of an end that is proved."""
        return max(map(abs, (*self.lower, *self.upper)), default=0.0)

    @property
    def met(self) -> float:
        """The largest size of an end that was met."""
        return max(map(abs, (*(self.attained_lower or ()), *(self.attained_upper or ()))), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file by its path as given, and the sha256 of its bytes."""

    model: str
    model_sha256: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Discrepancies(Brief):
    """How far outputs move over a family (`discrepancy`). `solvers`: those of the exact step, with their versions."""

    question: Question
    solvers: tuple[str, ...]
    rows: tuple[SampleFound, ...]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Properties(Brief):
    """Whether a property, in words, holds over a family (`property`)."""

    question: Question
    property: str
    rows: tuple[SampleFound, ...]


@dataclass(frozen=True, kw_only=True)
class About:
    """The samples that a file was asked about, and by which version."""

    qverify: str
    data: str
    data_sha256: str
    sample_range: tuple[int, int]
    input_scale: float | None = None

    @property
    def asked(self) -> int:
        """How many samples were asked about."""
        return self.sample_range[1] - self.sample_range[0]


@dataclass(frozen=True, kw_only=True)
class TensorFound:
    """The error of one tensor, as `replication.tensors.TensorError`."""

    name: str
    trained: str
    snr_db: float | None
    largest: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison(Brief):
    """A file beside the network it was made of (`compare`); the fields as in its object."""

    about: About
    trained: Named
    file: Named
    rounding: str
    input_radius: float
    on_grid: bool
    clip: tuple[float, float] | None
    epsilon: float | None
    float_right: int | None
    file_right: int | None
    same_class: int | None
    tensors: tuple[TensorFound, ...]
    rows: tuple[SampleFound, ...]


@dataclass(frozen=True, kw_only=True)
class PartFound:
    """A part of a file beside the family, as `replication.coverage.Part`."""

    kind: str
    trained: str
    file: str
    covered: bool
    share: float | None
    detail: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Coverage(Brief):
    """Whether a file is a member of a family (`covers`)."""

    qverify: str
    trained: Named
    file: Named
    convention: str
    rule: str
    parts: tuple[PartFound, ...]

    @property
    def covered(self) -> bool:
        """Every part is."""
        return all(part.covered for part in self.parts)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Runtimes(Brief):
    """Whether every runtime gives the same class (`runtimes`); `rules`: what runtimes each stands for."""

    about: About
    file: Named
    rules: Mapping[str, str]
    timeout: float | None
    rows: tuple[SampleFound, ...]
