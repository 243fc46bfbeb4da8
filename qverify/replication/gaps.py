"""The gap between a float network and its integer file at a sample: proved for every runtime of a rule, and attained.

Per output the interval of `g(x)_i - f(x)_i`, g being any runtime of the file whose rounding points move their values
by no more than the rule says (mathematics.md, section 17). At a sample f is known but for rounding, and g is bounded
by itself; in a box of inputs both are unknown, and the difference is propagated. What is attained comes from the file
rounded to the nearest, and from runtimes drawn at random: evaluated in float64, a lower bound on the gap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qverify.errors import InternalError, ModelError
from qverify.family.float_errors import float_errors
from qverify.family.rules import file_kernel
from qverify.forward_pass import forward
from qverify.layers import Input, Rounding
from qverify.replication.moves import Move, moves
from qverify.replication.pairs import difference_of, runtimes_of, tensor
from qverify.replication.regions import InputGrid, Region, drawn
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.replication.matching import Match

Status = Literal["within", "exceeds", "unknown"]
STATUSES: tuple[Status, ...] = ("within", "exceeds", "unknown")
"""Of a sample, where an epsilon is asked about."""
_TRIALS = 8
"""Runtimes that are drawn for a sample, and inputs for a box."""
_CROSSED = 1e-7
"""By how much, relative to the values, what is attained may exceed what is proved: far more than float64 is off by."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gap(Brief):
    """One sample's gap per output; arrays (n_out,). `index`: in the data set.

    `lower`, `upper`: proved ends of `g(x) - f(x)`. `attained_lower`, `attained_upper`: ends met by runtimes, which
    hold 0 only if they met it. `status`: where an epsilon was asked about.
    """

    index: int
    lower: Array
    upper: Array
    attained_lower: Array
    attained_upper: Array
    seconds: float
    status: Status | None = None

    @property
    def proved(self) -> float:
        """The largest |g(x)_i - f(x)_i| of any output that cannot be excluded."""
        return float(np.maximum(-self.lower, self.upper).max())

    @property
    def attained(self) -> float:
        """The largest |g(x)_i - f(x)_i| met."""
        return float(np.maximum(-self.attained_lower, self.attained_upper).max())

    def to_json(self) -> dict[str, Any]:
        """The object of a row (formats.md, section 12.9)."""
        found: dict[str, Any] = {"index": self.index, "proved": self.proved, "attained": self.attained}
        found |= {} if self.status is None else {"status": self.status}
        for name in ("lower", "upper", "attained_lower", "attained_upper"):
            found[name] = getattr(self, name).tolist()
        return found | {"seconds": round(self.seconds, 6)}


class Gaps:
    """The gaps of samples under a rule, one after the other. Raises ModelError for a file that is none."""

    def __init__(self, match: Match, rule: str, region: Region | None = None):
        self.match, self.region = match, region or Region()
        self.moves = moves(match.file, rule)
        self.grid = InputGrid.of(match.file) if self.region.exact else None
        if self.grid is not None:
            self.moves[self.grid.index] = Move(self.grid.moved)
        self.unrounded = _unrounded(match.file, rule)
        for reason in file_kernel(match.file).refused:
            raise ModelError(f"{match.file.source}: {reason}.")
        if self.region.radius:
            self.system = difference_of(match.trained, match.file, match.layers, self.moves)
        else:
            self.system, self.trained = runtimes_of(match.file, self.moves), runtimes_of(match.trained, {})

    def at(self, index: int, x: Array) -> Gap:
        """The gap at a sample x (n_in,), number `index` of the data set. Sound.

        Raises InternalError where a runtime goes beyond what was proved.
        """
        began = time.perf_counter()
        box = self.region.box(x, self.grid)
        lower, upper = self._proved(box)
        lower, upper = np.nextafter(lower - self.unrounded, -np.inf), np.nextafter(upper + self.unrounded, np.inf)
        low, high, scale = self._attained(index, x, box)
        slack = _CROSSED * (1.0 + scale)
        if (low < lower - slack).any() or (high > upper + slack).any():
            raise InternalError(f"Sample {index}: a runtime of the file is farther off than what was proved.")
        gap = Gap(
            index=index,
            lower=lower,
            upper=upper,
            attained_lower=low,
            attained_upper=high,
            seconds=time.perf_counter() - began,
        )
        return gap if self.region.epsilon is None else _decided(gap, self.region.epsilon)

    def _proved(self, box: tuple[Array, Array]) -> tuple[Array, Array]:
        """Proved ends of the differences (n_out,) over a box of inputs."""
        leaf = tensor(box[0]), tensor(box[1])
        if self.region.radius:
            zero = tensor(np.zeros_like(box[0]))
            lower, upper = self.system.bounds([leaf, (zero, zero)]).boxes[-1]
            return lower.numpy(), upper.numpy()
        low, high = (end.numpy() for end in self.system.bounds([leaf]).boxes[-1])
        first, last = (end.numpy() for end in self.trained.bounds([leaf], refined=False).boxes[-1])
        return np.nextafter(low - last, -np.inf), np.nextafter(high - first, np.inf)

    def _attained(self, index: int, x: Array, box: tuple[Array, Array]) -> tuple[Array, Array, float]:
        """The ends (n_out,) met by runtimes, and the size of the outputs."""
        rng = np.random.default_rng(index)
        inputs = drawn(x, box, _TRIALS + 1, rng, self.grid)
        nominal = self.match.trained.evaluate(inputs)
        met = runtimes(self.match.file, self.moves, inputs, rng) - nominal
        return met.min(axis=0), met.max(axis=0), float(abs(nominal).max())


def _unrounded(file: Network, rule: str) -> Array | float:
    """What float32 may get wrong at outputs (n_out,) that no rounding point gives. Raises ModelError where that is
    unbounded."""
    if isinstance(file.layers[-1], Rounding) or rule == "nearest":
        return 0.0
    error = float_errors(file)[-1]
    if not np.isfinite(error).all():
        raise ModelError(
            f"{file.source}: its outputs are computed in float32 from numbers without a bound; state --rounding nearest"
            " for real arithmetic."
        )
    return error


def _decided(gap: Gap, epsilon: float) -> Gap:
    status: Status = "within" if gap.proved <= epsilon else "exceeds" if gap.attained > epsilon else "unknown"
    return Gap(**{**gap.__dict__, "status": status})


def runtimes(file: Network, moved: Mapping[int, Move], x: Array, rng: np.random.Generator) -> Array:
    """The outputs (N, n_out) of N runtimes at inputs x (N, n_in), in float64: the first rounds to the nearest.

    The others shift every value, up or down at random, as far as it may be moved before it is rounded to the nearest.
    """
    values: list[Array] = []
    for index, layer in enumerate(file.layers):
        if isinstance(layer, Input):
            values.append(x)
            continue
        inputs = [values[source] for source in layer.inputs]
        if isinstance(layer, Rounding):
            move, v = moved[index], inputs[0]
            shift = np.maximum(move.absolute + move.relative * abs(v) - 0.5 * layer.step, 0.0)
            inputs = [v + shift * rng.choice((-1.0, 1.0), v.shape)]
            inputs[0][0] = v[0]
        values.append(forward(layer, inputs))
    return values[-1]
