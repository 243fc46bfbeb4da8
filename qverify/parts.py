"""Parts of a network's input: what a model with several inputs reads, each by its name, joined in the model's order.

A network has one input, flat. Where its model has several, the numbers of the first come first, each input in C order,
so that everything behind the input, radii and samples among them, sees one array (N, n_in).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.arrays import Array, numbers
from qverify.errors import DataError
from qverify.text.brief import Brief
from qverify.text.shortened import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, repr=False)
class Part(Brief):
    """One of several inputs of a model: its name there, and the shape of one sample."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of numbers in a sample."""
        return prod(self.shape)


def slices(parts: Sequence[Part]) -> Iterator[slice]:
    """Where the numbers of each part are in the joined input."""
    begin = 0
    for part in parts:
        yield slice(begin, begin + part.size)
        begin += part.size


def joined(parts: Sequence[Part], arrays: Mapping[Any, Any], what: str) -> Array:
    """One array (N, n_in) of one array (N, ...) a part, by its name. Raises DataError where one is missing, too many,
    or does not fit; `what` names them there."""
    wanted, given = [part.name for part in parts], list(arrays)
    missing = [name for name in wanted if name not in arrays]
    foreign = [name for name in given if name not in wanted]
    if missing or foreign:
        names = listed(list(map(quoted, wanted)), 5)
        wrong = f"have no {quoted(missing[0])}" if missing else f"have {quoted(str(foreign[0]))}"
        raise DataError(f"{what} {wrong}; give one array for each input of the model: {names}.")
    found = []
    for part in parts:
        array = numbers(arrays[part.name], f"Input {quoted(part.name)} of {what[:1].lower()}{what[1:]}")
        length = len(array) if array.ndim else 0
        if not array.ndim or array.size != length * part.size or not _same_axes(array.shape[1:], part.shape):
            raise DataError(
                f"Input {quoted(part.name)} has shape {array.shape}, but the model reads {part.shape}; give (N, ...)."
            )
        found.append(array.reshape(length, part.size))
    counts = {part.name: len(array) for part, array in zip(parts, found, strict=True)}
    if len(set(counts.values())) > 1:
        said = listed([f"{count} of {quoted(name)}" for name, count in counts.items()], 5)
        raise DataError(f"{what} are {said}; every input needs as many.")
    return np.concatenate(found, axis=1)


def split(parts: Sequence[Part], x: Array) -> dict[str, Array]:
    """The arrays (N, *shape), by name, that are joined in x (N, n_in)."""
    ends = slices(parts)
    return {part.name: x[:, at].reshape(len(x), *part.shape) for part, at in zip(parts, ends, strict=True)}


def _same_axes(have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    """Whether a sample of one shape may be read as one of another: axes of length 1 do not matter, nor flattening."""
    core, wanted = ([n for n in shape if n != 1] for shape in (have, want))
    return core == wanted or len(core) < 2 or len(wanted) < 2
