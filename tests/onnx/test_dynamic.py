"""Dynamically quantised files: those of onnxruntime's quantiser, graphs written by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qverify.errors import ModelError, RadiiError, UnsupportedModel
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense, DynamicRounding
from qverify.onnx.reader import load
from qverify.onnx.writer import to_onnx
from qverify.replication.matching import match
from qverify.runtimes.integers import IntegerNetwork
from qverify.verification.cascade import verdicts
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status
from tests.support.commands import qverify
from tests.support.dynamic import FORMS, LEVELS, DynamicForm, DynamicRuntime, dynamic_file
from tests.support.onnx_models import node
from tests.support.quantised_graphs import IMAGE, K8, MS, W8, by_onnxruntime, f, graph, i8, qdq, u8
from tests.support.toolchain import dense

Array = np.ndarray


def point(source: str = "x", tag: str = "") -> onnx.NodeProto:
    """A DynamicQuantizeLinear with outputs q, s, z, each with `tag` behind it."""
    return helper.make_node("DynamicQuantizeLinear", [source], [f"{n}{tag}" for n in "qsz"], name=f"dynamic{tag}")


SUMS = node("MatMulInteger", "q w z wz", "i")
CAST = node("Cast", "i", "c", to=TensorProto.FLOAT)
STEPS = node("Mul", "s ws", "m")
SCALED = node("Mul", "c m", "y")
GIVEN: dict[str, Any] = {"w": W8, "ws": f(1 / 64), "wz": i8(3)}
PLAIN = (point(), SUMS, CAST, STEPS, SCALED)


def chain(*nodes: onnx.NodeProto, **changes: Any) -> onnx.ModelProto:
    return graph(*nodes, **GIVEN | changes)


def shared() -> onnx.ModelProto:
    """One DynamicQuantizeLinear read by two layers, the factors of Mul in either order, and their sum."""
    nodes = [point()]
    for k in (1, 2):
        nodes += [
            node("MatMulInteger", f"q w{k} z wz{k}", f"i{k}"),
            node("Cast", f"i{k}", f"c{k}", to=TensorProto.FLOAT),
            node("Mul", f"s ws{k}" if k == 1 else f"ws{k} s", f"m{k}"),
            node("Mul", f"c{k} m{k}" if k == 1 else f"m{k} c{k}", f"a{k}"),
        ]
    nodes.append(node("Add", "a1 a2", "y"))
    given: dict[str, Any] = {
        "w1": W8,
        "w2": W8[::-1].copy().view(np.uint8),
        "ws1": f(0.5),
        "ws2": f(1, 2, 4),
        "wz1": i8(-7),
    }
    return graph(*nodes, **given, wz2=u8(129))


def images() -> onnx.ModelProto:
    """Padding, strides and a bias of a channel."""
    return graph(
        point(),
        node("ConvInteger", "q w z wz", "i", pads=[1, 0, 1, 1], strides=[2, 1]),
        CAST,
        STEPS,
        node("Mul", "c m", "a"),
        node("Add", "a b", "y"),
        shape=IMAGE,
        rank=4,
        w=K8,
        ws=f(0.25),
        wz=i8(-2),
        b=np.array([1.0, -2.0, 3.0], np.float32).reshape(1, 3, 1, 1),
    )


GRAPHS = {"one layer": chain(*PLAIN), "shared": shared(), "images": images()}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_written_by_hand_agree_with_onnxruntime(name: str, rng: np.random.Generator) -> None:
    """Of any sign and spread, and all of it 0."""
    built = GRAPHS[name]
    network = load(built)
    size = network.input_size
    x = rng.normal(size=(60, size)) * 10 ** rng.uniform(-3, 3, (60, 1))
    x[:20], x[20:40] = abs(x[:20]), -abs(x[20:40])
    x[40], x[41], x[42, 0] = 0.0, 2.5, 1e5
    x = x.astype(np.float32)
    theirs, ours = by_onnxruntime(built, x), network.evaluate(x)
    step = (np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0)) / 255
    weights = sum(abs(layer.weight).max() for layer in network.layers if isinstance(layer, (Dense, Conv)))
    off = abs(ours - theirs).max(1) > 1e-5 * (1 + abs(theirs).max(1))
    assert (abs(ours - theirs).max(1) <= 1.01 * step * weights + 1e-5 * (1 + abs(theirs).max(1))).all()
    assert off.sum() <= 3  # ties
    bounds = Setup(network, Radii.of_file(network), Options()).intervals(x.astype(np.float64))
    assert (bounds.lower[-1].numpy() <= theirs).all() and (theirs <= bounds.upper[-1].numpy()).all()


def test_a_layer_is_that_of_the_numbers_and_its_weights_keep_their_grid() -> None:
    network = load(chain(*PLAIN))
    assert [type(layer) for layer in network.layers[1:]] == [DynamicRounding, Dense]
    layer: Any = network.layers[2]
    assert np.array_equal(layer.weight, (W8.T - 3.0) / 64) and (layer.grid == 1 / 64).all()
    assert network.dynamic == (1,) and network.rounds and network.layers[1].name == "dynamic"


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_the_quantiser(form: DynamicForm, rng: np.random.Generator) -> None:
    """Verified samples are answered right, and outputs lie within their bounds, however onnxruntime optimises."""
    sizes = [(rng.normal(size=(m, n)) / np.sqrt(n), 0.2 * rng.normal(size=m)) for n, m in ((20, 16), (16, 16), (16, 5))]
    file = dynamic_file(dense(sizes), form)
    network = load(file)
    assert len(network.dynamic) == 3
    x = rng.normal(size=(40, 20)).astype(np.float32)
    labels = network.evaluate(x).argmax(1)
    radii = Radii.of_file(network)
    sure = np.array([v.status is Status.VERIFIED for v in verdicts(network, x, labels, radii, Options())])
    assert sure.mean() > 0.8
    bounds = Setup(network, radii, Options()).intervals(x.astype(np.float64))
    low, high = bounds.lower[-1].numpy(), bounds.upper[-1].numpy()
    for level in LEVELS:
        answers, _ = DynamicRuntime(file, level, shown=False).run(x)
        assert (answers.argmax(1) == labels)[sure].all()
        assert (low <= answers).all() and (answers <= high).all()


BN = {"scale": f(1, 2, 3), "off": f(0, 1, 2), "mean": f(1, 1, 1), "var": f(1, 2, 1)}
REFUSALS: dict[str, tuple[onnx.ModelProto, str]] = {
    "integers as output": (chain(point(), node("Identity", "q", "y"), ends=(1, TensorProto.UINT8)), "end the model"),
    "sums as output": (chain(point(), SUMS, node("Identity", "i", "y"), ends=(1, TensorProto.INT32)), "end the model"),
    "no zero point": (
        chain(point(), node("MatMulInteger", "q w - wz", "i"), CAST, STEPS, SCALED),
        "without the zero point that goes with it",
    ),
    "another zero point": (
        chain(point(), point("x", "2"), node("MatMulInteger", "q w z2 wz", "i"), CAST, STEPS, SCALED),
        "without the zero point that goes with it",
    ),
    "another scale": (
        chain(point(), point("x", "2"), SUMS, CAST, node("Mul", "s2 ws", "m"), SCALED),
        "by a scale that does not belong to it",
    ),
    "two constants": (
        chain(point(), SUMS, CAST, STEPS, node("Mul", "m ws", "n"), node("Mul", "c n", "y")),
        "it multiplies a scale by a second constant",
    ),
    "a scale of 0": (chain(*PLAIN, ws=f(0.0)), "a scale must be positive, finite and no subnormal number"),
    "the step added": (chain(point(), SUMS, CAST, node("Add", "c s", "y")), "is the scale or zero point of a Dynamic"),
    "the step of steps": (chain(point(), SUMS, CAST, node("Mul", "s s", "m"), SCALED), "is the scale or zero point"),
    "a constant step": (chain(point(), SUMS, CAST, node("Mul", "c ws", "y")), "supported is what quantize_dynamic"),
    "integers added": (
        chain(
            point(),
            SUMS,
            node("Add", "i one", "j"),
            node("Cast", "j", "c", to=1),
            STEPS,
            SCALED,
            one=np.array([1], np.int32),
        ),
        "supported is what quantize_dynamic",
    ),
    "a bias before the step": (
        chain(point(), SUMS, CAST, node("Add", "c ws", "d"), STEPS, node("Mul", "d m", "y")),
        "supported is what quantize_dynamic",
    ),
    "numbers of the integers": (
        chain(point(), node("DequantizeLinear", "q s z", "y")),
        "supported is what quantize_dynamic",
    ),
    "fixed steps too": (
        chain(*qdq("q0", "x", "x0", "one", "zero"), point("x0"), *PLAIN[1:], one=f(0.5), zero=u8(3)),
        "fixed steps beside dynamic ones",
    ),
    "statistics": (
        chain(*PLAIN[:-1], node("Mul", "c m", "n"), node("BatchNormalization", "n scale off mean var", "y"), **BN),
        "by quant_pre_process of onnxruntime.quantization",
    ),
    "optimised": (
        graph(node("DynamicQuantizeMatMul", "x w ws", "y", domain=MS), **GIVEN),
        "give the model as it was before onnxruntime optimised it",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_supported_is_one_sentence(name: str) -> None:
    built, said = REFUSALS[name]
    with pytest.raises(UnsupportedModel) as caught:
        load(built)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_no_two_nodes_become_one_scale() -> None:
    """What float32 gets wrong in each would be hidden behind sums that cancel."""
    twice = [node("Mul", "c m", "a"), node("Mul", "a big", "b"), node("Add", "b up", "d"), node("Sub", "d up", "y")]
    built = chain(*PLAIN[:-1], *twice, big=f(3.0), up=f(1e6))
    network = load(built)
    x = np.array([[1.0, -2.0, 0.5, 0.25]])
    bounds = Setup(network, Radii.of_file(network), Options()).intervals(x)
    answers = by_onnxruntime(built, x.astype(np.float32))
    assert (bounds.lower[-1].numpy() <= answers).all() and (answers <= bounds.upper[-1].numpy()).all()
    assert float((bounds.upper[-1] - bounds.lower[-1]).max()) > 0.05


def test_what_needs_fixed_steps_says_so(tmp_path: Any) -> None:
    network = load(chain(*PLAIN))
    for ask, kind in (
        (lambda: IntegerNetwork.of(network), UnsupportedModel),
        (lambda: match(load(graph(node("MatMul", "x w", "y"), w=W8.astype(np.float32))), network), ModelError),
        (lambda: Radii.from_bits(8, network=network), RadiiError),
        (lambda: to_onnx(network), ModelError),
    ):
        with pytest.raises(kind):
            ask()
    onnx.save(chain(*PLAIN), tmp_path / "d.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((2, 4), np.float32), y=np.array([0, 1]))
    for command in ("compare", "covers"):
        said = qverify(command, tmp_path / "d.onnx", tmp_path / "d.onnx", "--data", tmp_path / "d.npz")
        assert said.exit_code == 2 and "is quantised; give the float network first" in said.stderr
    said = qverify("runtimes", tmp_path / "d.onnx", "--data", tmp_path / "d.npz")
    assert said.exit_code == 2 and "it is quantised dynamically" in said.stderr
    said = qverify("verify", tmp_path / "d.onnx", "--data", tmp_path / "d.npz", "--rounding", "double")
    assert said.exit_code == 2 and "state nearest or float32" in said.stderr
    said = qverify("verify", tmp_path / "d.onnx", "--data", tmp_path / "d.npz", "--out", tmp_path / "run")
    assert said.exit_code == 0 and "every runtime of the dynamic file by rule float32" in said.stdout
    said = qverify("inspect", tmp_path / "d.onnx")
    assert said.exit_code == 0 and "DynamicRounding" in said.stdout
