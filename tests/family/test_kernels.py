"""Integer kernels: what is proved to fit does fit, in whole numbers, any order, and with pairs that saturate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import qverify
from qverify import datasets
from qverify.arrays import Array
from qverify.bounds.accumulators import misfits
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.choices import KernelMode, Scheme
from qverify.datasets.sources import find_here
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.kernels import IntegerLayer
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense, Input, Layer, Relu
from qverify.network import Network
from tests.support.bounds import box_ends
from tests.support.networks import NETWORKS, conv_taps, known_layers, mlp
from tests.support.paths import MODELS
from tests.support.toolchain import Form, dense, outputs, quantised, without_last_rounding

INT32, INT16 = 2**31 - 1, 2**15 - 1
ROBUST = str(MODELS / "mnist_4x256_robust_8bit.onnx")


# --- whole numbers, by definition ---------------------------------------------------------------------------------


def integers(weight: Array, bits: int, symmetric: bool, channel: bool) -> tuple[Array, ...]:
    """Weights as stored integers and their zero points, scales and zero points one a row."""
    flat = weight.reshape(len(weight), -1)
    low, high = np.minimum(flat.min(1), 0), np.maximum(flat.max(1), 0)
    if not channel:
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    top, half = np.maximum(-low, high), 2 ** (bits - 1)
    if symmetric:
        scale, zero = np.where(top > 0, top, half - 1) / (half - 1), np.zeros(len(low))
    else:
        scale = np.where(high > low, (high - low), 2**bits - 1) / (2**bits - 1)
        zero = np.round(-half - low / scale)
    stored = np.clip(np.round(flat / scale[:, None]) + zero[:, None], -half, half - 1)
    return stored, zero, scale


def taps_of(layer: Conv | Dense) -> list[tuple[int, np.ndarray]]:
    """Per output its channel, and per kernel entry the input it meets (-1: padding)."""
    if isinstance(layer, Dense):
        return [(o, np.arange(layer.fan_in)) for o in range(layer.size)]
    found, per_channel = [], layer.size // len(layer.bias)
    for number, pairs in enumerate(conv_taps(layer)):
        entry = np.full(layer.fan_in, -1)
        for source, (_, k, i, j) in pairs:
            entry[np.ravel_multi_index((k, i, j), layer.weight.shape[1:])] = source
        found.append((number // per_channel, entry))
    return found


def accumulators(
    layer: Conv | Dense, x: Array, x_range: tuple[float, float], bits: int, symmetric: bool, channel: bool
) -> tuple[float, float]:
    """The largest |bias + any partial sum| and the largest |sum of two stored products| over outputs, for input x."""
    low, high = x_range
    s_x = (high - low) / (2**bits - 1)
    x_zero = round(-low / s_x)
    x_stored = np.clip(np.round(x / s_x) + x_zero, 0, 2**bits - 1)
    stored, zero, scale = integers(layer.weight, bits, symmetric, channel)
    worst, pairs = 0, 0
    for channel_, entry in taps_of(layer):
        mine = np.where(entry >= 0, x_stored[entry], x_zero)
        products = (stored[channel_] - zero[channel_]) * (mine - x_zero)
        bias = round(layer.bias[channel_] / (s_x * scale[channel_]))
        worst = max(worst, abs(bias) + max(products[products > 0].sum(), -products[products < 0].sum()))
        two = np.sort(stored[channel_] * mine)
        pairs = max(pairs, abs(two[:2].sum()), abs(two[-2:].sum()))
    return worst, pairs


def radii_of(
    network: Network, data: Array, bits: int = 8, kernel: KernelMode = "exact-accumulation", scheme: Scheme = "channel"
) -> Radii:
    return Radii.from_bits(bits, scheme, "nearest", network, data, kernel=kernel)


def found(network: Network, radii: Radii, x: Array) -> list[str]:
    family = Family.of(network, radii)
    model = BoundModel.of(family)
    return misfits(model, interval_bounds(model, *box_ends(model, family.box(x))))


@pytest.mark.parametrize("name", ["dense", "conv_conv", "conv_attributes", "residual"])
@pytest.mark.parametrize("bias", [0.0, 1e3, 1e7])
def test_what_fits_by_the_bounds_fits_in_whole_numbers(name: str, bias: float, rng: np.random.Generator) -> None:
    """Two layers of every kind, biases from small to filling int32, symmetric weights or not."""
    network = NETWORKS[name](rng)
    changes: dict[int, Any] = {}
    for i in network.weighted:
        layer: Any = network.layers[i]
        changes[i] = replace(layer, bias=layer.bias + bias * rng.normal(size=len(layer.bias)))
    network = network.with_layers(changes)
    data = rng.normal(size=(6, network.input_size)) * rng.choice([0.1, 1.0], (6, 1))
    fits: dict[KernelMode, int] = {"exact-accumulation": 0, "any": 0}
    schemes: tuple[Scheme, ...] = ("channel", "tensor")
    for scheme in schemes:
        for kernel in fits:
            radii = radii_of(network, data, 8, kernel, scheme)
            reasons = found(network, radii, data)
            for row, reason in enumerate(reasons):
                values = network.evaluate_all(data[row : row + 1])
                for i in network.weighted if not reason else ():
                    fits[kernel] += 1
                    layer = network.layers[i]
                    ranges = qverify.family.ranges.calibrate(network, data)[0][layer.inputs[0]]
                    for symmetric in (True, False):
                        worst, pairs = accumulators(
                            layer, values[layer.inputs[0]][0], ranges, 8, symmetric, scheme == "channel"
                        )
                        assert worst <= INT32
                        assert kernel != "any" or pairs <= INT16
    assert bias or fits["exact-accumulation"]
    assert bias < 1e6 or not any(fits.values())


@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (0.97, True), (1.0, False), (2.0, False)])
def test_a_bias_that_fills_int32_by_hand(share: float, fits: bool, rng: np.random.Generator) -> None:
    """Steps 1/255 for inputs in [0, 1] and 1/127 or 1/255 for weights: the bias may be 2^31 of 1/255 of 1/255."""
    network = mlp(rng, 2, 1, 2)
    bias = share * 2**31 / 255 / 255
    network = network.with_layers(
        {1: Dense("fc0", (0,), (1,), [[1.0, 1.0]], [bias]), 3: Dense("fc1", (2,), (2,), [[1.0], [0.0]], [0.0, 0.0])}  # type: ignore[arg-type]
    )
    data = np.array([[0.0, 0.0], [1.0, 1.0]])
    reasons = set(found(network, radii_of(network, data), data))
    assert (reasons == {""}) == fits
    assert fits or all("the bias of layer 'fc0' does not fit into int32" in reason for reason in reasons)


def test_sums_that_only_this_sample_overflows(rng: np.random.Generator) -> None:
    """70,000 products of 127 x 255 leave int32; a sample of few pixels stays inside, by its own bounds."""
    n = 70_000
    layer = Dense("fc0", (0,), (1,), np.ones((1, n)), [0.0])  # type: ignore[arg-type]
    network = mlp(rng, 2, 1, 2)
    network = Network((Input("x", (), (n,)), layer, *network.layers[2:]))
    data = np.zeros((2, n))
    data[0], data[1, :10] = 1.0, 1.0
    radii = radii_of(network, data)
    radii = replace(radii, input=0.0)
    reasons = found(network, radii, data)
    assert "bias and products of 'fc0' may leave int32" in reasons[0] and reasons[1] == ""


def test_kernels_of_more_than_eight_bits_accumulate_in_64(rng: np.random.Generator) -> None:
    """At 16 bits two products may leave int32 already; biases are still int32."""
    network = mlp(rng, 30, 4, 3)
    layers = {
        i: replace(known_layers(network)[i], bias=np.zeros(known_layers(network)[i].size)) for i in network.weighted
    }
    network = network.with_layers(layers)
    data = rng.random((5, 30))
    assert found(network, radii_of(network, data, 16), data) == [""] * 5
    assert found(network, radii_of(network, data, 16, "any"), data) == [""] * 5


# --- real files -----------------------------------------------------------------------------------------------------


def wrong(layers: list[tuple[Any, ...]], x: Array, form: Form) -> tuple[Network, Array, np.ndarray, np.ndarray]:
    """By the integer kernels of a real file: which samples it answers otherwise than the float network."""
    source = dense(layers)
    network, exact = qverify.load(source), x.astype(np.float32).astype(np.float64)
    labels = network.evaluate(exact).argmax(1)
    answers = outputs(without_last_rounding(quantised(source, exact, form), network.output_size), exact)
    return network, exact, labels, answers.argmax(1) != labels


def test_an_accumulator_that_wraps_in_onnxruntime_is_no_proof(rng: np.random.Generator) -> None:
    """Its quantiser widens the step until the bias fills int32, and the sum of the products then wraps."""
    n = 400
    first = np.stack([rng.normal(size=n) * 0.05, np.full(n, 1e-5), rng.normal(size=n) * 0.05])
    layers = [(first, [0.5, 1.0, 0.5]), ([[0.05, 1.0, 0.05], [0.0, 0.0, 0.0]], [0.0, 0.4])]
    network, x, labels, fails = wrong(layers, rng.random((20, n)), Form())
    assert fails.all()
    verdicts = qverify.verify(network, x, labels, radii_of(network, x))
    assert all(v.status is qverify.Status.UNKNOWN and v.margin_lower > 0 and "'fc1'" in v.detail for v in verdicts)


def test_a_bias_that_saturates_in_onnxruntime_is_no_proof() -> None:
    """With asymmetric weights its quantiser does not widen the step, and clips the bias to int32."""
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(3, 4)) * 1e-5, [1.0, 0.5, 0.2]), ([[1.0, 0, 0], [0, 0, 0]], [0.0, 0.7])]
    form = Form(channel=False, weight="QUInt8", symmetric=False)
    network, x, labels, fails = wrong(layers, rng.random((20, 4)), form)
    assert fails.any()
    verdicts = qverify.verify(network, x, labels, radii_of(network, x, scheme="tensor"))
    assert not any(v.status is qverify.Status.VERIFIED for v in verdicts)


@pytest.mark.parametrize("coarse", ["reduced", "centred"])
@pytest.mark.parametrize("format", ["QDQ", "QOperator"])
def test_a_bias_that_saturates_beside_coarse_steps(coarse: str, format: str, rng: np.random.Generator) -> None:
    """Certified with 7 bits: one factor of the bias's step has 8 all the same, and 16 times 120000 leaves int32."""
    layers = [([[0.0, 0.1], [1.0, 1.0]], [120000.0, 100000.0]), ([[1.0, -1.0], [0.0, 0.0]], [0.0, 2000.0])]
    x = rng.random((12, 2))
    x[0], x[1] = 1.0, 0.0
    weight = ("QInt8", "QInt8") if coarse == "centred" else ("QUInt8", "QUInt8")
    form = Form(format, False, *weight, symmetric=coarse == "centred", **{coarse: True})  # type: ignore[arg-type]
    network, x, labels, _ = wrong(layers, x, form)
    radii = radii_of(network, x, form.certified, scheme="tensor")
    verdicts = qverify.verify(network, x, labels, radii)
    assert not any(v.status is qverify.Status.VERIFIED for v in verdicts)


@pytest.mark.parametrize(("bits", "finer"), [(7, 8), (8, 8), (15, 16), (16, 16)])
@pytest.mark.parametrize(("share", "fits"), [(0.99, True), (1.01, False)])
def test_biases_fit_beside_steps_of_one_bit_more(
    bits: int, finer: int, share: float, fits: bool, rng: np.random.Generator
) -> None:
    """Inputs in [0, 1] and weights of 1: int32 divided by the levels of either factor."""
    levels = 2**finer - 1
    bias = share * (2**31 - 1) / levels / levels
    network = mlp(rng, 2, 1, 2)
    network = network.with_layers(
        {1: Dense("fc0", (0,), (1,), [[1.0, 1.0]], [bias]), 3: Dense("fc1", (2,), (2,), [[1.0], [0.0]], [0.0, 0.0])}  # type: ignore[arg-type]
    )
    data = np.array([[0.0, 0.0], [1.0, 1.0]])
    radii = radii_of(network, data, bits)
    assert radii.kernel is not None
    assert any("the bias of layer 'fc0'" in reason for reason in radii.kernel.refused) != fits


@pytest.mark.parametrize(("share", "clear"), [(0.0, True), (0.9, True), (1.0, False), (1.1, True)])
def test_a_step_at_the_end_of_float32_is_no_proof(share: float, clear: bool, rng: np.random.Generator) -> None:
    """A toolchain may find it a step, and clips to that tiny range, or none, and takes the step 1."""
    network = mlp(rng, 2, 1, 2)
    layers: dict[int, Layer] = {
        1: Dense("fc0", (0,), (1,), [[1e20, 0.0]], [0.0]),  # type: ignore[arg-type]
        3: Dense("fc1", (2,), (2,), [[1.0], [0.0]], [0.0] * 2),  # type: ignore[arg-type]
    }
    data = np.array([[0.0, 0.0], [share * 255 * 2.0**-126, 0.0]])
    radii = radii_of(network.with_layers(layers), data)
    assert radii.kernel is not None
    assert any("'x' has a step at the very end" in reason for reason in radii.kernel.refused) != clear


def saturating_pairs(x: Array, layers: list[Dense], ranges: list[tuple[float, float]]) -> Array:
    """Logits of the int8 network whose kernels add neighbouring uint8 x int8 products in saturating int16."""
    value = x
    for number, (layer, (low, high)) in enumerate(zip(layers, ranges, strict=True)):
        s_x = (high - low) / 255
        stored, _, scale = integers(layer.weight, 8, True, True)
        products = stored * np.clip(np.round(value / s_x), 0, 255)
        products = np.pad(products, ((0, 0), (0, products.shape[1] % 2)))
        pairs = np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1)
        value = (pairs.sum(1) + np.round(layer.bias / (s_x * scale))) * s_x * scale
        if number + 1 < len(layers):
            value = np.maximum(value, 0.0)
    return value


@pytest.mark.slow
@pytest.mark.skipif(find_here("mnist") is None, reason="MNIST lies neither in $QVERIFY_DATA nor in the cache")
def test_images_that_saturating_pairs_answer_wrong() -> None:
    """Three images proved under scheme channel; full-range weights of the shipped network saturate on them."""
    network, samples = qverify.load(ROBUST), datasets.load("mnist")
    indices = [73, 527, 1170]
    x, labels = samples.x.reshape(len(samples), -1), samples.y[indices]
    layers = [known_layers(network)[i] for i in network.weighted]
    ranges = qverify.family.ranges.calibrate(network, x)[0]
    entries = [ranges[layer.inputs[0]] for layer in layers]
    for index, label in zip(indices, labels, strict=True):
        assert saturating_pairs(x[index], layers, entries).argmax() != label
    options = qverify.Options(method="ibp")
    kernels: dict[KernelMode, str] = {"exact-accumulation": "verified", "any": "unknown"}
    for kernel, status in kernels.items():
        verdicts = qverify.verify(network, x[indices], labels, radii_of(network, x, 8, kernel), options)
        assert [v.status.value for v in verdicts] == [status] * 3
        assert kernel != "any" or all("pairs of products of 'dense1'" in v.detail for v in verdicts)
    seven = qverify.verify(network, x[:40], samples.y[:40], radii_of(network, x, 7, "any"), options)
    assert sum(v.status.value == "verified" for v in seven) > 30


# --- what else rests on it ------------------------------------------------------------------------------------------


def test_the_exact_step_asks_too(rng: np.random.Generator) -> None:
    """Bounds are loose here, so that the solver proves the sample; the kernel's answer counts all the same."""
    network = mlp(rng, 4, 6, 5, 3)
    data = rng.random((30, 4))
    labels = network.evaluate(data).argmax(1)
    radii = radii_of(network, data)
    assert radii.kernel is not None
    full = replace(radii, kernel=type(radii.kernel)(mode="exact-accumulation", layers=(), refused=("because",)))
    before = qverify.verify(network, data, labels, radii, qverify.Options(method="exact", attack=False))
    after = qverify.verify(network, data, labels, full, qverify.Options(method="exact", attack=False))
    assert {v.status.value for v in before} >= {"verified"} and all(v.method in ("exact", "forward") for v in after)
    for one, other in zip(before, after, strict=True):
        changed = one.status is qverify.Status.VERIFIED
        assert (other.status is qverify.Status.UNKNOWN and other.detail == "because") if changed else True
        assert other.margin_lower == one.margin_lower


def test_partial_and_stated_radii_speak_of_no_kernel(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    radii = radii_of(network, rng.random((5, 3)))
    assert radii.kernel is not None and radii.scaled(2.0).kernel is radii.kernel
    assert radii.only("weight", "bias").kernel is None and Radii.from_bits(8).kernel is None
    with pytest.raises(RadiiError, match="Unknown kernel 'all'; it is 'exact-accumulation' or 'any'"):
        Radii.from_bits(8, kernel="all")  # type: ignore[arg-type]


def test_padding_holds_the_zero_point() -> None:
    """Inputs from -1 to 0: -1 is stored as 0, and 0, which pads, as 255."""
    kernel = np.array([1.0, 0.5]).reshape(1, 1, 2, 1)
    layer = Conv("conv", (0,), (1, 1, 1), kernel, np.zeros(1), (1, 1, 1), pads=(1, 0, 0, 0))
    last = Dense("last", (2,), (2,), np.eye(2, 1), [0.0, 0.0])  # type: ignore[arg-type]
    network = Network((Input("x", (), (1, 1, 1)), layer, Relu("r", (1,), (1, 1, 1)), last))
    data = np.array([[-1.0], [0.0]])
    for pads, fits in (((1, 0, 0, 0), True), ((2, 0, 0, 0), False)):  # two pads meet the kernel at once
        shape = (1, 1 + sum(pads) - 1, 1)
        own = replace(layer, pads=pads, shape=shape)
        wider = replace(last, weight=np.eye(2, shape[1]))
        padded = network.with_layers({1: own, 2: Relu("r", (1,), shape), 3: wider})
        radii = radii_of(padded, data, 8, "any")
        said = found(padded, radii, data[:1])[0]
        _, pairs = accumulators(own, data[0], (-1.0, 0.0), 8, True, True)
        assert (pairs <= INT16) == fits == ("'conv'" not in said)


def test_zeros_alone_are_stored_with_any_zero_point() -> None:
    """onnxruntime's quantiser gives a channel of zeros the zero point 0 of uint8, -128 for a kernel of int8."""
    weight, x = np.array([[0.0, 0.0], [1.0, -0.5]]), np.array([[1.0, -1.0], [0.5, 0.25]])
    form = Form(weight="QUInt8", symmetric=False)
    file = quantised(dense([(weight, np.array([0.5, 0.0]))]), x, form)
    weights = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer if list(t.dims) == [2, 2]}
    stored = next(array for array in weights.values() if array.dtype == np.uint8).astype(int) - 128
    zeros = stored if (stored[0] == stored[0, 0]).all() else stored.T
    ends = {"low": np.array([0.0, -0.5]), "high": np.array([0.0, 1.0])}
    layer = IntegerLayer(name="a", bits=8, weight=weight, bias=np.zeros(2), **ends, entry=1.0, offset=0.0)
    assert (abs(zeros[0]) == 128).all() and (layer.stored() >= abs(zeros)).all()
    assert not layer.pairs_fit
