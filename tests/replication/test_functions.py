"""Activations other than Relu and products beside their files: lines, gaps and membership, against drawn runtimes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import qverify
from qverify.activations.functions import FUNCTIONS
from qverify.activations.layer import Activation
from qverify.errors import ModelError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.layers import Dense, Input, Layer, Product, Rounding
from qverify.network import Network
from qverify.replication.coverage import coverage
from qverify.replication.functions import FunctionDifference, FunctionValue
from qverify.replication.gaps import Gaps
from qverify.replication.matching import match
from qverify.replication.moves import moves
from qverify.replication.products import Bilinear
from qverify.replication.regions import Region
from tests.support.gated_models import ACTIVATIONS, dense, gated
from tests.support.marks import mostly_slow
from tests.support.networks import NETWORKS, curve, inputs
from tests.support.quantised import quantised, sample_runtimes
from tests.support.toolchain import Form, outputs
from tests.support.toolchain import quantised as written

Rng = np.random.Generator
PARAMETERS: dict[str, tuple[float, ...]] = {
    "leaky_relu": (0.2,),
    "clip": (-0.5, 0.8),
    "hard_sigmoid": (0.3, 0.4),
    "elu": (0.7,),
    "selu": (1.2, 0.8),
    "celu": (0.6,),
    "softplus_threshold": (20.0,),
    "sqrt": (0.3,),
    "rsqrt": (0.3,),
}
RUNTIMES = 200


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def activation(function: str, name: str, source: int, size: int) -> Activation:
    return Activation(name, (source,), (size,), function, tuple(np.full(size, p) for p in PARAMETERS.get(function, ())))


# --- lines and planes ---


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_value_and_no_difference_lies_outside(function: str, rng: Rng) -> None:
    size = 40
    layer = activation(function, "f", 0, size)
    for scale in (0.01, 0.5, 3.0):
        v = np.sort(rng.normal(size=(2, size)) * [[1.0], [1.0]] * scale + rng.normal(size=size), axis=0)
        d = np.sort(rng.choice([0.01, 0.3, 2.0], size) * rng.normal(size=(2, size)), axis=0)
        share = rng.choice([0.0, 1.0, 0.5, 0.2, 0.77], (2, 600, size))
        value, moved = v[0] + share[0] * (v[1] - v[0]), d[0] + share[1] * (d[1] - d[0])
        first = curve(function, value, *layer.parameters)
        second = curve(function, value + moved, *layer.parameters)
        box, other = (tensor(v[0]), tensor(v[1])), (tensor(d[0]), tensor(d[1]))
        for kink, at, seen, found in (
            (FunctionValue(layer.curve), box, [], (value, first)),
            (FunctionDifference(layer.curve), other, [box], (moved, second - first)),
        ):
            lines, ends = kink.lines(at, seen), kink.ends(at, seen)
            above = lines.upper_slope.numpy() * found[0] + lines.upper.numpy()
            below = lines.lower_slope.numpy() * found[0] + lines.lower.numpy()
            assert (found[1] <= above + 1e-10).all() and (found[1] >= below - 1e-10).all()
            assert (found[1] <= ends[1].numpy() + 1e-10).all() and (found[1] >= ends[0].numpy() - 1e-10).all()
            if scale == 0.01:
                assert np.median(above - below) < 0.1


def test_a_difference_across_the_jump_of_a_softplus_lies_inside() -> None:
    """PyTorch's Softplus is its argument above a threshold, where it falls by 2e-9."""
    curve = Activation("f", (0,), (1,), "softplus_threshold", (np.full(1, 20.0),)).curve
    start, far = 20.0, 1e-11
    box, other = (tensor([start - far]), tensor([start])), (tensor([0.0]), tensor([far]))
    kink = FunctionDifference(curve)
    lines, ends = kink.lines(other, [box]), kink.ends(other, [box])
    fallen = (start + far) - float(np.logaddexp(0.0, np.longdouble(start)))
    assert fallen < -2e-9
    assert ends[0][0] <= fallen and lines.lower_slope[0] * far + lines.lower[0] <= fallen


@pytest.mark.parametrize("square", [False, True])
def test_no_product_and_no_difference_of_products_lies_outside(square: bool, rng: Rng) -> None:
    size, count = 40, 800
    x, y, dx, dy = (np.sort(rng.normal(size=(2, size)) * s, axis=0) for s in (1.0, 1.0, 0.2, 0.2))
    if square:
        y, dy = x, dx

    def drawn(ends: Any, share: Any) -> Any:
        return ends[0] + share * (ends[1] - ends[0])

    shares = rng.choice([0.0, 1.0, 0.4], (4, count, size))
    values = [drawn(ends, share) for ends, share in zip((x, y, dx, dy), shares, strict=True)]
    if square:
        values[1], values[3] = values[0], values[2]
    boxes = [(tensor(ends[0]), tensor(ends[1])) for ends in (x, y, dx, dy)]
    one, other = (0, 0) if square else (0, 1)
    for node, wanted, factors in (
        (Bilinear("z", size, (one, other)), values[0] * values[1], (values[0], values[1])),
        (
            Bilinear("d", size, (2, 2) if square else (2, 3), (one, other)),
            (values[0] + values[2]) * (values[1] + values[3]) - values[0] * values[1],
            (values[2], values[3]),
        ),
    ):
        planes, ends = node.made(boxes)
        middle = planes.first.numpy() * factors[0] + planes.second.numpy() * factors[1]
        assert (wanted <= middle + planes.upper.numpy() + 1e-12).all()
        assert (wanted >= middle + planes.lower.numpy() - 1e-12).all()
        assert (wanted <= ends[1].numpy() + 1e-12).all() and (wanted >= ends[0].numpy() - 1e-12).all()
        assert (ends[1].numpy() - wanted.max(0)).min() < 0.05


# --- gaps ---


def smooth(function: str, gate: str, rng: Rng) -> Network:
    def layer(name: str, source: int, n_out: int, n_in: int) -> Dense:
        return Dense(
            name, (source,), (n_out,), weight=rng.normal(size=(n_out, n_in)) / 1.5, bias=rng.normal(size=n_out)
        )

    layers: tuple[Layer, ...] = (
        Input("x", (), (4,)),
        layer("fc0", 0, 6, 4),
        activation(function, "f", 1, 6),
        layer("fc1", 2, 6, 6),
        activation(gate, "gate", 3, 6),
        Product("product", (2, 4), (6,)),
        layer("out", 5, 3, 6),
    )
    return Network(layers)


CASES = {
    "tanh": ("tanh", "sigmoid"),
    "hard swish": ("hard_swish", "hard_sigmoid"),
    "gelu": ("gelu", "leaky_relu"),
    "elu": ("elu", "softsign"),
    "softplus": ("softplus", "tanh"),
}
"""Functions of the layer and of its gate."""
SHARED = ("gated", "leaky_clip", "conv_hard_sigmoid")


@pytest.mark.parametrize(
    ("rule", "radius"),
    mostly_slow([(rule, radius) for radius in (0.05, 0.0) for rule in ("float32", "any", "double")], several=True),
)
@pytest.mark.parametrize("name", [*CASES, *SHARED])
def test_no_runtime_is_farther_off_than_what_is_proved(name: str, rule: str, radius: float) -> None:
    rng = np.random.default_rng(len(name))
    network = NETWORKS[name](rng) if name in SHARED else smooth(*CASES[name], rng)
    file = quantised(network, rng.normal(size=(40, network.input_size)), 6)
    found = Gaps(match(network, file), rule, Region(radius=radius))
    moved = {i: move.absolute * (1 - 1e-9) for i, move in moves(file, rule).items()}
    for index, sample in enumerate(inputs(network, rng)[:3]):
        gap = found.at(index, sample)
        given = sample + radius * rng.choice([-1.0, 1.0, 0.3], (RUNTIMES, len(sample)))
        met = sample_runtimes(file, moved, given, rng)[-1] - network.evaluate(given)
        assert (met >= gap.lower - 1e-9).all() and (met <= gap.upper + 1e-9).all()
        assert gap.proved < 60 * max(gap.attained, 0.02)


def test_differences_are_tighter_than_two_intervals(rng: Rng) -> None:
    network = smooth("tanh", "sigmoid", rng)
    file = quantised(network, rng.normal(size=(40, 4)), 12)
    wide = Gaps(match(network, file), "float32", Region(radius=0.2)).at(0, np.full(4, 0.1))
    from qverify.bounds.interval import interval_bounds
    from qverify.bounds.tensors import BoundModel

    model = BoundModel.of(Family.of(network, Radii(input=0.2)))
    x = np.full((1, 4), 0.1)
    bounds = interval_bounds(model, model.tensor(x - 0.2), model.tensor(x + 0.2))
    assert wide.proved < 0.05 * float((bounds.upper[-1] - bounds.lower[-1]).max())


# --- real files ---

FILES = ["LeakyRelu", "Sigmoid", "HardSwish", "clip", "Tanh", "hard swish", "silu", "mish"]


def saved(built: onnx.ModelProto, x: Any, form: Form) -> tuple[Network, Network, onnx.ModelProto]:
    built.opset_import[0].version = 17
    file = written(built, x, form)
    return qverify.load(built), qverify.load(file), file


@pytest.mark.parametrize("form", mostly_slow([Form(), Form("QOperator")]), ids=str)
@pytest.mark.parametrize("name", mostly_slow(FILES, 2))
def test_onnxruntime_is_within_what_is_proved(name: str, form: Form, rng: Rng) -> None:
    built = gated(rng, name)
    x = rng.normal(size=(40, 2, 4, 4)).astype(np.float32)
    network, file, content = saved(built, x, form)
    found = Gaps(match(network, file), "float32")
    theirs = [outputs(content, x[:12], optimised) for optimised in (True, False)]
    for index, sample in enumerate(x[:12].astype(np.float64).reshape(12, -1)):
        gap = found.at(index, sample)
        for one in theirs:
            met = one[index] - network.evaluate(sample[None])[0]
            assert (met >= gap.lower - 1e-5).all() and (met <= gap.upper + 1e-5).all()
        assert gap.proved < 3.0


def test_a_gelu_of_several_nodes_departs(rng: Rng) -> None:
    network, file, _ = saved(dense(rng, ["gelu"]), rng.normal(size=(30, 4)).astype(np.float32), Form())
    with pytest.raises(ModelError, match="and the network has gelu"):
        match(network, file)


@pytest.mark.parametrize("name", ["LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "clip", "mish", "Elu"])
def test_files_of_onnxruntime_are_covered(name: str, rng: Rng) -> None:
    """Every rounding point of QDQ files is within the family, perhaps by an integer kernel alone; so is all else."""
    x = rng.normal(size=(40, 2, 4, 4)).astype(np.float32)
    gate = "HardSigmoid" if name == "Tanh" else "Sigmoid"
    network, file, _ = saved(gated(rng, name, gate), x, Form())
    radii = Radii.of(Quantiser(8, "channel", "nearest", points="onnxruntime"), network, x.astype(np.float64))
    parts = coverage(network, file, Family.of(network, radii), "float32")
    assert any(part.kind == "point" and part.covered for part in parts)
    made = [layer for layer in network.layers if isinstance(layer, (Activation, Product))]
    functions = {layer.name for layer in made if getattr(layer, "function", "") != "clip"}
    for part in parts:
        means = part.kind == "point" and part.name.startswith(("mean", "conv", "fc"))
        assert part.covered or "an integer kernel that a runtime fuses" in part.detail or means, part
        assert part.covered or part.name not in functions, part
    assert {part.name for part in parts} >= functions - {"r1_softplus0"}  # which stays in floating point


def test_what_is_changed_in_a_covered_file_is_found(rng: Rng) -> None:
    x = rng.normal(size=(40, 4)).astype(np.float32)
    network, file, _ = saved(dense(rng, ["LeakyRelu"]), x, Form("QOperator"))
    family = Family.of(
        network, Radii.of(Quantiser(8, "channel", "nearest", points="onnxruntime"), network, x.astype(float))
    )
    assert all(part.covered for part in coverage(network, file, family, "float32"))
    assert not all(part.covered for part in coverage(network, file, family, "any"))
    (index,) = file.activations
    other: Any = file.layers[index]
    with pytest.raises(ModelError, match=r"it has leaky_relu .* and the network has leaky_relu"):
        coverage(
            network, file.with_layers({index: replace(other, parameters=(other.parameters[0] + 1e-6,))}), family, "any"
        )
    point: Any = file.layers[index + 1]
    assert isinstance(point, Rounding)
    wide = file.with_layers({index + 1: replace(point, high=point.high + 4 * point.step)})
    (part,) = [part for part in coverage(network, wide, family, "float32") if not part.covered]
    assert "its upper end is" in part.detail


def test_covers_and_compare_on_the_command_line(tmp_path: Path, rng: Rng) -> None:
    from tests.support.commands import qverify as command

    built = dense(rng, ["LeakyRelu"])
    x = rng.normal(size=(40, 4)).astype(np.float32)
    _, _, content = saved(built, x, Form("QOperator"))
    onnx.save(built, str(tmp_path / "float.onnx"))
    onnx.save(content, str(tmp_path / "file.onnx"))
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(40, dtype=np.int64))
    names = [str(tmp_path / name) for name in ("float.onnx", "file.onnx", "data.npz")]
    quantiser = ["--bits", "8", "--scheme", "channel", "--rounding", "nearest", "--points", "onnxruntime"]
    done = command("covers", names[0], names[1], "--data", names[2], *quantiser)
    assert done.exit_code == 0, done.output + done.stderr
    done = command("compare", names[0], names[1], "--data", names[2], "--samples", "0:5")
    assert done.exit_code == 0, done.output + done.stderr
    assert "a1_leakyrelu0" in done.output


assert set(FILES) <= set(ACTIVATIONS)


# --- clips that a file has not ---


def clipped(rng: Rng, low: float, high: float, ends: tuple[int, int]) -> tuple[Network, Network]:
    """A network with a Clip, and a file of it without, whose point in its place has steps of 1/20 and these ends."""
    first = Dense("fc0", (0,), (5,), weight=rng.normal(size=(5, 4)), bias=rng.normal(size=5))
    last = Dense("out", (2,), (3,), weight=rng.normal(size=(3, 5)), bias=rng.normal(size=3))
    clip = Activation("clip", (1,), (5,), "clip", (np.full(5, low), np.full(5, high)))
    network = Network((Input("x", (), (4,)), first, clip, last))

    def on_grid(layer: Dense, source: int) -> Dense:
        grid = np.full((1, 1), 0.01)
        return replace(layer, inputs=(source,), weight=np.rint(layer.weight / grid) * grid, grid=grid)

    layers = (
        network.layers[0],
        Rounding.on_grid("x/rounded", 0, (4,), 0.02, (-128, 127)),
        on_grid(first, 1),
        Rounding.on_grid("mid", 2, (5,), 0.05, ends, kernel=True),
        on_grid(last, 3),
        Rounding.on_grid("y", 4, (3,), 0.05, (-128, 127), kernel=True),
    )
    return network, Network(layers, source="file")


@pytest.mark.parametrize("radius", [0.0, 0.2])
def test_a_file_without_the_clip_is_within_what_is_proved(radius: float, rng: Rng) -> None:
    """Its ends are those of the Clip, half a step off at most."""
    network, file = clipped(rng, -0.52, 0.48, (-10, 10))
    found, matched = Gaps(match(network, file), "double", Region(radius=radius)), match(network, file)
    assert [type(layer) for layer in matched.file.layers].count(Activation) == 1
    moved = {i: move.absolute * (1 - 1e-9) for i, move in moves(file, "double").items()}
    for index, sample in enumerate(rng.normal(size=(6, 4))):
        gap = found.at(index, sample)
        given = sample + radius * rng.choice([-1.0, 1.0, 0.3], (RUNTIMES, 4))
        met = sample_runtimes(file, moved, given, rng)[-1] - network.evaluate(given)
        assert (met >= gap.lower - 1e-9).all() and (met <= gap.upper + 1e-9).all()


def test_a_point_beyond_the_clip_is_not_in_its_place(rng: Rng) -> None:
    for low, high, ends in ((-0.52, 0.48, (-12, 10)), (-0.52, 0.48, (-10, 11)), (0.1, 0.48, (0, 10))):
        with pytest.raises(ModelError, match=r"it has Dense 'out' 3 x 5, and the network has clip"):
            match(*clipped(rng, low, high, ends))


def test_a_leaky_relu_of_tensorflow_lite_is_covered(rng: Rng) -> None:
    """XNNPACK's multiplier and gemmlowp's two roundings alike."""
    layers = (
        Input("x", (), (4,)),
        Dense("fc0", (0,), (5,), weight=rng.normal(size=(5, 4)), bias=rng.normal(size=5)),
        activation("leaky_relu", "leaky", 1, 5),
        Dense("out", (2,), (3,), weight=rng.normal(size=(3, 5)), bias=rng.normal(size=3)),
    )
    network = Network(layers)
    x = rng.normal(size=(50, 4))
    family = Family.of(network, Radii.of(Quantiser(8, "channel", "nearest", points="tflite"), network, x))
    file = quantised(network, x)
    assert all(part.covered for part in coverage(network, file, family, "float32"))
    (part,) = [part for part in coverage(network, file, family, "double") if part.name == "leaky"]
    assert part.covered and part.share is not None and 0.7 < part.share < 0.8


def unrounded(file: Network) -> Network:
    """The network of a file without its rounding points."""
    layers: list[Layer] = []
    place: dict[int, int] = {}
    for index, layer in enumerate(file.layers):
        if isinstance(layer, Rounding):
            place[index] = place[layer.inputs[0]]
            continue
        layers.append(replace(layer, inputs=tuple(place[i] for i in layer.inputs)))
        place[index] = len(layers) - 1
    return Network(tuple(layers), source="float")


@pytest.mark.slow
@pytest.mark.parametrize("function", ["sigmoid", "tanh", "leaky_relu", "hard_swish", "gelu"])
def test_kernels_of_litert_are_within_what_is_proved(function: str, tmp_path: Path, rng: Rng) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra tflite")
    from tests.support.tflite_functions import gated as gated_file
    from tests.support.tflite_models import LiteRT, stored

    graph = gated_file(rng, function, constants=function != "tanh")
    file = qverify.load(stored(graph.content(), tmp_path))
    network, x = unrounded(file), 0.5 * rng.normal(size=(8, 2, 4, 4))
    for reference, rule in ((False, "float32"), (True, "double")):
        found, litert = Gaps(match(network, file), rule), LiteRT(graph.content(), reference)
        theirs = litert.run(x, litert.logits())
        for index, sample in enumerate(x.reshape(8, -1)):
            gap, met = found.at(index, sample), theirs[index] - network.evaluate(sample[None])[0]
            assert (met >= gap.lower - 1e-6).all() and (met <= gap.upper + 1e-6).all()
