"""The grid of factors on the radii that a search tries, and the bracket between two of them that it finds of a
sample."""

from __future__ import annotations

import bisect
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from qverify.choices import BOUNDS
from qverify.errors import UsageError
from qverify.kinds import is_number, number_as_is

MAX_FACTOR, PRECISION = 16.0, 0.01
LIMIT = 1e6
"""The largest --max-factor: bounds of deep networks overflow where radii are astronomic."""

_DEPTH = 1024.0
"""The smallest factor above 0 is 1 / 1024, or that share of the largest factor where this is below 1."""


@dataclass(frozen=True)
class Grid:
    """The factors that are tried, ascending: 0, then a geometric series that ends at `max_factor` and has 1 in it.

    Neighbours above 0 differ by `precision`, relative to the smaller one, or a little less; 1 is left out only
    if it is above `max_factor`. Raises UsageError.
    """

    max_factor: float = MAX_FACTOR
    precision: float = PRECISION

    def __post_init__(self) -> None:
        if not is_number(self.max_factor) or not 0 < self.max_factor <= LIMIT:
            raise UsageError(
                f"The largest factor is {number_as_is(self.max_factor)}; give a number above 0, up to {LIMIT:g}."
            )
        if not is_number(self.precision) or not 1e-4 <= self.precision <= 1:
            raise UsageError(
                f"The precision is {number_as_is(self.precision)}; give a number from 0.0001 to 1, such as 0.01."
            )

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """All factors, 0 first."""
        ratio, anchor = 1 + self.precision, min(1.0, self.max_factor)
        above = math.ceil(math.log(self.max_factor) / math.log(ratio)) if self.max_factor > 1 else 0
        if above:
            ratio = self.max_factor ** (1 / above)
        below = math.ceil(math.log(_DEPTH) / math.log(ratio))
        series = [anchor * ratio**k for k in range(-below, above)] + [float(self.max_factor)]
        return (0.0, *series)

    @property
    def beyond(self) -> int:
        """The place after the last factor. Factors have the places from 1; place 0 is none at all."""
        return len(self.factors) + 1

    @property
    def halvings(self) -> int:
        """Number of halvings from the whole grid to two neighbours."""
        return self.beyond.bit_length()

    def at(self, place: int) -> float | None:
        """The factor at a place from 1; None outside the grid."""
        return self.factors[place - 1] if 0 < place < self.beyond else None

    def has(self, factor: float | None) -> bool:
        """The factor is one of the grid, or None; its last digits may be those of another machine."""
        place = bisect.bisect_left(self.factors, (factor or 0.0) * (1 - 1e-9))
        return place < len(self.factors) and self.factors[place] <= (factor or 0.0) * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """One sample, in the order of the columns of factors.csv: where between two factors it stops being verified.

    `lower`: the largest factor at which a proof was run and held, by `proved_by`; None if none held, not even at 0.
    `upper`: the smallest factor at which a concrete member fails, found by `broken_by`; None if none is known. A
    sample that the network itself gets wrong has no `lower`, and 0 for `upper`, by `forward`. `detail`: why the
    two are not neighbours although the exact step was asked. `seconds`: all stages, as in `Verdict`.
    """

    index: int
    label: int
    predicted: int
    lower: float | None
    upper: float | None
    proved_by: str
    broken_by: str
    detail: str
    seconds: float

    @property
    def factor(self) -> float:
        """The guaranteed factor, for statistics: `lower`, and 0 where nothing is proved."""
        return self.lower or 0.0

    @property
    def misclassified(self) -> bool:
        """The network itself is wrong."""
        return self.broken_by == "forward"

    def as_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return asdict(self)

    def faults(self) -> list[str]:
        """The columns whose values cannot be, or contradict the others."""
        proved, failed, wrong = self.lower is not None, self.upper is not None, self.misclassified
        holds = {
            "index": self.index >= 0,
            "label": self.label >= 0,
            "predicted": self.predicted >= 0 and (wrong or self.predicted == self.label),
            "lower": self.lower is None or (self.lower >= 0 and not wrong),
            "upper": self.upper is None or (self.upper == 0 and not proved) or (self.upper > self.factor and not wrong),
            "proved_by": self.proved_by in ((*BOUNDS, "ties", "exact") if proved else ("",)),
            "broken_by": self.broken_by in (("forward", "attack", "ties", "exact") if failed else ("",)),
            "seconds": self.seconds >= 0,
        }
        return [name for name, held in holds.items() if not held]
