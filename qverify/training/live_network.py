"""torch modules as networks whose weights stay live, so that bounds on them can be trained.

`LiveNetwork.trace` reads an `nn.Module` by symbolic tracing (torch.fx) into the layers of `qverify.network` and
remembers which parameters each weighted layer reads. `values` runs the module itself, on samples (N, *input_shape).
`frozen` gives the immutable `Network` with the numbers of the moment: what is verified and exported.

Supported: Linear, Conv2d (zero padding), AvgPool2d, ReLU, Flatten, Unflatten, Dropout, Identity, and in `forward`
relu, flatten, view, reshape, sums of two branches. Everything else is refused, all problems at once. What was read is
compared with the module on random inputs, in float64.
"""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from qverify.errors import ModelError, UnsupportedModel
from qverify.kinds import expected, whole_numbers
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu
from qverify.network import Network
from qverify.onnx.refusals import Refusals
from qverify.text.brief import Brief
from qverify.text.shortened import first_line

_RELU = (F.relu, torch.relu, "relu")
_VIEWS = (torch.flatten, torch.reshape, "flatten", "view", "reshape", "size", getattr)
_SUMS = (operator.add, torch.add, "add")
_TOLERANCE = 1e-9


@dataclass(eq=False, repr=False)
class LiveNetwork(Brief):
    """A module, the network it is, and where its weights live.

    `network`: the layers; their numbers are those at tracing time. `parameters[i]`: weight and bias (None: none) of
    layer i, live; kernels have the layer's own shape. `_layers`: which value of the trace is the output of which layer.
    """

    module: nn.Module
    network: Network
    parameters: dict[int, tuple[Tensor, Tensor | None]]
    _graph: fx.GraphModule
    _layers: dict[str, int]

    @staticmethod
    def trace(module: nn.Module, input_shape: tuple[int, ...], source: str = "module") -> LiveNetwork:
        """Read a module whose input is (N, *input_shape).

        Raises UnsupportedModel for what is outside the supported subset, and ModelError if the module does not run
        on such inputs or what was read differs from it.
        """
        expected(module, nn.Module, "The module", "a torch.nn.Module", ModelError)
        whole_numbers(input_shape, "The shape of a sample", ModelError)
        graph = _traced(module, input_shape, source)
        reader = _Reader(graph)
        for node in graph.graph.nodes:
            reader.read(node)
        if reader.refusals:
            raise UnsupportedModel(source, reader.refusals.sentences)
        layers = reader.layers[: 1 + reader.output]
        own = {name: i for name, i in reader.own.items() if i < len(layers)}
        live = LiveNetwork(module, Network(tuple(layers), source), reader.parameters, graph, own)
        live._compare(input_shape)
        return live

    @property
    def like(self) -> Tensor:
        """A tensor of the weights' type, where they are."""
        return next(iter(self.parameters.values()))[0]

    def values(self, x: Tensor) -> list[Tensor]:
        """The output (N, size) of every layer for x (N, *input_shape), as the module computes it."""
        recorder = _Recorder(self._graph, set(self._layers))
        recorder.run(x)
        found = {self._layers[name]: value.flatten(1) for name, value in recorder.kept.items()}
        return [found[i] for i in range(len(self.network.layers))]

    def frozen(self) -> Network:
        """The network with the numbers its parameters have now."""
        changes: dict[int, Layer] = {}
        for i, (weight, bias) in self.parameters.items():
            layer: Any = self.network.layers[i]
            numbers = {"weight": _numbers(weight)}
            if bias is not None:
                numbers["bias"] = _numbers(bias)
            changes[i] = replace(layer, **numbers)
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


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _traced(module: nn.Module, input_shape: tuple[int, ...], source: str) -> fx.GraphModule:
    try:
        graph = fx.symbolic_trace(module)
    except Exception as error:  # tracing runs the user's own forward
        raise UnsupportedModel(source, [f"its forward cannot be traced ({first_line(error)})"]) from error
    graph.graph.eliminate_dead_code()
    inputs = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    if inputs[1:]:
        raise UnsupportedModel(source, [f"a second input {inputs[1]!r}"])
    example = next(iter(module.parameters()), torch.zeros(0))
    was_training = graph.training
    try:
        graph.eval()  # shapes only: no dropout, no random numbers
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # which is where ShapeProp prints a traceback
            ShapeProp(graph).propagate(example.new_zeros(2, *input_shape))
    except Exception as error:
        reason = first_line(error.__cause__ or error)
        raise ModelError(f"{source} does not run on inputs of shape {input_shape} ({reason}).") from error
    finally:
        graph.train(was_training)
    return graph


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


class _Reader:
    """Nodes of a trace -> layers. `position[name]`: the layer whose output a node gives, `own`: without mere views."""

    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.layers: list[Layer] = []
        self.parameters: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.position: dict[str, int] = {}
        self.own: dict[str, int] = {}
        self.refusals = Refusals()
        self.output = 0

    def read(self, node: fx.Node) -> None:
        """Take one node in: a layer, another view of one, or a problem."""
        if node.op == "placeholder":
            self._append(node, Input("input", (), _shape(node)))
        elif node.op == "output":
            self._finish(node)
        elif node.op == "call_module":
            self._module(node, self.modules[str(node.target)])
        elif node.target in _RELU:
            self._relu(node)
        elif node.target in _VIEWS or _takes_size(node):
            self._view(node)
        elif node.target in _SUMS and len(_tensors(node)) == 2 and not node.kwargs:
            first, second = (self.position.get(source.name, 0) for source in _tensors(node))
            self._append(node, Add(self._name(node), (first, second), _shape(node)))
        else:
            self._refuse(node, f"operation {node.name!r} ({node.target})", "; use the layers that are supported")

    def _refuse(self, node: fx.Node, where: str, what: str = "") -> None:
        """Note a problem, and go on as if the node were not there, so that no further one follows from it."""
        self.refusals.add(where, what)
        self.position[node.name] = self._source(node)

    def _finish(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or result.name not in self.position:
            self.refusals.add("an output that is not one tensor")
        else:
            self.output = self.position[result.name]

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        reader = _MODULES.get(type(module))
        if reader is not None:
            reader(self, node, module)
            return
        advice = (
            "; leave it out, radii are absolute or follow the weights anyway" if "Norm" in str(type(module)) else ""
        )
        self._refuse(node, f"layer {node.target!r} ({type(module).__name__})", advice)

    def _append(self, node: fx.Node, layer: Layer) -> None:
        self.position[node.name] = self.own[node.name] = len(self.layers)
        self.layers.append(layer)

    def _name(self, node: fx.Node) -> str:
        """That of the module; where it is taken, because a module is called twice, that of the node in the trace."""
        taken = {layer.name for layer in self.layers}
        name = str(node.target) if node.op == "call_module" else node.name
        if name in taken:
            name = node.name
        while name in taken:
            name += "_"
        return name

    def _source(self, node: fx.Node) -> int:
        sources = _tensors(node)
        return self.position.get(sources[0].name, 0) if sources else 0

    def _relu(self, node: fx.Node, _: Any = None) -> None:
        self._append(node, Relu(self._name(node), (self._source(node),), _shape(node)))

    def _view(self, node: fx.Node, _: Any = None) -> None:
        """Flatten and the like leave no trace, if they leave the batch axis alone."""
        if "tensor_meta" in node.meta and hasattr(node.meta["tensor_meta"], "shape"):
            shape = node.meta["tensor_meta"].shape
            if len(shape) < 1 or shape[0] != 2:
                self.refusals.add(repr(node.name), ", which reshapes the batch axis")
        self.position[node.name] = self._source(node)

    def _dense(self, node: fx.Node, module: nn.Linear) -> None:
        shape = _shape(node)
        if len(shape) != 1:
            self._refuse(node, f"layer {node.target!r}", ", a Linear over one of several axes; flatten before it")
            return
        numbers = self._live(module)
        self._append(node, Dense(self._name(node), (self._source(node),), shape, **numbers))

    def _conv(self, node: fx.Node, module: nn.Conv2d) -> None:
        in_shape = _shape(_tensors(node)[0])
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            self._refuse(node, f"layer {node.target!r}", ": padding must be zeros, given as numbers")
            return
        if len(in_shape) != 3:
            self._refuse(node, f"layer {node.target!r}", " over images without channels; unflatten before it")
            return
        top, left = module.padding
        geometry: dict[str, Any] = {
            "strides": tuple(module.stride),
            "pads": (top, left, top, left),
            "dilations": tuple(module.dilation),
            "groups": module.groups,
        }
        numbers = self._live(module)
        source = (self._source(node),)
        self._append(node, Conv(self._name(node), source, _shape(node), in_shape=in_shape, **geometry, **numbers))

    def _live(self, module: nn.Linear | nn.Conv2d) -> dict[str, Any]:
        """Register the parameters of the layer appended next; its keyword arguments for them."""
        bias = module.bias
        self.parameters[len(self.layers)] = (module.weight, bias)
        zero = np.zeros(len(module.weight))
        return {
            "weight": _numbers(module.weight),
            "bias": zero if bias is None else _numbers(bias),
            "has_bias": bias is not None,
        }

    def _pool(self, node: fx.Node, module: nn.AvgPool2d) -> None:
        kernel, stride, pad = (_pair(v) for v in (module.kernel_size, module.stride, module.padding))
        if module.ceil_mode or module.divisor_override or (any(pad) and not module.count_include_pad):
            self._refuse(node, f"layer {node.target!r}", ": ceil_mode, divisor_override, count_include_pad=False")
            return
        in_shape = _shape(_tensors(node)[0])
        if len(in_shape) != 3:
            self._refuse(node, f"layer {node.target!r}", " over images without channels; unflatten before it")
            return
        channels = in_shape[0]
        layer = Conv(
            self._name(node),
            (self._source(node),),
            _shape(node),
            weight=np.full((channels, 1, *kernel), 1.0 / prod(kernel)),
            bias=np.zeros(channels),
            in_shape=in_shape,
            strides=stride,
            pads=pad * 2,
            groups=channels,
            has_bias=False,
            quantised=False,
        )
        self._append(node, layer)


_MODULES: dict[type[nn.Module], Callable[[_Reader, fx.Node, Any], None]] = {
    nn.Linear: _Reader._dense,
    nn.Conv2d: _Reader._conv,
    nn.AvgPool2d: _Reader._pool,
    nn.ReLU: _Reader._relu,
    nn.Flatten: _Reader._view,
    nn.Unflatten: _Reader._view,
    nn.Identity: _Reader._view,
    nn.Dropout: _Reader._view,
    nn.Dropout2d: _Reader._view,
}


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order."""
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def _takes_size(node: fx.Node) -> bool:
    """`x.shape[0]` and the like, which pick a number out of a shape; not `x[...]` of values."""
    source = _tensors(node)[0] if _tensors(node) else None
    return node.target is operator.getitem and source is not None and "tensor_meta" not in source.meta


def _shape(node: fx.Node) -> Any:
    """Of one sample."""
    return tuple(node.meta["tensor_meta"].shape[1:])


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value)
