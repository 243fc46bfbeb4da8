"""Dynamic rounding points: exact rationals for what they give, onnxruntime's operator for what intervals must hold."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from qverify.bounds.backward import backward_bound
from qverify.bounds.dynamic import counts, dynamic_ends
from qverify.bounds.interval import interval_bounds
from qverify.bounds.refinement import backward_margins, backward_outputs, tightened_bounds
from qverify.choices import Rounding
from qverify.errors import RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.forward_pass import forward
from qverify.gather import Gather
from qverify.layers import Dense, DynamicRounding, Input, Layer, Product, Relu
from qverify.network import Network
from qverify.verification.cascade import verdicts
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status

Array = np.ndarray
RULES: tuple[Rounding, ...] = ("nearest", "float32")


@cache
def operator() -> Any:
    """DynamicQuantizeLinear of onnxruntime, alone."""
    outputs = [("q", TensorProto.UINT8), ("s", TensorProto.FLOAT), ("z", TensorProto.UINT8)]
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], [name for name, _ in outputs])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n"])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])


def runtime(x: Array) -> Array:
    """What onnxruntime makes of a tensor (n,) of float32, its integers times its step."""
    q, s, z = operator().run(None, {"x": x.astype(np.float32)[None]})
    return np.asarray((q[0].astype(np.float64) - float(z)) * float(s))


def exact(x: list[Fraction], up: bool = False) -> list[Fraction]:
    """The definition in rationals; ties to even, or of x upwards and of the zero point downwards."""
    low, high = min(Fraction(0), *x), max(Fraction(0), *x)
    step = (high - low) / 255
    if not step:
        return [Fraction(0)] * len(x)
    half = Fraction(1, 2)
    zero = math.ceil(-low / step - half) if up else round(-low / step)
    whole = [math.floor(v / step + half) if up else round(v / step) for v in x]
    return [min(max(k, -zero), 255 - zero) * step for k in whole]


def tensors(rng: np.random.Generator) -> list[Array]:
    """Tensors of float32 of all kinds: signs, ties, spreads, ranges of 0 and of what underflows."""
    n = 9
    some = rng.normal(size=n)
    found = [some, abs(some), -abs(some), np.zeros(n), np.full(n, 3.7), np.full(n, -0.3), 1e30 * some, 1e-30 * some]
    found += [
        np.append(some, 1e6),
        np.append(abs(some), -1e5),
        np.append(1e-20 * some, 1.0),
        1e-38 * some,
        1e-44 * some,
    ]
    found += [
        np.append(rng.integers(0, 255, n), 255.0) / 2.0,
        np.append(rng.integers(-99, 99, n) + 0.5, [127.0, -128.0]),
    ]
    found += [np.array([1.0, -1.0, 0.5, -0.5]), np.array([1e-45, 0.0]), np.array([-1e-45, 1e-38])]
    return [np.asarray(x, dtype=np.float32).astype(np.float64) for x in found]


@pytest.mark.parametrize("seed", range(5))
def test_the_forward_pass_is_the_definition_and_errs_by_half_a_step(seed: int) -> None:
    for x in tensors(np.random.default_rng(seed)):
        layer = DynamicRounding("q", (0,), (len(x),))
        given = [Fraction(float(v)) for v in x]
        wanted = exact(given)
        step = (max(Fraction(0), *given) - min(Fraction(0), *given)) / 255
        assert all(abs(y - v) <= step / 2 and y * v >= 0 for y, v in zip(wanted, given, strict=True))
        (ours,) = forward(layer, [x[None]])
        if 255 * float(step) < 1e-40:  # onnxruntime has no such step either
            assert abs(ours - x).max() <= 2 * abs(x).max()
            continue
        # A tie may fall either way in float64, if its quotient is no number of it.
        off = abs(ours - np.array([float(y) for y in wanted]))
        tied = [abs(abs(v / step) % 1 - Fraction(1, 2)) < Fraction(1, 10**12) for v in given] if step else []
        assert (off[~np.array(tied, dtype=bool)] <= 1e-12 * abs(x).max()).all() if step else not ours.any()


def test_the_forward_pass_is_onnxruntime(rng: np.random.Generator) -> None:
    for _ in range(50):
        x = rng.normal(size=40).astype(np.float32).astype(np.float64) * 10 ** rng.uniform(-3, 3) + rng.normal()
        x = x.astype(np.float32).astype(np.float64)
        (ours,) = forward(DynamicRounding("q", (0,), (40,)), [x[None]])
        step = (max(0, x.max()) - min(0, x.min())) / 255
        assert (abs(ours - runtime(x)) > 0.01 * step).sum() <= 1


def boxed(x: Array, widths: Array) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor((x - widths)[None]), torch.tensor((x + widths)[None])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_ends_and_radius_hold_every_tensor_of_a_box(rule: Rounding, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for x in tensors(rng):
        size = abs(x).max()
        for width in (0.0, 1e-3 * size, 0.3 * size, 2.0 * size):
            widths = width * rng.random(len(x)) * (rng.random(len(x)) < 0.7)
            lower, upper = boxed(x, widths)
            found = counts(rule, lower, upper)
            low, high = (end.numpy()[0] for end in dynamic_ends(found, lower, upper))
            radius = float(found.radius) + (0.0 if bool(found.known) else 2.0**-98)
            for _ in range(12):
                inside = lower.numpy()[0] + rng.choice([0.0, 1.0, rng.random()], len(x)) * 2.0 * widths
                inside = np.clip(inside, lower.numpy()[0], upper.numpy()[0])
                if rule == "float32":
                    inside = inside.astype(np.float32).astype(np.float64)
                    inside = np.where((inside < lower.numpy()[0]) | (inside > upper.numpy()[0]), x, inside)
                    y = runtime(inside)
                    assert (low <= y).all() and (y <= high).all(), (x, inside, y, low, high)
                    assert (abs(y - inside) <= radius).all()
                for up in (False, True):
                    rational = exact([Fraction(float(v)) for v in inside], up)
                    for k, y_k in enumerate(rational):
                        assert Fraction(float(low[k])) <= y_k <= Fraction(float(high[k]))
                        assert abs(y_k - Fraction(float(inside[k]))) <= Fraction(radius)


def test_a_known_tensor_without_ties_leaves_no_freedom_but_that_of_the_step(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.normal(size=(20, 30)).astype(np.float32).astype(np.float64))
    for rule, relative in (("nearest", 1e-12), ("float32", 1e-6)):
        found = counts(rule, x, x)
        assert float((found.low == found.high).double().mean()) > 0.99
        low, high = dynamic_ends(found, x, x)
        sure = found.low == found.high
        assert bool(((high - low)[sure] <= relative * x.abs().max()).all())


def test_ties_go_both_ways() -> None:
    x = torch.tensor([[255.0, 0.5, 2.5, 7.0, 0.0]], dtype=torch.float64)
    found = counts("nearest", x, x)
    assert found.low.tolist() == [[255.0, 0.0, 2.0, 7.0, 0.0]] and found.high.tolist() == [[255.0, 1.0, 3.0, 7.0, 0.0]]


def network(rng: np.random.Generator, grid: bool = True, sizes: tuple[int, ...] = (12, 16, 10, 4)) -> Network:
    """Dense layers of integer weights behind dynamic points."""
    layers: list[Any] = [Input("x", (), (sizes[0],))]
    for k, (n, m) in enumerate(itertools.pairwise(sizes), start=1):
        layers.append(DynamicRounding(f"q{k}", (len(layers) - 1,), (n,)))
        step = np.float64(np.float32(0.01 * (1 + rng.random())))
        weight = rng.integers(-127, 128, (m, n)) * step
        steps = np.full((1, 1), step) if grid else None
        layers.append(
            Dense(f"d{k}", (len(layers) - 1,), (m,), weight=weight, bias=0.3 * rng.normal(size=m), grid=steps)
        )
        if m != sizes[-1]:
            layers.append(Relu(f"r{k}", (len(layers) - 1,), (m,)))
    return Network(tuple(layers))


def simulated(net: Network, x: Array, rng: np.random.Generator) -> list[Array]:
    """A runtime in float32: every layer of one sample (n,), integers summed exactly and floats in a random order."""
    f = np.float32
    values: list[Array] = []
    last: tuple[Array, Any] = (np.zeros(0), f(0))
    for layer in net.layers:
        if isinstance(layer, Input):
            values.append(x.astype(f))
        elif isinstance(layer, DynamicRounding):
            q, s, z = operator().run(None, {"x": values[layer.inputs[0]][None]})
            last = q[0].astype(np.int64) - int(z), s
            values.append(last[0] * np.float64(last[1]))
        elif isinstance(layer, Dense) and layer.grid is not None:
            step = f(layer.grid.flat[0])
            sums = np.rint(layer.weight / layer.grid).astype(np.int64) @ last[0]
            one = f(sums) * (last[1] * step) if rng.random() < 0.5 else (f(sums) * last[1]) * step
            values.append(one + f(layer.bias))
        elif isinstance(layer, Dense):
            read, total = values[layer.inputs[0]].astype(f), f(0) * layer.bias.astype(f)
            for k in rng.permutation(len(read)):
                total = total + f(layer.weight[:, k]) * read[k]
            values.append(total + f(layer.bias))
        else:
            values.append(np.maximum(values[layer.inputs[0]], f(0)))
    return [np.asarray(value).astype(np.float64) for value in values]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.0, 1e-4, 0.02])
def test_bounds_hold_what_float32_computes(seed: int, radius: float) -> None:
    """IBP and BP, on every layer and on the margins; biases of float32, which the layers have."""
    rng = np.random.default_rng(seed)
    net = network(rng)
    net = net.with_layers(
        {
            i: replace(layer, bias=layer.bias.astype(np.float32).astype(np.float64))
            for i, layer in enumerate(net.layers)
            if isinstance(layer, Dense)
        }
    )
    x = rng.random((3, 12))
    setup = Setup(net, replace(Radii.of_file(net), input=radius), Options())
    first = setup.intervals(x)
    bounds = tightened_bounds(setup.model, first)
    ends = backward_outputs(setup.model, bounds)
    labels = torch.tensor(net.evaluate(x).argmax(1))
    margins = backward_margins(setup.model, bounds, labels).numpy()
    for k in range(len(x)):
        for _ in range(15):
            moved = np.clip(x[k] + radius * rng.choice([-1.0, 0.0, 1.0], 12), x[k] - radius, x[k] + radius)
            values = simulated(net, moved, rng)
            for i, value in enumerate(values):
                for found in (first, bounds):
                    assert (found.lower[i][k].numpy() <= value).all() and (value <= found.upper[i][k].numpy()).all()
            assert (ends[0][k].numpy() <= values[-1]).all() and (values[-1] <= ends[1][k].numpy()).all()
            gap = values[-1][labels[k]] - np.delete(values[-1], labels[k])
            assert (np.delete(margins[k], labels[k]) <= gap + 1e-6 * abs(gap)).all()


def test_products_hold_what_float32_computes(rng: np.random.Generator) -> None:
    """Of numbers of float32 as they are, so that nothing else leaves room: intervals, and backward bounds."""
    layers = (
        Input("x", (), (50,)),
        Product("square", (0, 0), (50,)),
        Product("cube", (1, 0), (50,)),
        DynamicRounding("q", (2,), (50,)),
    )
    x = rng.normal(size=(1, 50)).astype(np.float32)
    square = x * x
    setup = Setup(Network(layers), Radii.of_file(Network(layers)), Options())
    bounds = setup.intervals(x.astype(np.float64))
    for index, value in ((1, square), (2, square * x)):
        met = torch.as_tensor(value.astype(np.float64))
        assert (bounds.lower[index] <= met).all() and (met <= bounds.upper[index]).all()
        assert (bounds.upper[index] - bounds.lower[index] <= 1e-6 * met.abs() + 1e-20).all()
        rows = torch.eye(50, dtype=torch.float64).unsqueeze(0)
        assert (backward_bound(setup.model, bounds, index, rows) <= met).all()
        assert (backward_bound(setup.model, bounds, index, -rows) <= -met).all()


def test_the_step_that_all_share_is_one_number(rng: np.random.Generator) -> None:
    """Integers are known and the step alone is not: what cancels in the integers cancels in the sums."""
    weight = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    net = Network(
        (
            Input("x", (), (3,)),
            DynamicRounding("q", (0,), (3,)),
            Dense("d", (1,), (2,), weight=weight, bias=np.zeros(2), grid=np.ones((1, 1))),
        )
    )
    model = Setup(net, replace(Radii.of_file(net, "nearest"), input=0.0005), Options()).model
    x = np.array([[100.0, 100.0, 255.0]])
    bounds = interval_bounds(model, model.tensor(x - 0.0005), model.tensor(x + 0.0005))
    assert float(bounds.upper[1][0, 0] - bounds.lower[1][0, 0]) > 1e-4
    assert float(bounds.upper[2][0, 0].abs()) < 1e-9
    assert float(bounds.upper[2][0, 1] - bounds.lower[2][0, 1]) > 1e-4


def test_verdicts_are_verified_unknown_or_misclassified(rng: np.random.Generator) -> None:
    net = network(rng)
    x = rng.random((20, 12))
    labels = net.evaluate(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    for rule in RULES:
        found = verdicts(net, x, labels, replace(Radii.of_file(net, rule), input=0.03), Options(seconds=None))
        assert found[0].status is Status.MISCLASSIFIED
        assert {v.status for v in found[1:]} <= {Status.VERIFIED, Status.UNKNOWN}
        unknown = [v for v in found if v.status is Status.UNKNOWN]
        assert unknown and all("bounds prove too little" in v.detail for v in unknown)
        sure = verdicts(net, x, labels, Radii.of_file(net, rule), Options())
        assert sum(v.status is Status.VERIFIED for v in sure) >= 15
    with pytest.raises(UsageError, match="only bounds can follow"):
        verdicts(net, x, labels, Radii.of_file(net), Options(method="exact"))


def test_a_family_needs_the_rule_of_the_file(rng: np.random.Generator) -> None:
    net = network(rng)
    with pytest.raises(RadiiError, match="its radii follow from each sample"):
        Family.of(net, Radii(0.1))
    others: tuple[Rounding, ...] = ("single", "double", "truncate", "any")
    for rule in others:
        with pytest.raises(RadiiError, match="is of fixed steps; state nearest or"):
            Radii.of_file(net, rule)
    with pytest.raises(RadiiError, match="no factor changes it"):
        Radii.of_file(net).scaled(2.0)
    with pytest.raises(RadiiError, match="leave float32"):
        Setup(net, Radii.of_file(net), Options()).intervals(np.full((1, 12), 1e32))


@pytest.mark.parametrize("moved", [False, True])
def test_sums_that_may_leave_int32_are_not_verified(moved: bool) -> None:
    """Also where numbers are moved between, as they are before a convolution over three axes."""
    for n, fits in ((66_000, True), (67_000, False)):
        weight = np.full((2, n), 127.0)
        weight[1] = 0.0
        layers: list[Layer] = [Input("x", (), (n,)), DynamicRounding("q", (0,), (n,))]
        if moved:
            layers.append(Gather("moved", (1,), (n,), index=np.arange(n)[::-1].copy(), fill=np.zeros(n)))
        read = len(layers) - 1
        layers.append(Dense("d", (read,), (2,), weight=weight, bias=np.zeros(2), grid=np.ones((1, 1))))
        net = Network(tuple(layers))
        (found,) = verdicts(net, np.ones((1, n)), [0], Radii.of_file(net, "nearest"), Options())
        assert (found.status is Status.VERIFIED) == fits and ("int32" in found.detail) != fits


def test_layers_in_floats_are_off_by_any_order_of_summation(rng: np.random.Generator) -> None:
    """A dense layer that was left in float32, and one of integers behind it; intervals, and backward bounds alone."""
    own, n, m = network(rng, sizes=(8, 4)), 40, 8
    given = [rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in ((m, n), (m,))]
    first: list[Any] = [Input("x", (), (n,)), Dense("f", (0,), (m,), weight=given[0], bias=given[1])]
    last: Any = own.layers[2]
    last = replace(last, inputs=(2,), bias=last.bias.astype(np.float32).astype(np.float64))
    net = Network((*first, DynamicRounding("q", (1,), (m,)), last))
    x = rng.normal(size=(4, n)).astype(np.float32).astype(np.float64)
    setup = Setup(net, Radii.of_file(net), Options())
    bounds = setup.intervals(x)
    for index in (1, 3):
        rows = torch.eye(net.layers[index].size, dtype=torch.float64).expand(len(x), -1, -1)
        both = backward_bound(setup.model, bounds, index, rows), -backward_bound(setup.model, bounds, index, -rows)
        for low, high in ((bounds.lower[index], bounds.upper[index]), both):
            for k in range(len(x)):
                for _ in range(20):
                    value = simulated(net, x[k], rng)[index]
                    assert (low[k].numpy() <= value).all() and (value <= high[k].numpy()).all()
