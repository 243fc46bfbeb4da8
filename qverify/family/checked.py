"""The check of a quantiser as it is stated: bit-widths and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.choices import (
    ACTIVATIONS,
    BATCHNORMS,
    INPUTS,
    KERNELS,
    PLAIN_ROUNDINGS,
    POINTS,
    RANGED,
    RANGES,
    ROUNDINGS,
    SCHEMES,
)
from qverify.errors import RadiiError
from qverify.kinds import is_word
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from qverify.family.steps import Quantiser

_WORDS = {
    "rounding": ROUNDINGS,
    "scheme": SCHEMES,
    "kernel": KERNELS,
    "batchnorm": BATCHNORMS,
    "points": POINTS,
    "input": INPUTS,
    "activations": ACTIVATIONS,
    "ranges": RANGES,
}
_RANGED_ONLY = ("points", "input", "activations", "ranges")
"""Words that say more of the schemes that take steps from ranges."""


def check(quantiser: Quantiser) -> None:
    """Raise RadiiError unless every bit-width and word of a quantiser is one."""
    ranged = is_word(quantiser.scheme, RANGED)
    for what, bits in _widths(quantiser).items():
        _check_width(what, bits, 2 if ranged else 1, quantiser.scheme)
    for name, allowed in _WORDS.items():
        if not is_word(getattr(quantiser, name), allowed):
            words = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
            raise RadiiError(f"Unknown {name} {shown(getattr(quantiser, name))}; it is {words}.")
    for name, own in quantiser.layers.items():
        if own.scheme is not None and not is_word(own.scheme, RANGED):
            raise RadiiError(f"Layer {name!r} has scheme {shown(own.scheme)}; it is one of {', '.join(RANGED)}.")
        if own.block is not None and (isinstance(own.block, bool) or not isinstance(own.block, int) or own.block < 1):
            raise RadiiError(f"Layer {name!r} has blocks of {shown(own.block)} weights; give a whole number from 1.")
    if not ranged and quantiser.rounding not in PLAIN_ROUNDINGS:
        raise RadiiError(f"Scheme {quantiser.scheme} knows no runtimes, so no rounding {shown(quantiser.rounding)}.")
    more = [name for name in ("bias_bits", "layers") if getattr(quantiser, name)]
    more += [name for name in _RANGED_ONLY if getattr(quantiser, name) != _WORDS[name][0]]
    if more and not ranged:
        raise RadiiError(f"Scheme {quantiser.scheme} has no {more[0].replace('_', ' ')}; tensor and channel have.")


def _widths(quantiser: Quantiser) -> dict[str, Any]:
    """Every bit-width that is stated, by what it is of."""
    found: dict[str, Any] = {"bit-width": quantiser.bits}
    for kind in ("weight", "activation", "input", "bias"):
        if (bits := getattr(quantiser, f"{kind}_bits")) is not None:
            found[f"bit-width of the {kind}"] = bits
    own = {f"bit-width of layer {name!r}": own.bits for name, own in quantiser.layers.items()}
    return found | {what: bits for what, bits in own.items() if bits is not None}


def _check_width(what: str, bits: Any, least: int, scheme: Any) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not least <= bits <= 32:
        raise RadiiError(
            f"The {what} is {shown(bits)}; it must be a whole number from {least} to 32 for {shown(scheme)}."
        )
