"""Anomaly scores: how far a network's output is from its input, against a threshold (mathematics.md, section 19).

An autoencoder gives back what it knows; the score of an input x is a norm of the residual `f(x) - x`. The residual and
what the score is made of are layers behind the network, so that all that decides properties of outputs decides scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from qverify.activations.layer import Activation
from qverify.errors import UsageError
from qverify.family.radius_arrays import radius_array
from qverify.kinds import described, is_number, is_word
from qverify.layers import Add, Conv, Dense, Layer, Product, Scale
from qverify.properties.kinds import MOST, Property, as_stated, at_least, at_most
from qverify.properties.stated import free_name

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.properties.cases import Clause
    from qverify.properties.decide import Candidate
    from qverify.properties.kinds import Subject

SCORES = {"mse": "mean squared error", "mae": "mean absolute error", "linf": "largest absolute error"}
"""The scores by their names."""
DECISIONS = ("same", "label", "normal", "anomalous")
_RESIDUAL = "residual"


@dataclass(frozen=True)
class Score(Property):
    """The decision by a score of `SCORES` is as it should be: an input is anomalous where its score is above
    `threshold`, and normal else.

    `decision`: `same` as that of the network itself (of a box, at its middle); that of the `label`, 0 for normal and 1
    for anomalous; or `normal`, or `anomalous`, for all inputs. The input of the residual is that before quantisation.
    """

    score: str
    threshold: float
    decision: str = "same"

    def __post_init__(self) -> None:
        if not is_word(self.score, SCORES):
            raise UsageError(f"The score is {described(self.score)}; give one of {', '.join(SCORES)}.")
        if not is_word(self.decision, DECISIONS):
            raise UsageError(f"The decision is {described(self.decision)}; give one of {', '.join(DECISIONS)}.")
        if not is_number(self.threshold) or not 0 < self.threshold < float("inf"):
            raise UsageError(f"The threshold is {described(self.threshold)}; give a number above 0.")

    def met(self) -> str:
        """See `Property`."""
        return {"same": "decided the same", "label": "decided right"}.get(self.decision, self.decision)

    def values(self, x: Array, outputs: Array) -> Array:
        """Of an input (n_in,) and outputs (n_in,) the sum whose mean the score is, (1,); for `linf` all errors."""
        size = abs(outputs - x)
        if self.score == "linf":
            return size
        return np.array([(size * size if self.score == "mse" else size).sum()])

    def clauses(self, subject: Subject, values: Array) -> tuple[Clause, ...]:
        """See `Property`."""
        count = len(subject.lower)
        limit = Fraction(self.threshold) * (1 if self.score == "linf" else count)
        anomalous = any(Fraction(float(value)) > limit for value in values)
        if self.decision == "label":
            label = subject.labelled(2)
            anomalous = label == 1
        elif self.decision != "same":
            anomalous = self.decision == "anomalous"
        if anomalous:
            return (tuple(at_most(i, limit) for i in range(len(values))),)
        if len(values) > MOST:
            raise UsageError(f"One of {len(values)} errors may be too large, and {MOST} are the most; take mse or mae.")
        return tuple((at_least(i, limit, strict=True),) for i in range(len(values)))

    def words(self) -> str:
        """See `Property`."""
        decided = {
            "same": "decided as the network itself decides",
            "label": "decided as it is labelled",
        }.get(self.decision, f"{self.decision}")
        return f"by its {SCORES[self.score]}, anomalous above {as_stated(self.threshold)}, every input is {decided}"

    # -- layers -----------------------------------------------------------------------------------

    def extended(self, network: Network, radii: Radii, subject: Subject) -> tuple[Network, Radii]:
        """See `Property`. Raises UsageError where inputs and outputs are not as many, and for boxes whose quantised
        inputs are not within a radius of them."""
        if network.input_size != network.output_size:
            raise UsageError(
                f"A score compares outputs with inputs, but the network reads {network.input_size} numbers and gives"
                f" {network.output_size}; give an autoencoder."
            )
        layers = list(network.layers)
        taken = {layer.name for layer in layers}
        own = dict(radii.layers)
        count, last = network.output_size, len(layers) - 1
        residual = free_name(_RESIDUAL, taken)
        if subject.is_point:
            layers.append(Scale(residual, (last,), (count,), scale=np.ones(count), shift=-subject.lower))
        else:
            own |= self._of_box(layers, residual, network, radii)
        source = len(layers) - 1
        if self.score == "mse":
            layers.append(Product(free_name("squares", taken), (source, source), (count,)))
        else:
            layers.append(Activation(free_name("errors", taken), (source,), (count,), function="abs"))
            own[layers[-1].name] = {"activation": 0.0}  # it is no layer of a quantiser
        if self.score != "linf":
            name, one, nothing = free_name("score", taken), np.ones((1, count)), np.zeros(1)
            layers.append(Dense(name, (len(layers) - 1,), (1,), one, nothing, has_bias=False, quantised=False))
        made: tuple[Layer, ...] = tuple(layers)
        return replace(network, layers=made), replace(radii, layers=own)

    @staticmethod
    def _of_box(layers: list[Layer], residual: str, network: Network, radii: Radii) -> dict[str, dict[str, Array]]:
        """Add the residual where the input is not fixed; the radii of a layer that gives back the input before it was
        quantised, within its radius, where it has one."""
        if radii.points.keys() & {network.layers[0].name} or any(point.entry for point in radii.points.values()):
            raise UsageError(
                "The input of the network is quantised on a grid, and scores of boxes are not worked out for these; ask"
                " about samples, or give radii by --scheme paper or a file."
            )
        taken = {layer.name for layer in layers} | {residual}
        count, last = network.input_size, len(layers) - 1
        reach, own, source = radius_array(radii.input, network.input_shape, "input").ravel(), {}, 0
        if reach.any():
            name, shape, one = free_name("before quantisation", taken), (count, 1, 1), np.ones((count, 1, 1, 1))
            layers.append(Conv(name, (0,), shape, one, np.zeros(count), in_shape=shape, groups=count))
            own[name], source = {"weight": 0.0 * one, "bias": reach}, len(layers) - 1
        minus = {"scale": -np.ones(count), "shift": np.zeros(count)}
        layers.append(Scale(free_name("minus the input", taken), (source,), (count,), **minus))
        layers.append(Add(residual, (last, len(layers) - 1), (count,)))
        return own

    def judged(self, candidate: Candidate) -> Array:
        """See `Property`: from the outputs of the member and the input before quantisation."""
        member = candidate.member
        name = next(layer.name for layer in reversed(member.layers) if layer.name.startswith(_RESIDUAL))
        before = member.layers[member.index(name)].inputs[0]
        return self.values(candidate.input, member.evaluate_all(candidate.entry[None])[before][0])
