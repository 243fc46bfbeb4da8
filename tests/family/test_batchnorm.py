"""BatchNormalization that a toolchain folds or keeps apart: members of both families, real files, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import qverify
from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.choices import Scheme
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from tests.support.bounds import box_ends
from tests.support.toolchain import Form, model, outputs, quantised, without_last_rounding

node = helper.make_node
EPSILON = 1e-3


def statistics(rng: np.random.Generator, channels: int, wild: bool = True) -> dict[str, Array]:
    """Scale, offset, mean and variance; wild: scales from 1e-3 to 1e3 of both signs, and one that is 0."""
    scale = rng.normal(size=channels) * 10.0 ** rng.uniform(-3, 3, channels) if wild else rng.uniform(0.5, 2, channels)
    if wild:
        scale[0] = 0.0
    return {
        "s": scale,
        "o": rng.normal(size=channels),
        "m": rng.normal(size=channels),
        "v": rng.uniform(0.1, 3, channels),
    }


def norm(source: str, target: str, name: str = "bn", prefix: str = "") -> onnx.NodeProto:
    inputs = [source, *(prefix + key for key in "somv")]
    return node("BatchNormalization", inputs, [target], name=name, epsilon=EPSILON)


def gemm(source: str, target: str, number: int, name: str) -> onnx.NodeProto:
    return node("Gemm", [source, f"W{number}", f"b{number}"], [target], name=name, transB=1)


def numbers(rng: np.random.Generator, **shapes: Any) -> dict[str, Array]:
    return {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}


def simple(rng: np.random.Generator, kind: str, wild: bool = True) -> tuple[onnx.ModelProto, Array]:
    """A layer of this kind, BatchNormalization, Relu, Gemm; balanced so that no channel drowns the others."""
    channels = 5
    found = statistics(rng, channels, wild)
    if kind == "conv":
        weights = numbers(rng, W1=(channels, 2, 2, 2), b1=(channels,), W2=(3, channels * 6), b2=(3,))
        first = node("Conv", ["x", "W1", "b1"], ["z"], name="first", kernel_shape=[2, 2])
        entry: tuple[int, ...] = (2, 4, 3)
        flat = [node("Flatten", ["r"], ["f"], name="flat")]
    else:
        weights = numbers(rng, W1=(channels, 4), b1=(channels,), W2=(3, channels), b2=(3,))
        first = gemm("x", "z", 1, "first")
        entry, flat = (4,), []
        if kind == "matmul":
            first = node("MatMul", ["x", "W1"], ["z"], name="first")
            weights["W1"] = weights["W1"].T.copy()
            del weights["b1"]
    if wild:  # small weights where the scale is large
        axis = (slice(None),) if kind != "matmul" else (slice(None), slice(None))
        factor = np.where(found["s"] == 0, 1.0, 1.0 / np.maximum(abs(found["s"]), 1e-3))
        shape = (1, -1) if kind == "matmul" else (-1, *[1] * (weights["W1"].ndim - 1))
        weights["W1"] = weights["W1"][axis] * factor.reshape(shape)
    last = gemm("f" if flat else "r", "y", 2, "last")
    nodes = [first, norm("z", "n"), node("Relu", ["n"], ["r"], name="relu"), *flat, last]
    return model(nodes, weights | found, entry, 3), rng.normal(size=(15, *entry))


def residual(rng: np.random.Generator, kind: Any = "gemm", wild: Any = True) -> Any:
    """Two branches with a BatchNormalization each, added, then a Relu."""
    weights = numbers(rng, W1=(5, 4), b1=(5,), W2=(5, 5), b2=(5,), W3=(3, 5), b3=(3,), W4=(5, 5), b4=(5,))
    named = [{f"{p}{k}": v for k, v in statistics(rng, 5, False).items()} for p in ("p", "q")]
    nodes = [
        gemm("x", "z1", 1, "stem"),
        node("Relu", ["z1"], ["r1"], name="relu1"),
        gemm("r1", "z2", 2, "left"),
        norm("z2", "n2", "bn2", "p"),
        gemm("r1", "z4", 4, "right"),
        norm("z4", "n4", "bn4", "q"),
        node("Add", ["n2", "n4"], ["a"], name="add"),
        node("Relu", ["a"], ["r2"], name="relu2"),
        gemm("r2", "y", 3, "last"),
    ]
    return model(nodes, weights | named[0] | named[1], (4,), 3), rng.normal(size=(15, 4))


def alone(rng: np.random.Generator, kind: Any = "gemm", wild: Any = True) -> Any:
    """A BatchNormalization between two Relus: there is nothing to fold it into."""
    weights = numbers(rng, W1=(5, 4), b1=(5,), W3=(3, 5), b3=(3,))
    nodes = [
        gemm("x", "z1", 1, "stem"),
        node("Relu", ["z1"], ["r1"], name="relu1"),
        norm("r1", "n"),
        node("Relu", ["n"], ["r2"], name="relu2"),
        gemm("r2", "y", 3, "last"),
    ]
    return model(nodes, weights | statistics(rng, 5, wild), (4,), 3), rng.normal(size=(15, 4))


MAKERS: dict[str, Any] = {
    **{kind: lambda rng, wild=True, kind=kind: simple(rng, kind, wild) for kind in ("gemm", "matmul", "conv")},
    "residual": lambda rng, wild=True: residual(rng, wild=wild),
    "alone": lambda rng, wild=True: alone(rng, wild=wild),
}
FORMS = [
    Form(format_, channel, weight, "QUInt8", symmetric, prepared)
    for format_, channel, weight, symmetric in (
        ("QDQ", True, "QInt8", True),
        ("QDQ", False, "QInt8", True),
        ("QDQ", False, "QUInt8", False),
        ("QOperator", False, "QInt8", True),
        ("QOperator", True, "QInt8", True),
    )
    for prepared in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_verified_is_right_in_real_files(name: str, form: Form) -> None:
    """Folded by the pre-processing where it can, else kept apart; tame and wild scales."""
    sure = 0
    for seed, wild in ((0, False), (1, True), (2, True), (3, False)):
        source, x = MAKERS[name](np.random.default_rng(seed), wild)
        x = x.astype(np.float32).astype(np.float64)
        network = qverify.load(source)
        labels = network.evaluate(x).argmax(1)
        radii = Radii.from_bits(8, "channel" if form.channel else "tensor", "nearest", network, x)
        verdicts = qverify.verify(network, x, labels, radii, qverify.Options(method="bp"))
        verified = np.array([v.status is qverify.Status.VERIFIED for v in verdicts])
        cut = without_last_rounding(quantised(source, x, form), 3)
        for optimised in (True, False):
            assert (outputs(cut, x, optimised).argmax(1) == labels)[verified].all()
        sure += int(verified.sum())
    assert sure or name == "residual"


def by_hand() -> onnx.ModelProto:
    """Row 0 is (1, -1) / 1000 and its scale 1000: one step of the whole tensor takes it away before it is scaled."""
    given = {"W1": [[1e-3, -1e-3], [1.0, 1.0]], "b1": [0.0, 0.0], "W2": [[1.0, 0.0], [0.0, 0.0]], "b2": [0.0, 0.5]}
    given |= {"s": [1000.0, 1.0], "o": [0.0, 0.0], "m": [0.0, 0.0], "v": [1.0 - EPSILON] * 2}
    relu = node("Relu", ["n"], ["r"], name="relu")
    nodes = [gemm("x", "z", 1, "first"), norm("z", "n"), relu, gemm("r", "y", 2, "last")]
    return model(nodes, given, (2,), 2)


@pytest.mark.parametrize("scheme", ["tensor", "channel"])
def test_the_default_covers_both_and_each_can_be_asked_for(scheme: Scheme) -> None:
    network, x = qverify.load(by_hand()), np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    labels = network.evaluate(x).argmax(1)
    found = {}
    for batchnorm in ("folded", "separate", "either"):
        radii = Radii.from_bits(8, scheme, "nearest", network, x, batchnorm=batchnorm)
        found[batchnorm] = Family.of(network, radii)
        verdict = qverify.verify(network, x[:1], labels[:1], radii)[0]
        assert (verdict.status is qverify.Status.VERIFIED) == (batchnorm == "folded")
        assert batchnorm.replace("either", "folded or separate") in radii.convention
    for kind in ("weight", "bias", "activation"):
        parts = [getattr(found[name], kind) for name in ("folded", "separate", "either")]
        for i in parts[0]:
            assert (np.maximum(parts[0][i], parts[1][i]) == parts[2][i]).all()
    with pytest.raises(RadiiError, match="Unknown batchnorm 'fused'; it is 'folded', 'separate' or 'either'"):
        Radii.from_bits(8, scheme, "nearest", network, x, batchnorm="fused")  # type: ignore[arg-type]


# --- members that keep it apart, sampled by the definition ------------------------------------------------------------


def affine(x: Array, weight: Array, bias: Array) -> Array:
    """Dense, or a convolution of kernel (2, 2) without padding, both by their definition."""
    if weight.ndim == 2:
        return x @ weight.T + bias
    rows, columns = x.shape[2] - 1, x.shape[3] - 1
    out = np.zeros((len(x), len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = np.einsum("ncij,kcij->nk", x[:, :, i : i + 2, j : j + 2], weight) + bias
    return out


def rounded(values: Array, low: float, high: float, rng: np.random.Generator, bits: int = 8) -> Array:
    """An asymmetric quantiser over a range: any of the two neighbours on its grid, clipped."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1)
    zero = np.round(-low / step)
    whole = np.floor(values / step + rng.random(values.shape))
    return np.asarray(step * (np.clip(whole + zero, 0, 2**bits - 1) - zero))


def rounded_weights(values: Array, rng: np.random.Generator, per_channel: bool, bits: int = 8) -> tuple[Array, Array]:
    flat = values.reshape(len(values), -1)
    top = abs(flat).max(1) if per_channel else np.full(len(flat), abs(flat).max())
    step = np.where(top > 0, top, 1.0) / (2 ** (bits - 1) - 1)
    whole = np.clip(np.floor(flat / step[:, None] + rng.random(flat.shape)), -127, 127)
    return (whole * step[:, None]).reshape(values.shape), step


@pytest.mark.parametrize("kind", ["gemm", "conv"])
@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_members_that_keep_it_apart_lie_within_the_bounds(
    kind: str, wild: bool, per_channel: bool, rng: np.random.Generator
) -> None:
    """Weights, bias, what lies between, scale and offset each rounded up or down; inputs beyond the calibrated ones."""
    source, x = simple(rng, kind, wild)
    given: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in source.graph.initializer}
    network = qverify.load(source)
    radii = Radii.from_bits(8, "channel" if per_channel else "tensor", "any", network, x, batchnorm="separate")
    assert radii.kernel is not None and not radii.kernel.refused
    wide = 1.4 * x
    family = Family.of(network, radii)
    model_ = BoundModel.of(family)
    bounds = interval_bounds(model_, *box_ends(model_, family.box(wide.reshape(len(x), -1))))
    z = affine(x, given["W1"], given["b1"])
    shape = (-1, *[1] * (z.ndim - 2))
    deviation = np.sqrt(given["v"] + EPSILON)
    moved = 0
    for _ in range(40):
        weight, step = rounded_weights(given["W1"], rng, per_channel)
        entry = (x.max() - x.min()) / 255
        bias = np.floor(given["b1"] / (step * entry) + rng.random(len(step))) * step * entry
        inside = rounded(affine(rounded(wide, x.min(), x.max(), rng), weight, bias), z.min(), z.max(), rng)
        scale, scale_step = rounded_weights(given["s"][:, None], rng, False)
        unit = scale_step * (max(z.max(), 0) - min(z.min(), 0)) / 255
        offset = np.floor(given["o"] / unit + rng.random(len(unit))) * unit
        y = (scale.ravel() / deviation).reshape(shape) * (inside - given["m"].reshape(shape)) + offset.reshape(shape)
        relu = network.relus[0]
        top = float(network.evaluate_all(x)[relu].max())
        out = rounded(np.maximum(y, 0.0), 0.0, top, rng).reshape(len(x), -1)
        lower, upper = bounds.lower[relu].numpy(), bounds.upper[relu].numpy()
        assert (lower - 1e-9 <= out).all() and (out <= upper + 1e-9 * (1 + abs(upper))).all()
        moved += int((abs(out - network.evaluate_all(wide)[relu]) > 1e-6).sum())
    assert moved


def grid_ends(low: float, high: float) -> tuple[float, float]:
    """What an 8-bit quantiser of this range clips to: whole steps, with a whole zero point."""
    step = (high - low) / 255
    zero = float(np.round(-low / step))
    return -zero * step, (255 - zero) * step


def pushed(values: Array | float, step: float, up: np.ndarray | bool) -> Array | float:
    """As far as any rounding to whole steps can move them: nearly one step, up or down where `up` says so."""
    return values + step * (1 - 1e-9) * np.where(up, 1, -1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("exact", ["nothing", "weights", "between"])
@pytest.mark.parametrize("least", [None, 0.02])
def test_members_pushed_to_one_side_lie_within_the_bounds(
    per_channel: bool, up: bool, exact: str, least: float | None, rng: np.random.Generator
) -> None:
    """Every rounding moves the output the same way; samples reach far beyond the data, offsets far from 0.

    `exact`: what the toolchain happens to round to itself, so that no other radius has room for what is left. `least`:
    what a channel gives at the end of its range; a sample beyond would give less, if it were not cut off.
    """
    source, x = simple(rng, "gemm", False)
    given: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in source.graph.initializer}
    given |= {"o": np.array([0.0, 4.0, -4.0, 9.0, 9.0]), "s": given["s"] * [1, 1, -1, 1, -1], "m": given["m"] * 3}
    z = x @ given["W1"].T + given["b1"]
    if least is not None:
        slopes = given["s"] / np.sqrt(given["v"] + EPSILON)
        given["o"] = least - np.minimum(*(slopes * (end - given["m"]) for end in (min(z.min(), 0), max(z.max(), 0))))
    for tensor in source.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(given[tensor.name], dtype=np.float32), tensor.name))
        given[tensor.name] = np.float64(np.float32(given[tensor.name]))
    network = qverify.load(source)
    scheme: Scheme = "channel" if per_channel else "tensor"
    radii = Radii.from_bits(8, scheme, "any", network, x, batchnorm="separate")
    wide = np.concatenate([x, 3.0 * x])
    family = Family.of(network, radii)
    model_ = BoundModel.of(family)
    bounds = interval_bounds(model_, *box_ends(model_, family.box(wide)))
    relu, z = network.relus[0], x @ given["W1"].T + given["b1"]
    ends, entry = (min(z.min(), 0.0), max(z.max(), 0.0)), (min(x.min(), 0.0), max(x.max(), 0.0))
    top, deviation = float(network.evaluate_all(x)[relu].max()), np.sqrt(given["v"] + EPSILON)
    steps = abs(given["W1"]).max(1) / 127 if per_channel else np.full(5, abs(given["W1"]).max() / 127)
    scale_step = abs(given["s"]).max() / 127
    for row, sample in enumerate(wide):
        for c in range(5):
            sign = (1 if given["s"][c] > 0 else -1) * (1 if up else -1)
            taken = pushed(sample, (entry[1] - entry[0]) / 255, given["W1"][c] * sign > 0)
            taken = np.clip(taken, *grid_ends(*entry))
            weight, bias = given["W1"][c], given["b1"][c]
            if exact != "weights":
                weight = pushed(weight, steps[c], taken * sign > 0)
                bias = pushed(bias, steps[c] * (entry[1] - entry[0]) / 255, sign > 0)
            inside = weight @ taken + bias
            if exact != "between":
                inside = pushed(inside, (ends[1] - ends[0]) / 255, sign > 0)
            inside = np.clip(inside, *grid_ends(*ends))
            scale = pushed(given["s"][c], scale_step, (inside - given["m"][c]) * (1 if up else -1) > 0)
            offset = pushed(given["o"][c], scale_step * (ends[1] - ends[0]) / 255, up)
            y = scale / deviation[c] * (inside - given["m"][c]) + offset
            out = np.clip(pushed(y, top / 255, up), 0.0, top) if y > 0 else 0.0  # every quantiser keeps 0
            assert bounds.lower[relu][row, c] - 1e-9 <= out <= bounds.upper[relu][row, c] + 1e-9


def test_a_dead_relu_behind_one_that_is_kept_apart_is_not_covered(rng: np.random.Generator) -> None:
    """Toolchains may drop a Relu that is 0 on all data: what passes then may be below 0, whatever the sample."""
    source, x = simple(rng, "gemm", False)
    for tensor in source.graph.initializer:
        if tensor.name == "o":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(5, -100.0, dtype=np.float32), "o"))
    network = qverify.load(source)
    labels = network.evaluate(x).argmax(1)
    for batchnorm, covered in (("folded", False), ("separate", False)):
        radii = Radii.from_bits(8, "channel", "nearest", network, x, batchnorm=batchnorm)  # type: ignore[arg-type]
        verdicts = qverify.verify(network, x, labels, radii, qverify.Options(method="bp"))
        assert any(v.status is qverify.Status.VERIFIED for v in verdicts) == covered
        assert all("Relu 'relu' is 0 on all calibration data" in v.detail for v in verdicts)
    assert radii.kernel is not None and "may drop it" in " ".join(radii.kernel.refused)


# --- what no radius covers --------------------------------------------------------------------------------------------


def behind(rng: np.random.Generator, place: str) -> tuple[onnx.ModelProto, Array]:
    """Networks with a BatchNormalization in other places."""
    weights = numbers(rng, W1=(5, 4), b1=(5,), W2=(5, 5), b2=(5,), W3=(3, 5), b3=(3,)) | statistics(rng, 5, False)
    relu = node("Relu", ["z"], ["r"], name="relu")
    nodes = {
        "after a Relu": [gemm("x", "z", 1, "a"), relu, norm("r", "n"), gemm("n", "y", 3, "c")],
        "before a Gemm": [gemm("x", "z", 1, "a"), norm("z", "n"), gemm("n", "y", 3, "c")],
        "read twice": [
            *(gemm("x", "z0", 1, "a"), norm("z0", "n"), node("Relu", ["n"], ["r"], name="relu")),
            *(gemm("n", "z2", 2, "b"), node("Add", ["r", "z2"], ["z3"], name="add")),
            *(node("Relu", ["z3"], ["r3"], name="relu3"), gemm("r3", "y", 3, "c")),
        ],
        "two": [
            *(gemm("x", "z0", 1, "a"), norm("z0", "n"), norm("n", "n2", "bn2")),
            *(node("Relu", ["n2"], ["r"], name="relu"), gemm("r", "y", 3, "c")),
        ],
    }[place]
    used = {name for n in nodes for name in n.input}
    return model(nodes, {k: v for k, v in weights.items() if k in used}, (4,), 3), rng.normal(size=(8, 4))


@pytest.mark.parametrize("place", ["after a Relu", "before a Gemm", "read twice", "two"])
@pytest.mark.parametrize("scheme", ["tensor", "channel"])
def test_other_places_are_refused_with_the_way_out(
    place: str, scheme: Scheme, rng: np.random.Generator, tmp_path: Path
) -> None:
    source, x = behind(rng, place)
    network = qverify.load(source)
    with pytest.raises(RadiiError, match=r"BatchNormalization.*--scheme paper|only folded") as caught:
        Radii.from_bits(8, scheme, "nearest", network, x)
    assert "\n" not in str(caught.value)
    assert Radii.from_bits(8).kernel is None, "scheme paper speaks of folded weights, wherever they are"
    if place == "after a Relu":
        assert "fold it into the layer that reads it" in str(caught.value)
        with pytest.raises(RadiiError, match="No Relu alone follows"):
            Radii.from_bits(8, scheme, "nearest", network, x, batchnorm="folded")
        return
    assert "--batchnorm folded" in str(caught.value) and "qverify.save(qverify.load(MODEL), FILE)" in str(caught.value)
    Radii.from_bits(8, scheme, "nearest", network, x, batchnorm="folded")
    qverify.save(network, str(tmp_path / "folded.onnx"))
    folded = qverify.load(str(tmp_path / "folded.onnx"))
    assert folded.batchnorms == ()
    Radii.from_bits(8, scheme, "nearest", folded, x)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 1.0), (1.0, 2.0), (2.0, 0.5)])
def test_gemms_with_factors_are_refused_and_written_anew(
    alpha: float, beta: float, rng: np.random.Generator, tmp_path: Path
) -> None:
    """onnxruntime's quantiser forgets beta, and in operator form alpha: its own files answer by other biases."""
    weights = numbers(rng, W1=(5, 4), b1=(5,), W2=(3, 5), b2=(3,))
    first = node("Gemm", ["x", "W1", "b1"], ["z"], name="first", transB=1, alpha=alpha, beta=beta)
    source = model([first, node("Relu", ["z"], ["r"], name="relu"), gemm("r", "y", 2, "last")], weights, (4,), 3)
    x = rng.normal(size=(8, 4))
    network = qverify.load(source)
    with pytest.raises(RadiiError, match="Layer 'first': its Gemm has alpha"):
        Radii.from_bits(8, "channel", "nearest", network, x)
    qverify.save(network, str(tmp_path / "plain.onnx"))
    Radii.from_bits(8, "channel", "nearest", qverify.load(str(tmp_path / "plain.onnx")), x)


def test_a_weight_on_the_left_is_refused(rng: np.random.Generator) -> None:
    """Its per-channel steps run along the other axis."""
    weights = {"W1": rng.normal(size=(5, 4)), "W2": rng.normal(size=(3, 5))}
    nodes = [node("MatMul", ["W1", "c"], ["z"], name="first"), node("Relu", ["z"], ["r"], name="relu")]
    nodes = [
        node("Unsqueeze", ["x", "axes"], ["c"], name="column"),
        *nodes,
        node("MatMul", ["W2", "r"], ["w"], name="last"),
    ]
    nodes.append(node("Squeeze", ["w", "axes"], ["y"], name="row"))
    source = model(nodes, weights, (4,), 3)
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "axes"))
    network, x = qverify.load(source), rng.normal(size=(8, 4))
    with pytest.raises(RadiiError, match="Layer 'first': its weight is the left factor"):
        Radii.from_bits(8, "channel", "nearest", network, x)
