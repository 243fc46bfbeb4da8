"""TFLite -> Network.

The network is the first subgraph at batch 1, in real arithmetic: weights dequantised, with their steps as `grid`;
a bias times the step of input and weights; and behind every operator that gives integers a `Rounding`, whose ends are
those of the output's type under the fused activation. Everything a file holds is consumed or refused; all refusals are
raised together, one a kind. At last the result is compared with LiteRT, layer by layer, where that is installed.

- Images are (channels, height, width) in the network and (height, width, channels) in the file.
- A layer is called as the tensor that it gives, up to the first semicolon, where one has it alone; its rounding point
  `NAME/rounded`, its Relu in a float file `NAME/relu`.
- A file that reads integers is read with the rounding of its input, which the host does: samples are real numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qverify.errors import ModelError, UnsupportedModel
from qverify.files.user import shown_path
from qverify.kinds import path_like
from qverify.network import Network
from qverify.onnx.refusals import Refusals
from qverify.remarks import remark
from qverify.text.escapes import printable
from qverify.text.shortened import first_line, listed, quoted, shortened
from qverify.tflite.check import compare
from qverify.tflite.file import ABSENT, read_model
from qverify.tflite.function_operators import FUNCTION_OPERATORS
from qverify.tflite.graph import Builder, Node, Refusal, Tensor, UnknownOperator, Value, constant
from qverify.tflite.image_operators import IMAGE_OPERATORS
from qverify.tflite.operators import OPERATORS as PLAIN_OPERATORS

if TYPE_CHECKING:
    from os import PathLike

    from qverify.tflite.file import Model, OperatorInfo

OPERATORS = IMAGE_OPERATORS | PLAIN_OPERATORS | FUNCTION_OPERATORS
"""What is read, by the names of the schema."""


def load(path: str | PathLike[str]) -> Network:
    """Read a TFLite file as a `Network` (conventions above).

    Guarantees, where LiteRT is installed, that every layer agrees with its reference kernels on eight inputs
    (`check.py`); what a person should know is in `Network.notes`, and a QVerifyWarning each. Raises UnsupportedModel
    with every kind of unsupported detail, ModelError if the file is missing, damaged, no TFLite file, or if LiteRT
    contradicts what was read, and PackageMissing without the extra `qverify[tflite]`.
    """
    path_like(path, "The model", "the path of a .tflite file", ModelError)
    name, short = shown_path(path), shortened(Path(path).name)
    try:
        with np.errstate(all="ignore"):  # what overflows is refused by the layers
            network = _network(read_model(Path(path)), name, short)
    except MemoryError as error:
        raise ModelError(f"{name} needs more memory than there is here ({first_line(error)}).") from error
    remark(f"{network.source}: {note}" for note in network.notes)
    return network


def _network(model: Model, name: str, short: str) -> Network:
    """The network of a model, compared with it; `short` is what it is called."""
    walk = _Walk(model, short)
    output = walk.run()
    if walk.refusals or walk.operators:
        supported = list(OPERATORS) if walk.operators else []
        raise UnsupportedModel(name, walk.refusals.sentences + walk.operators.sentences, supported)
    assert output is not None
    builder = walk.builder
    if output.layer != len(builder.layers) - 1:
        raise ModelError(f"{short}: the output of layer {builder.layers[-1].name!r} is never used.")
    if not np.array_equal(output.places, np.arange(output.size)):
        builder.notes.append("the outputs are an image, which qverify gives channels first.")
    network = Network(tuple(builder.layers), short)
    builder.notes += _hybrid(network, builder) + compare(model, network, builder)
    return Network(network.layers, short, tuple(printable(note) for note in builder.notes))


def _hybrid(network: Network, builder: Builder) -> list[str]:
    """A note if layers of float activations have integer weights."""
    if not builder.hybrid:
        return []
    first = network.layers[min(builder.hybrid)].name
    return [
        f"layers of float activations and integer weights ({first!r} first, {len(builder.hybrid)} in all) are read "
        "with their weights dequantised; kernels that round the activations as they go compute something else."
    ]


class _Walk:
    """A pass over a model in the order of its operators, which is that of TFLite."""

    def __init__(self, model: Model, source: str) -> None:
        self.model, self.builder = model, Builder(model, source)
        self.refusals, self.operators = Refusals(), Refusals()
        self.values: dict[int, Value | None] = {}  # None: refused, or made from what is

    def run(self) -> Tensor | None:
        """The output, with `self.builder` filled; meaningless if there are refusals."""
        for what, given in (("inputs", self.model.inputs), ("outputs", self.model.outputs)):
            if len(given) != 1 or ABSENT in given:
                names = listed([quoted(self.model.tensors[i].name) for i in given if i != ABSENT], 5)
                self.refusals.add(f"{len(given)} {what} ({names}); supported is one")
        self.values.update(dict.fromkeys(i for i in self.model.inputs if i != ABSENT))
        if not self.refusals:
            self._start()
        for operator in self.model.operators:
            self._read(operator)
        if self.refusals or self.operators:
            return None
        output = self.values.get(self.model.outputs[0])
        if not isinstance(output, Tensor):
            self.refusals.add("the output does not depend on the input")
            return None
        return self.builder.solid(output, self.builder.names[self.model.outputs[0]])

    def _start(self) -> None:
        index = self.model.inputs[0]
        try:
            self.values[index] = self.builder.start(self.model.tensors[index])
        except Refusal as refusal:
            self.refusals.add(str(refusal))

    def _read(self, operator: OperatorInfo) -> None:
        where = f"{operator.kind} giving {quoted(self.model.tensors[operator.outputs[0]].name)}"
        self.values.update(dict.fromkeys(operator.outputs))
        try:
            if operator.kind not in OPERATORS:
                raise UnknownOperator("the operator is not supported")
            inputs = [self._value(index, operator) for index in operator.inputs]
            if any(value is None for value, index in zip(inputs, operator.inputs, strict=True) if index != ABSENT):
                return
            output = self.model.tensors[operator.outputs[0]]
            self.values[output.index] = OPERATORS[operator.kind](Node(operator, tuple(inputs), output, self.builder))
        except UnknownOperator as refusal:
            self.operators.add(where, f": {refusal}")
        except Refusal as refusal:
            self.refusals.add(where, f": {refusal}")

    def _value(self, index: int, operator: OperatorInfo) -> Value | None:
        """What a tensor holds: None for one that is not given or was refused."""
        if index == ABSENT:
            return None
        info = self.model.tensors[index]
        if index not in self.values:
            if info.oddity:
                raise Refusal(f"of {info.label}, {info.oddity}")
            if info.values is None:
                raise Refusal(f"{info.label} is neither a constant of a supported type nor made before it")
            self.values[index] = constant(info)
        return self.values[index]
