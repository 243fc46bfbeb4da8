"""The quantised family that radii make of one network (mathematics.md, section 1).

The family is every network whose weights, biases, activations and inputs stay within radii of the
trained ones. `Family` is `radii.Radii` resolved against one network: one array per tensor. Members of
it are made and checked in `members.py`.

Conventions. A radius is half the width of an interval. An initializer that two layers use counts as
two tensors, each quantised on its own. Convolution kernels are shared by all positions of their
layer. Layers with `quantised=False` and `Scale` layers are exact. A layer without a bias gets none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.arrays import Array
from qverify.choices import KINDS
from qverify.errors import DataError, RadiiError
from qverify.family.placing import placed
from qverify.family.points import NO_ZERO, Point, lower_end, upper_end, without_error
from qverify.family.radii import Radii
from qverify.family.radius_arrays import radius_array
from qverify.gather import Gather
from qverify.kinds import NETWORK, RADII, clipping_range, expected
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.moved import former_names
from qverify.network import Network
from qverify.rounding import UNIT
from qverify.text.brief import Brief
from qverify.text.shortened import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qverify.family.batchnorm import Saturation
    from qverify.family.kernels import Kernel

__getattr__ = former_names(
    __name__,
    {
        "load_radii": "qverify.family.radii_file:load_radii",
        "read_radii": "qverify.family.radii_file:read_radii",
        "outward": "qverify.family.family:outer_interval",
    },
)

Interval = tuple[Array, Array]


def inner_interval(centre: Array, radius: Array) -> Interval:
    """The largest floating-point interval that lies in [centre - radius, centre + radius] for certain."""
    lower = np.nextafter(centre - radius, np.inf)
    upper = np.nextafter(centre + radius, -np.inf)
    empty = lower > upper
    return np.where(empty, centre, lower), np.where(empty, centre, upper)


def outer_interval(centre: Array, radius: Array) -> Interval:
    """The smallest floating-point interval that holds [centre - radius, centre + radius] for certain."""
    lower, upper = np.nextafter(centre - radius, -np.inf), np.nextafter(centre + radius, np.inf)
    return np.where(radius > 0, lower, centre), np.where(radius > 0, upper, centre)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Family(Brief):
    """The quantised family of one network: radii resolved to arrays.

    `network`: the trained network, with a layer for each rounding point (placing.py). `input` (n_in,); `weight[i]` like
    `layers[i].weight` and `bias[i]` like its bias, for the layers that a quantiser touches; `activation[i]` (size,) for
    every activation and rounding point; `points[i]`: the rest of what a rounding point does, `entry` that of the
    input; `where[k]`: the index in `network` of layer k of the trained one.
    `saturations[i]` where the scheme clips on the way there. `clip`: the input stays in this interval whatever its
    radius (`--clip-input`). `kernel`, `dynamic`: see `Radii`.
    """

    network: Network
    input: Array
    weight: Mapping[int, Array]
    bias: Mapping[int, Array]
    activation: Mapping[int, Array]
    points: Mapping[int, Point] = field(default_factory=dict)
    entry: Point | None = None
    where: tuple[int, ...] = ()
    clip: tuple[float, float] | None = None
    saturations: Mapping[int, tuple[Saturation, ...]] = field(default_factory=dict)
    kernel: Kernel | None = None
    dynamic: str | None = None

    @staticmethod
    def of(network: Network, radii: Radii, clip: tuple[float, float] | None = None) -> Family:
        """The family of `radii` around `network`; `clip` as in the class.

        Raises RadiiError for shapes that do not fit and for layer names that do not exist.
        """
        expected(network, Network, "The network", NETWORK, RadiiError)
        expected(radii, Radii, "radii", RADII, RadiiError)
        _check_names(network, radii)
        clipping_range(clip, RadiiError)
        # What enters a Relu that is widened by clipping may be off by that: its 0 is none of the point's.
        unsure = {n: replace(point, dead=NO_ZERO) for n, point in radii.points.items() if n in radii.saturations}
        put = placed(network, {**radii.points, **unsure})
        found: dict[str, dict[int, Any]] = {kind: {} for kind in ("weight", "bias", "activation")}
        for i, layer in enumerate(put.network.layers):
            for kind, radius in RESOLVED[type(layer)](layer, radii).items():
                found[kind][i] = radius
        found["activation"].update({i: point.radius for i, point in put.points.items()})
        index = {layer.name: i for i, layer in enumerate(put.network.layers)}
        return Family(
            network=put.network,
            input=radius_array(radii.input, network.input_shape, "input").ravel(),
            **found,
            points=put.points,
            entry=put.entry,
            where=put.where,
            clip=clip,
            saturations={index[name]: cuts for name, cuts in radii.saturations.items()},
            kernel=radii.kernel,
            dynamic=radii.dynamic if network.dynamic else None,
        )

    @property
    def per_sample(self) -> bool:
        """Activation radii depend on the sample: the scheme clips on the way into a Relu, or the runtimes of a file err
        by less where numbers are small."""
        return bool(self.saturations) or any(point.summed for point in self.points.values())

    def own(self, index: int) -> tuple[int, ...]:
        """The indices in `network` of layer `index` of the trained network, and of the rounding point put behind it."""
        at = self.where[index]
        after = self.where[index + 1] if index + 1 < len(self.where) else len(self.network.layers)
        return tuple(range(at, after))

    @cached_property
    def shares_weights(self) -> bool:
        """True if some kernel that a quantiser touches is used at more than one position: mathematics.md, section 6."""
        layers = [self.network.layers[i] for i in self.weight]
        return any(isinstance(layer, Conv) and layer.positions > 1 for layer in layers)

    def largest(self) -> dict[str, float]:
        """The largest radius of each of `KINDS`, over all samples, without what `saturations` add for single ones."""
        kinds: dict[str, list[Array]] = {
            "input": [self.input_radius],
            "weight": list(self.weight.values()),
            "bias": list(self.bias.values()),
            "activation": list(self.activation.values()),
        }
        return {kind: float(max((a.max(initial=0.0) for a in arrays), default=0.0)) for kind, arrays in kinds.items()}

    @property
    def input_radius(self) -> Array:
        """(n_in,): how far an input may move, unless it is clipped."""
        return self.input if self.entry is None else self.input + self.entry.radius

    def box(self, x: Array) -> Interval:
        """The intervals (N, n_in) of the quantised inputs of samples x (N, n_in), rounded outwards. Sound.

        Raises DataError for samples outside `clip`.
        """
        return self._clipped(x, *self._rounded(*outer_interval(x, np.broadcast_to(self.input, x.shape)), UNIT))

    def _rounded(self, lower: Array, upper: Array, unit: float) -> Interval:
        if self.entry is None:
            return lower, upper
        radius = self.entry.radius
        return lower_end(np, self.entry, radius, lower, unit), upper_end(np, self.entry, radius, upper, unit)

    def _clipped(self, x: Array, lower: Array, upper: Array) -> Interval:
        if self.clip is None:
            return lower, upper
        if (x < self.clip[0]).any() or (x > self.clip[1]).any():
            raise DataError(f"Some inputs lie outside --clip-input {self.clip[0]:g} {self.clip[1]:g}; widen it.")
        # Not cut to the interval but moved into it: the range of a rounding point may lie outside.
        return np.clip(lower, *self.clip), np.clip(upper, *self.clip)

    def inner_box(self, x: Array) -> Interval:
        """The intervals of `box`, rounded inwards: every point of them is a quantised input of `x` for certain, once
        `on_grid`."""
        lower, upper = self._rounded(*inner_interval(x, np.broadcast_to(self.input, x.shape)), -UNIT)
        if self.entry is not None:  # narrower than a rounding: the member without errors
            middle = without_error(self.entry, x)
            empty = lower > upper
            lower, upper = np.where(empty, middle, lower), np.where(empty, middle, upper)
        return self._clipped(x, lower, upper)

    def on_grid(self, x_hat: Array) -> Array:
        """Inputs (N, n_in) of the inner box, on the grid of the input's rounding point where that has one."""
        if self.entry is None or not self.entry.step.any():
            return x_hat
        step = np.where(self.entry.step > 0, self.entry.step, 1.0)
        rounded = np.where(self.entry.step > 0, np.rint(x_hat / step) * step, x_hat)
        return rounded if self.clip is None else np.clip(rounded, *self.clip)

    def centre(self, x: Array) -> Array:
        """The inputs (N, n_in) of the members without errors at samples x (N, n_in): x, as far as it may be one."""
        return x if self.entry is None else self.on_grid(np.asarray(np.clip(x, *self.inner_box(x))))

    def freedom(self, index: int) -> Array:
        """(size,): how far the error of a member at a Relu or rounding point may go either way."""
        radius, point = self.activation[index], self.points.get(index)
        return radius if point is None else np.asarray(point.freedom(np, radius))

    @cached_property
    def inner_weights(self) -> dict[int, tuple[Interval, Interval]]:
        """Weight and bias intervals of every weighted layer, rounded inwards: every point is in the family for
        certain."""
        found = {}
        for i in self.weight:
            layer: Any = self.network.layers[i]
            found[i] = (inner_interval(layer.weight, self.weight[i]), inner_interval(layer.bias, self.bias[i]))
        return found

    def with_activation(self, activation: Mapping[int, Array]) -> Family:
        """The same family with other activation radii, (size,) by Relu: those of one sample, where the scheme clips."""
        other = replace(self, activation=activation)
        other.__dict__["inner_weights"] = self.inner_weights  # the same: a copy a sample would fill the memory
        return other


def _resolved_affine(layer: Any, radii: Radii) -> dict[str, Array]:
    if not layer.quantised:
        return {}
    own = radii.layers.get(layer.name, {})
    weight = radius_array(own.get("weight", radii.weight), layer.weight.shape, f"weight ({layer.name})")
    bias = own.get("bias", radii.bias) if layer.has_bias else 0.0
    found = {"weight": weight, "bias": radius_array(bias, layer.bias.shape, f"bias ({layer.name})")}
    # The integers of a file are fixed unless something else is stated.
    return {} if layer.grid is not None and not any(radius.any() for radius in found.values()) else found


def _resolved_relu(layer: Any, radii: Radii) -> dict[str, Array]:
    value = radii.layers.get(layer.name, {}).get("activation", radii.activation)
    return {"activation": radius_array(value, layer.shape, f"activation ({layer.name})").ravel()}


def _no_radius(layer: Layer, radii: Radii) -> dict[str, Array]:
    return {}


def _resolved_activation(layer: Any, radii: Radii) -> dict[str, Array]:
    stated = "activation" in radii.layers.get(layer.name, {})
    if layer.curve.function.arithmetic and not stated:
        return {"activation": np.zeros(layer.size)}
    return _resolved_relu(layer, radii)


RESOLVED: dict[type[Layer], Callable[[Any, Radii], dict[str, Array]]] = {
    Input: _no_radius,  # its radius is the family's own
    Dense: _resolved_affine,
    Conv: _resolved_affine,
    Scale: _no_radius,
    Relu: _resolved_relu,
    Activation: _resolved_activation,
    Rounding: _no_radius,  # its radius is that of its point
    MaxPool: _no_radius,
    DynamicRounding: _no_radius,  # its radius follows from each sample
    Add: _no_radius,
    Product: _no_radius,
    Gather: _no_radius,
}
"""The radii that a layer of each type has, by kind, as arrays."""


def _check_names(network: Network, radii: Radii) -> None:
    weighted = {network.layers[i].name for i in network.weighted}
    relus = {network.layers[i].name for i in network.relus}
    active = relus | {network.layers[i].name for i in network.activations}
    for name, kinds in radii.layers.items():
        for kind in kinds:
            if kind not in KINDS[1:]:
                raise RadiiError(f"Layer {name!r} has a radius for {kind!r}; it is weight, bias or activation.")
            allowed = active if kind == "activation" else weighted
            if name not in allowed:
                raise RadiiError(
                    f"The network has no layer {name!r} with a radius for its {kind}; those are: "
                    f"{listed(sorted(allowed)) or 'none'}. `qverify inspect` lists all layers."
                )
    if missing := sorted({*radii.saturations} - relus):
        raise RadiiError(f"The network has no activation layer {missing[0]!r} to clip.")
    if network.dynamic and radii.dynamic is None:
        raise RadiiError(
            f"{network.source} is quantised dynamically, so its radii follow from each sample; take Radii.of_file."
        )
    if any(isinstance(layer, (Relu, Activation)) and layer.offset is not None for layer in network.layers):
        raise RadiiError("The network is a member of a quantised family already; state radii for the trained network.")
