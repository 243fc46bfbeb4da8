"""Functions and products in files of integers: what LiteRT and onnxruntime give is in the sets of the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qverify
from qverify.activations.layer import Activation
from qverify.errors import UnsupportedModel
from qverify.layers import Input, Product, Rounding
from qverify.network import Network
from qverify.runtimes.decide import RuntimeOptions, same_on_runtimes
from qverify.runtimes.engine import Engine
from qverify.runtimes.integers import IntegerNetwork, Kind
from qverify.tflite import load, runtime
from tests.support.gated_models import dense, gated
from tests.support.tflite_functions import FUNCTIONS, content, made, outputs
from tests.support.tflite_functions import gated as gated_file
from tests.support.tflite_models import LiteRT, stored
from tests.support.toolchain import Form, quantised
from tests.support.toolchain import outputs as by_onnxruntime

Rng = np.random.Generator
RULES = ("float32", "single", "double")


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "answers", runtime._run)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_integers_through_one_function(tmp_path: Path, rng: Rng, name: str) -> None:
    for _ in range(6):
        case = made(name, "INT8", rng)
        network = load(stored(content(name, case), tmp_path))
        integers = IntegerNetwork.of(network)
        (stage,) = integers.stages
        assert stage.kind is Kind.FUNCTION
        x = torch.tensor(integers.integers(case.numbers[None]), dtype=torch.float32)
        open_ = []
        for resolver, rule in (("AUTO", "float32"), ("BUILTIN_REF", "double")):
            engine = Engine(integers, (rule,))
            low, high = engine.union(1, *2 * [engine.accumulators(1, {0: x})])
            found = outputs(name, case, resolver) - case.out_zero
            assert (low[0].numpy() <= found).all() and (found <= high[0].numpy()).all()
            open_.append(float((low < high).double().mean()))
        assert min(open_) < 0.6


@pytest.mark.parametrize("name", FUNCTIONS)
def test_intervals_hold_all_that_lies_between(tmp_path: Path, rng: Rng, name: str) -> None:
    case = made(name, "INT8", rng)
    engine = Engine(IntegerNetwork.of(load(stored(content(name, case), tmp_path))), RULES)
    low = rng.integers(case.low - case.zero, case.high - case.zero + 1, (300, 256))
    high = np.minimum(low + rng.integers(0, 60, low.shape), case.high - case.zero)
    ends = {0: torch.tensor(low, dtype=torch.float32)}, {0: torch.tensor(high, dtype=torch.float32)}
    least, most = engine.union(1, *engine._interval(1, *ends))
    for _ in range(30):
        x = torch.tensor(rng.integers(low, high + 1), dtype=torch.float32)
        inner = engine.union(1, *2 * [engine.accumulators(1, {0: x})])
        assert (inner[0] >= least).all() and (inner[1] <= most).all()


def test_products_and_their_intervals(rng: Rng) -> None:
    layers = (
        Input("x", (), (50,)),
        Rounding.on_grid("q", 0, (50,), 0.03, (-100, 155)),
        Activation("f", (1,), (50,), "tanh"),
        Rounding.on_grid("r", 2, (50,), 1 / 128, (-128, 127), kernel=True),
        Product("xy", (1, 3), (50,)),
        Rounding.on_grid("y", 4, (50,), 0.02, (-90, 165), kernel=True),
    )
    engine = Engine(IntegerNetwork.of(Network(layers, "file")), RULES)
    assert [stage.kind for stage in engine.stages] == [Kind.FUNCTION, Kind.PRODUCT]
    low = torch.tensor(rng.integers(-100, 100, (200, 50)), dtype=torch.float32)
    other = torch.tensor(rng.integers(-128, 60, (200, 50)), dtype=torch.float32)
    least, most = engine.union(2, *engine._interval(2, {0: low, 1: other}, {0: low + 50, 1: other + 60}))
    for _ in range(50):
        a, b = low + torch.randint(0, 51, low.shape), other + torch.randint(0, 61, low.shape)
        value = (a.double() * 0.03 * b.double() / 128 / 0.02).numpy()
        for found in (np.floor(value + 0.5), np.ceil(value - 0.5)):
            found = np.clip(found, -90, 165)
            assert (found >= least.numpy()).all() and (found <= most.numpy()).all()
    assert float((most - least).mean()) < 140


def answered(network: Network, x: Any, **more: Any) -> Any:
    return same_on_runtimes(network, x, RuntimeOptions(seconds=0.3, jobs=1, **more))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kernels_of_litert_answer_as_is_proved(tmp_path: Path, rng: Rng, function: str) -> None:
    graph = gated_file(rng, function, constants=function in ("tanh", "gelu"))
    network = load(stored(graph.content(), tmp_path))
    x = rng.normal(size=(40, *network.input_shape))
    answers = answered(network, x)
    for reference in (False, True):
        litert = LiteRT(graph.content(), reference)
        theirs = litert.run(x, litert.logits())
        for answer, found in zip(answers, theirs, strict=True):
            assert (answer.lower - 1e-6 <= found).all() and (found <= answer.upper + 1e-6).all()
            assert answer.status != "same" or int(found.argmax()) == answer.predicted
    assert sum(answer.status == "same" for answer in answers) > 10


@pytest.mark.parametrize("form", [Form(), Form("QOperator")], ids=str)
@pytest.mark.parametrize("name", ["Sigmoid", "LeakyRelu", "HardSwish"])
def test_onnxruntime_answers_as_is_proved(name: str, form: Form, rng: Rng) -> None:
    built = gated(rng, name) if form.format == "QDQ" else dense(rng, ["Sigmoid", "LeakyRelu"])
    built.opset_import[0].version = 17
    x = rng.normal(size=(60, *(d.dim_value for d in built.graph.input[0].type.tensor_type.shape.dim[1:])))
    x = np.asarray(x, dtype=np.float32).astype(np.float64)
    file = quantised(built, x[:30], form)
    answers = answered(qverify.load(file), x[30:], rules=("float32",))
    for optimised in (True, False):
        theirs = by_onnxruntime(file, x[30:], optimised)
        for answer, found in zip(answers, theirs, strict=True):
            slack = 1e-5 * abs(found).max()  # of dequantising in float32
            assert (answer.lower - slack <= found).all() and (found <= answer.upper + slack).all()
            assert answer.status != "same" or int(found.argmax()) == answer.predicted
    assert sum(answer.status == "same" for answer in answers) > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_files_of_tflite(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test_kernels_of_litert_answer_as_is_proved(tmp_path, rng, str(rng.choice(FUNCTIONS)))


def test_a_function_of_what_is_no_integer_is_refused() -> None:
    layers = (
        Input("x", (), (2,)),
        Rounding.on_grid("q", 0, (2,), 0.03, (-100, 155)),
        Activation("f", (1,), (2,), "tanh"),
        Activation("g", (2,), (2,), "sigmoid"),
        Rounding.on_grid("y", 3, (2,), 1 / 128, (-128, 127)),
    )
    with pytest.raises(UnsupportedModel, match="layer 'g' reads 'f', which is not quantised"):
        IntegerNetwork.of(Network(layers, "file"))
    wide = (layers[0], Rounding.on_grid("q", 0, (2,), 0.03, (-30000, 30000)), layers[2])
    with pytest.raises(UnsupportedModel, match="'f' computes with integers of more than 8 bits"):
        IntegerNetwork.of(Network((*wide, Rounding.on_grid("y", 2, (2,), 1 / 128, (-128, 127))), "file"))
