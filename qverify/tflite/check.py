"""The comparison with LiteRT: a network counts as read only if every layer of it computes what the runtime computes.

Layers are compared one by one, each on what LiteRT's reference kernels gave to it, so no difference adds up: integers
may differ by the one step that rules of rounding disagree on, and a lost bias or a swapped axis shows where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelError
from qverify.forward_pass import forward
from qverify.layers import Conv, Dense, Relu, Rounding
from qverify.text.shortened import first_line
from qverify.tflite import runtime
from qverify.tflite.file import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.arrays import Array
    from qverify.network import Network
    from qverify.tflite.file import Model
    from qverify.tflite.graph import Builder

STEPS, MULTIPLIER = 1.001, 2.0**-15
"""How far integers may differ: steps, as kernels round by rules of their own, and a part of the number itself, as those
of 16 bits multiply by what they keep 15 bits of."""
RELATIVE, FLOOR = 1e-4, 1e-6
"""How far floats may differ, as parts of the largest number a layer gives and of the largest it reads: float32 sums of
a thousand terms reach 3e-6, and what a reader can get wrong is of order 1."""
_MOST_OFF, _ENOUGH = 0.4, 200
"""The part of a layer's integers that may differ at all, where there are so many: rules of rounding part on ties and
close to them, 0.1 to 0.6 % of numbers in MLPerf Tiny's files, and a quarter in averages of two."""
_LEVELS = 127
"""Steps of what a kernel of float activations and integer weights makes of the largest activation, at least."""


def compare(model: Model, network: Network, builder: Builder) -> list[str]:
    """Run eight inputs through the file in LiteRT; raises ModelError where a layer differs. Gives notes."""
    if not runtime.installed():
        return ["not compared with LiteRT, which is not installed; pip install 'qverify[tflite]'."]
    samples = list(_probes(network))
    given = model.inputs[0]
    inputs = [_fed(network, builder, given, sample) for sample in samples]
    wanted = [info.index for info, _ in builder.given.values() if info.index != given]
    off = []
    try:
        for sample, tensors in zip(samples, runtime.answers(model.content, given, inputs, wanted), strict=True):
            off.append(_compare_sample(tensors, network, builder, sample))
    except RuntimeError as error:
        raise ModelError(
            f"{network.source}: LiteRT cannot run the file, so it cannot be checked ({first_line(error)}); "
            "export it again."
        ) from error
    for layer, part in zip(network.layers, np.mean(off, axis=0), strict=True):
        if part > _MOST_OFF and 8 * layer.size >= _ENOUGH:
            raise ModelError(
                f"{network.source}: qverify and LiteRT differ by a step in {part:.0%} of the numbers of layer "
                f"{layer.name!r}. {_REPORT}"
            )
    return []


_REPORT = "Either the model was misread or LiteRT is wrong: update it; if that does not help, please report it."


def _probes(network: Network) -> Iterator[Array]:
    """Eight inputs (size,): where the input is rounded, over all of its range and close to 0, else pixels, both signs
    and raw bytes; and zeros, where a lost bias is all there is to see."""
    rng, size = np.random.default_rng(0), network.input_size
    first = network.layers[1]
    if isinstance(first, Rounding):
        for _ in range(4):
            yield rng.uniform(first.low, first.high)
        for _ in range(3):
            yield rng.normal(size=size) * np.maximum(abs(first.low), first.high) / 4
    else:
        yield from rng.random((3, size))
        yield from rng.normal(size=(3, size))
        yield rng.uniform(0.0, 255.0, size)
    yield np.zeros(size)


def _compare_sample(tensors: dict[int, np.ndarray], network: Network, builder: Builder, sample: Array) -> list[float]:
    """Compare all layers on one input; a layer behind one that LiteRT gives reads what LiteRT gave.

    Raises ModelError; gives the part of every layer's numbers that are another multiple of its step.
    """
    values: list[Array] = []
    off = [0.0] * len(network.layers)
    slacks: list[Array] = []
    for index, layer in enumerate(network.layers):
        inputs = [values[i][None] for i in layer.inputs]
        ours = forward(layer, inputs)[0] if inputs else sample.astype(np.float32).astype(np.float64)
        slack = _slack(layer, index in builder.hybrid, inputs, [slacks[i] for i in layer.inputs])
        if index in builder.given:
            if builder.given[index][0].index in tensors:
                theirs = _given(tensors, builder, index)
                allowed = _allowed(layer, theirs, inputs) + slack
                _judge(network, index, ours - theirs, allowed)
                if isinstance(layer, Rounding):
                    off[index] = float((abs(ours - theirs) > layer.step / 2).mean())
                ours = theirs
            slack = 0.0 * slack
        values.append(ours)
        slacks.append(slack)
    return off


def _fed(network: Network, builder: Builder, given: int, sample: Array) -> np.ndarray:
    """An input of the network as the file reads it."""
    values = sample.astype(np.float32).astype(np.float64)
    index = next(index for index, (info, _) in builder.given.items() if info.index == given)
    info, places = builder.given[index]
    if index:
        values = forward(network.layers[index], [values[None]])[0]
    fed = values[places]
    if len(info.scales):
        fed = np.rint(fed / info.scales[0]) + info.zeros[0]
    return np.asarray(fed.reshape(info.shape), dtype=DTYPES[info.kind])


def _given(tensors: dict[int, np.ndarray], builder: Builder, index: int) -> Array:
    """What LiteRT gives as the output of a layer, dequantised."""
    info, places = builder.given[index]
    found = tensors[info.index].astype(np.float64).reshape(-1)
    if len(info.scales):
        found = (found - info.zeros[0]) * info.scales[0]
    theirs = np.empty_like(found)
    theirs[places] = found
    return theirs


def _allowed(layer: Any, theirs: Array, inputs: list[Array]) -> Array:
    """How far a layer may be from what LiteRT gives, (size,)."""
    if isinstance(layer, Rounding):
        return STEPS * layer.step + MULTIPLIER * abs(theirs)
    scale = RELATIVE * abs(theirs).max() + FLOOR * max(abs(x).max() for x in inputs)
    return np.full(layer.size, scale)


def _slack(layer: Any, hybrid: bool, inputs: list[Array], before: list[Array]) -> Array:
    """How far kernels that round float activations as they go may be from a layer, (size,)."""
    if hybrid:
        assert isinstance(layer, (Dense, Conv))
        spread = np.full_like(inputs[0], abs(inputs[0]).max() / _LEVELS)
        if isinstance(layer, Conv):
            return np.ravel(layer.apply(abs(layer.weight), spread))
        return np.ravel(spread @ abs(layer.weight).T)
    return before[0] if isinstance(layer, Relu) else np.zeros(layer.size)


def _judge(network: Network, index: int, difference: Array, allowed: Array) -> None:
    """Raise ModelError where a layer is not what LiteRT gives."""
    if not np.isfinite(difference).all():
        raise ModelError(f"{network.source}: LiteRT overflows on inputs of usual size, so the file cannot be checked.")
    excess = abs(difference) - allowed
    if not (excess <= 0).all():
        worst = int(excess.argmax())
        raise ModelError(
            f"{network.source}: qverify and LiteRT differ by {abs(difference[worst]):.3g} in layer "
            f"{network.layers[index].name!r} where {allowed[worst]:.3g} is allowed. {_REPORT}"
        )
