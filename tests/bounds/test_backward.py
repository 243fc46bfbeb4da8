"""BP: contains every member, exact where it should be, nested, and tighter where kernel entries are shared.

BP is not monotone in the radii (alpha is a heuristic), so no test claims it is.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.bounds.backward import BACKWARD, backward_bound
from qverify.bounds.interval import INTERVAL, interval_bounds, interval_margins
from qverify.bounds.refinement import backward_margins, backward_outputs, tightened_bounds, unstable
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Layer, Relu
from qverify.network import Network, margins
from tests.support.bounds import (
    BOXES,
    CLIP,
    TOLERANCE,
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
from tests.support.marks import mostly_slow
from tests.support.networks import (
    EVERY,
    NETWORKS,
    conv,
    conv_of,
    convolve,
    inputs,
    known_layers,
    mlp,
    random_radii,
    sample_members,
)

SIGNED = pytest.mark.parametrize("size", [0.03, 0.2, 0.6], ids=["small", "middling", "large"])


def identity_rows(model: BoundModel, bounds: Bounds, index: int, sign: float = 1.0) -> torch.Tensor:
    """Rows (N, size, size) that ask for every output of a layer."""
    eye = torch.eye(model.network.layers[index].size, dtype=model.dtype)
    return sign * eye.expand(len(bounds), -1, -1)


def boxed(
    network: Network, radii: Radii, lower: Array | list[float], upper: Array | list[float]
) -> tuple[BoundModel, Bounds]:
    """The model and its IBP bounds on the box of one sample."""
    model = BoundModel.of(Family.of(network, radii))
    low, high = (np.asarray(end, dtype=float)[None] for end in (lower, upper))
    return model, interval_bounds(model, *box_ends(model, (low, high)))


# --- containment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, CLIP], ids=["free", "clipped"])
@SIGNED
@pytest.mark.parametrize("name", NETWORKS)
def test_every_member_lies_inside(name: str, size: float, clip: tuple[float, float] | None) -> None:
    """Oracle: members by the independent forward pass, against tightened bounds, outputs, and margins from either."""
    family, model, x, bounds, rng = setting(name, 43, clip, size)
    labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
    tight = tightened_bounds(model, bounds)
    found = [backward_margins(model, b, labels) for b in (bounds, tight)]
    outputs = [backward_outputs(model, b) for b in (bounds, tight)]
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            assert_contained(tight, row, values)
            for lower, upper in outputs:
                assert (values[-1] >= lower[row].numpy() - TOLERANCE).all()
                assert (values[-1] <= upper[row].numpy() + TOLERANCE).all()
            for margin in found:
                assert_margins_hold(margin[row], values[-1], int(labels[row]))


@pytest.mark.parametrize(
    ("clip", "grid"), mostly_slow([(CLIP, True), (None, False), (None, True), (CLIP, False)], several=True)
)
@pytest.mark.parametrize("name", EVERY)
def test_every_member_lies_inside_with_points_everywhere(
    name: str, clip: tuple[float, float] | None, grid: bool
) -> None:
    """A rounding point at the input and behind every layer: layers, margins, and rows of any sign at every layer."""
    for seed in range(3):
        family, model, x, bounds, rng = pointed(name, seed, clip, grid)
        labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
        tight = tightened_bounds(model, bounds)
        margin = backward_margins(model, tight, labels)
        drawn = [members(family, bounds, x, row, rng) for row in range(len(x))]
        for row, both in enumerate(drawn):
            for values in both:
                assert_contained(tight, row, values)
                assert_margins_hold(margin[row], values[-1], int(labels[row]))
        for index, layer in enumerate(family.network.layers):
            rows = torch.as_tensor(rng.normal(size=(len(x), 3, layer.size)))
            for used in (bounds, tight):
                lower = backward_bound(model, used, index, rows)
                for row, both in enumerate(drawn):
                    for values in both:
                        assert (values[index] @ rows[row].numpy().T >= lower[row].numpy() - TOLERANCE).all()


@SIGNED
@pytest.mark.parametrize("name", NETWORKS)
def test_raw_bounds_hold_for_random_rows_of_every_layer(name: str, size: float) -> None:
    """BP without its intersection with IBP, for dense rows of any sign, at every layer: nothing hides behind IBP."""
    family, model, x, bounds, rng = setting(name, 47, None, size)
    tight = tightened_bounds(model, bounds)
    drawn = [members(family, bounds, x, row, rng) for row in range(len(x))]
    for index, layer in enumerate(family.network.layers):
        rows = torch.as_tensor(rng.normal(size=(len(x), 4, layer.size)) * (rng.random((len(x), 4, layer.size)) < 0.7))
        for used in (bounds, tight):
            lower = backward_bound(model, used, index, rows)
            for row, values in enumerate(drawn):
                for value in values:
                    assert (value[index] @ rows[row].numpy().T >= lower[row].numpy() - TOLERANCE).all()


@pytest.mark.parametrize("name", ["dense", "residual", "conv_conv"])
def test_every_member_lies_inside_where_the_scheme_clips(name: str) -> None:
    """Activation radii that differ by sample."""
    rng = np.random.default_rng(53)
    network = NETWORKS[name](rng)
    radii = with_saturations(network, Radii(input=0.05, weight=0.04, bias=0.1, activation=0.05))
    family, x = Family.of(network, radii), inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    tight = tightened_bounds(model, bounds)
    labels = torch.zeros(len(x), dtype=torch.long)
    margin = backward_margins(model, tight, labels)
    for row in range(len(x)):
        for values in members(family, bounds, x, row, rng):
            assert_contained(tight, row, values)
            assert_margins_hold(margin[row], values[-1], 0)


# --- exactness --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", BOXES)
def test_one_dense_layer_is_exact_against_all_corners(box: str, rng: np.random.Generator) -> None:
    """Oracle: enumeration. At the input the pair (c, e) is kept, so signed inputs lose nothing."""
    lower, upper = (np.array(end) for end in BOXES[box])
    weight, radius = rng.normal(size=(4, 3)), 0.8 * rng.random((4, 3))
    network = Network((Input("x", (), (3,)), Dense("d", (0,), (4,), weight=weight, bias=rng.normal(size=4))))
    model, bounds = boxed(network, Radii(weight=radius, bias=0.1), lower, upper)
    low = backward_bound(model, bounds, 1, identity_rows(model, bounds, 1))[0]
    high = -backward_bound(model, bounds, 1, identity_rows(model, bounds, 1, -1.0))[0]
    for i in range(4):
        wanted = brute_force(weight[i], radius[i], known_layers(network)[1].bias[i], 0.1, lower, upper)
        assert (low[i].item(), high[i].item()) == pytest.approx(wanted, abs=1e-9)


def test_margins_of_stable_networks_are_exact(rng: np.random.Generator) -> None:
    """Every ReLU active and every path monotone, so that one corner is the worst: the closed form of that corner."""
    first, last = rng.uniform(0.5, 1, (4, 3)), rng.uniform(0.5, 1, (2, 4)) * [[1], [-1]]
    hidden = Dense("a", (0,), (4,), weight=first, bias=np.full(4, 0.7))
    layers = (Input("x", (), (3,)), hidden, Relu("r", (1,), (4,)))
    network = Network((*layers, Dense("b", (2,), (2,), weight=last, bias=np.array([0.2, -0.1]))))
    model, bounds = boxed(network, Radii(weight=0.1, bias=0.05, activation=0.2), [0.5] * 3, [0.9] * 3)
    hidden_low = (first - 0.1) @ np.full(3, 0.5) + 0.7 - 0.05 - 0.2
    wanted = ((last[0] - 0.1) - (last[1] + 0.1)) @ hidden_low + 0.3 - 0.1
    got = backward_margins(model, bounds, torch.tensor([0]))[0, 1].item()
    assert got == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_zero_radii_give_the_forward_pass(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    family, x = Family.of(network, Radii()), inputs(network, rng)
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    outputs = network.evaluate(x)
    for index, value in enumerate(network.evaluate_all(x)):
        low = backward_bound(model, bounds, index, identity_rows(model, bounds, index))
        np.testing.assert_allclose(low, value, rtol=0, atol=1e-10)
    labels = outputs.argmax(1)
    smallest = backward_margins(model, bounds, torch.as_tensor(labels)).min(1).values
    np.testing.assert_allclose(smallest, margins(outputs, labels), rtol=0, atol=1e-10)


def test_linear_networks_with_a_box_only_are_exact(rng: np.random.Generator) -> None:
    """Without radii and ReLU a Dense after a Dense is one matrix: BP sees it, IBP does not. Oracle: the product."""
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 5))
    layers = (Input("x", (), (4,)), Dense("a", (0,), (5,), weight=a, bias=np.ones(5)))
    network = Network((*layers, Dense("b", (1,), (3,), weight=b, bias=np.zeros(3))))
    lower, upper = np.array([-1.0, 0.5, -2.0, 0.0]), np.array([0.5, 1.0, -1.0, 3.0])
    model, bounds = boxed(network, Radii(), lower, upper)
    low, high = backward_outputs(model, bounds)
    centre = b @ (a @ (lower + upper) / 2 + 1)
    reach = np.abs(b @ a) @ (upper - lower) / 2
    np.testing.assert_allclose(low[0], centre - reach, atol=1e-10)
    np.testing.assert_allclose(high[0], centre + reach, atol=1e-10)
    assert (bounds.lower[2] < low - 0.1).any()


def test_an_input_read_twice_cancels(rng: np.random.Generator) -> None:
    """x - x through two branches is bounded by the radii alone: coefficients meet before the box is used."""
    network = NETWORKS["conv_input_twice"](rng)
    add = next(i for i, layer in enumerate(network.layers) if layer.name == "add")
    first, side = known_layers(network)[1], known_layers(network)[2]
    matrix = convolve(first, np.stack([first.weight] * 9), np.zeros((9, 2)), np.eye(9)).T
    changed = network.with_layers({2: Dense("side", (0,), (8,), weight=-matrix, bias=side.bias)})
    model, bounds = boxed(changed, Radii(), -np.ones(9), np.ones(9))
    low = backward_bound(model, bounds, add, identity_rows(model, bounds, add))
    np.testing.assert_allclose(low[0], np.repeat(first.bias, 4) + side.bias, atol=1e-10)


# --- nesting ----------------------------------------------------------------------------------------------------


@SIGNED
@pytest.mark.parametrize("name", NETWORKS)
def test_tightened_and_outputs_are_nested_in_ibp(name: str, size: float) -> None:
    family, model, x, bounds, rng = setting(name, 59, None, size)
    labels = torch.as_tensor(rng.integers(0, family.network.output_size, len(x)))
    tight = tightened_bounds(model, bounds)
    for i in range(len(bounds.lower)):
        assert (tight.lower[i] >= bounds.lower[i]).all() and (tight.upper[i] <= bounds.upper[i]).all()
        assert (tight.lower[i] <= tight.upper[i]).all()
    for used in (bounds, tight):
        low, high = backward_outputs(model, used)
        assert (low >= used.lower[-1]).all() and (high <= used.upper[-1]).all()
        assert (backward_margins(model, used, labels) >= interval_margins(model, used, labels)).all()


def test_tightening_tightens() -> None:
    """On a deep network some pre-activation interval really shrinks, and some stable neuron is left as it was."""
    _, model, _, bounds, _ = setting("deep", 61, None, 0.03)
    tight = tightened_bounds(model, bounds)
    widths = [(b.upper[i] - b.lower[i]) for b in (bounds, tight) for i in (5,)]
    assert (widths[1] < widths[0] - 1e-3).any()


def test_looser_than_ibp_at_a_neuron_and_intersected() -> None:
    """x = relu(z), z in [-1, 2]: BP takes x >= z, so -1, where IBP knows 0. The intersection says 0."""
    one = np.ones((1, 1))
    layers = (Input("x", (), (1,)), Dense("a", (0,), (1,), weight=one, bias=np.array([0.5])), Relu("r", (1,), (1,)))
    network = Network((*layers, Dense("b", (2,), (1,), weight=one, bias=np.zeros(1))))
    model, bounds = boxed(network, Radii(), [-1.5], [1.5])
    raw = backward_bound(model, bounds, 3, identity_rows(model, bounds, 3))
    assert raw.item() == pytest.approx(-1.0, abs=1e-9)
    assert backward_outputs(model, bounds)[0].item() == pytest.approx(0.0, abs=1e-9)


def test_looser_margins_are_intersected_too(rng: np.random.Generator) -> None:
    """In a random batch BP's raw margins lose to IBP's somewhere and win elsewhere; the result takes the better."""
    _, model, x, bounds, _ = setting("deep", 67, None, 0.6)
    labels = torch.zeros(len(x), dtype=torch.long)
    rows = -torch.eye(4, dtype=torch.float64).expand(len(x), -1, -1).clone()
    rows[:, :, 0] += 1
    raw = backward_bound(model, bounds, len(model.network.layers) - 1, rows)[:, 1:]
    ibp = interval_margins(model, bounds, labels)[:, 1:]
    assert (raw < ibp - 1e-3).any()
    torch.testing.assert_close(backward_margins(model, bounds, labels)[:, 1:], torch.maximum(raw, ibp), rtol=0, atol=0)


@pytest.mark.parametrize("ends", [(-1.0, 2.0), (-2.0, 1.0), (0.3, 2.0), (-2.0, -0.1), (-0.1, 0.05)])
@pytest.mark.parametrize("radius", [0.0, 0.2, 0.5])
def test_one_activation_by_hand(ends: tuple[float, float], radius: float) -> None:
    """Oracle: formula (2) by hand. Below, alpha is 0 or 1, so the end is 0 or L - r; above, relu(U) + r exactly."""
    network = Network((Input("x", (), (1,)), Relu("r", (0,), (1,))))
    model, bounds = boxed(network, Radii(activation=radius), [ends[0]], [ends[1]])
    low = backward_bound(model, bounds, 1, identity_rows(model, bounds, 1)).item()
    high = -backward_bound(model, bounds, 1, identity_rows(model, bounds, 1, -1.0)).item()
    assert low == pytest.approx(0.0, abs=1e-9) or low == pytest.approx(ends[0] - radius, abs=1e-9)
    assert low <= max(ends[0] - radius, 0) + 1e-9
    assert high == pytest.approx(max(ends[1], 0) + radius, abs=1e-9)


def test_unstable_marks_what_a_binary_could_change(rng: np.random.Generator) -> None:
    network = Network((Input("x", (), (6,)), Relu("r", (0,), (6,))))
    model, bounds = boxed(network, Radii(activation=0.5), [-1, -1, 0.2, 0.6, -1, 0.5], [1, -0.1, 1, 1, 0, 1])
    assert unstable(model, bounds, 1).tolist() == [[True, False, True, False, False, False]]


# --- shared kernels -----------------------------------------------------------------------------------------------


def shared_case(rng: np.random.Generator, hidden: bool) -> tuple[Network, Radii]:
    """A convolution, then a Dense that sums its positions with opposite signs; the kernel alone (and x) may move."""
    layer = conv(rng, "conv", 0, (1, 3, 3), (2, 1, 2, 2))
    signs = np.tile([1.0, -1.0, -1.0, 1.0], 2) * rng.uniform(0.9, 1.1, (3, 8))
    layers: tuple[Layer, ...] = (Input("x", (), (1, 3, 3)), layer)
    if hidden:
        layers = (*layers, Relu("r", (1,), layer.shape))
    network = Network((*layers, Dense("sum", (len(layers) - 1,), (3,), weight=signs, bias=np.array([0.1, 0.2, -0.3]))))
    return network, Radii(input=0.02, layers={"conv": {"weight": 0.2 * rng.random(layer.weight.shape) + 0.05}})


def brute_force_shared(network: Network, family: Family, x: Array) -> Array:
    """Smallest outputs of conv then Dense: bilinear in (kernel, x), so attained at a corner of x, and there
    linear in the kernel with coefficients read off the definition."""
    layer, last = known_layers(network)[1], known_layers(network)[2]
    best = np.full(last.size, np.inf)
    units = np.eye(layer.weight.size).reshape(-1, *layer.weight.shape)
    for signs in product([-1.0, 1.0], repeat=len(x)):
        point = np.tile(x + np.array(signs) * family.input, (len(units), 1))
        effect = convolve(layer, units, np.zeros((len(units), 2)), point) @ last.weight.T
        spread = np.abs(effect * family.weight[1].reshape(-1, 1)).sum(0)
        centre = layer.weight.ravel() @ effect + last.weight @ np.repeat(layer.bias, layer.positions) + last.bias
        best = np.minimum(best, centre - spread)
    return best


def independent_positions(network: Network, family: Family, x: Array) -> Array:
    """What BP gives if every position had a kernel of its own (formula (1) per position)."""
    layer, last = known_layers(network)[1], known_layers(network)[2]
    count = layer.weight.size
    units = np.eye(9)
    kernel = convolve(layer, np.stack([layer.weight] * 9), np.zeros((9, 2)), units)
    radius = convolve(layer, np.stack([family.weight[1]] * 9), np.zeros((9, 2)), units)
    c, e = last.weight @ kernel.T, np.abs(last.weight) @ radius.T
    ends = [c * end - e * np.abs(end) for end in (x - family.input, x + family.input)]
    assert count == 8
    return np.asarray(np.minimum(*ends).sum(1) + last.weight @ np.repeat(layer.bias, layer.positions) + last.bias)


@pytest.mark.parametrize("signed", [False, True], ids=["positive", "signed"])
def test_shared_kernels_are_bounded_tighter_than_independent_positions(signed: bool) -> None:
    """Between the brute-force truth and the bound that treats positions as independent, strictly above the latter."""
    rng = np.random.default_rng(71)
    network, radii = shared_case(rng, hidden=False)
    family = Family.of(network, radii)
    x = rng.normal(size=9) if signed else rng.uniform(0.5, 1, 9)
    model, bounds = boxed(network, radii, x - family.input, x + family.input)
    got = backward_bound(model, bounds, 2, identity_rows(model, bounds, 2))[0].numpy()
    truth, independent = brute_force_shared(network, family, x), independent_positions(network, family, x)
    assert (got <= truth + 1e-10).all()
    assert (got >= independent - 1e-10).all()
    assert (got > independent + 0.1).any()
    values = sample_members(family, x, rng, 3000, True)[-1]
    assert (values >= got - TOLERANCE).all()


def test_shared_kernels_on_a_fixed_input_are_exact() -> None:
    """With x fixed the sum over positions is known, and -R_k |S_k| is the truth itself."""
    rng = np.random.default_rng(73)
    network, radii = shared_case(rng, hidden=False)
    radii = Radii(layers={**radii.layers, "conv": {**radii.layers["conv"], "bias": 0.3}})
    family, x = Family.of(network, radii), rng.normal(size=9)
    model, bounds = boxed(network, radii, x, x)
    got = backward_bound(model, bounds, 2, identity_rows(model, bounds, 2))[0].numpy()
    channel = known_layers(network)[2].weight.reshape(3, 2, 4).sum(2)
    truth = brute_force_shared(network, family, x) - 0.3 * np.abs(channel).sum(1)
    np.testing.assert_allclose(got, truth, atol=1e-9)


def test_shared_kernels_behind_a_relu_contain_their_members() -> None:
    rng = np.random.default_rng(79)
    network, radii = shared_case(rng, hidden=True)
    family, x = Family.of(network, radii), rng.normal(size=9)
    model, bounds = boxed(network, radii, x - family.input, x + family.input)
    got = backward_bound(model, bounds, 3, identity_rows(model, bounds, 3))[0].numpy()
    values = sample_members(family, x, rng, 5000, True)[-1]
    assert (values >= got - TOLERANCE).all()


def test_one_by_one_kernel_by_hand() -> None:
    """(w + d)(x_1 - x_2) with x_1 = x_2 = 1 is 0 whatever the kernel; independent positions would say -2 R."""
    layer = conv_of("conv", 0, (1, 1, 2), [[[[0.7]]]], [0.4])
    layers = (Input("x", (), (1, 1, 2)), layer)
    network = Network((*layers, Dense("sum", (1,), (1,), weight=np.array([[1.0, -1.0]]), bias=np.zeros(1))))
    radii = Radii(layers={"conv": {"weight": 0.25, "bias": 0.5}})
    model, bounds = boxed(network, radii, [1.0, 1.0], [1.0, 1.0])
    assert bounds.lower[2].item() == pytest.approx(-1.5, abs=1e-9)
    assert backward_outputs(model, bounds)[0].item() == pytest.approx(0.0, abs=1e-9)


# --- the rest -----------------------------------------------------------------------------------------------------


def test_the_tables_have_the_same_keys() -> None:
    assert set(BACKWARD) == set(INTERVAL)


@pytest.mark.parametrize("name", ["deep", "conv_conv", "residual", "conv_input_twice"])
def test_chunking_changes_nothing(name: str) -> None:
    _, model, x, bounds, rng = setting(name, 83, None, 0.2)
    labels = torch.as_tensor(rng.integers(0, model.network.output_size, len(x)))
    whole, margin = tightened_bounds(model, bounds), backward_margins(model, bounds, labels)
    outputs = backward_outputs(model, bounds)
    for cap in (1, 5000, 40000):
        small = with_memory(model, cap)
        torch.testing.assert_close(backward_margins(small, bounds, labels), margin, rtol=0, atol=1e-12)
        for one, other in zip(backward_outputs(small, bounds), outputs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        again = tightened_bounds(small, bounds)
        for i in range(len(whole.lower)):
            torch.testing.assert_close(again.lower[i], whole.lower[i], rtol=0, atol=1e-12)
            torch.testing.assert_close(again.upper[i], whole.upper[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["deep", "conv_conv", "residual"])
def test_samples_do_not_influence_each_other(name: str) -> None:
    """One sample alone gives what it gives in a batch: rows that pad a chunk leave no trace."""
    _, model, x, bounds, _ = setting(name, 89, None, 0.2)
    tight = tightened_bounds(model, bounds)
    for row in range(len(x)):
        one = tightened_bounds(model, bounds.take(slice(row, row + 1)))
        for i in range(len(bounds.lower)):
            torch.testing.assert_close(one.lower[i][0], tight.lower[i][row], rtol=0, atol=1e-12)
            torch.testing.assert_close(one.upper[i][0], tight.upper[i][row], rtol=0, atol=1e-12)


def test_no_samples_give_no_margins(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    family = Family.of(network, random_radii(network, rng))
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(np.zeros((0, 3)))))
    assert backward_margins(model, bounds, torch.zeros(0, dtype=torch.long)).shape == (0, 2)
