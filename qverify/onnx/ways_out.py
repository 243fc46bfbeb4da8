"""Ways out for operators that are not supported, where there is one."""

from __future__ import annotations

_ACTIVATION = "it is none of the activations that docs/onnx.md lists"
_JUMPS = "it jumps, and what is bounded here is continuous"
_STATISTICS = "use BatchNormalization, whose statistics are constants"
_ANSWER = "export the model without it: the outputs before it are what is compared"

_ACTIVATIONS = """
    FastGelu Mish QuickGelu Swish
"""
_NORMALISATIONS = """
    LRN LpNormalization MeanVarianceNormalization RMSNormalization
"""
OPTIMISED = "give the model as it was before onnxruntime optimised it"
_QUANTISED = "leave it out of quantisation, by nodes_to_exclude or op_types_to_quantize"

HINTS: dict[str, str] = {
    "Sum": "use Add",
    "DynamicQuantizeMatMul": OPTIMISED,
    "MatMulNBits": "its weights are in a packed form of onnxruntime; export them with DequantizeLinear and block_size",
    **dict.fromkeys(["QLinearReduceMean", "QLinearWhere"], _QUANTISED),
    **dict.fromkeys(["FusedConv", "FusedGemm", "FusedMatMul"], OPTIMISED),
    **dict.fromkeys(_ACTIVATIONS.split(), _ACTIVATION),
    **dict.fromkeys(["Shrink", "Sign", "ThresholdedRelu"], _JUMPS),
    **dict.fromkeys(_NORMALISATIONS.split(), _STATISTICS),
    **dict.fromkeys(["Hardmax", "TopK"], _ANSWER),
    **dict.fromkeys(["If", "Loop", "Scan"], "control flow must be unrolled at export"),
}
