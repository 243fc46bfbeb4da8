"""IBP: contains every member, is exact per layer, monotone, differentiable, and chunked without trace."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qverify.activations.layer import Activation
from qverify.arrays import Array
from qverify.bounds.affine import Affine
from qverify.bounds.affine_interval import affine_interval
from qverify.bounds.interval import INTERVAL, interval_bounds, interval_margins
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.family import Family
from qverify.family.points import Point
from qverify.family.radii import Radii
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, MaxPool, Product, Relu, Rounding, Scale
from qverify.network import Network, margins
from qverify.rounding import Allowances
from tests.support.bounds import (
    BOXES,
    CLIP,
    assert_contained,
    assert_margins_hold,
    box_ends,
    brute_force,
    members,
    pointed,
    setting,
    with_memory,
    with_saturations,
)
from tests.support.networks import (
    EVERY,
    NETWORKS,
    conv_taps,
    dense,
    inputs,
    mlp,
    random_radii,
    relu,
    sample_members,
)
from tests.support.networks import conv as random_conv

# --- containment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, CLIP], ids=["free", "clipped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_member_lies_inside(name: str, clip: tuple[float, float] | None) -> None:
    """Oracle: thousands of members by the independent forward pass, at every layer, and their margins."""
    family, model, x, bounds, rng = setting(name, 11, clip)
    labels = rng.integers(0, family.network.output_size, len(x))
    lower = interval_margins(model, bounds, torch.as_tensor(labels))
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            assert_contained(bounds, row, values)
            assert_margins_hold(lower[row], values[-1], labels[row])


@pytest.mark.parametrize("name", ["dense", "residual", "conv_conv", "input_twice"])
def test_every_member_lies_inside_where_the_scheme_clips(name: str) -> None:
    """Branches that are cut off on the way into a Relu: radii differ by sample."""
    rng = np.random.default_rng(5)
    network = NETWORKS[name](rng)
    family, x = Family.of(network, with_saturations(network, random_radii(network, rng))), inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    assert all(bounds.activation[i].shape == (len(x), network.layers[i].size) for i in network.relus)
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            assert_contained(bounds, row, values)


@pytest.mark.parametrize("grid", [False, True], ids=["any", "grid"])
@pytest.mark.parametrize("clip", [None, CLIP], ids=["free", "clipped"])
@pytest.mark.parametrize("name", EVERY)
def test_every_member_lies_inside_with_points_everywhere(
    name: str, clip: tuple[float, float] | None, grid: bool
) -> None:
    """A rounding point at the input and behind every layer, ends that saturate amid the values: by the same oracle."""
    saturated = 0
    for seed in range(3):
        family, model, x, bounds, rng = pointed(name, seed, clip, grid)
        labels = rng.integers(0, family.network.output_size, len(x))
        lower = interval_margins(model, bounds, torch.as_tensor(labels))
        for row in range(len(x)):
            for values in members(family, bounds, x, row, rng):
                assert_contained(bounds, row, values)
                assert_margins_hold(lower[row], values[-1], labels[row])
                saturated += sum(int((values[i] == point.high[1]).sum()) for i, point in family.points.items())
    assert saturated or name == "linear"


def test_a_range_is_clipped_to_and_not_added_to_the_radius(rng: np.random.Generator) -> None:
    """Definition: min(relu(z), top) off by r and clipped again: bounds are those of the ends of z, far beyond."""
    network = mlp(rng, 4, 6, 3)
    point = Point(radius=0.03, low=(0.0, 0.0), high=(0.2, 0.2))
    family = Family.of(network, Radii(input=0.1, weight=0.05, bias=0.02, points={"relu0": point}))
    x = inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    low, high = (end[1].numpy() for end in (bounds.lower, bounds.upper))
    np.testing.assert_allclose(bounds.lower[2], np.clip(low - 0.03, 0.0, 0.2), atol=1e-12)
    np.testing.assert_allclose(bounds.upper[2], np.where(high > 0, np.minimum(high + 0.03, 0.2), 0.0), atol=1e-12)
    assert (bounds.lower[2] == 0.2).any() and (bounds.upper[2] == 0.0).any()
    assert family.activation[2].max() == 0.03 and not family.per_sample


# --- exactness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", BOXES)
def test_dense_is_exact_against_all_corners(box: str, rng: np.random.Generator) -> None:
    """Oracle: enumeration of every corner; weights above, below and at the radius, and zero."""
    lower, upper = (np.array(end) for end in BOXES[box])
    weight = np.array([[1.2, -0.7, 0.4], [0.05, -0.02, 0.1], [-0.1, 0.1, 0.0], [0.3, -0.3, -2.0]])
    radius = np.array([[0.1, 0.2, 0.3], [0.2, 0.1, 0.1], [0.1, 0.0, 0.5], [0.4, 0.2, 0.0]])
    bias, bias_radius = rng.normal(size=4), np.array([0.1, 0.0, 0.3, 0.2])
    network = Network((Input("x", (), (3,)), Dense("d", (0,), (4,), weight=weight, bias=bias)))
    model = BoundModel.of(Family.of(network, Radii(weight=radius, bias=bias_radius)))
    got = interval_bounds(model, model.tensor(lower[None]), model.tensor(upper[None]))
    for i in range(4):
        low, high = brute_force(weight[i], radius[i], bias[i], bias_radius[i], lower, upper)
        assert got.lower[1][0, i].item() == pytest.approx(low, abs=1e-9)
        assert got.upper[1][0, i].item() == pytest.approx(high, abs=1e-9)


NUMBER = st.floats(-2, 2, allow_nan=False).map(lambda v: round(v, 3))
TERM = st.tuples(NUMBER, st.sampled_from([0.0, 0.05, 0.5, 1.5]), NUMBER, NUMBER)


@given(st.lists(st.lists(TERM, min_size=2, max_size=2), min_size=3, max_size=3))
def test_dense_is_exact_for_any_numbers(samples: list[list[tuple[float, ...]]]) -> None:
    """Oracle: enumeration. Three samples in one batch, so that cases of different sign share a call."""
    terms = np.array(samples)
    weight, radius = terms[0, :, 0], terms[0, :, 1]
    lower, upper = terms[:, :, 2:].min(2), terms[:, :, 2:].max(2)
    network = Network((Input("x", (), (2,)), Dense("d", (0,), (1,), weight=weight[None], bias=np.array([0.25]))))
    model = BoundModel.of(Family.of(network, Radii(weight=radius[None], bias=0.5)))
    got = interval_bounds(model, model.tensor(lower), model.tensor(upper))
    for row in range(3):
        low, high = brute_force(weight, radius, 0.25, 0.5, lower[row], upper[row])
        assert got.lower[1][row, 0].item() == pytest.approx(low, abs=1e-9)
        assert got.upper[1][row, 0].item() == pytest.approx(high, abs=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_is_exact_per_position(groups: int, rng: np.random.Generator) -> None:
    """Oracle: enumeration, position by position, of the corners of the kernel and of what the position looks at."""
    geometry = {"strides": (1, 2), "pads": (1, 0, 0, 1), "dilations": (1, 2)}
    layer = random_conv(rng, "c", 0, (2, 3, 4), (2, 2 // groups, 2, 2), groups=groups, **geometry)
    radius, bias_radius = 0.3 * rng.random(layer.weight.shape), np.array([0.1, 0.0])
    network = Network((Input("x", (), (2, 3, 4)), layer))
    model = BoundModel.of(Family.of(network, Radii(weight=radius, bias=bias_radius)))
    lower = np.stack([rng.normal(size=24) - 0.3, -rng.random(24)])
    upper = np.stack([lower[0] + 0.8 * rng.random(24), -lower[1]])
    got = interval_bounds(model, model.tensor(lower), model.tensor(upper))
    for row, position in product(range(2), range(0, layer.size, 3 if groups == 1 else 1)):
        sources, kernel = zip(*conv_taps(layer)[position], strict=True)
        w, r = (np.array([t[k] for k in kernel]) for t in (layer.weight, radius))  # type: ignore[index]
        channel, s = position // layer.positions, list(sources)
        wanted = brute_force(w, r, layer.bias[channel], bias_radius[channel], lower[row, s], upper[row, s])
        assert got.lower[1][row, position].item() == pytest.approx(wanted[0], abs=1e-9)
        assert got.upper[1][row, position].item() == pytest.approx(wanted[1], abs=1e-9)


@pytest.mark.parametrize("box", BOXES)
def test_folded_margins_are_exact_for_one_layer(box: str, rng: np.random.Generator) -> None:
    """Oracle: all corners of both rows and of the input, jointly."""
    lower, upper = (np.array(end) for end in BOXES[box])
    weight, radius = rng.normal(size=(3, 3)), 0.5 * rng.random((3, 3))
    bias, bias_radius = rng.normal(size=3), np.array([0.1, 0.2, 0.0])
    network = Network((Input("x", (), (3,)), Dense("d", (0,), (3,), weight=weight, bias=bias)))
    model = BoundModel.of(Family.of(network, Radii(weight=radius, bias=bias_radius)))
    stacked = (np.stack([lower] * 3), np.stack([upper] * 3))
    got = interval_margins(model, interval_bounds(model, *box_ends(model, stacked)), torch.arange(3))
    for t, j in product(range(3), range(3)):
        if t == j:
            assert got[t, j] == torch.inf
            continue
        signs = np.array(list(product([-1.0, 1.0], repeat=6)))
        rows = (weight[t] + signs[:, :3] * radius[t]) - (weight[j] + signs[:, 3:] * radius[j])
        wanted = (rows @ np.array(list(product(*zip(lower, upper, strict=True)))).T).min()
        wanted += bias[t] - bias[j] - bias_radius[t] - bias_radius[j]
        assert got[t, j].item() == pytest.approx(wanted, abs=1e-9)


def test_activation_error_by_hand() -> None:
    """Formula (2): [relu(l - r), relu(u) + r]."""
    network = Network((Input("x", (), (4,)), Relu("r", (0,), (4,))))
    model = BoundModel.of(Family.of(network, Radii(activation=[0.5, 0.25, 0.5, 0.0])))
    lower, upper = [[1.0, -1.0, -3.0, -1.0]], [[2.0, 4.0, -2.0, 2.0]]
    got = interval_bounds(model, model.tensor(lower), model.tensor(upper))
    np.testing.assert_allclose(got.lower[1][0], [0.5, 0.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(got.upper[1][0], [2.5, 4.25, 0.5, 2.0], atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_zero_radii_give_the_forward_pass(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    family, x = Family.of(network, Radii()), inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    for lower, upper, value in zip(bounds.lower, bounds.upper, network.evaluate_all(x), strict=True):
        np.testing.assert_allclose(lower, value, rtol=0, atol=1e-10)
        np.testing.assert_allclose(upper, value, rtol=0, atol=1e-10)
        assert (lower.numpy() <= value).all() and (upper.numpy() >= value).all()
    labels = network.evaluate(x).argmax(1)
    smallest = interval_margins(model, bounds, torch.as_tensor(labels)).min(1).values
    np.testing.assert_allclose(smallest, margins(network.evaluate(x), labels), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["dense", "conv_attributes", "residual"])
def test_zero_radii_with_a_box(name: str) -> None:
    """Only the input varies: contains the forward passes from the box, and its corners are attained."""
    rng = np.random.default_rng(3)
    network = NETWORKS[name](rng)
    family, x = Family.of(network, Radii(input=0.2)), inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    for row in range(len(x)):
        assert_contained(bounds, row, network.evaluate_all(x[row] + rng.uniform(-0.2, 0.2, (200, x.shape[1]))))


# --- monotone -----------------------------------------------------------------------------------------------


def wider(family: Family, rng: np.random.Generator) -> list[Family]:
    """Every family in which one single radius array is larger, in all entries or in one."""
    grown = {"input": [replace(family, input=family.input + 0.05 * rng.random(family.input.shape))]}
    for kind in ("weight", "bias", "activation"):
        grown[kind] = []
        for i, radius in getattr(family, kind).items():
            bump = 0.05 * rng.random(radius.shape) * (rng.random(radius.shape) < rng.choice([0.3, 1.0]))
            grown[kind].append(replace(family, **{kind: {**getattr(family, kind), i: radius + bump}}))  # type: ignore[arg-type]
    return [f for families in grown.values() for f in families]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wider_radius_never_raises_a_guarantee(name: str) -> None:
    """IBP is monotone in theory and must be in fact, at every layer and in the margins. (BP is not claimed to be:
    its slopes are a heuristic, so only its soundness is tested.)"""
    family, model, x, bounds, rng = setting(name, 17)
    labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
    margin = interval_margins(model, bounds, labels)
    for grown in wider(family, rng):
        other = BoundModel.of(grown)
        wide = interval_bounds(other, *box_ends(other, grown.box(x)))
        for i in range(len(bounds.lower)):
            assert (wide.lower[i] <= bounds.lower[i] + 1e-12).all()
            assert (wide.upper[i] >= bounds.upper[i] - 1e-12).all()
        assert (interval_margins(other, wide, labels) <= margin + 1e-12).all()


def trap_lower(weight: Array, eps: float, x: Array) -> Array:
    """The published mistake (mathematics.md, section 4): eps * ||x||_1 moves the centre up instead of widening."""
    return np.asarray(weight @ x + eps * np.abs(x).sum() - eps * np.abs(x).sum())


def test_the_published_trap_is_caught(rng: np.random.Generator) -> None:
    """The formula with eps * ||x||_1 in the centre fails both against members and in growing with eps; ours passes."""
    weight, x, eps = rng.normal(size=(4, 6)), rng.random(6), 0.1
    network = Network((Input("x", (), (6,)), Dense("d", (0,), (4,), weight=weight, bias=np.zeros(4))))
    family = Family.of(network, Radii(weight=eps))
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x[None])))
    values = sample_members(family, x, rng, 500, True)
    assert_contained(bounds, 0, values)
    assert (values[1] < trap_lower(weight, eps, x) - 1e-3).any()
    trapped = Bounds(
        lower=[bounds.lower[0], model.tensor(trap_lower(weight, eps, x)[None])], upper=bounds.upper, activation={}
    )
    with pytest.raises(AssertionError):
        assert_contained(trapped, 0, values)
    np.testing.assert_allclose(bounds.lower[1][0], weight @ x - eps * np.abs(x).sum(), atol=1e-10)


# --- the rest -------------------------------------------------------------------------------------------------


def test_every_layer_type_has_an_entry() -> None:
    assert set(INTERVAL) == {
        Input,
        Dense,
        Conv,
        Scale,
        Relu,
        Activation,
        Rounding,
        DynamicRounding,
        MaxPool,
        Add,
        Gather,
        Product,
    }


@pytest.mark.parametrize("name", ["signed_hidden", "conv_conv", "conv_input_twice"])
def test_chunking_changes_nothing(name: str) -> None:
    _, model, _, bounds, _ = setting(name, 23)
    again = interval_bounds(with_memory(model, 1), bounds.lower[0], bounds.upper[0])
    for i in range(len(bounds.lower)):
        torch.testing.assert_close(again.lower[i], bounds.lower[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(again.upper[i], bounds.upper[i], rtol=0, atol=1e-12)


def test_samples_do_not_influence_each_other() -> None:
    """One sample alone gives what it gives in a batch: shortcuts that look at a whole batch change nothing."""
    _, model, x, bounds, _ = setting("signed_hidden", 29)
    for row in range(len(x)):
        one = interval_bounds(model, bounds.lower[0][row : row + 1], bounds.upper[0][row : row + 1])
        for i in range(len(bounds.lower)):
            torch.testing.assert_close(one.lower[i][0], bounds.lower[i][row], rtol=0, atol=1e-12)
            torch.testing.assert_close(one.upper[i][0], bounds.upper[i][row], rtol=0, atol=1e-12)


def test_take_and_concatenate_are_inverse() -> None:
    rng = np.random.default_rng(31)
    network = mlp(rng, 4, 6, 3)
    family = Family.of(network, with_saturations(network, Radii(input=0.1, weight=0.1)))
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(inputs(network, rng))))
    again = Bounds.concatenate([bounds.take(slice(0, 2)), bounds.take(torch.tensor([2, 3, 4, 5]))])
    assert len(bounds) == len(again) == 6
    for i in range(len(bounds.lower)):
        assert torch.equal(bounds.lower[i], again.lower[i]) and torch.equal(bounds.upper[i], again.upper[i])
    assert torch.equal(bounds.activation[2], again.activation[2])


def trainable(network: Network, family: Family, parameters: tuple[torch.Tensor, ...]) -> BoundModel:
    """A BoundModel whose weights and biases are the given tensors, without rounding allowance."""
    plain = BoundModel.of(family)
    pairs = zip(parameters[::2], parameters[1::2], strict=True)
    affine = {
        i: Affine(layer=old.layer, weight=weight, radius=old.radius, bias=bias, bias_radius=old.bias_radius)
        for (i, old), (weight, bias) in zip(plain.affine.items(), pairs, strict=True)
    }
    return replace(plain, affine=affine, rounding=Allowances(torch.float64, enabled=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "signed_hidden", "conv_conv", "residual"])
def test_gradients_match_finite_differences(name: str) -> None:
    """Oracle: torch.autograd.gradcheck, central differences in float64."""
    family, model, x, bounds, rng = setting(name, 37)
    labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
    factors = torch.as_tensor(rng.random((len(x), family.network.output_size)))
    numbers = [t for a in model.affine.values() for t in (a.weight, a.bias)]
    parameters = [(t + torch.as_tensor(1e-3 * rng.normal(size=t.shape))).requires_grad_() for t in numbers]

    def total(*values: torch.Tensor) -> torch.Tensor:
        own = trainable(family.network, family, values)
        margin = interval_margins(own, interval_bounds(own, bounds.lower[0], bounds.upper[0]), labels)
        return (margin.masked_fill(torch.isinf(margin), 0.0) * factors).sum()

    assert torch.autograd.gradcheck(total, parameters, eps=1e-7, atol=1e-5, rtol=1e-4)
    total(*parameters).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in parameters)


def test_float32_without_allowance_agrees_with_float64() -> None:
    """What training uses: the same bounds in float32, close to the sound ones."""
    _, model, _, bounds, _ = setting("conv_attributes", 41)
    affine = {
        i: Affine(
            layer=a.layer,
            weight=a.weight.float(),
            radius=a.radius.float(),
            bias=a.bias.float(),
            bias_radius=a.bias_radius.float(),
        )
        for i, a in model.affine.items()
    }
    activation = {i: r.float() for i, r in model.activation.items()}
    rounding = Allowances(torch.float32, enabled=False)
    single = replace(model, affine=affine, activation=activation, dtype=torch.float32, rounding=rounding)
    got = interval_bounds(single, bounds.lower[0].float(), bounds.upper[0].float())
    for i in range(len(bounds.lower)):
        assert got.lower[i].dtype == torch.float32
        torch.testing.assert_close(got.lower[i].double(), bounds.lower[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.upper[i].double(), bounds.upper[i], rtol=1e-5, atol=1e-5)


def test_affine_interval_of_a_layer_without_radii_is_interval_arithmetic(rng: np.random.Generator) -> None:
    layer = dense(rng, "d", 0, 3, 4)
    model = BoundModel.of(Family.of(Network((Input("x", (), (4,)), layer, relu("r", 1, layer))), Radii()))
    lower = rng.normal(size=(5, 4))
    upper = lower + rng.random((5, 4))
    low, high = affine_interval(model.affine[1], model.tensor(lower), model.tensor(upper))
    positive, negative = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)
    np.testing.assert_allclose(low, lower @ positive.T + upper @ negative.T + layer.bias, atol=1e-12)
    np.testing.assert_allclose(high, upper @ positive.T + lower @ negative.T + layer.bias, atol=1e-12)
