"""What LiteRT's kernels really compute lies in the sets that the rules stand for: single operators, and MLPerf Tiny."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qverify
from qverify.network import Network
from qverify.runtimes.decide import RuntimeOptions, same_on_runtimes
from tests.support.tflite_models import NONE, RELU, VALID, WINDOW, Graph, mlperf, stored

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra tflite")
RULES = ("float32", "single", "double")
KERNELS = ("BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "AUTO")
"""Reference kernels, ruy's, and XNNPACK's."""


class Runtime:
    """A file in some of LiteRT's kernels, on real samples that lie channels first; integers out."""

    def __init__(self, content: bytes, kernels: str):
        resolver = getattr(litert.OpResolverType, kernels)
        self.interpreter = litert.Interpreter(
            model_content=content, experimental_op_resolver_type=resolver, num_threads=1
        )
        self.interpreter.allocate_tensors()
        self.given, self.made = self.interpreter.get_input_details()[0], self.interpreter.get_output_details()[0]

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        """The output (n_out,) of a sample, channels first, less its zero point."""
        scale, zero = self.given["quantization"]
        limits = np.iinfo(self.given["dtype"])
        whole = np.clip(np.rint(sample / scale) + zero, limits.min, limits.max)
        whole = whole.transpose(1, 2, 0) if whole.ndim == 3 else whole
        self.interpreter.set_tensor(self.given["index"], whole.reshape(self.given["shape"]).astype(self.given["dtype"]))
        self.interpreter.invoke()
        found = self.interpreter.get_tensor(self.made["index"]).astype(np.int64) - self.made["quantization"][1]
        return np.asarray((found[0].transpose(2, 0, 1) if found.ndim == 4 else found).ravel())


def weights(graph: Graph, rng: np.random.Generator, shape: tuple[int, ...], axis: int, channels: int) -> list[int]:
    """Tensors of weights and biases, with a step a channel, or one step."""
    steps = rng.uniform(0.002, 0.01, channels).astype(np.float32)
    weight = graph.constant("INT8", rng.integers(-127, 128, shape), steps, 0, axis)
    bias = rng.integers(-3000, 3000, shape[axis])
    return [weight, graph.constant("INT32", bias, np.float32(0.05) * steps, 0, 0)]


def convolution(rng: np.random.Generator, activation: int) -> Graph:
    graph = Graph("INT8", (1, 6, 6, 3), 0.05, 3)
    inputs = [graph.given, *weights(graph, rng, (8, 3, 3, 3), 0, 8)]
    output = graph.tensor("INT8", (1, 6, 6, 8), 0.06, -5)
    graph.add("CONV_2D", inputs, output, **WINDOW | {"strideW": 1, "fusedActivationFunction": activation})
    return graph


def depthwise(rng: np.random.Generator, activation: int) -> Graph:
    graph = Graph("INT8", (1, 6, 6, 8), 0.05, -7)
    inputs = [graph.given, *weights(graph, rng, (1, 3, 3, 8), 3, 8)]
    output = graph.tensor("INT8", (1, 6, 6, 8), 0.04, 10)
    how = WINDOW | {"depthMultiplier": 1, "fusedActivationFunction": activation}
    graph.add("DEPTHWISE_CONV_2D", inputs, output, **how)
    return graph


def dense(rng: np.random.Generator, activation: int) -> Graph:
    graph = Graph("INT8", (1, 40), 0.05, 4)
    inputs = [graph.given, *weights(graph, rng, (60, 40), 0, 1)]
    output = graph.tensor("INT8", (1, 60), 0.05, 9)
    graph.add("FULLY_CONNECTED", inputs, output, fusedActivationFunction=activation)
    return graph


def pooling(rng: np.random.Generator, activation: int) -> Graph:
    graph = Graph("INT8", (1, 6, 6, 16), 0.05, -3)
    how = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": VALID}
    how |= {"fusedActivationFunction": activation}
    graph.add("AVERAGE_POOL_2D", [graph.given], graph.tensor("INT8", (1, 3, 3, 16), 0.05, -3), **how)
    return graph


def mean(rng: np.random.Generator, activation: int) -> Graph:
    graph = Graph("INT8", (1, 6, 6, 16), 0.05, -3)
    axes = graph.constant("INT32", np.array([1, 2]))
    scale, zero = ((0.05, -3), (0.011, 6))[activation]
    graph.add("MEAN", [graph.given, axes], graph.tensor("INT8", (1, 16), scale, zero), keepDims=False)
    return graph


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", [NONE, RELU])
@pytest.mark.parametrize("build", [convolution, depthwise, dense, pooling, mean])
def test_single_operators(build: Callable[..., Graph], activation: int, kernels: str, tmp_path: Path) -> None:
    """The ranges of all rules hold every kernel; those of float32 alone hold XNNPACK's."""
    rng = np.random.default_rng(0)
    content = build(rng, activation).content()
    network, runtime = qverify.load(stored(content, tmp_path)), Runtime(content, kernels)
    samples = rng.uniform(-6, 6, (60, *network.input_shape))
    step = network.layers[-1].step[0]  # type: ignore[attr-defined]
    answers = same_on_runtimes(network, samples, RuntimeOptions(seconds=0.001, jobs=1))
    only = same_on_runtimes(network, samples, RuntimeOptions(rules=("float32",), seconds=0.001, jobs=1))
    moved = 0
    for sample, answer, one in zip(samples, answers, only, strict=True):
        theirs = runtime(sample)
        assert (np.rint(answer.lower / step) <= theirs).all() and (theirs <= np.rint(answer.upper / step)).all()
        if kernels == "AUTO" and build not in (pooling, mean):  # XNNPACK leaves these to others
            assert (np.rint(one.lower / step) <= theirs).all() and (theirs <= np.rint(one.upper / step)).all()
        moved += int((answer.lower < answer.upper).sum())
    assert moved < 0.3 * len(samples) * network.output_size


def sum_of_all_pairs(steps: tuple[float, float, float], zeros: tuple[int, int, int], activation: int) -> Graph:
    """Two channels, brought to their steps by a product with 1, and added."""
    first, second, output = map(np.float32, steps)
    graph = Graph("INT8", (1, 256, 256, 2), float(first), 0)
    branches = []
    for channel, (step, zero) in enumerate(((first, zeros[0]), (second, zeros[1]))):
        weight = np.zeros((1, 1, 1, 2), np.int64)
        weight[..., channel] = 1
        inputs = [graph.given, graph.constant("INT8", weight, [step / first], 0, 0)]
        inputs.append(graph.constant("INT32", np.array([-zero]), [step], 0, 0))
        branches.append(graph.add("CONV_2D", inputs, graph.tensor("INT8", (1, 256, 256, 1), step, zero), **WINDOW))
    made = graph.tensor("INT8", (1, 256, 256, 1), output, zeros[2])
    graph.add("ADD", branches, made, fusedActivationFunction=activation)
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", [NONE, RELU])
@pytest.mark.parametrize("seed", range(4))
def test_sums_of_all_pairs(seed: int, activation: int, kernels: str, tmp_path: Path) -> None:
    """All 65536 sums, whatever the kernels; XNNPACK's lie in the narrower set of float32."""
    rng = np.random.default_rng(seed)
    first, second, output = rng.uniform(0.02, 0.2, 3)
    zeros = tuple(int(zero) for zero in rng.integers(-60, 60, 3))
    content = sum_of_all_pairs((first, second, output), zeros, activation).content()  # type: ignore[arg-type]
    network, runtime = qverify.load(stored(content, tmp_path)), Runtime(content, kernels)
    pairs = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))) * network.layers[1].step[0]  # type: ignore[attr-defined]
    theirs, step = runtime(pairs), network.layers[-1].step[0]  # type: ignore[attr-defined]
    assert len(np.unique(theirs)) > 50
    for rules in (RULES, *[("float32",)] * (kernels == "AUTO")):
        (answer,) = same_on_runtimes(network, pairs[None], RuntimeOptions(rules=rules, seconds=0.001, jobs=1))
        low, high = np.rint(answer.lower / step), np.rint(answer.upper / step)
        assert (low <= theirs).all() and (theirs <= high).all()
        assert (low < high).mean() < 0.01


# --- MLPerf Tiny ---

FILES = {
    "kws": ("kws_ref_model.tflite", "kws01_1000.npz"),
    "ic": ("pretrainedResnet_quant.tflite", "ic_1000_0_255.npz"),
}


def read(name: str, count: int) -> tuple[Network, np.ndarray, bytes]:
    model, data = (mlperf(file) for file in FILES[name])
    return qverify.load(model), np.load(data)["x_test"][:count], model.read_bytes()


def classes(content: bytes, samples: np.ndarray, kernels: str) -> list[int]:
    runtime = Runtime(content, kernels)
    return [int(runtime(sample).argmax()) for sample in samples]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rules", "count", "least", "covered"),
    [
        ("kws", ("float32", "single"), 1000, 0.985, ("AUTO",)),
        ("kws", ("float32", "single", "double"), 400, 0.95, KERNELS),
        ("ic", ("float32",), 400, 0.95, ("AUTO",)),
        ("ic", ("float32", "single", "double"), 24, 0.8, KERNELS),
    ],
)
def test_mlperf_tiny(name: str, rules: tuple[str, ...], count: int, least: float, covered: tuple[str, ...]) -> None:
    """As many are proved as were asked for, and no sample on which a covered kernel answers otherwise."""
    network, samples, content = read(name, count)
    answers = same_on_runtimes(network, samples, RuntimeOptions(rules=rules, seconds=20.0))
    theirs = [classes(content, samples, kernels) for kernels in covered]
    for answer in answers:
        if answer.status == "same":
            assert all(found[answer.index] == answer.predicted for found in theirs)
    statuses = Counter(answer.status for answer in answers)
    assert statuses["same"] >= least * count
    apart = {i for i in range(count) if len({found[i] for found in theirs}) > 1}
    assert all(answers[i].status != "same" for i in apart)


@pytest.mark.slow
def test_outputs_of_kernels_lie_in_the_exact_ranges() -> None:
    """The logits of reference kernels and of ruy; some ends are reached."""
    network, samples, content = read("kws", 12)
    step = network.layers[-1].step[0]  # type: ignore[attr-defined]
    answers = same_on_runtimes(network, samples, RuntimeOptions(seconds=60.0, ranges=True))
    assert all((a.lower == a.attained_lower).all() and (a.upper == a.attained_upper).all() for a in answers)
    for kernels in KERNELS[:2]:
        runtime: Any = Runtime(content, kernels)
        last = runtime.interpreter._get_ops_details()[-1]
        resolver = getattr(litert.OpResolverType, kernels)
        runtime.interpreter = litert.Interpreter(
            model_content=content, experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True
        )
        runtime.interpreter.allocate_tensors()
        details = runtime.interpreter.get_tensor_details()
        runtime.made = next(one for one in details if one["index"] == last["inputs"][0])
        for sample, answer in zip(samples, answers, strict=True):
            theirs = runtime(sample) * step
            assert (answer.lower <= theirs + 1e-9).all() and (theirs - 1e-9 <= answer.upper).all()
