"""Refusals of a model, gathered by kind: a file with a thousand nodes gets a sentence a kind, not a node."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Text in quotes, a shape or another list of numbers, a number.
_VARYING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[(\[][-+.,e\d\s]*[)\]]|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass
class Refusals:
    """Problems in the order found. Two are of one kind if they differ in no more than numbers and quoted names."""

    _found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, where: str, what: str = "") -> None:
        """Add a problem: `where` names a node or layer, `what` is said of it and begins with its punctuation."""
        self._found.setdefault(_VARYING.sub("#", where + what), []).append((where, what))

    @property
    def sentences(self) -> list[str]:
        """A sentence a kind: the first place, and how many more there are."""
        return [_sentence(places) for places in self._found.values()]


def _sentence(places: list[tuple[str, str]]) -> str:
    where, what = places[0]
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{where}{more}{what}"
