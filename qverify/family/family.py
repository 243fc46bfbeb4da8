"""Radii, and the quantised family they make of a network (mathematics.md, section 1).

The family is every network whose weights, biases, activations and inputs stay within radii of the
trained ones. `Radii` is what a user states; `Family` is the same, resolved against one network: one
array per tensor. Members of it are made and checked in `members.py`.

Conventions. A radius is half the width of an interval. An initializer that two layers use counts as
two tensors, each quantised on its own. Convolution kernels are shared by all positions of their
layer. Layers with `quantised=False` and `Scale` layers are exact. A layer without a bias gets none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import NoneType
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.choices import KINDS, Batchnorm, KernelMode, Rounding, Scheme
from qverify.errors import DataError, RadiiError
from qverify.family.batchnorm import Saturation
from qverify.family.kernels import Kernel
from qverify.family.radius_arrays import radius_array
from qverify.family.schemes import scheme_radii
from qverify.family.steps import Quantiser
from qverify.files.toml import read_hashed_toml
from qverify.kinds import NETWORK, RADII, clipping_range, described, expected, is_number, is_word
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu, Scale
from qverify.network import Network
from qverify.text.brief import Brief
from qverify.text.escapes import shown
from qverify.text.shortened import listed

Interval = tuple[Array, Array]


@dataclass(frozen=True, eq=False, repr=False)
class Radii(Brief):
    """Quantisation radii as stated, before a network is known. Half-widths, in the tensor's own unit.

    Each of `input, weight, bias, activation` is a number or an array. `layers` overrides the last
    three for single layers by name. Shapes: a number; a 1-d array with one entry per output channel
    (per neuron for dense layers; per channel for the activations of images); or anything that
    broadcasts to the tensor. `ceilings` gives, per activation layer, the top of the quantiser's
    range: what lies above is clipped, and `bounds.interval` widens the radius by as much as the sound
    upper bound exceeds it (mathematics.md, section 7). `input_range` is the same for the
    input, `saturations` for what is rounded on the way into a Relu. `zero_exact`: an activation that is 0 without
    rounding is 0 with it, as in every integer format. `kernel`: the integer kernels that the radii stand
    for; what these do not compute in real arithmetic is not verified. `quantiser`: what the radii follow from, if that.
    """

    input: Any = 0.0
    weight: Any = 0.0
    bias: Any = 0.0
    activation: Any = 0.0
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    input_range: tuple[float, float] | None = None
    saturations: Mapping[str, tuple[Saturation, ...]] = field(default_factory=dict)
    zero_exact: bool = False
    kernel: Kernel | None = None
    quantiser: Quantiser | None = None
    convention: str = "explicit radii"

    def __post_init__(self) -> None:
        inner = self.layers.values() if isinstance(self.layers, Mapping) else ()
        for name, value in (("layers", self.layers), *(("layers[...]", one) for one in inner)):
            expected(value, Mapping, name, 'a dictionary such as {"dense1": {"weight": 0.01}}', RadiiError)
        expected(self.ceilings, Mapping, "ceilings", "a dictionary of numbers by the names of layers", RadiiError)
        expected(self.saturations, Mapping, "saturations", "a dictionary by the names of layers", RadiiError)
        if self.input_range is not None and not (isinstance(self.input_range, tuple) and len(self.input_range) == 2):
            raise RadiiError(f"The input range is {described(self.input_range)}; give two numbers.")
        expected(self.kernel, (Kernel, NoneType), "kernel", "a Kernel, as a scheme makes it", RadiiError)
        expected(self.quantiser, (Quantiser, NoneType), "quantiser", "a Quantiser", RadiiError)
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
        """See `from_bits`."""
        expected(quantiser, Quantiser, "The quantiser", "a Quantiser, such as Quantiser(8)", RadiiError)
        return Radii(**scheme_radii(quantiser, network, calibration), quantiser=quantiser)

    def scaled(self, factor: float) -> Radii:
        """All radii times one factor >= 0. Raises RadiiError for what is no number."""
        if not is_number(factor):
            raise RadiiError(f"The factor on the radii is {described(factor)}; give a number.")
        layers = {n: {k: np.asarray(v) * factor for k, v in kinds.items()} for n, kinds in self.layers.items()}
        base: dict[str, Any] = {kind: np.asarray(getattr(self, kind), dtype=np.float64) * factor for kind in KINDS}
        return replace(self, layers=layers, convention=f"{factor:g} x ({self.convention})", **base)

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
            ceilings=self.ceilings if "activation" in kinds else {},
            saturations=self.saturations if "activation" in kinds else {},
            input_range=self.input_range if "input" in kinds else None,
            kernel=None,  # with some numbers exact there is no integer kernel
            quantiser=None,
            convention=f"{self.convention}; radii of {', '.join(kinds) or 'nothing'} only",
            **base,
        )


def load_radii(path: str) -> Radii:
    """Read a `radii.toml`: `input, weight, bias, activation` at the top, tables `[layers."NAME"]` below.

    Raises RadiiError for a missing or malformed file, for unknown keys, and where no radius is stated.
    """
    return read_radii(path)[0]


def read_radii(path: str) -> tuple[Radii, str]:
    """What `load_radii` gives, and the sha256 of the bytes it was read from."""
    content, sha256 = read_hashed_toml(path, "radii file", RadiiError)
    layers = content.pop("layers", {})
    tables = isinstance(layers, dict) and all(isinstance(v, dict) for v in layers.values())
    unknown = sorted(set(content) - set(KINDS))
    unknown += sorted({k for v in layers.values() for k in v} - set(KINDS[1:])) if tables else ["layers"]
    if unknown:
        raise RadiiError(
            f"{path}: unknown key {shown(unknown[0])}; the keys are input, weight, bias, activation, "
            'and tables [layers."NAME"] with weight, bias, activation.'
        )
    if empty := [name for name, kinds in layers.items() if not kinds]:
        raise RadiiError(f"{path}: the table of layer {shown(empty[0])} states no radius; add one, or leave it out.")
    if not content and not layers:
        raise RadiiError(f"{path} states no radius, so nothing would be quantised; write for example weight = 0.01.")
    return Radii(layers=layers, convention=f"radii file {path}", **content), sha256


def _inside(centre: Array, radius: Array) -> Interval:
    """The largest floating-point interval that lies in [centre - radius, centre + radius] for certain."""
    lower = np.nextafter(centre - radius, np.inf)
    upper = np.nextafter(centre + radius, -np.inf)
    empty = lower > upper
    return np.where(empty, centre, lower), np.where(empty, centre, upper)


def outward(centre: Array, radius: Array) -> Interval:
    """The smallest floating-point interval that holds [centre - radius, centre + radius] for certain."""
    lower, upper = np.nextafter(centre - radius, -np.inf), np.nextafter(centre + radius, np.inf)
    return np.where(radius > 0, lower, centre), np.where(radius > 0, upper, centre)


@dataclass(frozen=True, eq=False, repr=False)
class Family(Brief):
    """The quantised family of one network: radii resolved to arrays.

    `input` (n_in,); `weight[i]` like `layers[i].weight` and `bias[i]` like its bias, for every index in
    `network.weighted`; `activation[i]` (size,) for every Relu; `ceiling[i]` and `saturations[i]` where the scheme
    clips. `clip`: the input stays in this interval whatever its radius (`--clip-input`). `zero_exact`, `kernel`: see
    `Radii`.
    """

    network: Network
    input: Array
    weight: Mapping[int, Array]
    bias: Mapping[int, Array]
    activation: Mapping[int, Array]
    ceiling: Mapping[int, float] = field(default_factory=dict)
    clip: tuple[float, float] | None = None
    input_range: tuple[float, float] | None = None
    saturations: Mapping[int, tuple[Saturation, ...]] = field(default_factory=dict)
    zero_exact: bool = False
    kernel: Kernel | None = None

    @staticmethod
    def of(network: Network, radii: Radii, clip: tuple[float, float] | None = None) -> Family:
        """Resolve `radii` against `network`.

        Raises RadiiError for shapes that do not fit and for layer names that do not exist.
        """
        expected(network, Network, "The network", NETWORK, RadiiError)
        expected(radii, Radii, "radii", RADII, RadiiError)
        _check_names(network, radii)
        clipping_range(clip, RadiiError)
        found: dict[str, dict[int, Any]] = {kind: {} for kind in ("weight", "bias", "activation")}
        for i, layer in enumerate(network.layers):
            for kind, radius in RESOLVED[type(layer)](layer, radii).items():
                found[kind][i] = radius
        index = {layer.name: i for i, layer in enumerate(network.layers)}
        ceiling = {index[name]: top for name, top in radii.ceilings.items()}
        saturations = {index[name]: cuts for name, cuts in radii.saturations.items()}
        entry = radius_array(radii.input, network.input_shape, "input").ravel()
        return Family(
            network,
            entry,
            **found,
            ceiling=ceiling,
            clip=clip,
            input_range=radii.input_range,
            saturations=saturations,
            zero_exact=radii.zero_exact,
            kernel=radii.kernel,
        )

    @property
    def per_sample(self) -> bool:
        """Whether activation radii depend on the sample, because the scheme clips."""
        return bool(self.ceiling or self.saturations or self.zero_exact)

    def largest(self) -> dict[str, float]:
        """The largest radius of each kind; what clipping adds for single samples is not in it."""
        kinds: dict[str, list[Array]] = {
            "input": [self.input],
            "weight": list(self.weight.values()),
            "bias": list(self.bias.values()),
            "activation": list(self.activation.values()),
        }
        return {kind: float(max((a.max(initial=0.0) for a in arrays), default=0.0)) for kind, arrays in kinds.items()}

    def box(self, x: Array) -> Interval:
        """(N, n_in) -> the interval of every quantised input, rounded outwards; DataError outside `clip`."""
        return self._clipped(x, *outward(x, self.input_radius(x)))

    def _clipped(self, x: Array, lower: Array, upper: Array) -> Interval:
        if self.clip is None:
            return lower, upper
        if (x < self.clip[0]).any() or (x > self.clip[1]).any():
            raise DataError(f"Some inputs lie outside --clip-input {self.clip[0]:g} {self.clip[1]:g}; widen it.")
        return np.maximum(lower, self.clip[0]), np.minimum(upper, self.clip[1])

    def input_radius(self, x: Array) -> Array:
        if self.input_range is None:
            return np.broadcast_to(self.input, x.shape)
        low, high = self.input_range
        return self.input + np.maximum(0.0, np.maximum(low - x, x - high))

    def inner_box(self, x: Array) -> Interval:
        """Like `box`, rounded inwards: every point of it is a quantised input of `x` for certain."""
        return self._clipped(x, *_inside(x, self.input_radius(x)))

    @cached_property
    def inner_weights(self) -> dict[int, tuple[Interval, Interval]]:
        """Per weighted layer the weight and bias intervals, rounded inwards."""
        found = {}
        for i in self.network.weighted:
            layer: Any = self.network.layers[i]
            found[i] = (_inside(layer.weight, self.weight[i]), _inside(layer.bias, self.bias[i]))
        return found

    def with_activation(self, activation: Mapping[int, Array]) -> Family:
        """The same family with other activation radii: those of one sample, where the scheme clips."""
        other = replace(self, activation=activation)
        other.__dict__["inner_weights"] = self.inner_weights  # the same: a copy a sample would fill the memory
        return other


def _resolved_affine(layer: Any, radii: Radii) -> dict[str, Array]:
    if not layer.quantised:
        return {}
    own = radii.layers.get(layer.name, {})
    weight = radius_array(own.get("weight", radii.weight), layer.weight.shape, f"weight ({layer.name})")
    bias = own.get("bias", radii.bias) if layer.has_bias else 0.0
    return {"weight": weight, "bias": radius_array(bias, layer.bias.shape, f"bias ({layer.name})")}


def _resolved_relu(layer: Any, radii: Radii) -> dict[str, Array]:
    value = radii.layers.get(layer.name, {}).get("activation", radii.activation)
    return {"activation": radius_array(value, layer.shape, f"activation ({layer.name})").ravel()}


def _exact(layer: Layer, radii: Radii) -> dict[str, Array]:
    return {}


RESOLVED: dict[type[Layer], Callable[[Any, Radii], dict[str, Array]]] = {
    Input: _exact,  # its radius is the family's own
    Dense: _resolved_affine,
    Conv: _resolved_affine,
    Scale: _exact,
    Relu: _resolved_relu,
    Add: _exact,
}
"""The radii that a layer of each type has, by kind, as arrays."""


def _check_names(network: Network, radii: Radii) -> None:
    weighted = {network.layers[i].name for i in network.weighted}
    relus = {network.layers[i].name for i in network.relus}
    for name, kinds in radii.layers.items():
        for kind in kinds:
            if kind not in KINDS[1:]:
                raise RadiiError(f"Layer {name!r} has a radius for {kind!r}; it is weight, bias or activation.")
            allowed = relus if kind == "activation" else weighted
            if name not in allowed:
                raise RadiiError(
                    f"The network has no layer {name!r} with a radius for its {kind}; those are: "
                    f"{listed(sorted(allowed)) or 'none'}. `qverify inspect` lists all layers."
                )
    if missing := sorted({*radii.ceilings, *radii.saturations} - relus):
        raise RadiiError(f"The network has no activation layer {missing[0]!r} to clip.")
    limits = [*radii.ceilings.values(), *(radii.input_range or ())]
    if not all(isinstance(limit, (int, float)) and np.isfinite(limit) for limit in limits):
        raise RadiiError("A ceiling or the input range is NaN, infinite or no number; give finite numbers.")
    if any(isinstance(layer, Relu) and layer.offset is not None for layer in network.layers):
        raise RadiiError("The network is a member of a quantised family already; state radii for the trained network.")
