"""Assignments as the versions of the standard write them, and as ONNX TensorProtos in files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from qverify.files.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.arrays import Array
    from qverify.vnnlib.query import Query, Tensor
    from qverify.vnnlib.replay import Assignment


def lines(query: Query, assignment: Assignment) -> Iterator[str]:
    """The lines that follow `sat`. Version 2.0: `NAME TYPE [dims]` and a number a line, in the order of declaration;
    1.0: `((X_0 v) ... (Y_0 v) ...)`. Numbers are written so that reading them as float64 gives them back."""
    if query.network:
        for tensor, numbers in _tensors(query, assignment):
            yield f"{tensor.name} {tensor.type} [{','.join(map(str, tensor.shape))}]"
            yield from (repr(float(number)) for number in numbers)
        return
    pairs = [(query.input_name(i), number) for i, number in enumerate(assignment.input)]
    pairs += [(f"{query.output.name}_{i}", number) for i, number in enumerate(assignment.output)]
    written = [f"({name} {float(number)!r})" for name, number in pairs]
    yield from ("(" * (i == 0) + one + ")" * (i == len(written) - 1) for i, one in enumerate(written))


def serialise(query: Query, assignment: Assignment, folder: str) -> None:
    """Write `NAME.pb`, a TensorProto, for each input and the output into a folder, which is made. Raises OSError."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for tensor, numbers in _tensors(query, assignment):
        content = _tensor(tensor, numbers).SerializeToString()
        write_atomically(Path(folder) / f"{tensor.name}.pb", partial(_write, content))


def _tensors(query: Query, assignment: Assignment) -> Iterator[tuple[Tensor, Array]]:
    """What the query declares, in that order, each with its numbers."""
    for tensor in query.inputs:
        yield tensor, assignment.input[tensor.begin : tensor.begin + tensor.size]
    yield query.output, assignment.output


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _tensor(tensor: Tensor, numbers: Array) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(numbers).reshape(tensor.shape), tensor.name)
