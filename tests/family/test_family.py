"""Radii resolved against a network: shapes, what is exact, clipping."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import DataError, RadiiError
from qverify.family.batchnorm import Saturation
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.points import Point
from qverify.family.radii import Radii
from qverify.layers import Input, Relu
from qverify.network import Network
from tests.support.networks import NETWORKS, conv, dense, mlp


def test_shapes_of_radii(rng: np.random.Generator) -> None:
    """A number, one per channel, one per element; layers of their own before the rest."""
    layer = conv(rng, "c", 0, (1, 3, 3), (2, 1, 2, 2))
    network = Network((Input("x", (), (1, 3, 3)), layer, Relu("r", (1,), (2, 2, 2)), dense(rng, "d", 2, 3, 8)))
    own = {"c": {"weight": [0.1, 0.2]}, "r": {"activation": [0.3, 0.4]}, "d": {"bias": [1.0, 2.0, 3.0]}}
    family = Family.of(network, Radii(input=np.full((3, 3), 0.5), weight=0.7, bias=0.6, layers=own))
    assert family.input.shape == (9,) and (family.input == 0.5).all()
    assert (family.weight[1][0] == 0.1).all() and (family.weight[1][1] == 0.2).all()
    np.testing.assert_array_equal(family.activation[2], [0.3] * 4 + [0.4] * 4)
    assert (family.weight[3] == 0.7).all() and family.weight[3].shape == (3, 8)
    assert list(family.bias[1]) == [0.6, 0.6] and list(family.bias[3]) == [1.0, 2.0, 3.0]


def test_square_weights_take_one_radius_per_output_channel(rng: np.random.Generator) -> None:
    network = mlp(rng, 2, 2)
    family = Family.of(network, Radii(weight=[0.1, 0.2]))
    np.testing.assert_array_equal(family.weight[1], [[0.1, 0.1], [0.2, 0.2]])


def test_what_is_not_quantised_has_no_radius(rng: np.random.Generator) -> None:
    network = NETWORKS["scaled_input"](rng)
    family = Family.of(network, Radii(weight=0.1, bias=0.2))
    assert set(family.weight) == {network.index("fc"), network.index("out")}
    assert (family.bias[network.index("fc")] == 0).all(), "a layer without a bias gets none"
    assert (family.bias[network.index("out")] == 0.2).all()


POINT = Point(radius=0.125, low=(-1.0, -1.0), high=(2.0, 2.0))
WRONG = [
    (Radii(input=-0.5), r"input radius is negative \(-0.5\)"),
    (Radii(weight=np.nan), r"weight \(fc0\) radius holds NaN or infinity"),
    (Radii(bias=np.inf), r"bias \(fc0\) radius holds NaN or infinity"),
    (Radii(activation=[0.1, -0.2]), r"activation \(relu0\) radius is negative"),
    (Radii(weight="wide"), r"weight \(fc0\) radius is not a number"),
    (Radii(weight=[[1.0], [1.0, 2.0]]), "not a number or a rectangular array"),
    (Radii(input=[0.1, 0.2]), r"input radius has shape \(2,\), which fits neither the tensor \(3,\) nor its channels"),
    (Radii(layers={"fc0": {"weight": np.ones((2, 2))}}), r"weight \(fc0\) radius has shape \(2, 2\)"),
    (Radii(layers={"nope": {"weight": 0.1}}), "no layer 'nope' with a radius for its weight; those are: fc0, fc1"),
    (Radii(layers={"relu0": {"bias": 0.1}}), "no layer 'relu0' with a radius for its bias"),
    (Radii(layers={"fc0": {"activation": 0.1}}), "no layer 'fc0' with a radius for its activation; those are: relu0"),
    (Radii(layers={"fc0": {"wieght": 0.1}}), "'fc0' has a radius for 'wieght'; it is weight, bias or activation"),
    (Radii(layers={"fc0": {"input": 0.1}}), "'fc0' has a radius for 'input'"),
    (Radii(saturations={"fc0": ()}), "no activation layer 'fc0' to clip"),
    (Radii(points={"fc9": POINT}), "no layer 'fc9' to put a rounding point at; its layers are x, fc0, relu0, fc1"),
    (Radii(points={"relu0": replace(POINT, high=(0.5, np.nan))}), r"range \(relu0\) radius holds NaN or infinity"),
    (Radii(points={"x": replace(POINT, low=(0.5, 0.5))}), "rounding point 'x' is no interval around 0"),
    (Radii(points={"x": replace(POINT, high=(1.0, 0.5))}), "rounding point 'x' is no interval around 0"),
    (Radii(points={"fc0": replace(POINT, dead=0.5)}), "'fc0' moves what it keeps at 0; state a larger radius"),
    (Radii(points={"fc0": replace(POINT, step=0.5)}), "'fc0' errs by less than half a step"),
    (Radii(points={"fc0": replace(POINT, radius=np.ones(3))}), r"activation \(fc0\) radius has shape \(3,\)"),
]


@pytest.mark.parametrize(("radii", "wording"), WRONG, ids=range(len(WRONG)))
def test_wrong_radii_are_refused(radii: Radii, wording: str, rng: np.random.Generator) -> None:
    with pytest.raises(RadiiError, match=wording):
        Family.of(mlp(rng, 3, 2, 2), radii)


def test_a_member_is_not_a_trained_network(rng: np.random.Generator) -> None:
    """Its offsets would be ignored by the bounds, so it is refused rather than bounded wrongly."""
    network = mlp(rng, 3, 2, 2)
    member = network.with_layers({2: Relu("relu0", (1,), (2,), offset=np.array([0.1, 0.0]))})
    with pytest.raises(RadiiError, match="member of a quantised family already"):
        Family.of(member, Radii())


def test_clipping_the_input(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 2)
    for clip in ((1.0, 0.0), (0.5, 0.5), (np.nan, 1.0)):
        with pytest.raises(RadiiError, match="is empty"):
            Family.of(network, Radii(), clip)
    with pytest.raises(DataError, match="outside --clip-input 0 1"):
        Family.of(network, Radii(), (0.0, 1.0)).box(np.array([[0.5, 1.5, 0.0]]))


def test_an_input_outside_the_calibrated_range_is_clipped_by_the_quantiser(rng: np.random.Generator) -> None:
    """Oracle: off by the radius, then clipped to the range; 0 and the sign are kept."""
    family = Family.of(mlp(rng, 5, 2), Radii(points={"x": POINT}))
    x = np.array([[0.5, 2.0625, -3.0, 0.0, 0.0625]])
    low, high = family.box(x)
    np.testing.assert_allclose(low, [[0.375, 2.0 - 0.0625, -1.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(high, [[0.625, 2.0, -1.0, 0.0, 0.1875]], atol=1e-12)
    np.testing.assert_array_equal(family.centre(x), [[0.5, 2.0, -1.0, 0.0, 0.0625]])


def test_a_range_outside_the_clip_leaves_one_input() -> None:
    """What the range holds is moved into the clip: an empty box would prove everything."""
    network = mlp(np.random.default_rng(2), 3, 2)
    family = Family.of(network, Radii(points={"x": replace(POINT, high=(0.1, 0.1), radius=0.01)}), (0.2, 1.0))
    x = np.array([[0.2, 0.5, 1.0]])
    for low, high in (family.box(x), family.inner_box(x)):
        assert (low == 0.2).all() and (high == 0.2).all()
    assert (family.centre(x) == 0.2).all()


def test_boxes_narrower_than_a_rounding_hold_the_member_without_errors() -> None:
    """Inward rounding must not leave the family where a radius is below the spacing of floating-point numbers."""
    network = mlp(np.random.default_rng(2), 4, 2)
    point = Point(radius=1e-10, low=(-2e6, -2e6), high=(2e6, 2e6))
    x = np.array([[1e6, -1e6 / 3, 0.0, 1e-3]])
    family = Family.of(network, Radii(points={"x": point}))
    for end in family.inner_box(x):
        exact = [abs(Fraction(a) - Fraction(b)) for a, b in zip(end[0].tolist(), x[0].tolist(), strict=True)]
        assert max(exact) <= Fraction(1e-10)


def test_saturation_of_another_sample_is_not_enough(rng: np.random.Generator) -> None:
    """Membership of a clipped activation is judged with the radii of its own sample."""
    network = Network((Input("x", (), (1,)), Relu("r", (0,), (1,))))
    cut = Saturation(source="x", low=np.full(1, -9.0), high=np.ones(1), gain=np.ones(1))
    family = Family.of(network, Radii(activation=0.1, saturations={"r": (cut,)}))
    model = BoundModel.of(family)
    x = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    bounds = interval_bounds(model, x, x)
    member = network.with_layers({1: Relu("r", (0,), (1,), offset=np.array([-2.0]))})
    own = [family.with_activation({1: radius.numpy()}) for radius in bounds.activation[1]]
    verdicts = [membership(own[row], member, x[row].numpy(), x[row].numpy()) for row in range(2)]
    assert len(verdicts[0]) == 1 and verdicts[1] == []


def test_families_of_single_samples_share_the_weights_intervals() -> None:
    """Every falsified sample keeps its family: thousands of copies of all weights would fill the memory."""
    network = NETWORKS["dense"](np.random.default_rng(3))
    family = Family.of(network, Radii(weight=0.1, bias=0.1, activation=0.1))
    other = family.with_activation({i: np.full(network.layers[i].size, 0.3) for i in network.relus})
    assert other.inner_weights is family.inner_weights
    assert all((radius == 0.3).all() for radius in other.activation.values())
