"""Keyword arguments of `qverify.verify`: the options of the command line under their own names, with `_` for `-`.

They fill the same `Given`, and what they mean is resolved by the same code; its messages are put into Python's words.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
from typing import TYPE_CHECKING, Any, TypedDict

from qverify.errors import DataError, RadiiError, UsageError
from qverify.family.radii import Radii
from qverify.kinds import RADII, described, is_number, is_pair, is_whole, path_like
from qverify.runs.given import Given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Words(TypedDict, total=False):
    """The keyword arguments, as the options of `qverify verify` of the same names mean them.

    `data`: a name or the path of an .npz, instead of x and y. `samples`: "A:B", or the number of the first ones.
    `timeout`: seconds for one sample, None for no limit. `memory`: "4G". `progress`: tell how far it is, on stderr.
    """

    output: str
    data: str | os.PathLike[str]
    samples: str | int
    input_scale: float
    bits: int | str
    scheme: str
    rounding: str
    kernel: str
    batchnorm: str
    weight_bits: int
    activation_bits: int
    input_bits: int
    bias_bits: int
    points: str
    input: str
    activations: str
    ranges: str
    calibration: str | os.PathLike[str]
    clip_input: tuple[float, float]
    method: str
    formulation: str
    solver: str
    timeout: float | None
    jobs: int
    device: str
    memory: str
    progress: bool


METHOD = ("clip_input", "method", "formulation", "solver", "timeout", "jobs", "device", "memory")
"""Words that `Options` has too."""


def check_words(words: Mapping[str, Any], function: str) -> None:
    """Raise UsageError for a keyword that does not exist, with the nearest one, and for one of the wrong kind."""
    for name, value in words.items():
        if name not in _KINDS:
            near = difflib.get_close_matches(name.replace("-", "_").lower(), _KINDS, n=1, cutoff=0.0)
            raise UsageError(f"{function} has no argument {name!r}; the nearest is {near[0]!r}.")
        fits, wanted = _KINDS[name]
        if not fits(value):
            raise UsageError(f"{name} is {described(value)}; give {wanted}.")


def given_of(words: Mapping[str, Any], radii: Any) -> Given:
    """The words and the radii as a command line has them; `radii` may be bits, a path, `Radii`, or None.

    The model has no name yet, and what says nothing is left to `Given.check`. Raises UsageError and RadiiError.
    """
    own = {name: _AS_TEXT.get(name, _same)(value) for name, value in words.items() if name != "progress"}
    own |= _family(radii, own)
    with in_python():
        return Given(model="the model", **own)


def _family(radii: Any, words: Mapping[str, Any]) -> dict[str, Any]:
    """What the radii state: bits, or the path of a file; nothing for `Radii`, which need no words."""
    if radii is None or isinstance(radii, Radii):
        return {}
    if "bits" in words:
        raise UsageError("radii and bits exclude each other; give one of them.")
    if is_whole(radii):
        return {"bits": int(radii)}
    if isinstance(radii, str) and re.fullmatch(r"\s*W\d+A\d+\s*", radii, re.ASCII | re.IGNORECASE):
        return {"bits": radii}
    path_like(radii, "radii", f"{RADII}, bits, 'W8A8', or the path of a radii file", RadiiError)
    return {"radii": os.fspath(radii)}


@contextlib.contextmanager
def in_python() -> Iterator[None]:
    """Let messages about options name keyword arguments."""
    try:
        yield
    except (UsageError, RadiiError, DataError) as error:
        text = re.sub(r"--([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


# -- kinds of keywords ----------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_bits(value: Any) -> bool:
    return is_whole(value) or isinstance(value, str)


def _is_limit(value: Any) -> bool:
    return value is None or is_number(value)


def _same(value: Any) -> Any:
    return value


_TEXT = (_is_text, "text")
_WHOLE = (is_whole, "a whole number")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(Words.__annotations__, _TEXT),
    **dict.fromkeys(("weight_bits", "activation_bits", "input_bits", "bias_bits", "jobs"), _WHOLE),
    **dict.fromkeys(("bits", "samples"), (_is_bits, "a whole number, or text")),
    **dict.fromkeys(("data", "calibration"), (_is_path, "a name or a path")),
    "input_scale": (is_number, "a number"),
    "timeout": (_is_limit, "seconds, or None for no limit"),
    "clip_input": (is_pair, "two numbers, for pixels (0, 1)"),
    "progress": (lambda value: isinstance(value, bool), "True or False"),
}
"""What each keyword may be, and that in words."""
_AS_TEXT: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("data", "calibration"), os.fspath),
    "samples": str,
    "clip_input": tuple,
    "timeout": lambda value: math.inf if value is None else value,
}
"""How a keyword becomes what a command line gives."""
