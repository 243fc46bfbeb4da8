"""The inputs of a network written as ONNX: one, or those of the model that it was read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from qverify.errors import ModelError
from qverify.gather import Gather
from qverify.parts import slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from qverify.network import Network
    from qverify.onnx.writer import Writer

_Shape = tuple[int, ...]


def part_layers(network: Network) -> dict[int, int]:
    """The layers that are the inputs of the model themselves: by their index, which input each is."""
    begins = [at.start for at in slices(network.parts or ())]
    layers = {index: network.layers[index] for index in network.entries}
    return {index: begins.index(layer.index[0]) for index, layer in layers.items() if isinstance(layer, Gather)}


def declared(network: Network, kind: int) -> list[onnx.ValueInfoProto]:
    """The inputs of the written graph, (N, ...) each. Raises ModelError for one called as the output."""
    if network.parts is None:
        shapes: Sequence[tuple[str, _Shape]] = [("input", network.input_shape)]
    else:
        shapes = [(part.name, part.shape) for part in network.parts]
    if any(name == "output" for name, _ in shapes):
        raise ModelError(f"{network.source}: an input is called 'output', as the output is; write with_one_input().")
    # with the batch axis alone, `load` could not tell it from a vector
    return [helper.make_tensor_value_info(name, kind, ["N", *(shape or (1,))]) for name, shape in shapes]


def entered(writer: Writer, network: Network) -> tuple[str, _Shape]:
    """The value of the network's input, which is made of the model's where some layer reads more than one of them."""
    if network.parts is None:
        return "input", network.input_shape or (1,)
    own = part_layers(network)
    if all(index in own for index, layer in enumerate(network.layers) if 0 in layer.inputs):
        return "", (network.input_size,)
    name = network.layers[0].name
    flat = [writer.step("Flatten", [part.name], f"{name}/{part.name}", axis=1) for part in network.parts]
    return writer.step("Concat", flat, name, axis=1), (network.input_size,)
