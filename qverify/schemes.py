"""From real quantisers to radii (design.md, section 7): bits, scheme and rounding in, radii out.

`paper`: absolute radii, the convention of Dang et al.: input 2^-b, weights, biases and activations
2^-(b-1). The paper calls them diameters but uses them as radii: plus or minus one whole step for inputs
in [0, 1] and weights in [-1, 1].

`tensor`, `channel`: b-bit quantisers with one step per weight tensor or per output channel. Weights:
D = max|W| / (2^(b-1) - 1), the symmetric step with the narrow range; the asymmetric one is smaller, so
it is covered too. Input and activations: D = range / (2^b - 1), the range taken from calibration data
and widened to contain 0. Biases: the integer step s_x s_w. The radius is D / 2 for rounding to nearest,
D for any rounding. What exceeds a calibrated range is clipped: `ceilings` and `input_range` carry the
ranges on, and the radius grows by the excess.

Not covered by any scheme, because the family has no radius for it: requantising the output of the network (which
may tie classes, not reverse them, unless it clips), the branches and sums of a residual network before a Relu, what
average pooling, a normalisation in the graph or a layer without a Relu gives, or a bias that is added to a MatMul
by a node of its own (a Gemm has it inside). Nor are quantisers with coarser steps than these: symmetric activations
(twice the step), a reduced range of weights (7 bits of 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import RadiiError
from qverify.network import Array, Conv, Dense, Network, Relu

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOAT32_SLACK = 2.0**-21
"""A quantiser that works in float32 rounds the step, the quotient and the product: three roundings of 2^-24 relative to
the number itself (measured 1.8), so it exceeds its share of a step by a share of the whole *range*: 2.6e-5 of a step
at 8 bits, 7e-3 of one at 16. Twice what the roundings can sum to; every radius is widened by it."""

_LEAST_STEP = 1.0001 * 2.0**-126
"""The smallest normal number of float32, and a little: no toolchain has a step below."""

_CHUNK = 1024


def scheme_radii(bits: int, scheme: str, rounding: str, network: Network | None, calibration: Any) -> dict[str, Any]:
    """The keyword arguments of `Radii` for one scheme. Raises RadiiError; see `Radii.from_bits`."""
    least = 1 if scheme == "paper" else 2
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not least <= bits <= 32:
        raise RadiiError(f"The bit-width is {bits!r}; it must be a whole number from {least} to 32 for {scheme!r}.")
    if rounding not in ("nearest", "any"):
        raise RadiiError(f"Unknown rounding {rounding!r}; it is 'nearest' or 'any'.")
    convention = f"{bits} bits, scheme {scheme}, rounding {rounding}"
    if scheme == "paper":
        step = 2.0 ** -(bits - 1) * (0.5 if rounding == "nearest" else 1.0)
        return {"input": step / 2, "weight": step, "bias": step, "activation": step, "convention": convention}
    if scheme not in ("tensor", "channel"):
        raise RadiiError(f"Unknown scheme {scheme!r}; it is 'paper', 'tensor' or 'channel'.")
    if network is None or calibration is None:
        raise RadiiError(
            f"Scheme {scheme!r} takes its steps from ranges, so it needs the network and calibration data."
        )
    share = 0.5 if rounding == "nearest" else 1.0
    convention += "; outputs, and sums before a Relu, are not requantised"
    return {"convention": convention, **_range_radii(bits, scheme == "channel", share, network, calibration)}


def _range_radii(bits: int, per_channel: bool, share: float, network: Network, calibration: Any) -> dict[str, Any]:
    ranges = calibrate(network, calibration)
    steps = [activation_step(bits, *ends) for ends in ranges]
    radii = [activation_radius(bits, share, step) for step in steps]
    layers: dict[str, dict[str, Any]] = {}
    ceilings = {}
    for i, layer in enumerate(network.layers):
        if i in network.weighted and isinstance(layer, (Dense, Conv)):
            magnitude = np.abs(layer.weight).reshape(len(layer.weight), -1).max(axis=1)
            sizes = magnitude, np.abs(layer.bias)
            top, largest = sizes if per_channel else (np.full(len(size), size.max()) for size in sizes)
            weight, bias = weight_radii(np, (bits, share), (top, largest), layer.bias, steps[layer.inputs[0]])
            layers[layer.name] = {"weight": weight, "bias": bias}
        elif isinstance(layer, Relu):
            layers[layer.name] = {"activation": radii[i]}
            ceilings[layer.name] = ranges[i][1]
    return {"input": radii[0], "layers": layers, "ceilings": ceilings, "input_range": ranges[0]}


def activation_step(bits: int, low: Any, high: Any) -> Any:
    """The step of an asymmetric quantiser for values in [low, high], which contains 0."""
    return (high - low) / (2.0**bits - 1)


def activation_radius(bits: int, share: float, step: Any) -> Any:
    """The error of rounding to that step; `share` is 1/2 for rounding to nearest, else 1."""
    return step * (share + (2.0**bits - 1) * FLOAT32_SLACK)


def weight_radii(
    xp: Any, quantiser: tuple[int, float], sizes: tuple[Any, Any], bias: Any, entry: float
) -> tuple[Any, Any]:
    """Radii of weights and biases, one a channel; `xp` is numpy, or torch, which differentiates through them.

    `quantiser`: bits and share. `sizes` (c_out,) each: the largest |w| and |b| that share the step of a channel, those
    of the channel itself or of the whole layer. `entry`: the step of what the layer reads.
    """
    bits, share = quantiser
    top, largest = sizes
    levels = 2.0 ** (bits - 1) - 1
    # The least weight step with which a bias fits into int32 steps of step * entry; toolchains widen it to that.
    for_bias = largest / entry * (1.001 * 2.0**-31) if entry > 0 else xp.zeros_like(bias)
    step = xp.maximum(top / levels, for_bias)
    radius = step * (share + levels * FLOAT32_SLACK)
    # Where float32 has no step that small, int8 toolchains take 1: weights become 0, biases multiples of s_x.
    vanishes = top <= levels * _LEAST_STEP
    radius = xp.where(vanishes, xp.where(top > 0, xp.maximum(top, radius), xp.zeros_like(top)), radius)
    bias_step = xp.where(vanishes, xp.maximum(step, xp.ones_like(step)), step)
    return radius, bias_step * entry * share + xp.abs(bias) * FLOAT32_SLACK


def calibrate(network: Network, x: Any) -> list[tuple[float, float]]:
    """Smallest and largest value of every layer's output on the samples `x` (N, ...), widened to contain 0."""
    ranges = [(0.0, 0.0)] * len(network.layers)
    for values in _batches(network, x):
        for i, value in enumerate(values):
            if not np.isfinite(value).all():  # here, because min and max of Python pass over NaN
                raise RadiiError("The calibration data give NaN or infinite activations; check model and data.")
            low, high = ranges[i]
            ranges[i] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges


def _batches(network: Network, x: Any) -> Iterator[list[Array]]:
    try:
        flat = network.flat(x)
    except (TypeError, ValueError):
        wanted = (len(x), *network.input_shape) if hasattr(x, "__len__") else network.input_shape
        raise RadiiError(f"The calibration data do not fit the network; give an array of shape {wanted}.") from None
    if not len(flat):
        raise RadiiError("The calibration data are empty; give at least one sample.")
    for start in range(0, len(flat), _CHUNK):
        yield network.evaluate_all(flat[start : start + _CHUNK])
