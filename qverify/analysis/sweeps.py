"""Guaranteed accuracy along an axis of radii, for single kinds, pairs of them, and all: one row a point.

A *part* is the set of kinds that are quantised; the others are exact. Weights and biases go together. A *point* is a
place on the axis: a bit-width under a scheme, or the radius itself, the same number for every kind in the part.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qverify.choices import KINDS, VERIFY_METHODS, Batchnorm, Rounding, Scheme
from qverify.errors import RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.kinds import described, expected, is_number, is_word
from qverify.moved import former_names
from qverify.text.brief import Brief
from qverify.text.escapes import shown
from qverify.verification import hints
from qverify.verification.arguments import callbacks, checked
from qverify.verification.cascade import verdicts
from qverify.verification.verdict import Options, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from qverify.network import Network

__getattr__ = former_names(__name__, {"Row": "qverify.analysis.sweeps:SweepRow"})

PARTS: dict[str, tuple[str, ...]] = {
    "input": ("input",),
    "weight": ("weight", "bias"),
    "activation": ("activation",),
    "input+weight": ("input", "weight", "bias"),
    "input+activation": ("input", "activation"),
    "weight+activation": ("weight", "bias", "activation"),
    "all": KINDS,
}
"""Which kinds of radii each part has."""

Key = tuple[str, str, int | None, float | None]


@dataclass(frozen=True, eq=False, repr=False)
class Point(Brief):
    """One place on the axis: the radii of all kinds, and how it is stated, in bits or as the radius itself."""

    radii: Radii
    bits: int | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One point of one curve, in the order of the columns of sweep.csv.

    `input` to `activation`: the largest radius of each kind. `clean`, `guaranteed`, `attack`, `unknown`: counts of
    the `samples`, as in report.py; `attack` is None if no failing member was looked for. `seconds`: elapsed.
    """

    model: str
    part: str
    bits: int | None
    value: float | None
    input: float
    weight: float
    bias: float
    activation: float
    method: str
    samples: int
    clean: int
    guaranteed: int
    attack: int | None
    unknown: int
    seconds: float

    @property
    def key(self) -> Key:
        """The identity of a row among those of one sweep."""
        return (self.model, self.part, self.bits, self.value)

    @property
    def place(self) -> float:
        """The place on the axis: the bit-width, or the radius."""
        return float(self.bits if self.value is None else self.value)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return asdict(self)

    def faults(self) -> list[str]:
        """The columns whose values cannot be, or contradict the others."""
        kinds = ("input", "weight", "bias", "activation")
        holds = {
            "model": bool(self.model),
            "part": self.part in PARTS,
            "bits": 1 <= self.bits <= 32 if self.bits is not None else self.value is not None,
            "value": self.value is None or (self.value >= 0 and self.bits is None),
            **{kind: getattr(self, kind) >= 0 for kind in kinds},
            "method": self.method in VERIFY_METHODS,
            "samples": self.samples > 0,
            "clean": 0 <= self.clean <= self.samples,
            "guaranteed": 0 <= self.guaranteed <= self.clean,
            "unknown": 0 <= self.unknown <= self.clean - self.guaranteed,
            "attack": self.attack in (None, self.guaranteed + self.unknown),
            "seconds": self.seconds >= 0,
        }
        return [name for name, held in holds.items() if not held]


def by_value(values: Iterable[float]) -> list[Point]:
    """Points that state the radius itself, >= 0, for every kind. Raises RadiiError."""
    values = _several(values, "The radii", "numbers")
    if wrong := [value for value in values if not is_number(value)]:
        raise RadiiError(f"A radius is {described(wrong[0])}; give numbers.")
    return [Point(Radii(v, v, v, v, convention=f"radius {v:g}"), value=float(v)) for v in values]


def by_bits(
    bits: Iterable[int],
    scheme: Scheme = "paper",
    rounding: Rounding = "any",
    network: Network | None = None,
    calibration: Any = None,
    kernel: str = "exact-accumulation",
    batchnorm: Batchnorm = "either",
) -> list[Point]:
    """Points that state a bit-width; the arguments of `Radii.from_bits`. Raises RadiiError."""
    return by_quantiser(bits, Quantiser(8, scheme, rounding, kernel, batchnorm), network, calibration)


def by_quantiser(bits: Iterable[int], quantiser: Quantiser, network: Network | None, calibration: Any) -> list[Point]:
    """Points that state a bit-width, with all else as one quantiser has it. Raises RadiiError."""
    bits = _several(bits, "The bit-widths", "whole numbers")
    quantisers = [replace(quantiser, bits=b) for b in bits]
    return [Point(Radii.of(quantiser, network, calibration), bits=quantiser.bits) for quantiser in quantisers]


def _several(values: Any, what: str, wanted: str) -> list[Any]:
    """As a list; UsageError for what is none, text included."""
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        return list(values)
    except (TypeError, RuntimeError):
        raise UsageError(f"{what} are {described(values)}; give a list of {wanted}.") from None


def grid(points: Sequence[Point], parts: Iterable[str] = tuple(PARTS)) -> list[tuple[str, Point]]:
    """Every point for every part, part by part. Raises UsageError for a part that does not exist."""
    parts, points = _several(parts, "The parts", "their names"), _several(points, "The points", "as by_bits makes them")
    for point in points:
        expected(point, Point, "A point", "one as by_bits makes them")
    if unknown := [part for part in parts if not is_word(part, PARTS)]:
        raise UsageError(f"There is no part {shown(unknown[0])}; the parts are {', '.join(PARTS)}.")
    return [(part, point) for part in parts for point in points]


def sweep(
    network: Network,
    x: Any,
    y: Any,
    cases: Iterable[tuple[str, Point]],
    options: Options | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[SweepRow]:
    """The counts of verdicts on all samples for every (part, point) of `cases`, as `grid` makes them: a row as soon as
    one is done.

    The arguments and errors are those of `verify`; without `options` IBP alone, which is what a guarantee by
    bounds needs. Setting `stop` from another thread ends the sweep soon, and no row is made of a point that was cut
    off.
    """
    options = Options.given(options, Options(method="ibp", attack=False))
    callbacks(stop, on_verdict=on_verdict)
    cases = _several(cases, "The cases", "as grid makes them")
    for case in cases:
        if not (isinstance(case, tuple) and len(case) == 2 and is_word(case[0], PARTS) and isinstance(case[1], Point)):
            raise UsageError(f"A case is {described(case)}; give a part and a point, as grid makes them.")
    x, y = checked(network, x, y)
    hints.remark_on(network, None, x, y)
    stop = stop or threading.Event()
    for part, point in cases:
        if stop.is_set():
            return
        began = time.perf_counter()
        radii = point.radii.only(*PARTS[part])
        found = verdicts(network, x, y, radii, options, on_verdict, stop)
        if len(found) < len(x):
            return
        count = Counter(verdict.status for verdict in found)
        yield SweepRow(
            model=network.source,
            part=part,
            bits=point.bits,
            value=point.value,
            **Family.of(network, radii, options.clip).largest(),
            method=options.method,
            samples=len(found),
            clean=len(found) - count[Status.MISCLASSIFIED],
            guaranteed=count[Status.VERIFIED],
            attack=count[Status.VERIFIED] + count[Status.UNKNOWN] if options.attack else None,
            unknown=count[Status.UNKNOWN],
            seconds=round(time.perf_counter() - began, 3),
        )
