"""Functions other than Relu, products and gates in TFLite files, against LiteRT's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.activations.layer import Activation
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import UnsupportedModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.rules import file_points
from qverify.gather import Gather
from qverify.layers import Input, Product, Rounding, Scale
from qverify.network import Network
from qverify.tflite import load, runtime
from tests.support.tflite_functions import FUNCTIONS, OPERATOR, TRUTH, Made, content, gated, made, outputs
from tests.support.tflite_models import WINDOW, Graph, LiteRT, stored

Rng = np.random.Generator
CONV = {**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1}


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "answers", runtime._run)


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_integers_through_one_function(tmp_path: Path, rng: Rng, name: str, kind: str) -> None:
    for _ in range(5):
        case = made(name, kind, rng)
        network = load(stored(content(name, case), tmp_path))
        assert [type(layer).__name__ for layer in network.layers] == ["Input", "Rounding", "Activation", "Rounding"]
        last = network.layers[3]
        assert isinstance(last, Rounding)
        np.testing.assert_array_equal(network.layers[1].step, case.step)  # type: ignore[attr-defined]
        ours = network.evaluate(case.numbers[None])[0]
        np.testing.assert_allclose(ours, np.clip(np.rint(TRUTH[name](case.numbers, case.alpha) / last.step) * last.step,
                                                 last.low, last.high), atol=1.001 * case.out_step)  # fmt: skip
        theirs = (outputs(name, case, "BUILTIN_REF") - case.out_zero) * case.out_step
        assert (abs(ours - theirs) < 0.01 * case.out_step).mean() > 0.6


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats(tmp_path: Path, rng: Rng, name: str) -> None:
    graph = Graph("FLOAT32", (1, 50))
    options: dict[str, Any] = {"alpha": 0.3} if name == "leaky_relu" else {}
    graph.add(OPERATOR[name], [0], graph.tensor("FLOAT32", (1, 50)), **options)
    network = load(stored(graph.content(), tmp_path))
    x = 3.0 * rng.normal(size=(4, 50))
    np.testing.assert_allclose(network.evaluate(x), TRUTH[name](x, 0.3), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_kernel_is_within_the_bounds_of_its_rule(tmp_path: Path, rng: Rng, function: str, kind: str) -> None:
    graph = gated(rng, function, kind)
    network = load(stored(graph.content(), tmp_path))
    names = [type(layer).__name__ for layer in network.layers]
    assert names.count("Activation") == 2 and "Product" in names and "Gather" in names and "Scale" in names
    x = rng.normal(size=(60, *network.input_shape))
    for reference, rule in ((False, "float32"), (True, "double"), (False, "any"), (True, "any")):
        family = Family.of(network, Radii.of_file(network, rule))  # type: ignore[arg-type]
        model = BoundModel.of(family)
        lower, upper = family.box(network.flat(x))
        bounds = interval_bounds(model, model.tensor(lower), model.tensor(upper))
        litert = LiteRT(graph.content(), reference)
        theirs = litert.run(x, litert.logits())
        low, high = bounds.lower[-1].numpy(), bounds.upper[-1].numpy()
        assert ((low - 1e-9 <= theirs) & (theirs <= high + 1e-9)).all(), rule
        if rule == "float32":
            assert (high - low).mean() < 80 * 0.04
    assert abs(network.evaluate(x) - theirs).max() < 10 * 0.04


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_files(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test_every_kernel_is_within_the_bounds_of_its_rule(tmp_path, rng, str(rng.choice(FUNCTIONS)), "INT8")


def test_products_of_two_images_lie_where_the_file_has_them(tmp_path: Path, rng: Rng) -> None:
    """Factors of one number a row, and of one a channel, by axes of distinct sizes."""
    for shape in ((1, 3, 1, 1), (1, 1, 4, 2), (1, 3, 4, 2)):
        graph = Graph("FLOAT32", (1, 3, 4, 2))
        square = graph.tensor("FLOAT32", (1, 3, 4, 2))
        graph.add("TANH", [0], square)
        factor = square
        axes = [axis for axis in (1, 2) if shape[axis] == 1]
        if shape[3] == 1:
            kernel = graph.constant("FLOAT32", rng.normal(size=(1, 1, 1, 2)))
            narrow = graph.tensor("FLOAT32", (1, 3, 4, 1))
            graph.add("CONV_2D", [0, kernel, graph.constant("FLOAT32", [0.1])], narrow, **CONV)
            factor = graph.tensor("FLOAT32", shape)
            graph.add("MEAN", [narrow, graph.constant("INT32", [2])], factor, keepDims=True)
        elif axes:
            factor = graph.tensor("FLOAT32", shape)
            graph.add("MEAN", [0, graph.constant("INT32", axes)], factor, keepDims=True)
        graph.add("MUL", [square, factor], graph.tensor("FLOAT32", (1, 3, 4, 2)))
        network, litert = load(stored(graph.content(), tmp_path)), LiteRT(graph.content())
        x = rng.normal(size=(5, 2, 3, 4))
        np.testing.assert_allclose(network.evaluate(x), litert.run(x, litert.logits()), atol=1e-5)
        assert any(isinstance(layer, Product) for layer in network.layers)
        assert any(isinstance(layer, Gather) for layer in network.layers) == (shape != (1, 3, 4, 2))


def test_a_constant_factor(tmp_path: Path, rng: Rng) -> None:
    graph = Graph("INT8", (1, 40), 0.02, -5)
    values = rng.integers(-128, 128, 40)
    graph.add("MUL", [graph.constant("INT8", values, 0.01, 7), 0], graph.tensor("INT8", (1, 40), 0.03, 2))
    network = load(stored(graph.content(), tmp_path))
    (scale,) = [layer for layer in network.layers if isinstance(layer, Scale)]
    np.testing.assert_allclose(scale.scale, (values - 7) * np.float64(np.float32(0.01)))


def alone(kind: str, operator: str, out: tuple[float, int], entry: float = 0.02, **options: Any) -> bytes:
    graph = Graph(kind, (1, 9), entry, 0)
    graph.add(operator, [0], graph.tensor(kind, (1, 9), *out), **options)
    return graph.content()


def two_shapes() -> bytes:
    graph = Graph("FLOAT32", (1, 3, 4, 2))
    first, second = graph.tensor("FLOAT32", (1, 3, 1, 2)), graph.tensor("FLOAT32", (1, 1, 4, 2))
    graph.add("MEAN", [0, graph.constant("INT32", [2])], first, keepDims=True)
    graph.add("MEAN", [0, graph.constant("INT32", [1])], second, keepDims=True)
    graph.add("MUL", [first, second], graph.tensor("FLOAT32", (1, 3, 4, 2)))
    return graph.content()


REFUSED = {
    "its output has the scale 0.01 and the zero point -128; kernels have 0.00390625 and -128": lambda: alone(
        "INT8", "LOGISTIC", (0.01, -128)
    ),
    "its output has the scale 0.0078125 and the zero point 1; kernels have": lambda: alone(
        "INT8", "TANH", (1 / 128, 1)
    ),
    "it is on INT16, where kernels interpolate in tables": lambda: alone("INT16", "LOGISTIC", (1 / 32768, 0)),
    "its output is on a grid too fine for what it reads": lambda: alone("INT8", "HARD_SWISH", (0.001, 0), 1.0),
    "supported is where one has the shape of the product": two_shapes,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported(tmp_path: Path, message: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        load(stored(REFUSED[message](), tmp_path))
    assert message in str(caught.value)


def test_16_bits_of_a_leaky_relu(tmp_path: Path, rng: Rng) -> None:
    network = load(stored(alone("INT16", "LEAKY_RELU", (1e-4, 0), 1e-4, alpha=0.3), tmp_path))
    assert isinstance(network.layers[2], Activation)
    assert isinstance(made("tanh", "INT8", rng), Made)


def test_the_gelu_by_tanh(tmp_path: Path, rng: Rng) -> None:
    for kind, step, zero in (("FLOAT32", 1.0, 0), ("INT8", 0.03, -20)):
        graph = Graph(kind, (1, 256), step, zero)
        graph.add("GELU", [0], graph.tensor(kind, (1, 256), 0.017, -110), approximate=True)
        network, litert = load(stored(graph.content(), tmp_path)), LiteRT(graph.content())
        x = step * (np.arange(256)[None] - 128.0 - zero) if step < 1.0 else 3.0 * rng.normal(size=(4, 256))
        layer = network.layers[2 if step < 1.0 else 1]
        assert isinstance(layer, Activation) and layer.function == "gelu_tanh"
        ours, theirs = network.evaluate(x), litert.run(x, litert.logits())
        assert (abs(ours - theirs) > 1e-5).mean() < 0.02 and abs(ours - theirs).max() < 0.018


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
def test_all_pairs_of_integers_through_one_product(tmp_path: Path, rng: Rng, kind: str) -> None:
    """One factor as a constant, which kernels treat alike; the radii of both readings."""
    low, zero = (-128, 11) if kind == "INT8" else (0, 139)
    first, second = (each.ravel() for each in np.meshgrid(np.arange(low, low + 256), np.arange(low, low + 256)))
    for reach in (0.3, 0.9, 3.0):
        steps = [float(np.float32(s)) for s in (0.02, rng.uniform(0.005, 0.05))]
        out = float(np.float32(steps[0] * steps[1] * 255 * reach))
        graph = Graph(kind, (1, 65536), steps[0], zero)
        constant = graph.constant(kind, second[None], steps[1], zero)
        graph.add("MUL", [0, constant], graph.tensor(kind, (1, 65536), out, zero - 5))
        network = load(stored(graph.content(), tmp_path))
        last = network.layers[-1]
        assert isinstance(last, Rounding) and isinstance(network.layers[-2], Scale)
        pair = Network(
            (
                Input("x", (), (1,)),
                Rounding.on_grid("a", 0, (1,), steps[0], (-255, 255)),
                Rounding.on_grid("b", 0, (1,), steps[1], (-255, 255)),
                Product("ab", (1, 2), (1,)),
                Rounding.on_grid(last.name, 3, (1,), out, (low - zero + 5, low + 260 - zero), kernel=True),
            ),
            "file",
        )
        exact = np.clip((first - zero) * steps[0] * ((second - zero) * steps[1]), last.low, last.high)
        x = ((first - zero) * steps[0])[None]
        for reference, rule in ((False, "float32"), (True, "double"), (True, "any"), (False, "any")):
            litert = LiteRT(graph.content(), reference)
            found = litert.run(x, litert.logits())[0]
            for read in (network, pair):
                radius = np.ravel(file_points(read, rule)[last.name].radius)
                assert (abs(found - exact) <= radius + 1e-9).all(), rule
            assert abs(found - exact).max() > 0.49 * out
