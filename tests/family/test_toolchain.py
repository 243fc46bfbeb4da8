"""Scale rules of a real toolchain, case by case: what onnxruntime.quantization writes lies within the radii."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import qverify
from qverify.choices import Scheme
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.network import Network
from tests.support.networks import may_give
from tests.support.toolchain import (
    COARSE,
    FORMS,
    Form,
    dense,
    dequantised,
    grid,
    hidden,
    outputs,
    quantised,
    without_last_rounding,
)

Array = np.ndarray


def _plain(rng: np.random.Generator) -> tuple[list[Any], Array]:
    sizes = [(rng.normal(size=(5, 6)), rng.normal(size=5)), (rng.normal(size=(4, 5)), rng.normal(size=4))]
    return [*sizes, (rng.normal(size=(3, 4)), rng.normal(size=3))], rng.normal(size=(12, 6))


def _changed(change: Any) -> Any:
    def make(rng: np.random.Generator) -> tuple[list[Any], Array]:
        layers, x = _plain(rng)
        return change(layers, x, rng) or (layers, x)

    return make


def _dead(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[1] = (layers[1][0], np.full(4, -100.0))
    layers[2] = (100.0 * layers[2][0], layers[2][1])


def _dead_on_the_data_only(layers: Any, x: Any, rng: np.random.Generator) -> None:
    """Some member reaches beyond 0: its Relu is rounded in steps of 1."""
    weight = layers[1][0]
    hidden_ = np.maximum(x.astype(np.float32) @ layers[0][0].T + layers[0][1], 0.0)
    layers[1] = (weight, -(hidden_ @ weight.T).max(0) - 1e-3)


def _tiny_range(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[1] = (1e-20 * layers[1][0], 1e-40 * layers[1][1])
    layers[0] = (1e-20 * layers[0][0], 1e-20 * layers[0][1])


def _zero_channel(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[0][0][2] = 0.0
    layers[1][0][:] = 0.0


def _vanishing_channel(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[0][0][2] *= 1e-38
    layers[1][0][1] *= 3e-37


def _vanishing_without_bias(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[0][0][2] *= 1e-38
    layers[0][1][2] = 0.0


def _one_sided(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[:] = [(abs(weight) + 0.1, bias) for weight, bias in layers]


def _shifted_zero_points(layers: Any, x: Any, rng: np.random.Generator) -> Any:
    """Ranges whose zero point falls on a half: low = -(k + 1/2) steps."""
    low = -(37.5 / 255) * 2.0
    return layers, np.clip(x, low, low + 2.0) * np.sign(abs(x)) + np.where(np.arange(12)[:, None] == 0, low + 2.0, 0)


def _large_bias(layers: Any, x: Any, rng: np.random.Generator) -> None:
    layers[0][0][1] = 1e-5
    layers[0][1][1] = 1e3


def _bias_that_fills_int32(layers: Any, x: Any, rng: np.random.Generator) -> None:
    step = abs(layers[0][0][1]).max() / 127 * (x.max() - x.min()) / 255
    layers[0][1][1] = 0.9999 * 2**31 * step


def _subnormal_product(layers: Any, x: Any, rng: np.random.Generator) -> Any:
    layers[0] = (1e-25 * layers[0][0], 1e-30 * layers[0][1])
    return layers, 1e-14 * x


def _no_data(layers: Any, x: Any, rng: np.random.Generator) -> Any:
    return layers, np.zeros_like(x)


def _negative_inputs(layers: Any, x: Any, rng: np.random.Generator) -> Any:
    return layers, -abs(x) - 0.5


CASES = {
    "plain": _plain,
    **{
        change.__name__.strip("_"): _changed(change)
        for change in (
            _dead,
            _dead_on_the_data_only,
            _tiny_range,
            _zero_channel,
            _vanishing_channel,
            _vanishing_without_bias,
            _one_sided,
            _shifted_zero_points,
            _large_bias,
            _bias_that_fills_int32,
            _subnormal_product,
            _no_data,
            _negative_inputs,
        )
    },
}


def some(number: int) -> list[Any]:
    """Every case with a few forms, a different choice for each; all the others are slow."""
    forms = [*FORMS, *COARSE]
    chosen = {(number * 5 + k * 7) % len(forms) for k in range(4)}
    return [pytest.param(form, marks=() if k in chosen else pytest.mark.slow) for k, form in enumerate(forms)]


ALL = [
    pytest.param(name, *p.values, marks=p.marks, id=f"{name}-{p.values[0]}")
    for number, name in enumerate(CASES)
    for p in some(number)
]


def made(name: str, form: Form) -> tuple[onnx.ModelProto, np.ndarray, Network, Radii]:
    """The file of a case, its data in float32, the network, and the radii that should cover the file."""
    layers, x = CASES[name](np.random.default_rng(list(CASES).index(name)))
    layers = [(np.float32(weight), np.float32(bias)) for weight, bias in layers]
    x = x.astype(np.float32)
    source = dense(layers)
    network = qverify.load(source)
    scheme: Scheme = "channel" if form.channel else "tensor"
    return quantised(source, x, form), x, network, covering(network, x.astype(np.float64), scheme, form)


def covering(network: Network, x: Array, scheme: Scheme, form: Form) -> Radii:
    """The radii of a form: weights of a reduced range are those of one bit less."""
    bits, activations = form.bits - form.reduced, "symmetric" if form.centred else "asymmetric"
    quantiser = Quantiser(form.bits, scheme, "nearest", weight_bits=bits, activations=activations)
    return Radii.of(quantiser, network, x)


@pytest.mark.parametrize(("name", "form"), ALL)
def test_the_numbers_of_real_files_lie_within_the_radii(name: str, form: Form) -> None:
    """Weights, biases and the grid of every activation; where they do not, the layer is named and nothing verified."""
    file, x, network, radii = made(name, form)
    family, found = Family.of(network, radii), dequantised(file)
    assert radii.kernel is not None
    refused = " ".join(radii.kernel.refused)
    for k, i in enumerate(network.weighted, start=1):
        layer: Any = network.layers[i]
        if repr(layer.name) in refused:
            continue
        assert (abs(found[f"W{k}"] - layer.weight) <= family.weight[i]).all()
        assert (abs(found[f"b{k}"] - layer.bias) <= family.bias[i]).all()
    rng = np.random.default_rng(1)
    for k, i in enumerate(network.relus, start=1):
        scale, low, high = grid(file, hidden(form, k), form)
        point = family.points[i].mapped(lambda numbers: numbers[0])
        assert low <= 0 and point.high[0] <= high <= point.high[1]
        top = min(high, 1000 * scale) if high > 0 else scale
        values = np.concatenate([rng.uniform(0, 1.5 * top, 500), (np.arange(40) + 0.5) * scale]).astype(np.float32)
        values[:3] = 0.0, scale / 2, 1.2 * high
        whole = np.round(values / np.float32(scale)).astype(np.float64)
        given = np.clip(whole * scale, low, high)
        assert may_give(point, values.astype(np.float64), given).all()
    scale, low, high = grid(file, "x", form)
    assert family.entry is not None
    point = family.entry.mapped(lambda numbers: numbers[0])
    assert point.low[0] <= low <= point.low[1] and point.high[0] <= high <= point.high[1]
    for entry in (x, 2.0 * x, -x, (0.5 * scale * rng.integers(-9, 9, x.shape)).astype(np.float32)):
        rounded = np.clip(np.round(entry / np.float32(scale)).astype(np.float64) * scale, low, high)
        assert may_give(point, entry.astype(np.float64), rounded).all()


@pytest.mark.parametrize(("name", "form"), ALL)
def test_what_is_verified_is_right_in_real_files(name: str, form: Form) -> None:
    """Whole files in onnxruntime, by integer kernels and in floating point, before the output is requantised."""
    file, x, network, radii = made(name, form)
    exact = x.astype(np.float64)
    labels = network.evaluate(exact).argmax(1)
    verdicts = qverify.verify(network, exact, labels, radii, qverify.Options(method="bp"))
    sure = np.array([verdict.status is qverify.Status.VERIFIED for verdict in verdicts])
    cut = without_last_rounding(file, network.output_size)
    for optimised in (True, False):
        answers = outputs(cut, x, optimised)
        others = np.where(np.arange(network.output_size) == labels[:, None], -np.inf, answers).max(1)
        assert (answers[np.arange(len(x)), labels] > others)[sure].all()
