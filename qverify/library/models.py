"""A model in whatever form a program has it: a path, an ONNX model, a torch module, or a network already."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from qverify import loading
from qverify.errors import ModelError, UsageError
from qverify.kinds import described, whole_numbers
from qverify.network import Network

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import onnx
    import torch


def load(
    source: str | os.PathLike[str] | onnx.ModelProto | torch.nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    output: str | None = None,
) -> Network:
    """Read an ONNX or TFLite file, by its content, an ONNX model in memory, or a torch module, as a `Network`.

    `output`: the name of one of several outputs of an ONNX model. A module needs the shape of one sample,
    `input_shape`, such as (1, 28, 28); its numbers are those of the moment, in float64, and later training does not
    change the network. Guarantees and errors of files are those of `qverify.onnx.load` and `qverify.tflite.load`, those
    of modules of `training.live_network.LiveNetwork.trace`: what was read is compared with onnxruntime, or with the
    module itself. Raises ModelError, and UsageError for a module without a shape, or a shape with a file.
    """
    if not is_module(source):
        if input_shape is not None:
            raise UsageError("input_shape is for torch modules; a file says itself what it reads, so leave it out.")
        return loading.load(source, output)  # type: ignore[arg-type]
    if output is not None:
        raise UsageError("output is for ONNX models with several; a torch module gives one, so leave it out.")
    if input_shape is None:
        raise UsageError(
            "A torch module does not say what it reads; give input_shape, that of one sample, as in"
            " qverify.load(module, (1, 28, 28))."
        )
    if not isinstance(input_shape, (tuple, list)):
        raise UsageError(f"input_shape is {described(input_shape)}; give a tuple such as (1, 28, 28).")
    whole_numbers(input_shape, "input_shape", ModelError)
    from qverify.training.live_network import LiveNetwork

    return LiveNetwork.trace(source, tuple(input_shape), type(source).__name__).frozen()  # type: ignore[arg-type]


def network_of(model: Any, shape: tuple[int, ...], output: str | None = None) -> Network:
    """The network of a model in any form, for samples of this shape. Raises ModelError, UsageError."""
    if isinstance(model, Network):
        if output is not None:
            raise UsageError("output is for ONNX models with several; a Network has one, so leave it out.")
        return model
    return load(model, shape if is_module(model) else None, output=output)


def is_module(source: object) -> bool:
    """Whether this is a torch module; no torch is loaded to see that it is none."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)
