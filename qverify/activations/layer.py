"""The layer of an activation other than Relu."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qverify.activations.curve import Curve
from qverify.activations.functions import FUNCTIONS
from qverify.arrays import Array, freeze, frozen_array
from qverify.errors import ModelError
from qverify.layers import Layer
from qverify.text.escapes import shown
from qverify.text.shortened import listed


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    """`y = f(z)`, element by element; in a member of a quantised family `clip(f(z) + offset, low, high)`, where
    [low, high] is the range of all that f gives.

    `function`: a name of `functions.FUNCTIONS`; `parameters`: read-only arrays (size,), one for each of its parameters.
    `offset` (size,) or None is the activation error, as that of a `Relu`.
    """

    function: str
    parameters: tuple[Array, ...] = ()
    offset: Array | None = None

    def __post_init__(self) -> None:
        freeze(self, *["offset"] * (self.offset is not None))
        known = FUNCTIONS.get(self.function) if isinstance(self.function, str) else None
        if known is None:
            raise ModelError(
                f"Layer {self.name!r}: there is no function {shown(self.function)}; there are"
                f" {listed(list(FUNCTIONS), len(FUNCTIONS))}."
            )
        stated = self.parameters if isinstance(self.parameters, tuple) else (self.parameters,)
        if len(stated) != len(known.parameters):
            names = ", ".join(known.parameters) or "none"
            raise ModelError(f"Layer {self.name!r}: {len(stated)} parameters for {self.function}, which has {names}.")
        arrays = [
            frozen_array(values, f"{name} of layer {self.name!r}")
            for name, values in zip(known.parameters, stated, strict=True)
        ]
        given = [] if self.offset is None else [self.offset]
        if any(array.shape != (self.size,) for array in (*arrays, *given)):
            raise ModelError(f"Layer {self.name!r}: parameters and errors of an activation have {self.size} entries.")
        if why := known.refused(*arrays):
            raise ModelError(f"Layer {self.name!r}: {self.function} is not supported where {why}.")
        object.__setattr__(self, "parameters", tuple(arrays))

    @cached_property
    def curve(self) -> Curve:
        """The function with its parameters, in numpy."""
        return Curve(FUNCTIONS[self.function], self.parameters, np)
