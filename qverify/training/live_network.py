"""torch modules as networks whose weights stay live, so that bounds on them can be trained.

`LiveNetwork.trace` reads an `nn.Module` by symbolic tracing (torch.fx) into the layers of `qverify.network` and
remembers which parameters each weighted layer reads. `values` runs the module itself, on samples (N, *input_shape).
`frozen` gives the immutable `Network` with the numbers of the moment: what is verified and exported.

Supported: Linear, Conv2d (zero padding), AvgPool2d, MaxPool2d, ReLU, PReLU, the activations of `activations.py`,
Flatten, Unflatten, Dropout, Identity, and in `forward` activations, flatten, view, reshape, sums and products of two
branches. What only moves numbers (moves.py): cat, stack, chunk, split, slices, permute, transpose, flip, repeat,
padding, nearest Upsample and interpolate, PixelShuffle. All else is refused, all problems at once. What was read is
compared with the module on random inputs, in float64.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from qverify.errors import ModelError, UnsupportedModel
from qverify.kinds import expected, whole_numbers
from qverify.network import Network
from qverify.text.brief import Brief
from qverify.training.traces import float64, traced
from qverify.training.tracing import TraceReader, spread_slopes

if TYPE_CHECKING:
    from qverify.layers import Layer

_TOLERANCE = 1e-9
"""By how much the module and the layers read from it may differ, absolutely and relative to the outputs."""


@dataclass(eq=False, repr=False)
class LiveNetwork(Brief):
    """A module with the network that it computes, and its live weights by layer.

    `network`: the layers; their numbers are those at tracing time. `parameters[i]`: weight and bias (None: none) of
    layer i, live; kernels have the layer's own shape. `slopes[i]`: those of PReLU i, live.
    `_layers`: which value of the trace is the output of which layer.
    """

    module: nn.Module
    network: Network
    parameters: dict[int, tuple[Tensor, Tensor | None]]
    _graph: fx.GraphModule
    _layers: dict[str, int]
    slopes: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def trace(module: nn.Module, input_shape: tuple[int, ...], source: str = "module") -> LiveNetwork:
        """The live network of a module whose input is (N, *input_shape).

        Raises UnsupportedModel for what is outside the supported subset, and ModelError if the module does not run
        on such inputs or what was read differs from it.
        """
        expected(module, nn.Module, "The module", "a torch.nn.Module", ModelError)
        whole_numbers(input_shape, "The shape of a sample", ModelError)
        graph = traced(module, input_shape, source)
        reader = TraceReader(graph)
        for node in graph.graph.nodes:
            reader.read(node)
        if reader.refusals:
            raise UnsupportedModel(source, reader.refusals.sentences)
        layers = reader.layers[: 1 + reader.output]
        own = {name: i for name, i in reader.own.items() if i < len(layers)}
        live = LiveNetwork(module, Network(tuple(layers), source), reader.parameters, graph, own, reader.slopes)
        live._compare(input_shape)
        return live

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the weights."""
        return next(iter(self.parameters.values()))[0]

    def values(self, x: Tensor) -> list[Tensor]:
        """The output (N, size) of every layer for x (N, *input_shape), as the module computes it."""
        recorder = _Recorder(self._graph, set(self._layers))
        recorder.run(x)
        found = {self._layers[name]: value.flatten(1) for name, value in recorder.kept.items()}
        return [found[i] for i in range(len(self.network.layers))]

    def frozen(self) -> Network:
        """The immutable network, in float64, with the numbers of the parameters at this moment."""
        changes: dict[int, Layer] = {}
        for i, (weight, bias) in self.parameters.items():
            layer: Any = self.network.layers[i]
            numbers = {"weight": float64(weight)}
            if bias is not None:
                numbers["bias"] = float64(bias)
            changes[i] = replace(layer, **numbers)
        for i, slope in self.slopes.items():
            prelu: Any = self.network.layers[i]
            changes[i] = replace(prelu, parameters=(float64(spread_slopes(slope, prelu.shape)),))
        return self.network.with_layers(changes)

    def _compare(self, input_shape: tuple[int, ...]) -> None:
        """ModelError unless `frozen` computes what the module computes."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((8, *input_shape), generator=generator, dtype=torch.float64)
        double = deepcopy(self.module).to("cpu", torch.float64).eval()
        found = self.frozen().evaluate(x.numpy())
        try:
            with torch.no_grad():
                wanted = double(x).flatten(1).numpy()
        except RuntimeError:  # it runs on batches of the size it was traced with, and on no other
            wanted = np.zeros(0)
        if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ModelError(
                f"{self.network.source} computes something else than its layers suggest; write its forward with"
                " the supported layers only."
            )


class _Recorder(fx.Interpreter):
    """Runs a traced module and keeps the values of some nodes; nothing overwrites them in place."""

    def __init__(self, graph: fx.GraphModule, names: set[str]):
        super().__init__(graph)
        self.names, self.kept = names, dict[str, Tensor]()

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(self.fetch_attr(target), "inplace", False):
            args = (args[0].clone(), *args[1:])
        return super().call_module(target, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_function(target, args, {**kwargs, "inplace": False} if "inplace" in kwargs else kwargs)

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if node.name in self.names:
            self.kept[node.name] = value
        return value
