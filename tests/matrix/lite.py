"""The int8 files of MLPerf Tiny in LiteRT's kernels: reference, built in, XNNPACK; every tensor they give, as integers.

Each has rules of rounding that cover it: those that its sources state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import qverify
from qverify.choices import Rounding as FileRounding
from qverify.family.radii import Radii
from qverify.layers import Rounding
from qverify.network import Network
from tests.matrix.judge import Clock, Tally, stated
from tests.matrix.networks import tiny_folder

Array = np.ndarray
FILES = {
    "kws_ref_model.tflite": "kws01_1000.npz",
    "pretrainedResnet_quant.tflite": "ic_1000_0_255.npz",
    "ad01_int8.tflite": "ad_196.npz",
}
COVERED = {"reference": ("double",), "built in": ("double",), "XNNPACK": ("float32", "double")}
"""By kernels the rules under which what is stated must hold for them."""
RULES: tuple[FileRounding, ...] = ("float32", "double")
_AT_ONCE = 20
_VIEWS = ("RESHAPE", "SOFTMAX", "DELEGATE")


class Lite:
    """A file in one set of kernels, without a SOFTMAX at its end, and with everything it computes as outputs."""

    def __init__(self, content: bytes, kernels: str) -> None:
        from ai_edge_litert import interpreter as litert

        resolvers = litert.OpResolverType
        which = {
            "reference": resolvers.BUILTIN_REF,
            "built in": resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "XNNPACK": resolvers.AUTO,
        }
        shown = _showing(content)
        self.interpreter = litert.Interpreter(
            model_content=shown, experimental_op_resolver_type=which[kernels], num_threads=1
        )
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.outputs = self.interpreter.get_output_details()

    def run(self, sample: Array) -> list[Array]:
        """(*sample) -> each tensor, (size,) in real numbers, images channels first."""
        scale, zero = self.input["quantization"]
        given = sample.astype(np.float64).transpose(1, 2, 0) if sample.ndim == 3 else sample.astype(np.float64)
        limits = np.iinfo(self.input["dtype"])
        integers = np.clip(np.rint(given / scale) + zero, limits.min, limits.max)
        self.interpreter.set_tensor(self.input["index"], integers.reshape(self.input["shape"]).astype(limits.dtype))
        self.interpreter.invoke()
        return [self._real(details) for details in self.outputs]

    def _real(self, details: Any) -> Array:
        scale, zero = details["quantization"]
        found = (self.interpreter.get_tensor(details["index"]).astype(np.float64) - zero) * scale
        return np.asarray((found[0].transpose(2, 0, 1) if found.ndim == 4 else found).reshape(-1))


def _showing(content: bytes) -> bytes:
    """The file with the outputs of all its operators as outputs, in their order, a SOFTMAX at the end dropped."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}

    def kind(operator: Any) -> str:
        code = model.operatorCodes[operator.opcodeIndex]
        return str(kinds[max(code.builtinCode, code.deprecatedBuiltinCode)])

    if kind(graph.operators[-1]) == "SOFTMAX":
        graph.operators = graph.operators[:-1]
    graph.outputs = [operator.outputs[0] for operator in graph.operators if kind(operator) not in _VIEWS]
    model.signatureDefs = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_file(tally: Tally, name: str, count: int, first: int = 0) -> None:
    """A file of FILES on some of its official samples, by every set of kernels and every rule that covers it."""
    path, key = tiny_folder() / name, name.removesuffix(".tflite")
    x = np.load(tiny_folder() / FILES[name])["x_test"][first : first + count]
    tally.files[key] += 1
    network, kernels = qverify.load(path), {name: Lite(path.read_bytes(), name) for name in COVERED}
    for start in range(0, len(x), _AT_ONCE):
        some = x[start : start + _AT_ONCE]
        given = {name: _run(lite, some) for name, lite in kernels.items()}
        tally.inferences[key] += len(some) * len(given)
        for rule in RULES:
            with Clock(tally, f"{key}, {rule}"):
                _judge(tally, f"{key}, {rule}", network, rule, some, given)


def _run(lite: Lite, x: Array) -> list[Array]:
    rows = [lite.run(sample) for sample in x]
    return [np.array(tensor) for tensor in zip(*rows, strict=True)]


def _judge(
    tally: Tally, key: str, network: Network, rule: FileRounding, x: Array, given: dict[str, list[Array]]
) -> None:
    own = stated(network, Radii.of_file(network, rule), x)
    classes = network.output_size < 100  # else the numbers of an autoencoder
    tally.asked[key] += classes * len(own.sure)
    tally.verified[key] += classes * int(own.sure.sum())
    layers = own.setup.family.network.layers
    points = [i for i, layer in enumerate(layers) if isinstance(layer, Rounding) and layer.inputs != (0,)]
    for kernels, tensors in given.items():
        if rule not in COVERED[kernels]:
            continue
        assert [layers[i].size for i in points] == [tensor.shape[1] for tensor in tensors]
        for i, values in zip(points, tensors, strict=True):
            for method, ends in own.ends(i).items():
                tally.judge_bounds(key, f"{key}, {kernels}, {method} at {layers[i].name}", ends, values)
        if classes:
            tally.judge_verdicts(key, f"{key}, {kernels}", own.sure, own.labels, tensors[-1])
