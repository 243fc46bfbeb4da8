"""The comparison with onnxruntime: a network counts as read only if it computes the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from qverify.errors import ModelError
from qverify.forward_pass import forward
from qverify.gather import Gather
from qverify.layers import LEVELS, Conv, Dense, Layer, Rounding
from qverify.onnx import session as onnx_session
from qverify.onnx.grid import Grid
from qverify.onnx.inputs import Feed
from qverify.onnx.unsigned import with_unsigned_weights
from qverify.text.brief import Brief
from qverify.text.shortened import first_line, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.onnx.graph import NetworkBuilder, Tensor

# How far onnxruntime may be from `Network.evaluate`, as (part of the sample's largest output, part of its largest
# value anywhere). float32 rounds at 6e-8; sums of a thousand terms over a dozen layers were seen to reach 3e-6 of
# the output, and anything a loader can get wrong (a lost bias, a swapped axis) is of order 1 on some sample. The
# second part covers outputs that cancel: what is left there is the rounding of larger numbers.
TOLERANCES = {TensorProto.FLOAT: (1e-4, 1e-6), TensorProto.DOUBLE: (1e-10, 1e-13)}

# At a rounding point, beyond half a step: what was rounded comes from one or two layers behind the last point, whose
# values are taken from onnxruntime, so that no tie goes on to the next layer.
_POINT = (1e-5, 1e-6)
_AS_IT_IS = Grid(step=np.ones(1), zero=np.zeros(1), kind="int16")
"""Integers of a tensor of the model that are looked at as they are."""
_SATURATED = 0.05
"""The part of a rounding point's values that integer kernels may miss: without the instructions for it they add pairs
of products in saturating 16 bits, as onnxruntime documents. A lost bias or a swapped axis moves nearly all."""


def quantised(network: Network) -> bool:
    """Whether some of it is on a grid already: it comes from a quantised file."""
    grids = any(isinstance(layer, (Dense, Conv)) and layer.grid is not None for layer in network.layers)
    return grids or network.rounds


def compare(model: onnx.ModelProto, network: Network, builder: NetworkBuilder, output: Tensor) -> list[str]:
    """Run eight inputs through the model and the network read from it, one at a time; raises ModelError where they
    differ. `builder` and `output` say what the model's inputs and logits are called and how they are stored.

    Rounding points of a quantised file are compared one by one, on what onnxruntime has before them, where possible
    with kernels that saturate nowhere (unsigned.py). Returns remarks.
    """
    single = builder.single or any(one.kind != TensorProto.DOUBLE for one in builder.inputs)
    relative, floor = TOLERANCES[TensorProto.FLOAT if single else TensorProto.DOUBLE]
    moved, points = with_unsigned_weights(model), _Points(network, builder)
    runtime = _runtime(moved, network, builder, output)
    plain = _runtime(model, network, builder, output) if moved is not model else None
    feed = Feed.of(builder)
    for sample in _probes(network):
        given, seen = feed.split(sample)
        theirs, at_points = runtime(given)
        if plain is not None:
            points.note_others(at_points, plain(given)[1])
        values = points.followed(seen, at_points)
        ours = values[-1][0]
        if theirs.shape != ours.shape:
            raise ModelError(
                f"{network.source}: onnxruntime gives {theirs.size} outputs, qverify {ours.size}. {_REPORT}"
            )
        if not np.isfinite(theirs).all():
            raise ModelError(
                f"{network.source}: onnxruntime overflows on inputs up to {np.abs(seen).max():.3g}, so the model "
                "cannot be checked; scale its constants down or export it in float64."
            )
        difference = np.abs(ours - theirs).max()
        allowed = relative * np.abs(theirs).max() + floor * max(np.abs(v).max() for v in values)
        if not difference <= allowed:
            raise ModelError(
                f"{network.source}: qverify and onnxruntime differ by {difference:.3g} where {allowed:.3g} is allowed. "
                + _REPORT
            )
    return points.remarks()


# On AveragePool with ceil_mode and counted padding onnxruntime 1.18 and 1.20 differ from 1.32, which is right.
_REPORT = "Either the model was misread or onnxruntime is wrong: update it; if that does not help, please report it."


@dataclass(eq=False, repr=False)
class _Points(Brief):
    """The rounding points met so far: how many of their values onnxruntime has elsewhere, by layer."""

    network: Network
    builder: NetworkBuilder
    missed: dict[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    saturated: set[int] = field(default_factory=set)

    def note_others(self, exact: dict[int, Array], plain: dict[int, Array]) -> None:
        """Note the points where the kernels of this machine have other values than exact ones."""
        self.saturated |= {index for index, value in exact.items() if not np.array_equal(value, plain[index])}

    def followed(self, sample: Array, theirs: dict[int, Array]) -> list[Array]:
        """The output (1, size) of every layer, at rounding points as onnxruntime has it; raises ModelError."""
        values: list[Array] = []
        for index, layer in enumerate(self.network.layers):
            if index == 0:
                values.append(self.network.flat(sample[None]))
                continue
            values.append(forward(layer, [values[i] for i in layer.inputs]))
            if index in theirs and isinstance(layer, Rounding):
                before = np.clip(values[layer.inputs[0]], layer.low, layer.high)
                largest = max(np.abs(value).max() for value in values)
                self._judge(index, layer, before[0], theirs[index], largest)
                values[-1] = theirs[index][None]
            elif index in theirs:
                self._judge_dynamic(layer, values[layer.inputs[0]][0], theirs[index])
                values[-1] = theirs[index][None]
        return values

    def _judge(self, index: int, layer: Rounding, before: Array, theirs: Array, largest: float) -> None:
        """Compare a point's values (size,) with what goes into it, clipped: near it, and on the point's grid."""
        relative, floor = _POINT
        allowed = 0.5 * layer.step + relative * np.abs(before).max() + floor * largest
        difference = np.abs(theirs - before)
        on_grid = np.abs(forward(layer, [theirs[None]])[0] - theirs) <= 1e-6 * layer.step
        off = ~((difference <= allowed) & on_grid)
        self.missed[index] = self.missed.get(index, 0) + int(off.sum())
        self.seen[index] = self.seen.get(index, 0) + off.size
        if off.any() and not self.builder.points[index].kernel:
            self._refuse(layer, difference[off].max(), allowed.max())

    def _judge_dynamic(self, layer: Layer, before: Array, theirs: Array) -> None:
        """Compare what a dynamic point makes of `before` (size,): near it, for a step of 1/255 of its range."""
        (relative, floor), largest = _POINT, float(np.abs(before).max())
        step = (max(0.0, float(before.max())) - min(0.0, float(before.min()))) / LEVELS
        difference = float(np.abs(theirs - before).max())
        allowed = 0.5 * step + (relative + floor) * largest
        if not difference <= allowed:
            self._refuse(layer, difference, allowed)

    def _refuse(self, layer: Layer, difference: float, allowed: float) -> None:
        raise ModelError(
            f"{self.network.source}: at rounding point {layer.name!r} qverify and onnxruntime differ by "
            f"{difference:.3g} where {allowed:.3g} is allowed. {_REPORT}"
        )

    def remarks(self) -> list[str]:
        """A sentence on integer kernels that saturated; raises ModelError where that is no explanation."""
        names = []
        for index, missed in self.missed.items():
            layer = self.network.layers[index]
            if missed > _SATURATED * self.seen[index]:
                raise ModelError(
                    f"{self.network.source}: at rounding point {layer.name!r} qverify and onnxruntime differ in "
                    f"{missed} of {self.seen[index]} values. {_REPORT}"
                )
            names += [repr(layer.name)] * (missed > 0 and index not in self.saturated)
        names = [repr(self.network.layers[index].name) for index in sorted(self.saturated)] + names
        if not names:
            return []
        return [
            f"onnxruntime's integer kernels give other values on this machine at {listed(names, 5)}: they "
            "add in saturating 16 bits where the processor has no instructions for more."
        ]


def _probes(network: Network) -> list[Array]:
    """The inputs to compare on: pixels, both signs, raw bytes, and zeros, where a lost bias is all there is to see; or
    the range of the rounding points on the input, and some beyond."""
    rng, size = np.random.default_rng(0), network.input_size
    read = {0: np.arange(size)}  # by layer, which inputs it gives
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Gather) and layer.inputs == (0,) and not layer.constant.any():
            read[index] = layer.index
    points = [
        (layer, read[layer.inputs[0]])
        for layer in network.layers
        if isinstance(layer, Rounding) and layer.inputs[0] in read
    ]
    if not points:
        pixels = [rng.random(size) for _ in range(3)]
        return [*pixels, *rng.normal(size=(3, size)), rng.uniform(0.0, 255.0, size), np.zeros(size)]
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    for layer, places in points:
        low[places], high[places] = np.minimum(low[places], layer.low), np.maximum(high[places], layer.high)
    low, high = np.where(low > high, 0.0, low), np.where(low > high, 1.0, high)  # what no point rounds
    spread = [low + (high - low) * rng.random(size) for _ in range(4)]
    return [*spread, *(0.25 * (high - low) * rng.normal(size=(2, size))), 1.2 * spread[0], np.zeros(size)]


def _runtime(
    model: onnx.ModelProto, network: Network, builder: NetworkBuilder, output: Tensor
) -> Callable[[dict[str, np.ndarray]], tuple[Array, dict[int, Array]]]:
    """The model in onnxruntime, up to the tensor `output.logits` if a Softmax was dropped; raises ModelError.

    Gives the output and what it has at rounding points, by layer, all as flat numbers. A quantised model is run node by
    node, without what onnxruntime does to graphs: that is what the file says.
    """
    name, grid = model.graph.output[0].name, output.integers
    if output.logits is not None:
        name, grid = output.logits.name, output.logits.integers
    dynamic = (builder.dynamic or {}).values()
    tensors: list[tuple[str, Grid | None]] = [(name, grid)]
    tensors += [(point.tensor, point.grid) for point in builder.points.values()]
    tensors += [(name, _AS_IT_IS) for point in dynamic for name in (point.tensor, point.zero)]
    tensors += [(point.scale, None) for point in dynamic]
    try:
        session = onnx_session.open_session(
            _showing(model, tensors, output).SerializeToString(), optimised=not quantised(network)
        )
    except onnx_session.errors() as error:
        raise ModelError(
            f"{network.source}: onnxruntime cannot run the model, so it cannot be checked ({first_line(error)}); "
            "export it in float32 and with an opset that onnxruntime knows."
        ) from error

    def run(given: dict[str, np.ndarray]) -> tuple[Array, dict[int, Array]]:
        try:
            found = session.run(None, given)
        except onnx_session.errors() as error:
            raise ModelError(f"{network.source}: onnxruntime cannot run the model ({first_line(error)}).") from error
        flat = [np.asarray(array).astype(np.float64).reshape(-1) for array in found]
        numbers = [a if g is None else g.numbers(a) for a, (_, g) in zip(flat, tensors, strict=True)]
        fixed = 1 + len(builder.points)
        found_at = dict(zip(builder.points, numbers[1:fixed], strict=True))
        whole, scales = numbers[fixed : len(numbers) - len(dynamic)], numbers[len(numbers) - len(dynamic) :]
        for index, q, zero, scale in zip(builder.dynamic or {}, whole[::2], whole[1::2], scales, strict=True):
            found_at[index] = (q - zero) * scale
        return numbers[0], found_at

    return run


def _showing(model: onnx.ModelProto, tensors: list[tuple[str, Grid | None]], output: Tensor) -> onnx.ModelProto:
    """The model with these tensors as outputs, integers by a Cast to float32, which has all of up to 16 bits."""
    if len(tensors) == 1 and output.logits is None and output.integers is None:
        return model
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    for number, (name, grid) in enumerate(tensors):
        kind = TensorProto.DOUBLE if output.double and number == 0 else TensorProto.FLOAT
        if grid is not None:
            cast = f"{name}/shown_{number}"
            shown.graph.node.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
            name = cast
        shown.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return shown
