"""The trace of a module by torch.fx, with the shape of every value; `tracing.py` reads it."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from qverify.errors import ModelError, UnsupportedModel
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    from qverify.arrays import Array


def float64(tensor: Tensor) -> Array:
    """A copy of the numbers of a tensor, on whatever device it is."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)


def traced(module: nn.Module, input_shape: tuple[int, ...], source: str) -> fx.GraphModule:
    """The trace of a module, with the shape of every value for a batch of 2 samples.

    Raises UnsupportedModel where it cannot be traced or has a second input, ModelError where it does not run.
    """
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
