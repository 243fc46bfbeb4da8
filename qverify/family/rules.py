"""The rules by which runtimes requantise, as radii in steps of the output (mathematics.md, section 16).

A quantised file fixes weights, biases and grids; runtimes differ in how they round to the grid, and each rule bounds by
how much what comes out may differ from the real value v. `v` counts steps; the multiplier of a layer is `M = s_x s_w /
s_y`, and `k` the right shift in `M = m 2^-k` with m in [1/2, 1).

    nearest    1/2: real arithmetic, ties either way
    float32    1/2 + 4 |v| 2^-24: an exact integer sum, its bias included, times a float32 multiplier (made in float32:
               up to two roundings, one for a sum beyond 2^24, one for the product): ONNX Runtime, XNNPACK
    single     1/2 + |v| 2^-22: a 31-bit multiplier, made of steps that may be multiplied in float32 first, and one
               rounding: CMSIS-NN and TensorFlow Lite with their single-rounding switch, its dense layers, ExecuTorch
    double     1/2 + 2^-(k+1) + |v| 2^-22, without the second term where k is not positive: two roundings (gemmlowp):
               TensorFlow Lite's reference kernels and ruy, TensorFlow Lite Micro, CMSIS-NN by default; averages over
               all positions are off by up to 1/n more
    truncate   1: toward zero, or the floor: some accelerators
    any        1: any of these, and stochastic rounding

Not covered by `float32`: kernels that scale the bias apart from the products (TensorRT).

Where a file has its operators in floating point between rounding points (QDQ), runtimes may compute them so: by every
rule but `nearest` what float32 can get wrong then is added (float_errors.py), and so it is behind an activation other
than Relu, of which kernels make a table; what those do that compute it in integers is in function_errors.py.

The kernels of TensorFlow Lite for 16-bit activations keep 15 bits of the multiplier: `single` and `double` have
|v| 2^-15 there. Sums of two branches and averages take more roundings on the way, by fixed-point multipliers of 20 bits
at least: for them every rule but `nearest` has |v| 2^-18 on top, v with the sizes of both branches added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.choices import DYNAMIC_RULES, ROUNDINGS
from qverify.errors import RadiiError, UsageError
from qverify.family.float_errors import float_errors
from qverify.family.function_errors import kernel_error, layer_reach
from qverify.family.kernels import Kernel, overflowing
from qverify.family.points import NO_ZERO, Point, Summed
from qverify.gather import Gather
from qverify.kinds import is_word
from qverify.layers import (
    INT32,
    LEVELS,
    Add,
    Conv,
    Dense,
    DynamicRounding,
    Layer,
    MaxPool,
    Product,
    Relu,
    Rounding,
    Scale,
)
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.network import Network

_SHARE = {"nearest": 0.5, "float32": 0.5, "single": 0.5, "double": 0.5, "truncate": 1.0, "any": 1.0}
"""Of a step, the error of each rule but for what a multiplier of finite precision adds."""
_MULTIPLIER = {"nearest": 2.0**-50, "float32": 2.0**-22, "single": 2.0**-22, "double": 2.0**-22}
"""Per step of v what a multiplier may be off by, of those that take it so."""
_WIDE = 2.0**8
"""Steps in half of a range beyond which it is one of 16 bits."""
_FIXED = 2.0**-18
"""Per step of v what the fixed-point multipliers of sums and averages may be off by."""


def file_points(network: Network, rule: str = "float32") -> dict[str, Point]:
    """The rounding points of a quantised file, by name, as every runtime has them whose rule this is.

    Raises RadiiError for an unknown rule, and for a network that has no rounding points.
    """
    if not is_word(rule, ROUNDINGS):
        words = ", ".join(map(repr, ROUNDINGS))
        raise RadiiError(f"Unknown rounding {shown(rule)}; runtimes of a quantised file round by one of {words}.")
    if network.dynamic:
        raise RadiiError(f"{network.source} is quantised dynamically and has no fixed steps; take Radii.of_file.")
    if not network.roundings:
        raise RadiiError(f"{network.source} is not quantised; state radii or bits for it.")
    errors = float_errors(network) if rule != "nearest" else []
    found = {}
    for i in network.roundings:
        layer: Any = network.layers[i]
        radius, summed = layer.step * point_error(network, i, rule), None
        if errors and (not layer.kernel or isinstance(network.layers[network.before(i)], Activation)):
            if _summed(network, i, errors):
                summed = Summed(absolute=radius.reshape(layer.shape))
            radius = radius + errors[layer.inputs[0]]
            if not np.isfinite(radius).all():
                raise RadiiError(
                    f"What float32 gets wrong before rounding point {layer.name!r} has no bound that is known: the"
                    " input is not rounded before, or a normalisation is there; state --rounding nearest for real"
                    " arithmetic."
                )
        found[layer.name] = Point(
            radius=radius.reshape(layer.shape),
            low=(layer.low.min(), 0.0),
            high=(0.0, layer.high.max()),
            dead=0.0 if _exact_at_zero(network, i) else NO_ZERO,
            summed=summed,
        )
    return found


def _summed(network: Network, index: int, errors: list[Array]) -> bool:
    """Whether rounding point `index` reads what an affine layer makes of numbers that float32 has exactly."""
    layer = network.layers[network.before(index)]
    return isinstance(layer, (Dense, Conv)) and not errors[layer.inputs[0]].any()


def check_dynamic_rule(source: str, rule: object) -> str:
    """The rule itself, if runtimes of dynamically quantised files round by it. Raises RadiiError."""
    if not is_word(rule, DYNAMIC_RULES):
        raise RadiiError(
            f"{source} is quantised dynamically, and rounding {shown(rule)} is of fixed steps; state nearest or"
            " float32."
        )
    return str(rule)


def only_bounds(layer: Layer) -> UsageError:
    """The refusal of what has no members and no programs: a step that follows from each tensor is a quotient."""
    return UsageError(
        f"{layer.name!r} rounds to steps that follow from each sample, which only bounds can follow; --method auto, "
        "ibp or bp of qverify verify asks for these."
    )


def not_in_programs(layer: Layer) -> UsageError:
    """The refusal of exact programs for an activation that is not piecewise linear."""
    return UsageError(
        f"{layer.name!r} is not piecewise linear, so no exact program has it; bounds and attack decide such networks: "
        "--method auto, ibp or bp of qverify verify asks for these."
    )


def _exact_at_zero(network: Network, index: int) -> bool:
    """Whether the value that a rounding point is given is known exactly where it is 0: an integer sum is, and a sample;
    branches and averages are multiplied before they are added, so that what cancels may come out below 0."""
    before = network.before(index)
    layer = network.layers[before]
    kernel = getattr(network.layers[index], "kernel", False)
    return before in network.entries or (kernel and isinstance(layer, (Dense, Conv)) and layer.grid is not None)


def point_error(network: Network, index: int, rule: str) -> Array:
    """The error (size,) of a rule at the rounding point `index` of a quantised file, in steps of its output."""
    layer: Any = network.layers[index]
    source = network.before(index)
    size = np.maximum(-layer.low, layer.high) / layer.step + 1.0  # beyond the range everything is clipped
    error = np.full(layer.size, _SHARE[rule]) + size * _MULTIPLIER.get(rule, 2.0**-22)
    if rule in ("single", "double"):
        error = error + np.where(size > _WIDE, size * 2.0**-15, 0.0)
    read = network.layers[source]
    if (
        network.grid_of(source) in network.entries
    ):  # the host rounds samples, and divides in float32 whatever the rule is
        return np.asarray(np.maximum(error, _SHARE[rule] + size * 2.0**-22))
    if isinstance(read, (Dense, Conv)) and read.grid is not None:
        return np.asarray(error + (_second_rounding(network, source, layer) if rule == "double" else 0.0))
    if rule == "double" and isinstance(read, Gather) and not _points_of(network, source):
        error = error + 0.5
    if rule in ("double", "any") and isinstance(read, Conv) and read.positions == 1:
        error = error + 1.0 / read.fan_in
    if rule == "nearest":
        return np.asarray(error)
    if not isinstance(read, (Activation, Product)):
        error = error + _FIXED * (size + _both_branches(network, source) / layer.step)
    if isinstance(read, (Activation, Product, Scale)):
        error = error + kernel_error(read, [input_step(network, source, i) for i in read.inputs], layer, rule)
    return np.asarray(error)


def _both_branches(network: Network, source: int) -> Any:
    """The largest sizes of the branches of a sum, added; 0 for other layers."""
    layer = network.layers[source]
    if not isinstance(layer, Add):
        return 0.0
    return sum(_reach(network, i) for i in layer.inputs)


def _reach(network: Network, index: int) -> float:
    """The largest absolute value that a layer of a quantised file gives; infinite where no rounding point bounds it."""
    layer = network.layers[index]
    if isinstance(layer, Rounding):
        return float(np.maximum(-layer.low, layer.high).max())
    if isinstance(layer, Gather):
        return max(float(abs(layer.fill).max()), *(_reach(network, i) for i in layer.inputs))
    if isinstance(layer, Activation):
        return layer_reach(layer, _reach(network, layer.inputs[0]))
    return _reach(network, layer.inputs[0]) if isinstance(layer, (Relu, MaxPool)) else np.inf


def _second_rounding(network: Network, source: int, point: Rounding) -> Array:
    """2^-(k+1) per output (size,): what the second of two roundings adds, if there is one."""
    layer: Any = network.layers[source]
    step = input_step(network, source)
    if step is None:
        return np.full(layer.size, 0.5)
    grid = np.broadcast_to(layer.grid, layer.weight.shape).reshape(len(layer.weight), -1).max(axis=1)
    per_output = np.repeat(grid, layer.size // len(grid))
    _, exponent = np.frexp(step * per_output / point.step)
    return np.asarray(np.where(exponent < 0, np.ldexp(0.5, np.minimum(exponent, 0)), 0.0))


def input_step(network: Network, index: int, source: int | None = None) -> float | None:
    """The step of the grid that what layer `index` reads lies on; None where it is on no single one.

    `source`: which of several layers that it reads.
    """
    points = _points_read(network, index) if source is None else _points_of(network, source)
    if not points or any((point.step != points[0].step[0]).any() for point in points):
        return None
    return float(points[0].step[0])


def _points_read(network: Network, index: int) -> list[Rounding]:
    """The rounding points whose numbers layer `index` reads, through Relus, MaxPools and Gathers; empty if some of what
    it reads comes from elsewhere."""
    (source,) = network.layers[index].inputs
    return _points_of(network, source)


def _points_of(network: Network, index: int) -> list[Rounding]:
    """The rounding points whose numbers layer `index` gives; empty if some of what it gives comes from elsewhere."""
    layer = network.layers[index]
    if isinstance(layer, Rounding):
        return [layer]
    if not isinstance(layer, (Relu, MaxPool, Gather)):
        return []
    found = [_points_of(network, source) for source in layer.inputs]
    return [point for points in found for point in points] if all(found) else []


def _reads_dynamic(network: Network, index: int) -> bool:
    """Whether layer `index` gives numbers of a dynamic rounding point, through Gathers too, as a convolution over three
    axes reads."""
    layer = network.layers[index]
    if isinstance(layer, Gather):
        return any(_reads_dynamic(network, source) for source in layer.inputs)
    return isinstance(layer, DynamicRounding)


def file_kernel(network: Network) -> Kernel:
    """What has to hold for real arithmetic to describe the integer kernels of a file: its sums fit into int32, whatever
    the input. Layers of which that is not certain are named."""
    wrong = []
    for i, layer in enumerate(network.layers):
        if isinstance(layer, (Dense, Conv)) and _reads_dynamic(network, layer.inputs[0]):
            whole = 0.0 if layer.grid is None else abs(layer.weight) / layer.grid
            if (np.reshape(whole, (layer.weight.shape[0], -1)).sum(axis=1) * LEVELS > INT32).any():
                wrong.append(layer.name)
            continue
        step = input_step(network, i) if isinstance(layer, (Dense, Conv)) and layer.grid is not None else None
        if step is None:
            continue
        assert isinstance(layer, (Dense, Conv)) and layer.grid is not None
        reach = max(float(np.maximum(-point.low, point.high).max() / step) for point in _points_read(network, i))
        if reach > 2.0**8:  # kernels for 16 bits accumulate in int64
            continue
        grid = np.broadcast_to(layer.grid, layer.weight.shape)
        sums = (abs(layer.weight) / grid).reshape(len(layer.weight), -1).sum(axis=1) * reach
        sums += abs(layer.bias) / (step * grid.reshape(len(grid), -1).max(axis=1))
        if (sums > INT32).any():
            wrong.append(layer.name)
    return Kernel(mode="exact-accumulation", layers=(), refused=tuple(overflowing(wrong)))
