"""Modules read by symbolic tracing (torch.fx): nodes of a trace -> layers of `qverify.network` (live_network.py)."""

from __future__ import annotations

import operator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu
from qverify.onnx.refusals import Refusals
from qverify.training.activations import CALLS, MODULES
from qverify.training.moves import index_of, moves, places, ran
from qverify.training.traces import float64

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array

_RELU = (F.relu, torch.relu, "relu")
_VIEWS = (torch.flatten, torch.reshape, "flatten", "view", "reshape", "size", getattr)
_SUMS = (operator.add, torch.add, "add")
_PRODUCTS = (operator.mul, torch.mul, "mul")
_VIEW_MODULES = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d)


class TraceReader:
    """Nodes of a trace -> layers.

    `position[name]`: the layer whose output the node of that name gives, itself or as a view; `own[name]`: the same for
    nodes that are layers; `parts`: what the nodes read that give several tensors, by their names.
    """

    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.layers: list[Layer] = []
        self.parameters: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.slopes: dict[int, Tensor] = {}
        self.position: dict[str, int] = {}
        self.own: dict[str, int] = {}
        self.parts: dict[str, tuple[fx.Node, ...]] = {}
        self.refusals = Refusals()
        self.output = 0
        self.by_module: dict[type[nn.Module], Callable[[fx.Node], None]] = {
            nn.Linear: self._dense,
            nn.Conv2d: self._conv,
            nn.AvgPool2d: self._pool,
            nn.MaxPool2d: self._max_pool,
            nn.ReLU: self._relu,
            nn.PReLU: self._prelu,
            **dict.fromkeys(_VIEW_MODULES, self._view),
        }

    def read(self, node: fx.Node) -> None:
        """Read one node: a layer, another view of one, or a refusal."""
        if node.op == "placeholder":
            self._append(node, Input("input", (), _shape(node)))
        elif node.op == "output":
            self._finish(node)
        elif node.op == "call_module":
            self._module(node)
        elif node.target in _RELU:
            self._relu(node)
        elif node.target in CALLS:
            self._activation(node, CALLS[node.target].of_call(node))
        elif node.target in _VIEWS or _takes_size(node):
            self._view(node)
        elif moves(node, None):
            self._move(node, None)
        elif node.target in _SUMS and len(_tensors(node)) == 2 and not node.kwargs:
            self._pair(node, Add)
        elif node.target in _PRODUCTS and len(_tensors(node)) == 2 and not node.kwargs:
            self._pair(node, Product)
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

    def _module(self, node: fx.Node) -> None:
        module = self._called(node)
        if type(module) in self.by_module:
            self.by_module[type(module)](node)
            return
        if type(module) in MODULES:
            self._activation(node, MODULES[type(module)].of_module(module))
            return
        if moves(node, module):
            self._move(node, module)
            return
        advice = (
            "; leave it out, radii are absolute or follow the weights anyway" if "Norm" in str(type(module)) else ""
        )
        self._refuse(node, f"layer {node.target!r} ({type(module).__name__})", advice)

    def _called(self, node: fx.Node) -> Any:
        """The module that a node calls."""
        return self.modules[str(node.target)]

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

    def _pair(self, node: fx.Node, kind: type[Add | Product]) -> None:
        """A sum or product of two branches."""
        first, second = (self.position.get(source.name, 0) for source in _tensors(node))
        if not self.layers[first].size == self.layers[second].size == prod(_shape(node)):
            self._refuse(node, f"operation {node.name!r}", ", whose branches have unequal shapes")
            return
        self._append(node, kind(self._name(node), (first, second), _shape(node)))

    def _relu(self, node: fx.Node) -> None:
        self._append(node, Relu(self._name(node), (self._source(node),), _shape(node)))

    def _activation(self, node: fx.Node, made: tuple[str, tuple[float, ...]] | None) -> None:
        """An activation other than Relu, given what its arguments make."""
        if made is None:
            self._refuse(
                node, f"{node.name!r} ({node.target})", ", an activation with arguments that are not supported"
            )
        elif made[0] == "relu":
            self._relu(node)
        else:
            shape = _shape(node)
            parameters = tuple(np.full(prod(shape), number, dtype=np.float64) for number in made[1])
            self._append(node, Activation(self._name(node), (self._source(node),), shape, made[0], parameters))

    def _prelu(self, node: fx.Node) -> None:
        """A leaky Relu whose slopes are live."""
        weight, shape = self._called(node).weight, _shape(node)
        self.slopes[len(self.layers)] = weight
        slopes = float64(spread_slopes(weight, shape))
        self._append(node, Activation(self._name(node), (self._source(node),), shape, "leaky_relu", (slopes,)))

    def _view(self, node: fx.Node) -> None:
        """Flatten and the like leave no trace, if they leave the batch axis alone."""
        if "tensor_meta" in node.meta and hasattr(node.meta["tensor_meta"], "shape"):
            shape = node.meta["tensor_meta"].shape
            if len(shape) < 1 or shape[0] != 2:
                self.refusals.add(repr(node.name), ", which reshapes the batch axis")
        self.position[node.name] = self._source(node)

    def _move(self, node: fx.Node, module: nn.Module | None) -> None:
        """A Gather, or nothing where no number moves; what gives several tensors waits for those that are read."""
        part = node.target is operator.getitem and _tensors(node)[0].name in self.parts
        whole, read = (
            (_tensors(node)[0], self.parts[_tensors(node)[0].name]) if part else (node, tuple(node.all_input_nodes))
        )
        if any(not _is_tensor(source) for source in read):
            self._refuse(
                node, f"operation {node.name!r} ({node.target})", " of numbers that are computed; write them out"
            )
            return
        shapes = [_shape(source) for source in read]
        given = [dict(zip([source.name for source in read], values, strict=True)) for values in places(shapes)]
        near, far = (ran(whole, self._module_of(whole), values) for values in given)
        if part:
            near, far = near[node.args[1]], far[node.args[1]]
        if not isinstance(near, Tensor):
            self.parts[node.name], self.position[node.name] = read, self._position(read[0])
            return
        found = index_of(near, far, sum(map(prod, shapes)))
        if found is None:
            self.refusals.add(repr(node.name), ", which moves numbers along the batch axis")
            self.position[node.name] = self._position(read[0])
            return
        self._gather(node, read, *found)

    def _module_of(self, node: fx.Node) -> nn.Module | None:
        return self._called(node) if node.op == "call_module" else None

    def _position(self, node: fx.Node) -> int:
        return self.position.get(node.name, 0)

    def _gather(self, node: fx.Node, read: tuple[fx.Node, ...], index: Any, fill: Array) -> None:
        """The layer of these numbers of what is read, each layer once."""
        starts: dict[int, int] = {}  # where the numbers of a layer begin
        total, begin, own = 0, 0, np.full(len(index), -1)
        for source in read:
            layer, size = self._position(source), prod(_shape(source))
            if layer not in starts:
                starts[layer], total = total, total + size
            mine = (index >= begin) & (index < begin + size)
            own[mine] = index[mine] - begin + starts[layer]
            begin += size
        if len(starts) == 1 and np.array_equal(own, np.arange(total)):
            self.position[node.name] = next(iter(starts))
            return
        self._append(node, Gather(self._name(node), tuple(starts), _shape(node), index=own, fill=fill))

    def _dense(self, node: fx.Node) -> None:
        shape = _shape(node)
        if len(shape) != 1:
            self._refuse(node, f"layer {node.target!r}", ", a Linear over one of several axes; flatten before it")
            return
        numbers = self._live(self._called(node))
        self._append(node, Dense(self._name(node), (self._source(node),), shape, **numbers))

    def _conv(self, node: fx.Node) -> None:
        module: nn.Conv2d = self._called(node)
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            self._refuse(node, f"layer {node.target!r}", ": padding must be zeros, given as numbers")
            return
        in_shape = self._image(node)
        if in_shape is None:
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

    def _image(self, node: fx.Node) -> tuple[int, int, int] | None:
        """The shape of the images that a node reads; None, and refused, where they are none."""
        in_shape: Any = _shape(_tensors(node)[0])
        if len(in_shape) == 3:
            return in_shape  # type: ignore[no-any-return]
        self._refuse(node, f"layer {node.target!r}", " over images without channels; unflatten before it")
        return None

    def _live(self, module: nn.Linear | nn.Conv2d) -> dict[str, Any]:
        """Register the parameters of the layer appended next; its keyword arguments for them."""
        bias = module.bias
        self.parameters[len(self.layers)] = (module.weight, bias)
        zero = np.zeros(len(module.weight))
        return {
            "weight": float64(module.weight),
            "bias": zero if bias is None else float64(bias),
            "has_bias": bias is not None,
        }

    def _pool(self, node: fx.Node) -> None:
        module: nn.AvgPool2d = self._called(node)
        kernel, stride, pad = (_pair(v) for v in (module.kernel_size, module.stride, module.padding))
        if module.ceil_mode or module.divisor_override or (any(pad) and not module.count_include_pad):
            self._refuse(node, f"layer {node.target!r}", ": ceil_mode, divisor_override, count_include_pad=False")
            return
        in_shape = self._image(node)
        if in_shape is None:
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

    def _max_pool(self, node: fx.Node) -> None:
        module: nn.MaxPool2d = self._called(node)
        if module.ceil_mode or module.return_indices or _pair(module.dilation) != (1, 1):
            self._refuse(node, f"layer {node.target!r}", ": ceil_mode, return_indices, dilation")
            return
        in_shape = self._image(node)
        if in_shape is None:
            return
        kernel, stride, pad = (_pair(v) for v in (module.kernel_size, module.stride, module.padding))
        source, window = (self._source(node),), {"kernel": kernel, "strides": stride, "pads": pad * 2}
        self._append(node, MaxPool(self._name(node), source, _shape(node), in_shape=in_shape, **window))


def spread_slopes(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The slopes of a PReLU, one or one a channel, for every element (size,) of a sample of this shape."""
    return weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).reshape(-1)


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order."""
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node gives one tensor."""
    return hasattr(node.meta.get("tensor_meta"), "shape")


def _takes_size(node: fx.Node) -> bool:
    """`x.shape[0]` and the like, which pick a number out of a shape; not `x[...]` of values."""
    source = _tensors(node)[0] if _tensors(node) else None
    return node.target is operator.getitem and source is not None and "tensor_meta" not in source.meta


def _shape(node: fx.Node) -> Any:
    """Of one sample."""
    return tuple(node.meta["tensor_meta"].shape[1:])


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value)
