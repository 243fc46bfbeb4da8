"""From real quantisers to radii (mathematics.md, section 7): bits, scheme and rounding in, radii out.

`paper`: absolute radii, the convention of Dang et al.: input 2^-b, weights, biases and activations
2^-(b-1). The paper calls them diameters but uses them as radii: plus or minus one whole step for inputs
in [0, 1] and weights in [-1, 1].

`tensor`, `channel`: b-bit quantisers with one step per weight tensor or per output channel, and activations and the
input quantised over their range on calibration data (steps.py has the rules). What exceeds a calibrated range is
clipped: `ceilings` and `input_range` carry the ranges on, and the radius grows by the excess. Integer kernels are
covered as far as kernels.py can prove them to be real arithmetic, and BatchNormalization folded or not (batchnorm.py).

Not covered by any scheme, because the family has no radius for it: requantising the output of the network (which
may tie classes, not reverse them, unless it clips), the branches and sums of a residual network before a Relu, what
average pooling, a normalisation in the graph or a layer without a Relu gives, or a bias that is added to a MatMul
by a node of its own (a Gemm has it inside). Nor are quantisers with coarser steps than these: symmetric activations
(twice the step), a reduced range of weights (7 bits of 8). Radii of b - 1 bits cover b-bit files with either or both;
with `kernel="any"` only those with a reduced range of weights, since symmetric activations alone leave 8-bit weights,
whose pairs were not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.choices import BATCHNORMS, KERNELS, RANGED, ROUNDINGS, SCHEMES
from qverify.errors import DataError, RadiiError
from qverify.family.batchnorm import Range, Ranges, Separate, integer_layer, kept_apart, separate
from qverify.family.kernels import IntegerLayer, Kernel, borderline
from qverify.kinds import NETWORK, expected, is_word
from qverify.layers import BatchNorm, Conv, Dense, forward
from qverify.network import Network
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qverify.arrays import Array
    from qverify.family.steps import Quantiser

_CHUNK = 1024


def scheme_radii(quantiser: Quantiser, network: Network | None, calibration: Any) -> dict[str, Any]:
    """The radii of one quantiser, as keyword arguments of `Radii`. Raises RadiiError; see `Radii.from_bits`."""
    bits, scheme = quantiser.bits, quantiser.scheme
    least = 2 if is_word(scheme, RANGED) else 1
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not least <= bits <= 32:
        raise RadiiError(
            f"The bit-width is {shown(bits)}; it must be a whole number from {least} to 32 for {shown(scheme)}."
        )
    expected(network, (Network, type(None)), "The network", NETWORK, RadiiError)
    if network is not None and network.roundings:
        raise RadiiError(f"{network.source} is quantised already; take its own rounding points, by Radii.of_file.")
    for name, allowed in (("rounding", ROUNDINGS), ("scheme", SCHEMES), ("kernel", KERNELS), ("batchnorm", BATCHNORMS)):
        if not is_word(getattr(quantiser, name), allowed):
            words = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
            raise RadiiError(f"Unknown {name} {shown(getattr(quantiser, name))}; it is {words}.")
    convention = f"{bits} bits, scheme {scheme}, rounding {quantiser.rounding}"
    if scheme == "paper":
        step = 2.0 ** -(bits - 1) * quantiser.share
        return {"input": step / 2, "weight": step, "bias": step, "activation": step, "convention": convention}
    if network is None or calibration is None:
        raise RadiiError(
            f"Scheme {scheme!r} takes its steps from ranges, so it needs the network and calibration data."
        )
    convention += "; any int8 kernel" if quantiser.kernel == "any" else "; kernels that accumulate exactly"
    if network.batchnorms:
        both = {"either": "folded or separate"}
        convention += f"; BatchNormalization {both.get(quantiser.batchnorm, quantiser.batchnorm)}"
    convention += "; outputs, and sums before a Relu, are not requantised"
    return {"convention": convention, **_range_radii(quantiser, network, calibration)}


def _range_radii(quantiser: Quantiser, network: Network, calibration: Any) -> dict[str, Any]:
    for name, why in network.oddities:
        raise RadiiError(
            f"Layer {name!r}: {why}, so scheme {quantiser.scheme} cannot speak for int8 toolchains; write the model"
            " anew (in Python: qverify.save(qverify.load(MODEL), FILE)) and give that file to the toolchain too, or"
            " use --scheme paper or --radii."
        )
    norms = kept_apart(network, quantiser)
    found = calibrate(network, calibration, norms)
    apart = separate(network, quantiser, norms, found)
    ranges, unfolded = found
    layers, integers = _affine_radii(quantiser, network, ranges, apart)
    points, dead = {network.layers[0].name: quantiser.point(*ranges[0], place="input")}, []
    rounded = {network.layers[i].name: ranges[i] for i in (0, *network.relus)} | unfolded
    unclear = [reason for name, ends in rounded.items() for reason in borderline(name, *ends, quantiser.bits)]
    for i in network.relus:
        relu = network.layers[i]
        before = apart.before.get(relu.name, np.zeros(relu.size)).reshape(relu.shape)
        points[relu.name] = quantiser.point(*ranges[i], before if before.any() else 0.0)
        dead += [relu.name] * quantiser.degenerate(*ranges[i])
    return {
        "layers": layers,
        "points": points,
        "saturations": apart.saturations,
        "kernel": Kernel.of(quantiser.kernel, [*integers, *apart.integers], [*apart.refused, *unclear], dead),
    }


def _affine_radii(
    quantiser: Quantiser, network: Network, ranges: list[Range], apart: Separate
) -> tuple[dict[str, dict[str, Any]], list[IntegerLayer]]:
    """Radii of weights and biases by layer, and the layers as integers; a union of families is the larger radius.

    A layer that a BatchNormalization stands alone as, or that is never folded, has those of `apart` only.
    """
    layers: dict[str, dict[str, Any]] = {}
    integers = []
    unfolded = {norm.layer for norm in network.batchnorms if norm.before is None or quantiser.batchnorm == "separate"}
    for i in network.weighted:
        layer = network.layers[i]
        assert isinstance(layer, (Dense, Conv))
        if layer.name in unfolded:
            layers[layer.name] = {"weight": apart.weight[layer.name], "bias": apart.bias[layer.name]}
            continue
        (source,) = layer.inputs
        own = integer_layer(layer, quantiser, quantiser.activation_step(*ranges[source]), ranges[source])
        integers.append(own)
        weight, bias = quantiser.weight_radii(np, own.top, layer.bias, own.entry)
        if layer.name in apart.weight:
            rows = weight.reshape(-1, *[1] * (layer.weight.ndim - 1))
            weight = np.maximum(apart.weight[layer.name], rows)
            bias = np.maximum(apart.bias[layer.name], bias)
        layers[layer.name] = {"weight": weight, "bias": bias}
    return layers, integers


def calibrate(network: Network, x: Any, norms: Iterable[BatchNorm] = ()) -> Ranges:
    """The ranges of all layers on the samples `x` (N, ...), and of the layers that `norms` were folded into, as they
    were before. Raises RadiiError for data that do not fit, or whose activations are not finite."""
    ranges: list[Range] = [(0.0, 0.0)] * len(network.layers)
    before: dict[str, Range] = {}
    unfolded: dict[str, Any] = {norm.layer: norm.before for norm in norms if norm.before is not None}
    for values in _batches(network, x):
        for i, value in enumerate(values):
            ranges[i] = _widened(ranges[i], value)
            if (own := unfolded.get(network.layers[i].name)) is not None:
                value = forward(own, [values[j] for j in own.inputs])
                before[own.name] = _widened(before.get(own.name, (0.0, 0.0)), value)
    return Ranges(ranges, before)


def _widened(ends: Range, values: Array) -> Range:
    if not np.isfinite(values).all():  # here, because min and max of Python pass over NaN
        raise RadiiError("The calibration data give NaN or infinite activations; check model and data.")
    return min(ends[0], float(values.min())), max(ends[1], float(values.max()))


def _batches(network: Network, x: Any) -> Iterator[list[Array]]:
    try:
        flat = network.flat(x)
    except DataError:
        wanted = ", ".join(map(str, network.input_shape))
        raise RadiiError(
            f"The calibration data do not fit the network; give an array of shape (N, {wanted})."
        ) from None
    if not len(flat):
        raise RadiiError("The calibration data are empty; give at least one sample.")
    step = min(_CHUNK, network.samples_at_once)
    for start in range(0, len(flat), step):
        yield network.evaluate_all(flat[start : start + step])
