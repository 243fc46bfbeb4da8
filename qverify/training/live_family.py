"""The quantised family of a network in training: radii around live weights, as `bounds` reads them.

Two kinds. `StatedFamily`: radii that are numbers, from scheme `paper` or a file. `RangeFamily`: steps that follow the
ranges of the weights, schemes `tensor` and `channel`, differentiated through; the ranges of activations are tracked
over the batches. Both give a `BoundModel` in the type of the weights and without rounding allowance, so that the
training loss is computed by the very functions that verify (mathematics.md, section 13). All radii are multiplied by a
factor, which the ramp raises from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.bounds.affine import Affine
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel, Bounds, curves_of
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.placing import BEHIND
from qverify.family.points import Point, lower_end, upper_end
from qverify.family.radii import Radii
from qverify.kinds import expected
from qverify.layers import Conv, Dense, Relu, Rounding
from qverify.moved import former_names
from qverify.rounding import Allowances
from qverify.text.brief import Brief
from qverify.training.live_network import LiveNetwork
from qverify.training.tracing import spread_slopes

if TYPE_CHECKING:
    from qverify.family.steps import Place, Quantiser
    from qverify.layers import Layer
    from qverify.network import Network

__getattr__ = former_names(
    __name__,
    {
        "Quantiser": "qverify.family.steps:Quantiser",
        "RangeRadii": "qverify.training.live_family:RangeFamily",
        "StatedRadii": "qverify.training.live_family:StatedFamily",
    },
)

Clip = tuple[float, float]
Pair = tuple[Tensor, Tensor]
_FADE = 0.999
"""Decay of a tracked range per batch while no value reaches it: it follows the weights within some thousand batches."""


class LiveFamily(Protocol):
    """The family at any moment of training."""

    def observe(self, values: list[Tensor]) -> None:
        """Track the ranges of the outputs (N, size) of all layers on one batch."""
        ...

    def model(self, factor: float) -> BoundModel:
        """The family with all radii times `factor`."""
        ...

    def box(self, factor: float, x: Tensor) -> Pair:
        """The ends (N, n_in) of the inputs of samples x (N, n_in) at the radius times `factor`."""
        ...

    def radii(self, x: Any) -> Radii:
        """The full radii of the network as it is now, as they are verified; ranges are taken on x (N, n_in)."""
        ...

    def state(self) -> dict[str, Any]:
        """The tracked ranges, which a checkpoint has to keep beside the weights; empty without any."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Put back the ranges that `state` gave."""
        ...


def live_bounds(family: LiveFamily, factor: float, x: Tensor, clip: Clip | None = None) -> tuple[BoundModel, Bounds]:
    """The family at `factor` times the radii and IBP bounds around samples x (N, ...), differentiable, without
    allowances for rounding: to train on, not to verify with."""
    model = family.model(factor)
    lower, upper = family.box(factor, x.flatten(1))
    if clip is not None:
        lower, upper = lower.clamp(*clip), upper.clamp(*clip)  # as `Family.box`: never empty
    return model, interval_bounds(model, lower, upper)


def _bound_model(
    live: LiveNetwork, weights: dict[int, Pair], activation: dict[int, Tensor], points: dict[int, Point] | None = None
) -> BoundModel:
    """`weights[i]`: weight and bias radius of layer i; layers without live weights (average pooling) are exact.

    `points[i]`: what stands for Relu i, or behind another activation, whose own radius is then 0.
    """
    affine, like, points = {}, live.like, points or {}
    network, where = _with_points(live.network, points)
    at = {i: where[i] + isinstance(live.network.layers[i], Activation) for i in points}
    radii = {at.get(i, where[i]): radius for i, radius in activation.items()}
    radii |= {where[i]: like.new_zeros(live.network.layers[i].size) for i in points if at[i] != where[i]}
    curves = curves_of(network, like.new_tensor)
    for i, slope in live.slopes.items():
        slopes = spread_slopes(slope, live.network.layers[i].shape)
        curves[where[i]] = replace(curves[where[i]], parameters=(slopes,))
    for i, layer in enumerate(live.network.layers):
        if not isinstance(layer, (Dense, Conv)):
            continue
        placed: Any = network.layers[where[i]]
        if i in live.parameters:
            weight, bias = live.parameters[i]
            bias = like.new_zeros(len(weight)) if bias is None else bias
            radius, bias_radius = weights[i]
        else:
            weight, bias = like.new_tensor(layer.weight), like.new_tensor(layer.bias)
            radius, bias_radius = torch.zeros_like(weight), torch.zeros_like(bias)
        affine[where[i]] = Affine(layer=placed, weight=weight, radius=radius, bias=bias, bias_radius=bias_radius)
    return BoundModel(
        network=network,
        affine=affine,
        scale={},
        activation=radii,
        points={at[i]: point for i, point in points.items()},
        curves=curves,
        rounding=Allowances(like.dtype, enabled=False),
        device=like.device,
        dtype=like.dtype,
    )


def _with_points(network: Network, points: dict[int, Point]) -> tuple[Network, list[int]]:
    """The network with a layer where bounds look for a rounding point, whose numbers are those of `BoundModel.points`;
    and where each layer is then."""
    layers: list[Layer] = []
    where: list[int] = []
    read: list[int] = []  # where the output of each layer is read
    for i, layer in enumerate(network.layers):
        inputs, none = tuple(read[j] for j in layer.inputs), np.zeros(layer.size)
        numbers: dict[str, Any] = {"step": none, "low": none, "high": none, "dead": none}
        where.append(len(layers))
        if i in points and isinstance(layer, Relu):
            layers.append(Rounding(layer.name, inputs, layer.shape, **numbers))
        else:
            layers.append(replace(layer, inputs=inputs))
            if i in points:
                layers.append(Rounding(f"{layer.name}{BEHIND}", (len(layers) - 1,), layer.shape, **numbers))
        read.append(len(layers) - 1)
    return (replace(network, layers=tuple(layers)) if points else network), where


class StatedFamily:
    """A family whose radii do not depend on the weights: scheme `paper`, or a radii file."""

    def __init__(self, live: LiveNetwork, radii: Radii):
        """Raises RadiiError if `radii` do not fit the network, or follow from its ranges."""
        if radii.points or radii.saturations:
            raise RadiiError(
                "These radii hold for the ranges of one network, which training changes; state bits and scheme instead."
            )
        self._live, self._radii = live, radii
        self._family = Family.of(live.network, radii)

        def tensors(arrays: Any) -> dict[int, Tensor]:
            return {i: live.like.new_tensor(array) for i, array in arrays.items()}

        self._weight, self._bias = tensors(self._family.weight), tensors(self._family.bias)
        self._activation = tensors(self._family.activation)
        self._input = live.like.new_tensor(self._family.input)

    def observe(self, values: list[Tensor]) -> None:
        """Nothing depends on the data."""

    def model(self, factor: float) -> BoundModel:
        weights = {i: (factor * self._weight[i], factor * self._bias[i]) for i in self._weight}
        activation = {i: factor * radius for i, radius in self._activation.items()}
        return _bound_model(self._live, weights, activation)

    def box(self, factor: float, x: Tensor) -> Pair:
        return x - factor * self._input, x + factor * self._input

    def radii(self, x: Any) -> Radii:
        return self._radii

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""


@dataclass(eq=False, repr=False)
class RangeFamily(Brief):
    """A family of schemes `tensor` and `channel`: gradients flow from the radii to the largest weights.

    `high[i]`, `low[i]`: the range of layer i's output on recent batches, widened to contain 0; the gradient takes them
    for constants.
    """

    live: LiveNetwork
    quantiser: Quantiser
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def observe(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            low = [min(0.0, float(v.min())) for v in values]
            high = [max(0.0, float(v.max())) for v in values]
        before = self.low or low, self.high or high
        self.low = [min(new, _FADE * old) for new, old in zip(low, before[0], strict=True)]
        self.high = [max(new, _FADE * old) for new, old in zip(high, before[1], strict=True)]

    def model(self, factor: float) -> BoundModel:
        quantiser, network = self.quantiser, self.live.network
        layers = network.layers
        steps = [quantiser.activation_step(low, high) for low, high in zip(self.low, self.high, strict=True)]
        weights = {}
        for i, (weight, bias) in self.live.parameters.items():
            top = weight.abs().flatten(1).amax(1)
            offset = torch.zeros_like(top) if bias is None else bias
            top = top if quantiser.per_channel else top.max().expand(len(top))
            radius, spread = quantiser.weight_radii(torch, top, offset, steps[network.grid_of(layers[i].inputs[0])])
            rows = (factor * radius).reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
            weights[i] = rows, factor * (torch.zeros_like(spread) if bias is None else spread)
        points = {i: self._point(i, factor) for i in (*network.relus, *network.activations)}
        activation = {i: point.radius.expand(layers[i].size) for i, point in points.items()}
        return _bound_model(self.live, weights, activation, points)

    def _point(self, index: int, factor: float) -> Point:
        """The rounding point of a layer's output, with its errors times `factor`, as tensors."""
        relu = index in self.live.network.relus
        place: Place = "behind Relu" if relu else "input" if index == 0 else "inside"
        quantiser = self.quantiser.at_input() if index == 0 else self.quantiser
        point = quantiser.point(self.low[index], self.high[index], place=place)
        point = point.behind_relu() if relu else point
        point = replace(point, radius=factor * point.radius, dead=factor * point.dead)
        return point.mapped(lambda number: self.live.like.new_tensor(number))

    def box(self, factor: float, x: Tensor) -> Pair:
        point = self._point(0, factor)
        return lower_end(torch, point, point.radius, x, 0.0), upper_end(torch, point, point.radius, x, 0.0)

    def radii(self, x: Any) -> Radii:
        return Radii.of(self.quantiser, self.live.frozen(), x)

    def state(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        self.low, self.high = list(state["low"]), list(state["high"])


def live_family(live: LiveNetwork, stated: Quantiser | Radii) -> LiveFamily:
    """The family that `stated` asks for. Raises RadiiError."""
    expected(live, LiveNetwork, "The network in training", "a LiveNetwork, as LiveNetwork.trace gives", RadiiError)
    if isinstance(stated, Radii):
        return StatedFamily(live, stated)
    radii = Radii.of(stated, live.network, np.zeros((1, live.network.input_size)))
    return StatedFamily(live, radii) if stated.scheme == "paper" else RangeFamily(live, stated)
