"""Radii as they are stated, before a network is known (mathematics.md, sections 1 and 7).

A radius is half the width of an interval, in the unit of its tensor. `Radii` is what a user states, `radii_file` reads
it from a file, `family.Family` is the same resolved against one network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.choices import KINDS, Batchnorm, KernelMode, Rounding, Scheme
from qverify.errors import RadiiError
from qverify.family.kernels import Kernel
from qverify.family.points import Point
from qverify.family.rules import check_dynamic_rule, file_kernel, file_points
from qverify.family.schemes import scheme_radii
from qverify.family.steps import Quantiser
from qverify.kinds import described, expected, is_number, is_word
from qverify.moved import former_names
from qverify.text.brief import Brief
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from qverify.family.batchnorm import Saturation
    from qverify.network import Network

__all__ = ["KINDS", "Radii"]

__getattr__ = former_names(
    __name__,
    {
        "load_radii": "qverify.family.radii_file:load_radii",
        "read_radii": "qverify.family.radii_file:read_radii",
    },
)


@dataclass(frozen=True, eq=False, repr=False)
class Radii(Brief):
    """Quantisation radii as stated, before a network is known. Half-widths, in the tensor's own unit.

    Each of `input, weight, bias, activation` is a number or an array. `layers` overrides the last
    three for single layers by name. Shapes: a number; a 1-d array with one entry per output channel
    (per neuron for dense layers; per channel for the activations of images); or anything that
    broadcasts to the tensor. `points`: the rounding points by the layers they stand at, the input's too
    (points.py); they are instead of an activation radius. `saturations`: what is clipped on the way into a Relu, which
    widens its radius. `kernel`: the integer kernels that the radii stand for; what these do not compute in real
    arithmetic is not verified. `quantiser`: what the radii follow from, if that.
    `dynamic`: the rule of the dynamic rounding points of a file, which need no radius: it follows from each sample.
    """

    input: Any = 0.0
    weight: Any = 0.0
    bias: Any = 0.0
    activation: Any = 0.0
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    points: Mapping[str, Point] = field(default_factory=dict)
    saturations: Mapping[str, tuple[Saturation, ...]] = field(default_factory=dict)
    kernel: Kernel | None = None
    quantiser: Quantiser | None = None
    dynamic: str | None = None
    convention: str = "explicit radii"

    def __post_init__(self) -> None:
        inner = self.layers.values() if isinstance(self.layers, Mapping) else ()
        for name, value in (("layers", self.layers), *(("layers[...]", one) for one in inner)):
            expected(value, Mapping, name, 'a dictionary such as {"dense1": {"weight": 0.01}}', RadiiError)
        expected(self.points, Mapping, "points", "a dictionary of rounding points by the names of layers", RadiiError)
        for name, point in self.points.items():
            expected(point, Point, f"points[{name!r}]", "a Point, as a scheme makes it", RadiiError)
        expected(self.saturations, Mapping, "saturations", "a dictionary by the names of layers", RadiiError)
        expected(self.kernel, (Kernel, NoneType), "kernel", "a Kernel, as a scheme makes it", RadiiError)
        expected(self.quantiser, (Quantiser, NoneType), "quantiser", "a Quantiser", RadiiError)
        if self.dynamic is not None:
            check_dynamic_rule("The file", self.dynamic)
        expected(self.convention, str, "convention", "text", RadiiError)

    @staticmethod
    def from_bits(
        bits: int,
        scheme: Scheme = "paper",
        rounding: Rounding = "any",
        network: Network | None = None,
        calibration: Any = None,
        kernel: KernelMode = "exact-accumulation",
        batchnorm: Batchnorm = "either",
    ) -> Radii:
        """The radii that cover every quantiser of `bits` bits under a scheme (mathematics.md, sections 1 and 7).

        `paper`: absolute, input 2^-b and 2^-(b-1) for the rest; with rounding `nearest` half of each.
        `tensor`, `channel`: steps from the weights' range per tensor or per output channel, and from
        the activations' range on the `calibration` inputs (N, ...); both need `network`.
        `nearest` covers rounding to nearest only; `any` also floor, ceiling, stochastic and learned.
        `kernel` (kernels.py) and `batchnorm` (batchnorm.py) say more of `tensor` and `channel`.
        Raises RadiiError for a bit-width outside 1 to 32 (2 to 32 for `tensor` and `channel`), and under these for
        what a file has that no radius covers.
        """
        return Radii.of(Quantiser(bits, scheme, rounding, kernel, batchnorm), network, calibration)

    @staticmethod
    def of(quantiser: Quantiser, network: Network | None = None, calibration: Any = None) -> Radii:
        """The radii that cover a quantiser; see `from_bits`. `calibration` may also be `ranges.Ranges`."""
        expected(quantiser, Quantiser, "The quantiser", "a Quantiser, such as Quantiser(8)", RadiiError)
        return Radii(**scheme_radii(quantiser, network, calibration), quantiser=quantiser)

    @staticmethod
    def of_file(network: Network, rounding: Rounding = "float32") -> Radii:
        """The radii of every runtime of a quantised file: its integers as they are, requantised by a rule (rules.py).

        Raises RadiiError for a network that is not quantised.
        """
        if network.dynamic:
            return Radii(
                kernel=file_kernel(network),
                dynamic=check_dynamic_rule(network.source, rounding),
                convention=f"every runtime of the dynamic file by rule {rounding}, in batches of one sample",
            )
        points = file_points(network, rounding)
        convention = f"every runtime of the file that rounds by rule {rounding}"
        return Radii(points=points, kernel=file_kernel(network), convention=convention)

    def at_points(self, file: Radii) -> Radii:
        """These radii, stated for a quantised file, with the rounding points and kernels of its runtimes."""
        convention = f"{self.convention}; {file.convention}"
        return replace(
            self, points={**file.points, **self.points}, kernel=file.kernel, dynamic=file.dynamic, convention=convention
        )

    def scaled(self, factor: float) -> Radii:
        """All radii times one factor >= 0. Raises RadiiError for what is no number.

        A family with a larger factor holds all of one with a smaller: rounding points keep no more than 0 itself at 0.
        """
        if not is_number(factor):
            raise RadiiError(f"The factor on the radii is {described(factor)}; give a number.")
        if self.dynamic is not None:
            raise RadiiError("What a dynamically quantised file rounds follows from each sample: no factor changes it.")
        layers = {n: {k: np.asarray(v) * factor for k, v in kinds.items()} for n, kinds in self.layers.items()}
        base: dict[str, Any] = {kind: np.asarray(getattr(self, kind), dtype=np.float64) * factor for kind in KINDS}
        points = {name: point.scaled(factor) for name, point in self.points.items()}
        return replace(self, layers=layers, points=points, convention=f"{factor:g} x ({self.convention})", **base)

    def only(self, *kinds: str) -> Radii:
        """These radii for some of `KINDS`, the other kinds exact: radius 0, and not clipped either.

        Raises RadiiError for a kind that does not exist.
        """
        if unknown := [kind for kind in kinds if not is_word(kind, KINDS)]:
            raise RadiiError(f"There is no kind of radius {shown(unknown[0])}; the kinds are {', '.join(KINDS)}.")
        if set(kinds) == set(KINDS):
            return self
        layers = {name: {kind: own[kind] for kind in own if kind in kinds} for name, own in self.layers.items()}
        base: dict[str, Any] = {kind: 0.0 for kind in KINDS if kind not in kinds}
        return replace(
            self,
            layers=layers,
            points={name: p for name, p in self.points.items() if ("input" if p.entry else "activation") in kinds},
            saturations=self.saturations if "activation" in kinds else {},
            kernel=None,  # with some numbers exact there is no integer kernel
            quantiser=None,
            convention=f"{self.convention}; radii of {', '.join(kinds) or 'nothing'} only",
            **base,
        )
