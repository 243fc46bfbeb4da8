"""Whether the model itself, run by onnxruntime, does what a violation says it does: nothing is `sat` before.

The input is rounded to the model's own type inside the box, the outputs are those of the model's own arithmetic, and
the query's formula is judged on both in exact rationals, without a tolerance. An input that the query fixes to a number
that the type lacks is given the nearest one, and the formula is judged by the number that the query fixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelError
from qverify.onnx.session import errors, open_session
from qverify.parts import Part, slices
from qverify.properties.cases import rounded
from qverify.properties.formula import holds
from qverify.text.brief import Brief
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    import onnx

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.properties.cases import Case
    from qverify.vnnlib.query import Query

_KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_POINTS = 8
CLOSE = 1e-3
"""How far, relative to the outputs, the network as it was read may be from the model on a few inputs of the box."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Assignment(Brief):
    """Inputs (n_in,) and outputs (n_out,) that satisfy a query, as the model computed them; `stand_ins` inputs have the
    nearest number of the model's type."""

    input: Array
    output: Array
    stand_ins: int = 0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Given(Brief):
    """An input of the model: its name, type and shape there, and where its numbers are among those of all."""

    name: str
    kind: Any
    shape: tuple[int, ...]
    at: slice

    @staticmethod
    def of(given: Any, at: slice) -> _Given:
        """As a session describes it. Raises ModelError for other types."""
        if given.type not in _KINDS:
            raise ModelError(f"The input {given.name!r} of the model is {given.type}; supported are float and double.")
        lengths = [length if isinstance(length, int) and length > 0 else 1 for length in given.shape]
        size = at.stop - at.start
        shape = tuple(lengths) if int(np.prod(lengths)) == size else (1, size)
        return _Given(name=given.name, kind=_KINDS[given.type], shape=shape, at=at)


class Replay:
    """A session of the model of a query. Raises ModelError where onnxruntime cannot run it."""

    def __init__(self, model: onnx.ModelProto, query: Query, network: Network):
        self.query = query
        try:
            self._session = open_session(model.SerializeToString())
        except errors() as error:
            raise ModelError(f"onnxruntime cannot run the model ({first_line(error)}); export it again.") from error
        given = {one.name: one for one in self._session.get_inputs()}
        parts = network.parts or (Part(next(iter(given)), (network.input_size,)),)
        ends = zip(parts, slices(parts), strict=True)
        self._inputs = [_Given.of(given[part.name], at) for part, at in ends]

    @property
    def kind(self) -> str:
        """The word for the type of the model's inputs."""
        return " or ".join(dict.fromkeys(one.kind.__name__ for one in self._inputs))

    def own(self, x: Array) -> Array:
        """Numbers (n_in,) rounded to the types of the model's inputs."""
        return np.concatenate([x[one.at].astype(one.kind) for one in self._inputs])

    def run(self, x: Array) -> Array:
        """The outputs (n_out,) of the model for an input (n_in,) of its own types. Raises ModelError."""
        fed = {one.name: x[one.at].astype(one.kind).reshape(one.shape) for one in self._inputs}
        try:
            return np.asarray(self._session.run(None, fed)[0]).ravel()
        except errors() as error:
            raise ModelError(f"onnxruntime cannot run the model ({first_line(error)}); export it again.") from error

    def inside(self, case: Case) -> tuple[Array, Array, Any]:
        """The smallest and largest numbers (n_in,) of the model's type in the box, and a mask of the inputs for which
        there is none: these have the nearest number as both."""
        low = np.concatenate([rounded(case.lower[one.at], 1, one.kind) for one in self._inputs])
        high = np.concatenate([rounded(case.upper[one.at], -1, one.kind) for one in self._inputs])
        none = low > high
        middle = tuple((a + b) / 2 for a, b in zip(case.lower, case.upper, strict=True))
        for place in np.flatnonzero(none):
            a, b = Fraction(float(low[place])), Fraction(float(high[place]))
            near = low[place] if abs(a - middle[place]) < abs(b - middle[place]) else high[place]
            low[place] = high[place] = near
        return low, high, none

    def confirmed(self, case: Case, x: Array) -> Assignment | None:
        """The assignment at the input of the box nearest to x (n_in,), if the model violates the query there."""
        low, high, none = self.inside(case)
        near = np.clip(self.own(x), low, high)
        output = self.run(near)
        if not np.isfinite(output).all():
            return None
        exact = [Fraction(float(number)) for number in near]
        for place in np.flatnonzero(none):
            exact[place] = case.lower[place]
        if not holds(self.query.formula, exact, [Fraction(float(number)) for number in output]):
            return None
        return Assignment(input=near, output=output, stand_ins=int(none.sum()))

    def distance(self, case: Case, evaluate: Any) -> float:
        """The largest difference between the model and what `evaluate`, (N, n_in) -> (N, n_out), gives, over a few
        inputs of the box; relative to the outputs, inf where there are not as many."""
        low, high, _ = self.inside(case)
        shares = np.random.default_rng(0).random((_POINTS, len(low)))
        inside = low + shares * (high.astype(np.float64) - low)
        points = np.array([np.clip(self.own(x), low, high) for x in inside])
        theirs, ours = np.array([self.run(x) for x in points], dtype=np.float64), evaluate(points.astype(np.float64))
        if theirs.shape != ours.shape:
            return float("inf")
        return float(abs(theirs - ours).max() / max(1e-30, abs(theirs).max(), abs(ours).max()))
