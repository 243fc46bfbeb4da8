"""Sessions of onnxruntime: on the CPU, by one thread, and silent; failures come as exceptions."""

from __future__ import annotations

import functools
from typing import Any


def open_session(content: bytes, optimised: bool = True) -> Any:
    """An InferenceSession of a serialised model, perhaps with its nodes as they stand. Raises one of `errors()`."""
    import onnxruntime as ort  # takes a second to import

    options = ort.SessionOptions()
    options.log_severity_level = 4  # it would print what is raised anyway
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@functools.cache
def errors() -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime, which share no base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
