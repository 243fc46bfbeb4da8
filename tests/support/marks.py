"""Which of the values of a parametrised test belong to every change, and which to the slow tests only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def mostly_slow(values: Iterable[Any], quick: int = 1, several: bool = False) -> list[Any]:
    """The first `quick` of them as they are, the others marked slow; `several`: each is a tuple for several names."""
    some = list(values)
    later = [value if several else (value,) for value in some[quick:]]
    return [*some[:quick], *(pytest.param(*value, marks=pytest.mark.slow) for value in later)]
