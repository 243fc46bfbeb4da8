"""Whether data suit a network: their units, the order of their axes, the numbers of their classes.

Heuristic, and only ever a remark: what is proved is proved for the data as they are. The network's own answers tell:
data in wrong units or with scrambled axes are answered as by chance, and put right they are not.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify import datasets
from qverify.layers import Conv, Dense
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.arrays import Array
    from qverify.datasets.samples import Samples
    from qverify.network import Network

LEAST = 30
"""Samples below which nothing is said about the share that is right."""
_MOST = 300
_WORK, _TOO_MUCH = 3e9, 3e10
"""Multiplications of one look at the samples, and from when on a look is not taken at all."""
_PATIENCE = 2.0
"""Seconds after which no further cause is tried."""
_SIGNIFICANCE = 0.01
_POOR, _GAIN = 0.6, 0.2
"""A share that is right below which a cause is looked for, and by how much the right cause raises it at least."""
_LOW, _HIGH = -0.5, 1.5
"""Ends of the inputs beyond which their units look odd: networks learn on [0, 1], or a little around it."""
_GREY, _WHITE = 16.0, 255.0
"""Between these lies the largest of whole numbers that look like pixels."""
_MORE = 3
"""By how many samples more a cause counts as right where units look odd, and elsewhere at least."""
_CLASSES, _PER_CLASS = 100, 5
"""Most classes, and fewest samples for each, for which other orders of the classes are tried."""
_NAMED = 4
"""Classes in another order that are named one by one."""
_TWICE = 1.01 / _WHITE
"""What pixels that were divided by 255 twice do not exceed."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Guess(Brief):
    """A guess at what is wrong with the data: `done` says what was done to put it right, `advice` how a user does."""

    done: str
    advice: str
    x: Array
    y: Any
    of_units: bool = False


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Answered(Brief):
    """Inputs x (N, n_in), labels and the network's answers (N,); the least and the largest input of all samples."""

    x: Array
    y: Any
    answers: Any
    low: float
    high: float


def doubts(network: Network, samples: Samples) -> list[str]:
    """Doubts that these data are the network's, with the likely cause: at most one sentence, none if all seems well."""
    most = _affordable(network)
    if network.output_size < 2 or samples.y.max() >= network.output_size or not most:
        return []
    some = _spread(len(samples), most)
    part = replace(samples, x=samples.x[some], y=samples.y[some])
    x, y = datasets.flatten(part, network), part.y
    answers = network.evaluate(x).argmax(1)
    right, count = int((answers == y).sum()), len(y)
    low, high = float(samples.x.min()), float(samples.x.max())
    chance = _at_chance(answers, y, network.output_size)
    odd = _odd(low, high) or _twice_divided(low, high)
    fine = right == count and not _twice_divided(low, high)
    if fine or (not chance and not odd and (count < LEAST or right >= _POOR * count)):
        return []
    own = _Answered(x=x, y=y, answers=answers, low=low, high=high)
    best, found = _best(network, own, right, _guesses(network, part, own))
    where = f"{count} samples spread over {samples.name}" if count < len(samples) else f"{count} samples"
    said = f"the network is right on {right} of {where}"
    if odd:
        said = f"inputs go from {low:.3g} to {high:.3g}, and {said}"
    if chance:
        said += f", which is not clearly better than chance with {network.output_size} classes"
    if best is not None:
        return [f"{said}, {'but' if found > right else 'and'} on {found} with {best.done}{best.advice}."]
    return [f"{said}; are these its data, in its units, axes and classes?"] if chance else []


def doubts_in_training(x: Array) -> list[str]:
    """Doubts about the units of samples to train on, by their range alone: at most one sentence."""
    low, high = float(x.min()), float(x.max())
    if _twice_divided(low, high):
        return [f"inputs go from {low:.3g} to {high:.3g}, as pixels divided by 255 twice do{_scaling('255')}."]
    if _pixels(x, low, high):
        return [f"inputs go from {low:.3g} to {high:.3g}, as pixels do; networks learn better in [0, 1]{_DIVIDING}."]
    return []


def _scaling(factor: str) -> str:
    return f"; --input-scale {factor} does that"


_DIVIDING = _scaling("1/255")


def _spread(size: int, most: int) -> Any:
    """Indices of at most `most` of `size` samples, from end to end: data may be sorted by class."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))


def _affordable(network: Network) -> int:
    """The number of samples to look at; 0 where even a few take long."""
    work = 0
    for layer in network.layers:
        if isinstance(layer, (Dense, Conv)):
            work += layer.weight.size * (layer.positions if isinstance(layer, Conv) else 1)
    return 0 if work * LEAST > _TOO_MUCH else max(LEAST, min(_MOST, int(_WORK / max(1, work))))


def _at_chance(answers: Any, y: Any, classes: int) -> bool:
    """Whether the network is no better than chance (one-sided binomial test), or all its answers are the same."""
    from scipy.special import bdtrc

    if len(y) < LEAST:
        return False
    if len(np.unique(answers)) == 1 and len(np.unique(y)) > 1:
        return True
    right = int((answers == y).sum())
    return right == 0 or float(bdtrc(right - 1, len(y), 1.0 / classes)) > _SIGNIFICANCE


def _odd(low: float, high: float) -> bool:
    return low < _LOW or high > _HIGH


def _twice_divided(low: float, high: float) -> bool:
    return low >= 0.0 and 0.0 < high <= _TWICE


def _pixels(x: Array, low: float, high: float) -> bool:
    """Whether inputs seem to be whole numbers from 0 to 255."""
    return low >= 0.0 and _GREY <= high <= _WHITE and bool((x == np.rint(x)).all())


def _best(network: Network, own: _Answered, right: int, guesses: Iterator[_Guess]) -> tuple[_Guess | None, int]:
    """The guess with which most samples are right, if it is clearly better than the data as they are; and how many."""
    best, found, until = None, -1, time.monotonic() + _PATIENCE
    low, high = float(own.x.min()), float(own.x.max())
    for guess in guesses:
        answers = network.evaluate(guess.x).argmax(1)
        count = int((answers == guess.y).sum())
        # Units that look wrong may cost little: without biases nothing at all.
        certain = guess.of_units and (_twice_divided(low, high) or _pixels(own.x, low, high))
        odd = guess.of_units and _odd(low, high)
        least = right if certain else right + _MORE if odd else right + max(_MORE, math.ceil(_GAIN * len(own.y)))
        enough = count >= least and 2 * count >= len(own.y) and len(np.unique(answers)) > 1
        if enough and count > found:
            best, found = guess, count
        if time.monotonic() > until:
            break
    return best, found


def _guesses(network: Network, samples: Samples, own: _Answered) -> Iterator[_Guess]:
    """The guesses to try, the more common first."""
    x, y = own.x, own.y
    yield from _other_units(x, y, own.low, own.high)
    for shape in _shapes(network, samples):
        yield from _other_axes(x, y, shape)
    if len(y) < LEAST:
        return
    if y.min() >= 1:
        yield _Guess(done="the labels less 1", advice="; number the classes from 0", x=x, y=y - 1)
    yield from _other_classes(x, y, own.answers, network.output_size)


def _other_units(x: Array, y: Any, low: float, high: float) -> Iterator[_Guess]:
    def guess(done: str, advice: str, changed: Array) -> _Guess:
        return _Guess(done=done, advice=advice, x=changed, y=y, of_units=True)

    if low >= 0.0 and high <= _HIGH:
        yield guess("the inputs multiplied by 255", _scaling("255"), x * _WHITE)
    if low >= 0.0 and _HIGH < high <= _WHITE:
        yield guess("the inputs divided by 255", _DIVIDING, x / _WHITE)
    if low >= 0.0 and high > _HIGH and high != _WHITE:
        yield guess(f"the inputs divided by {high:g}, the largest", _scaling(f"1/{high:g}"), x / high)
    spread = high - low
    if low < 0.0 and spread > 0.0:
        done = f"the inputs brought from [{low:.3g}, {high:.3g}] to [0, 1]"
        yield guess(done, "; store them without normalisation", (x - low) / spread)
    if low >= 0.0:
        yield guess("the inputs turned from black to white", f": {high:g} - x", high - x)
    mean, deviation = float(x.mean()), float(x.std())
    if low >= 0.0 and deviation > 0.0:
        done = f"the inputs less {mean:.3g} and divided by {deviation:.3g}, their mean and deviation"
        yield guess(done, "; store them as the network was trained on them", (x - mean) / deviation)


def _shapes(network: Network, samples: Samples) -> list[tuple[int, ...]]:
    """The shapes that a sample may have in the network's eyes, without axes of length 1."""
    cores = [tuple(n for n in shape if n != 1) for shape in (network.input_shape, samples.shape)]
    if known := [core for core in cores if len(core) > 1]:
        return known[:1]
    found: list[tuple[int, ...]] = []
    for channels in (1, 3):
        side = math.isqrt(network.input_size // channels)
        if side > 1 and channels * side * side == network.input_size:
            found += [(side, side)] if channels == 1 else [(3, side, side), (side, side, 3)]
    return found


def _other_axes(x: Array, y: Any, shape: tuple[int, ...]) -> Iterator[_Guess]:
    """Samples that were stored with their axes in another order than `shape`."""
    seen = [x]
    for order in itertools.permutations(range(len(shape))) if len(shape) <= 3 else ():
        stored = [0] * len(shape)  # the axis `order[i]` of what is stored becomes axis i
        for axis, source in enumerate(order):
            stored[source] = shape[axis]
        changed = x.reshape(-1, *stored).transpose(0, *(axis + 1 for axis in order)).reshape(len(x), -1)
        if not any(np.array_equal(changed, other) for other in seen):
            seen.append(changed)
            recipe = f"x.reshape(-1, {', '.join(map(str, stored))}).transpose{(0, *(axis + 1 for axis in order))}"
            yield _Guess(done="the axes of the inputs in another order", advice=f": {recipe}", x=changed, y=y)


def _other_classes(x: Array, y: Any, answers: Any, classes: int) -> Iterator[_Guess]:
    """The labels matched to the answers as well as can be; with few samples a class that says nothing."""
    from scipy.optimize import linear_sum_assignment

    if classes > _CLASSES or len(y) < _PER_CLASS * classes:
        return
    table = np.zeros((classes, classes))
    np.add.at(table, (y, answers), 1)
    _, outputs = linear_sum_assignment(table, maximize=True)
    if (outputs != np.arange(classes)).any():
        moved = [f"{label} is output {output}" for label, output in enumerate(outputs.tolist()) if label != output]
        shown = ", ".join(moved[:_NAMED]) + (", ..." if len(moved) > _NAMED else "")
        yield _Guess(done="the classes in another order", advice=f": label {shown}", x=x, y=outputs[y])
