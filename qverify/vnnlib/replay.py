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
from qverify.properties.cases import rounded
from qverify.properties.formula import holds
from qverify.text.brief import Brief
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    import onnx

    from qverify.arrays import Array
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


class Replay:
    """A session of the model of a query. Raises ModelError where onnxruntime cannot run it."""

    def __init__(self, model: onnx.ModelProto, query: Query, input_size: int):
        self.query = query
        try:
            self._session = open_session(model.SerializeToString())
        except errors() as error:
            raise ModelError(f"onnxruntime cannot run the model ({first_line(error)}); export it again.") from error
        given = self._session.get_inputs()[0]
        self._name = given.name
        if given.type not in _KINDS:
            raise ModelError(f"The input {given.name!r} of the model is {given.type}; supported are float and double.")
        self.kind: Any = _KINDS[given.type]
        lengths = [length if isinstance(length, int) and length > 0 else 1 for length in given.shape]
        self._shape = tuple(lengths) if int(np.prod(lengths)) == input_size else (1, input_size)

    def run(self, x: Array) -> Array:
        """The outputs (n_out,) of the model for an input (n_in,) of its own type. Raises ModelError."""
        try:
            return np.asarray(self._session.run(None, {self._name: x.reshape(self._shape)})[0]).ravel()
        except errors() as error:
            raise ModelError(f"onnxruntime cannot run the model ({first_line(error)}); export it again.") from error

    def inside(self, case: Case) -> tuple[Array, Array, Any]:
        """The smallest and largest numbers (n_in,) of the model's type in the box, and a mask of the inputs for which
        there is none: these have the nearest number as both."""
        low, high = rounded(case.lower, 1, self.kind), rounded(case.upper, -1, self.kind)
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
        near = np.clip(x.astype(self.kind), low, high)
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
        points = np.clip((low + shares * (high.astype(np.float64) - low)).astype(self.kind), low, high)
        theirs, ours = np.array([self.run(x) for x in points], dtype=np.float64), evaluate(points.astype(np.float64))
        if theirs.shape != ours.shape:
            return float("inf")
        return float(abs(theirs - ours).max() / max(1e-30, abs(theirs).max(), abs(ours).max()))
