"""Sessions of onnxruntime whose integer kernels add exactly on every processor.

Without dot-product instructions, kernels of uint8 and int8 add neighbouring products in saturating 16 bits, so a test
that compares with them would hold on some machines only. Two ways around, for nodes that are fused and nodes as they
stand: onnxruntime's own option, and weights of uint8 (`qverify.onnx.unsigned`).
"""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime as ort

from qverify.onnx.unsigned import with_unsigned_weights

ALL, NONE = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def exact_session(model: onnx.ModelProto, level: Any = ALL) -> ort.InferenceSession:
    """A session of a model, by one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    if not any(node.op_type.startswith(("QLinear", "QGemm")) for node in model.graph.node):
        options.add_session_config_entry("session.x64quantprecision", "1")  # fails on these where activations are int8
    content = with_unsigned_weights(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
