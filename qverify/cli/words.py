"""Types of options: one bit-width, a factor, one word of several. Imports nothing that takes time."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from qverify.errors import UsageError
from qverify.text.shortened import quoted

if TYPE_CHECKING:
    from collections.abc import Callable


class BitWidth(click.types.IntParamType):
    """The type of one bit-width; a list or a range is refused with the name of a command that takes several.

    `mixed`: W4A8 is one too, and stays text.
    """

    def __init__(self, several: str, mixed: bool = False):
        self.several, self.mixed = several, mixed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and re.fullmatch(r"\s*\d*\s*[,:;][\d\s,:;]*|\s*\d+\s*-\s*\d+\s*", value, re.ASCII):
            raise UsageError(f"--bits takes one bit-width here, not {quoted(value)}; {self.several}.")
        if self.mixed and isinstance(value, str) and re.fullmatch(r"\s*W\d+A\d+\s*", value, re.ASCII | re.IGNORECASE):
            return value
        return super().convert(value, param, ctx)


class Factor(click.types.FloatParamType):
    """The type of a number above 0, or a quotient of two, as in 1/255."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts: list[Any] = value.split("/") if isinstance(value, str) else [value]
        numbers = [super(Factor, self).convert(part, param, ctx) for part in parts[:2]]
        quotient = numbers[0] / numbers[1] if numbers[1:] and numbers[1] else numbers[0]
        if len(parts) > 2 or not all(0 < number < math.inf for number in (*numbers, quotient)):
            self.fail(f"{quoted(str(value))} is no number above 0, such as 255 or 1/255.", param, ctx)
        return quotient


class Percent(click.types.FloatParamType):
    """The type of a share in per cent, 0 to 100."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        share = float(super().convert(value, param, ctx))
        if not 0 <= share <= 100:
            self.fail(f"{quoted(str(value))} is no share in percent; give a number from 0 to 100.", param, ctx)
        return share


class OneOf(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """The type of one word of several; a list of them is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        words = value.split(",") if isinstance(value, str) else []
        if param is not None and len(words) > 1 and all(word.strip() in self.choices for word in words):
            raise UsageError(
                f"{param.opts[0]} takes one of {', '.join(self.choices)}, not {quoted(value)}; a plan for qverify batch"
                " takes several."
            )
        return str(super().convert(value, param, ctx))


def words_of(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    """What turns `falsified,unknown` into a tuple; click's usage error for a word that is not known."""

    def split(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
        words = tuple(word.strip() for word in value.split(",")) if value is not None else ()
        for word in words:
            if word not in known:
                raise click.BadParameter(f"{word!r} is none of {', '.join(known)}; join several by commas.")
        return words

    return split
