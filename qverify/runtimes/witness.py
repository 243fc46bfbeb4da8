"""Choices of a runtime, tensor by tensor: how they are read from a run, and replayed in exact integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from qverify.errors import InternalError
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.arrays import Array
    from qverify.runtimes.engine import Engine


@dataclass(frozen=True)
class Choice:
    """What was chosen for one tensor: the way (an index) and, of a way that leaves entries open, what they became.

    `entries`: pairs of an entry's index and its integer.
    """

    way: int
    entries: tuple[tuple[int, int], ...] = ()

    def filled(self, tensor: Tensor) -> Choice:
        """The choice with the values that its entries have in a tensor (size,)."""
        return replace(self, entries=tuple((i, int(tensor[i])) for i, _ in self.entries))


def with_open(way: int, low: Tensor, high: Tensor) -> Choice:
    """The choice of a way that gives tensors between two ends (size,); its open entries are to be filled in."""
    return Choice(way, tuple((i, 0) for i in torch.nonzero(low < high)[:, 0].tolist()))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Assignment(Brief):
    """A runtime's choices for one sample: `rules[k]` says how stage `layers[k]` is computed, and `entries[k]` what the
    entries (index, integer) became that its rule leaves open. `outputs` (n_out,) are real numbers, `predicted` the
    class.
    """

    layers: tuple[str, ...]
    rules: tuple[str, ...]
    entries: tuple[tuple[tuple[int, int], ...], ...]
    outputs: Array
    predicted: int

    def to_json(self) -> dict[str, Any]:
        """The object of a row (formats.md, section 7.1)."""
        found: dict[str, Any] = {"predicted": self.predicted, "outputs": self.outputs.tolist()}
        found["rules"] = dict(zip(self.layers, self.rules, strict=True))
        chosen = {layer: own for layer, own in zip(self.layers, self.entries, strict=True) if own}
        return found | {"entries": {layer: [list(pair) for pair in own] for layer, own in chosen.items()}}


def choices_of(engine: Engine, x: Tensor, rule: str) -> tuple[Choice, ...]:
    """The choices of a run that follows one rule everywhere, x (1, n_in)."""
    tensors, chosen = engine.run(rule, x)
    choices = []
    for t, way in enumerate(chosen, start=1):
        accumulators, one = engine.accumulators(t, tensors), engine.ways[t - 1][way]
        choices.append(with_open(way, one.low(*accumulators)[0], one.high(*accumulators)[0]).filled(tensors[t][0]))
    return tuple(choices)


def replayed(engine: Engine, x: Tensor, choices: tuple[Choice, ...]) -> Assignment:
    """What comes of x (1, n_in) under some choices, in exact integers.

    Raises InternalError if a way does not give what is chosen.
    """
    tensors = {0: x}
    for t, choice in enumerate(choices, start=1):
        accumulators, way = engine.accumulators(t, tensors), engine.ways[t - 1][choice.way]
        low, high = way.low(*accumulators), way.high(*accumulators)
        made = low.clone()
        for i, value in choice.entries:
            made[0, i] = value
        if (
            bool(((made < low) | (made > high)).any())
            or with_open(choice.way, low[0], high[0]).filled(made[0]) != choice
        ):
            raise InternalError(f"The witness chooses what layer {engine.stages[t - 1].name!r} cannot give.")
        tensors[t] = engine.stored(t, made)
    outputs = tensors[engine.last][0].numpy() * engine.network.output_step
    return Assignment(
        layers=tuple(stage.name for stage in engine.stages),
        rules=tuple(ways[choice.way].label for ways, choice in zip(engine.ways, choices, strict=True)),
        entries=tuple(choice.entries for choice in choices),
        outputs=outputs,
        predicted=int(tensors[engine.last][0].argmax()),
    )
