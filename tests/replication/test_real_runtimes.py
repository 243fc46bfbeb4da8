"""What real runtimes answer lies within the gaps that are proved for their rule: onnxruntime, and kernels of LiteRT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import datasets
from qverify.loading import load
from qverify.replication.gaps import Gaps
from qverify.replication.matching import match
from tests.support.marks import mostly_slow
from tests.support.paths import DIGITS, MODELS
from tests.support.quantised import onnxruntime_file
from tests.support.sessions import ALL, NONE, exact_session

TINY = Path(os.environ.get("QVERIFY_DATA", "")) / "mlperf_tiny"


@pytest.mark.parametrize(
    ("qdq", "optimised"), mostly_slow([(True, True), (True, False), (False, True), (False, False)], several=True)
)
def test_onnxruntime_is_within_what_is_proved(qdq: bool, optimised: bool, tmp_path: Path) -> None:
    """Operators on integers, and QDQ, fused or computed in float32."""
    samples = datasets.load("digits")
    for model in (DIGITS, str(MODELS / "digits_normal.onnx")):
        onnxruntime_file(model, samples.x[:300], tmp_path / "file.onnx", qdq)
        session = exact_session(onnx.load(tmp_path / "file.onnx"), ALL if optimised else NONE)
        (entry,) = session.get_inputs()
        network = load(model)
        found = Gaps(match(network, load(str(tmp_path / "file.onnx"))), "float32")
        shape = [1, *entry.shape[1:]]
        for index, x in enumerate(samples.x[:60].astype(np.float32)):
            given = session.run(None, {entry.name: x.reshape(shape)})[0].ravel().astype(np.float64)
            flat = x.astype(np.float64).ravel()
            gap, met = found.at(index, flat), given - network.evaluate(flat[None])[0]
            assert (met >= gap.lower - 1e-6).all() and (met <= gap.upper + 1e-6).all()


def lite(path: Path, x: Any, kernels: str) -> Any:
    """Outputs (N, n_out) of LiteRT on an int8 file without a softmax, with the named kernels."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    resolver = interpreter.OpResolverType[kernels]
    runtime = interpreter.Interpreter(str(path), experimental_op_resolver_type=resolver)
    runtime.allocate_tensors()
    (entry,), (out,) = runtime.get_input_details(), runtime.get_output_details()
    step, zero = entry["quantization"]
    found = []
    for sample in x:
        integers = np.clip(np.rint(sample.astype(np.float32) / np.float32(step)) + zero, -128, 127)
        runtime.set_tensor(entry["index"], integers.astype(np.int8).reshape(entry["shape"]))
        runtime.invoke()
        values = runtime.get_tensor(out["index"])[0].astype(np.float64)
        found.append((values - out["quantization"][1]) * out["quantization"][0])
    return np.array(found)


@pytest.mark.slow
@pytest.mark.skipif(not (TINY / "ad01_int8.tflite").exists(), reason="MLPerf Tiny's files are not there")
def test_kernels_of_litert_are_within_their_rules_and_beyond_others() -> None:
    """XNNPACK rounds by a float32 multiplier; the kernels without it round twice, which float32 does not stand for."""
    network, file = load(TINY / "ad01_fp32.onnx"), load(TINY / "ad01_int8.tflite")
    x = datasets.load(str(TINY / "ad_196.npz")).x[:30].reshape(30, -1)
    nominal = network.evaluate(x)
    outside = {}
    for kernels, rule in (
        ("AUTO", "float32"),
        ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "double"),
        ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "float32"),
    ):
        met = lite(TINY / "ad01_int8.tflite", x, kernels) - nominal
        found = Gaps(match(network, file), rule)
        gaps = [found.at(i, sample) for i, sample in enumerate(x)]
        beyond = [(m < g.lower - 1e-6).any() or (m > g.upper + 1e-6).any() for m, g in zip(met, gaps, strict=True)]
        outside[kernels, rule] = sum(beyond)
    assert list(outside.values())[:2] == [0, 0] and list(outside.values())[2] > 10
