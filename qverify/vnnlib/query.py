"""A query as both versions of VNN-LIB state it: variables of one network, and a formula that is to be satisfied.

Comparisons are turned into linear ones in exact rationals: every number counts as it is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.files import user as user_files
from qverify.files.user import Kind
from qverify.properties.formula import All, Formula, Linear, Some, Variable
from qverify.text.brief import Brief
from qverify.text.shortened import first_line, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KIND = Kind("the .vnnlib file", "check the path of the query", UsageError)
_MOST_BYTES = 1 << 31
LARGEST = Fraction(10) ** 30
"""The largest number that a query may state: products of such still are float64, and sums float32."""
_EXPONENT = re.compile(r"[eE][+-]?0*([0-9]+)$")
_DIGITS = 3
"""Of an exponent."""
_SHOWN = 8


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Tensor(Brief):
    """An input or output that a query declares: its name, type and shape, and the name in the ONNX file if it says.

    `begin`: the place of its first number among those of all inputs, in the order of the model once that is known.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    onnx_name: str | None = None
    begin: int = 0

    @property
    def size(self) -> int:
        """The number of numbers in it."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    def element(self, index: int) -> str:
        """The name of one of its numbers, by its place in C order."""
        places = []
        for length in reversed(self.shape):
            index, place = divmod(index, length)
            places.append(str(place))
        return f"{self.name}[{','.join(reversed(places))}]" if places else self.name


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Query(Brief):
    """A query about one network with one output; `network` is its name, empty in version 1.0. Several inputs are in the
    order of declaration, and places in the formula count through all of them.

    In version 1.0 numbers have names of their own, `X_0` for `X[0]`, and all inputs together are X.
    """

    version: str
    network: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    formula: Formula

    @property
    def input_size(self) -> int:
        """The number of numbers in all inputs."""
        return sum(tensor.size for tensor in self.inputs)

    def input_name(self, index: int) -> str:
        """The name of a number of the inputs in the query."""
        tensor = next(one for one in self.inputs if one.begin <= index < one.begin + one.size)
        return tensor.element(index - tensor.begin) if self.network else f"{tensor.name}_{index}"

    def placed(self, begins: Sequence[int]) -> Query:
        """The same query, where the numbers of its inputs begin at other places."""
        if all(tensor.begin == begin for tensor, begin in zip(self.inputs, begins, strict=True)):
            return self
        moved: dict[int, int] = {}
        for tensor, begin in zip(self.inputs, begins, strict=True):
            moved |= {tensor.begin + k: begin + k for k in range(tensor.size)}
        inputs = tuple(replace(one, begin=begin) for one, begin in zip(self.inputs, begins, strict=True))
        return replace(self, inputs=inputs, formula=_moved(self.formula, moved))

    def output_name(self, index: int) -> str:
        """The name of an output in the query."""
        return self.output.element(index) if self.network else f"{self.output.name}_{index}"


def _moved(formula: Formula, places: Mapping[int, int]) -> Formula:
    """A formula with its inputs at other places."""
    if isinstance(formula, Linear):
        terms = {v if v.output else Variable(False, places[v.place]): c for v, c in formula.terms.items()}
        return replace(formula, terms=terms)
    return replace(formula, parts=tuple(_moved(part, places) for part in formula.parts))


def read_text(path: str) -> str:
    """The text of a query file, which may be compressed by gzip. Raises UsageError."""
    shown = user_files.shown_path(path)
    content = user_files.read(Path(path), _KIND)
    try:
        text = user_files.unzipped(content, _MOST_BYTES).decode("utf-8")
    except OverflowError:
        raise UsageError(f"{shown} unpacks to more than 2 GiB; split the query.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not text, so no VNN-LIB query; give the .vnnlib file.") from None
    except OSError as error:
        raise UsageError(f"{shown} is damaged or was cut short ({first_line(error)}); download it again.") from error
    if not text.strip():
        raise UsageError(f"{shown} is empty; give a VNN-LIB query.")
    return text


# -- comparisons ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Brief):
    """A linear expression `terms + constant`."""

    terms: dict[Variable, Fraction]
    constant: Fraction

    @staticmethod
    def number(value: Fraction) -> Sum:
        """A constant."""
        return Sum({}, value)

    @staticmethod
    def variable(variable: Variable) -> Sum:
        """A variable by itself."""
        return Sum({variable: Fraction(1)}, Fraction(0))

    def times(self, factor: Fraction) -> Sum:
        """A multiple of it."""
        return Sum({v: c * factor for v, c in self.terms.items()}, self.constant * factor)

    def plus(self, other: Sum) -> Sum:
        """The sum of both."""
        terms = dict(self.terms)
        for variable, factor in other.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) + factor
        return Sum(terms, self.constant + other.constant)


def added(parts: Sequence[Sum]) -> Sum:
    """The sum of all."""
    terms: dict[Variable, Fraction] = {}
    for part in parts:
        for variable, factor in part.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) + factor
    return Sum(terms, sum((part.constant for part in parts), Fraction(0)))


def subtracted(parts: Sequence[Sum]) -> Sum:
    """The first less the others; of one alone its negative, as in `(- x)`."""
    if len(parts) == 1:
        return parts[0].times(Fraction(-1))
    return parts[0].plus(added(parts[1:]).times(Fraction(-1)))


def multiplied(parts: Sequence[Sum], where: str) -> Sum:
    """The product of all, one of which at most has variables. Raises UsageError, which names the place."""
    found, factor = Sum.number(Fraction(1)), Fraction(1)
    some = [part for part in parts if part.terms]
    if len(some) > 1:
        raise UsageError(f"{where} multiplies variables; supported are linear comparisons: multiply by numbers only.")
    for part in parts:
        if part.terms:
            found = part
        else:
            factor *= part.constant
    return found.times(factor)


def compared(sign: str, left: Sum, right: Sum) -> Formula:
    """`left sign right` for one of `<= >= < > == !=`."""
    if sign in (">=", ">"):
        return compared({">=": "<=", ">": "<"}[sign], right, left)
    if sign == "==":
        return All((compared("<=", left, right), compared("<=", right, left)))
    if sign == "!=":
        return Some((compared("<", left, right), compared("<", right, left)))
    apart = left.plus(right.times(Fraction(-1)))
    terms = {variable: factor for variable, factor in apart.terms.items() if factor}
    return Linear(terms, -apart.constant, strict=sign == "<")


def number(text: str, where: str) -> Fraction:
    """A number exactly as it is written, at most `LARGEST`. Raises UsageError, which names the place."""
    exponent = _EXPONENT.search(text)
    if exponent is not None and len(exponent[1]) > _DIGITS:  # which would take ages to be written out
        raise UsageError(
            f"{where} has {quoted(text[: _SHOWN * 4])}, an exponent of no number of a network; correct it."
        )
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{where} has {quoted(text[: _SHOWN * 4])} where a number is wanted; correct it.") from None
    if abs(found) > LARGEST:
        raise UsageError(
            f"{where} has {quoted(text[: _SHOWN * 4])}, beyond {float(LARGEST):g}, where networks overflow; state a "
            "smaller limit."
        )
    return found
