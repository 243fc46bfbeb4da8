"""The model of a query: read as a network, and whether the query's declarations fit it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qverify.errors import UnsupportedModel, UsageError
from qverify.onnx import reader
from qverify.onnx.file import read_model
from qverify.onnx.inputs import given_inputs
from qverify.parts import slices
from qverify.text.brief import Brief
from qverify.text.shortened import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from qverify.network import Network
    from qverify.vnnlib.query import Query, Tensor

ORDER_ONLY = ("Softmax", "LogSoftmax", "QLinearSoftmax")
"""What the reader drops at the end, as it keeps the order of classes: properties see the numbers."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Model(Brief):
    """A model as the file has it, the network that was read from it, and the query, its inputs where that has them."""

    proto: onnx.ModelProto
    network: Network
    query: Query


def model_of(query: Query, named: Sequence[str]) -> Model:
    """The model for a query, of those that were given as `NAME=FILE`.

    Raises UsageError where none or too many are given, or the query declares what the model has not; ModelError.
    """
    path = _path(query, named)
    proto = read_model(Path(path))
    network = reader.load(path)
    if network.rounds:
        raise UsageError(
            f"{network.source} is quantised, and its rounding is no real arithmetic; `qverify runtimes` and `qverify"
            " verify` are for such files: give the float model it was made from."
        )
    found = [node.op_type for node in proto.graph.node if node.op_type in ORDER_ONLY]
    if found:
        raise UnsupportedModel(
            network.source,
            [f"{found[0]}, whose numbers a property sees: cut it off and state the property of its input"],
        )
    begins = _begins(query, network, given_inputs(proto.graph))
    _check(query.output, proto.graph.output, network.output_size, network.source, "gives")
    return Model(proto=proto, network=network, query=query.placed(begins))


def _begins(query: Query, network: Network, given: Sequence[onnx.ValueInfoProto]) -> list[int]:
    """Where the numbers of each declared input begin in the network's input. Raises UsageError.

    By their names in the model if the query says these, else in the order of the model.
    """
    if network.parts is None or not query.network:
        if len(query.inputs) > 1:
            raise UsageError(_other_count(query, network, 1))
        _check(query.inputs[0], given, network.input_size, network.source, "reads")
        return [0]
    parts = {part.name: (part, at) for part, at in zip(network.parts, slices(network.parts), strict=True)}
    if len(query.inputs) != len(parts):
        raise UsageError(_other_count(query, network, len(parts)))
    names = [tensor.onnx_name for tensor in query.inputs]
    if all(name is None for name in names):
        names = list(parts)
    elif None in names or len(set(names)) < len(names):
        raise UsageError(
            "The query says for some inputs only what they are called in the model, or the same for two; say it for"
            " each, or for none, which are then in the model's order."
        )
    begins = []
    for tensor, name in zip(query.inputs, names, strict=True):
        part, at = parts.get(str(name), (None, slice(0)))
        _check(tensor, given, tensor.size if part is None else part.size, network.source, "reads")
        begins.append(at.start)
    return begins


def _other_count(query: Query, network: Network, count: int) -> str:
    names = listed([quoted(tensor.name) for tensor in query.inputs], 5)
    return (
        f"The query declares {len(query.inputs)} inputs ({names}), but {network.source} reads {count}; give the model"
        " that the query is about."
    )


def _path(query: Query, named: Sequence[str]) -> str:
    given: dict[str, str] = {}
    for word in named:
        name, equals, path = word.partition("=")
        if not query.network and (not equals or os.path.exists(word)):
            name, path = "", word
        if not path:
            raise UsageError(f"--network is {quoted(word)}; write NAME=FILE.onnx, NAME as the query declares it.")
        if name in given:
            raise UsageError(f"--network gives {quoted(name)} twice; the query has one network.")
        given[name] = path
    wanted = query.network
    if not given:
        raise UsageError(f"The query needs a network; give --network {wanted or 'NAME'}=FILE.onnx.")
    if len(given) > 1 or (wanted and wanted not in given):
        names = listed(list(map(quoted, given)), 5)
        known = f"the network {quoted(wanted)} and no other" if wanted else "one network"
        raise UsageError(f"--network gives {names}, but the query declares {known}; give --network once, for that.")
    return next(iter(given.values()))


def _check(declared: Tensor, values: Sequence[onnx.ValueInfoProto], size: int, source: str, verb: str) -> None:
    """Refuse a declaration of another size, shape or name than the model has."""
    if declared.size != size:
        raise UsageError(
            f"The query declares {declared.name} with {declared.size} numbers, but {source} {verb} {size}; give the"
            " model that the query is about."
        )
    if declared.onnx_name is not None and declared.onnx_name not in [value.name for value in values]:
        names = listed([quoted(value.name) for value in values], 5)
        raise UsageError(
            f"The query calls {declared.name} {quoted(declared.onnx_name)} in the model, but {source} {verb} {names};"
            " give the model that the query is about."
        )
