"""From real quantisers to radii (mathematics.md, section 7): bits, scheme and rounding in, radii out.

`paper`: absolute radii, the convention of Dang et al.: input 2^-b, weights, biases and activations
2^-(b-1). The paper calls them diameters but uses them as radii: plus or minus one whole step for inputs
in [0, 1] and weights in [-1, 1].

`tensor`, `channel`: b-bit quantisers with one step per weight tensor or per output channel, and activations and the
input quantised over their range on calibration data (steps.py has the rules), at rounding points (points.py). These
stand at the input and behind every activation, or, with `points` of a toolchain, at the output of every layer as
well: sums, averages and the network's own included. Integer kernels are covered as far as kernels.py can prove them to
be real arithmetic, and BatchNormalization folded or not (batchnorm.py).

Not covered: a bias that is added to a MatMul by a node of its own and rounded to the bits of an activation (a Gemm has
it inside), and factors of a Mul likewise: refused for onnxruntime's points, a remark elsewhere. A reduced range of
weights is one bit of weights less. Radii of fewer bits do not hold those of more: what a finer grid keeps, a coarser
one rounds to 0, and the ends of its range are others.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.errors import RadiiError
from qverify.family.activation_points import clips, errors_before, fixed_range, refuse_activations, unrounded
from qverify.family.batchnorm import Separate, integer_layer, kept_apart, separate
from qverify.family.checked import check, refuse_constants, refuse_gathers
from qverify.family.gathers import leaves_out, passes_on
from qverify.family.kernels import IntegerLayer, Kernel, borderline, dropped
from qverify.family.points import Point
from qverify.family.ranges import Range, Ranges, calibrate
from qverify.gather import Gather
from qverify.kinds import NETWORK, expected
from qverify.layers import Conv, Dense, MaxPool, Relu, Scale
from qverify.network import Network

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.family.steps import Place, Quantiser


def scheme_radii(quantiser: Quantiser, network: Network | None, calibration: Any) -> dict[str, Any]:
    """The radii of one quantiser, as keyword arguments of `Radii`. Raises RadiiError; see `Radii.from_bits`."""
    check(quantiser)
    expected(network, (Network, type(None)), "The network", NETWORK, RadiiError)
    if network is not None and network.rounds:
        raise RadiiError(f"{network.source} is quantised already; take its own rounding points, by Radii.of_file.")
    scheme = quantiser.scheme
    convention = f"{quantiser.width} bits, scheme {scheme}, rounding {quantiser.rounding}"
    if scheme == "paper":
        widths = (quantiser.of_weights, quantiser.of_activations, quantiser.of_input)
        weight, activation, entry = (2.0 ** -(bits - 1) * quantiser.share for bits in widths)
        steps = {"input": entry / 2, "weight": weight, "bias": weight, "activation": activation}
        return {**steps, "convention": convention}
    if network is None or calibration is None:
        raise RadiiError(
            f"Scheme {scheme!r} takes its steps from ranges, so it needs the network and calibration data."
        )
    convention += "; any int8 kernel" if quantiser.kernel == "any" else "; kernels that accumulate exactly"
    if network.batchnorms:
        both = {"either": "folded or separate"}
        convention += f"; BatchNormalization {both.get(quantiser.batchnorm, quantiser.batchnorm)}"
    return {
        "convention": f"{convention}; {_placed(quantiser, network)}",
        **_range_radii(quantiser, network, calibration),
    }


def _placed(quantiser: Quantiser, network: Network) -> str:
    """Where values are rounded, for people."""
    entry = "the input is exact" if quantiser.input == "exact" else "the input is rounded"
    if quantiser.points == "activations":
        named = "Relus and other activations" if network.activations else "Relus"
        return f"{entry}, {named} are, and outputs, averages and sums before a Relu are not"
    files = " in QDQ files" if quantiser.points == "onnxruntime" and network.activations else ""
    return f"{entry}, and what every layer gives, as {quantiser.points} does{files}"


def _range_radii(quantiser: Quantiser, network: Network, calibration: Any) -> dict[str, Any]:
    for name, why in network.oddities:
        raise RadiiError(
            f"Layer {name!r}: {why}, so scheme {quantiser.scheme} cannot speak for int8 toolchains; write the model"
            " anew (in Python: qverify.save(qverify.load(MODEL), FILE)) and give that file to the toolchain too, or"
            " use --scheme paper or --radii."
        )
    if quantiser.points == "onnxruntime":
        refuse_constants(network)
    if quantiser.points != "activations":
        _refuse_late_relus(network)
        refuse_activations(network, quantiser)
        refuse_gathers(network, quantiser.points)
    norms = kept_apart(network, quantiser)
    found = calibration
    if not isinstance(found, Ranges):
        found = calibrate(network, calibration, norms, quantiser.ranges)
    apart = separate(network, quantiser, norms, found)
    ranges = _possible(quantiser, network, found.outputs)
    layers, integers = _affine_radii(quantiser, network, ranges, apart)
    places = rounded_places(network, quantiser.points)
    given = [0] if network.parts is None else sorted(network.entries - {0})  # each on a grid of its own
    points = {}
    if quantiser.input == "rounded":
        at_input = quantiser.at_input()
        points = {network.layers[i].name: at_input.point(*found.outputs[i], place="input") for i in given}
    wrong = errors_before(network, quantiser, ranges, places) if quantiser.points != "activations" else {}
    points |= {network.layers[i].name: _point(quantiser, network, i, ranges, apart, wrong.get(i)) for i in places}
    # With a normalisation kept apart, what enters a Relu is not known to be 0 or more on any sample.
    empty = [network.layers[i].name for i in network.relus if quantiser.degenerate(*found.outputs[i])]
    dead, unsure = ([name for name in empty if (name in apart.before) is kept] for kept in (False, True))
    rounded = [(network.layers[i].name, ends) for i in (*given, *places) for ends in ranges[i]] + [
        *found.before.items()
    ]
    unclear = [why for name, ends in rounded for why in borderline(name, *ends, quantiser.of_activations)]
    return {
        "layers": layers,
        "points": points,
        "saturations": apart.saturations,
        "kernel": Kernel.of(
            quantiser.kernel, [*integers, *apart.integers], [*apart.refused, *unclear, *dropped(unsure)], dead
        ),
    }


def rounded_places(network: Network, where: str) -> list[int]:
    """The layers (by index, without the inputs) behind which values are rounded, by `where` of `choices.POINTS`.

    Toolchains quantise the output of every layer, sums, averages and the network's own included; that of a layer which
    only a Relu reads is quantised behind it. That of a MaxPool has the scale of what it reads, and is on its grid; so
    has that of a Gather, but one that joins layers is rounded to a scale of its own, and so may one be that leaves
    numbers out (gathers.py).
    """
    relus = set(network.relus)
    if where == "activations":
        functions = {i: network.layers[i].curve.function for i in network.activations}  # type: ignore[attr-defined]
        return sorted((*network.relus, *(i for i, function in functions.items() if not function.arithmetic)))
    alone = [len(users) == 1 and users[0] in relus for users in network.consumers]
    skipped = unrounded(network, where)
    pools = [isinstance(layer, MaxPool) for layer in network.layers]
    passed = [pool or passes_on(network, i, where) for i, pool in enumerate(pools)]
    skipped |= network.entries
    return [i for i in range(1, len(network.layers)) if not alone[i] and not passed[i] and i not in skipped]


def _refuse_late_relus(network: Network) -> None:
    """Raise RadiiError for a Relu that reads a MaxPool or a Gather: toolchains differ in the scale that both have."""
    for i in network.relus:
        read = network.layers[network.layers[i].inputs[0]]
        if isinstance(read, (MaxPool, Gather)):
            kind = type(read).__name__
            raise RadiiError(
                f"Relu {network.layers[i].name!r} comes behind the {kind} {read.name!r}, where toolchains take its "
                f"scale in ways of their own; put the Relu before the {kind}, which computes the same, or use "
                "--points activations."
            )


def _possible(quantiser: Quantiser, network: Network, ranges: list[Range]) -> list[tuple[Range, ...]]:
    """The ranges that a toolchain may take for the output of each layer: an average has that of what it reads in
    TensorFlow Lite, unless it is a mean over all positions, and in onnxruntime's QDQ files, and its own elsewhere; a
    MaxPool always has that of what it reads, and a Gather that or, where it leaves numbers out, its own; one of several
    layers its own."""
    found: list[tuple[Range, ...]] = [(ends,) for ends in ranges]
    for i, layer in enumerate(network.layers):
        if (fixed := fixed_range(layer, quantiser.points)) is not None:
            found[i] = (fixed,)
        if isinstance(layer, Conv) and not layer.quantised and quantiser.points != "activations":
            read = found[layer.inputs[0]]
            if abs(layer.weight).reshape(len(layer.weight), -1).sum(axis=1).max() > 1.0 + 1e-9:
                continue  # a sum, whose range is its own
            # TensorFlow Lite's AVERAGE_POOL_2D has the scale that it reads; its MEAN, over all positions, may not.
            pooled = quantiser.points == "tflite" and layer.positions > 1
            found[i] = read if pooled else tuple(dict.fromkeys((*read, ranges[i])))
        elif isinstance(layer, MaxPool):
            found[i] = found[layer.inputs[0]]
        elif isinstance(layer, Gather) and len(layer.inputs) == 1 and i not in network.entries:
            own = [ranges[i]] if leaves_out(network, layer) and quantiser.points != "tflite" else []
            found[i] = tuple(dict.fromkeys((*found[layer.inputs[0]], *own)))
    return found


def _point(
    quantiser: Quantiser,
    network: Network,
    index: int,
    ranges: list[tuple[Range, ...]],
    apart: Separate,
    wrong: Array | None,
) -> Point:
    """The point behind layer `index`; `wrong`: what runtimes get wrong in its function or product."""
    layer = network.layers[index]
    place: Place = "behind Relu" if index in network.relus else "inside"
    before = apart.before.get(layer.name, np.zeros(layer.size)).reshape(layer.shape)
    if wrong is not None:
        before = before + wrong.reshape(layer.shape)
    points = []
    entry = (
        isinstance(layer, Gather) and network.grid_of(index) in network.entries
    )  # on the input's grid, or on one of its own
    for own, ends in product([quantiser, quantiser.at_input()] if entry else [quantiser], ranges[index]):
        error = before
        if quantiser.rounding == "double":
            step = own.activation_step(*ends)
            error = before + step * _second_rounding(own, network, index, step, ranges)
        points.append(own.point(*ends, error if error.any() else 0.0, place))
    point = reduce(Point.or_else, points)
    if layer.name not in apart.ends:
        return point
    low, high = (end.reshape(layer.shape) for end in apart.ends[layer.name])
    return quantiser.clipped_before(point, ranges[index][0], low, high)  # a Relu has one range


def _second_rounding(
    quantiser: Quantiser, network: Network, index: int, step: float, ranges: list[tuple[Range, ...]]
) -> float:
    """What the second of two roundings adds at the point of this step behind layer `index`, in steps (rules.py), at
    most: of the coarsest channel, and of sums and averages, whose multipliers have 20 bits."""
    source = index
    fused = (Relu, Activation) if quantiser.points == "activations" else Relu
    while isinstance(network.layers[source], fused) or clips(network.layers[source]):
        (source,) = network.layers[source].inputs
    layer: Any = network.layers[source]
    if source not in network.weighted:
        scaled = isinstance(layer, Scale) and bool((layer.scale != 1.0).any())
        return 2.0**-18 * quantiser.levels + 0.25 * scaled
    reading = quantiser.at_input() if network.grid_of(layer.inputs[0]) in network.entries else quantiser
    top = float(abs(layer.weight).max()) / quantiser.at_layer(layer.name).weight_levels
    entry = max(reading.activation_step(*ends) for ends in ranges[layer.inputs[0]])
    _, exponent = np.frexp(1.001 * top * entry / step)
    return float(np.ldexp(0.5, min(int(exponent), -1)))


def _affine_radii(
    quantiser: Quantiser, network: Network, ranges: list[tuple[Range, ...]], apart: Separate
) -> tuple[dict[str, dict[str, Any]], list[IntegerLayer]]:
    """Radii of weights and biases by layer, and the layers as integers; a union of families is the larger radius.

    A layer that a BatchNormalization stands alone as, or that is never folded, has those of `apart` only.
    """
    layers: dict[str, dict[str, Any]] = {}
    integers = []
    unfolded = {norm.layer for norm in network.batchnorms if norm.before is None or quantiser.batchnorm == "separate"}
    folded = {norm.layer for norm in network.batchnorms}
    for i in network.weighted:
        layer = network.layers[i]
        assert isinstance(layer, (Dense, Conv))
        if layer.name in unfolded:
            layers[layer.name] = {"weight": apart.weight[layer.name], "bias": apart.bias[layer.name]}
            continue
        (source,) = layer.inputs
        reading = quantiser.at_input() if network.grid_of(source) in network.entries else quantiser
        mine = reading.at_layer(layer.name)
        forms = [integer_layer(layer, mine, reading.activation_step(*r), reading.range(*r)) for r in ranges[source]]
        own = max(forms, key=lambda form: form.entry)
        stated = quantiser.by_layer.get(layer.name)
        if stated is None or stated.block is None:
            integers += forms
            weight = _like_weights(layer, mine.weight_radii(np, own.top, layer.bias, own.entry)[0])
        else:  # no integer kernel has blocks
            weight = _blocked(mine, layer, own, stated.block)
        bias = mine.weight_radii(np, own.top, layer.bias, own.entry)[1]
        # A folded bias is a difference: 0 to the last digit here, and perhaps not in a toolchain's float32.
        zero_bias = bias if layer.name in folded else _zeros_kept(layer.bias, bias)
        found = {"weight": _zeros_kept(layer.weight, weight), "bias": zero_bias}
        if layer.name in apart.weight:
            found["weight"] = np.maximum(apart.weight[layer.name], found["weight"])
            found["bias"] = np.maximum(apart.bias[layer.name], found["bias"])
        layers[layer.name] = found
    return layers, integers


def _like_weights(layer: Dense | Conv, channels: Any) -> Any:
    """Numbers of channels (c_out,) so that they broadcast to the weights."""
    return channels.reshape(-1, *[1] * (layer.weight.ndim - 1))


def _zeros_kept(numbers: Any, radius: Any) -> Any:
    """The radii, 0 where the number is: every format has it."""
    return np.where(numbers == 0, 0.0, radius) if (numbers == 0).any() else radius


def _blocked(quantiser: Quantiser, layer: Dense | Conv, own: IntegerLayer, block: int) -> Any:
    """The radii of weights that have one step for every `block` of them in a row along the inputs."""
    flat = abs(layer.weight).reshape(len(layer.weight), layer.weight.shape[1], -1)
    starts = np.arange(0, flat.shape[1], block)
    tops = np.maximum.reduceat(flat, starts, axis=1)
    radius, _ = quantiser.weight_radii(np, tops.ravel(), np.zeros(tops.size), own.entry)
    lengths = np.diff([*starts, flat.shape[1]])
    return np.repeat(radius.reshape(tops.shape), lengths, axis=1).reshape(layer.weight.shape)
