"""A query as both versions of VNN-LIB state it: variables of one network, and a formula that is to be satisfied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.files import user as user_files
from qverify.files.user import Kind
from qverify.properties.formula import Formula, Linear, Variable
from qverify.text.brief import Brief
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_KIND = Kind("the .vnnlib file", "check the path of the query", UsageError)
_MOST_BYTES = 1 << 31


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
