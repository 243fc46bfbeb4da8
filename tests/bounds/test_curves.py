"""Bounds through activations other than Relu: intervals and lines against samples, exact rationals and members."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qverify.activations.functions import FUNCTIONS
from qverify.activations.layer import Activation
from qverify.bounds.backward import backward_bound
from qverify.bounds.curves import _Side, activation_interval, bends
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.optimised import Choice, Quantities, bound_with
from qverify.bounds.refinement import backward_margins, tightened_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from tests.support.bounds import assert_contained, assert_margins_hold, box_ends
from tests.support.marks import mostly_slow
from tests.support.networks import SMOOTH, curve, inputs, random_radii, reached, sample_members, smooth
from tests.support.rationals import exact_curve

LINEAR = [name for name, function in FUNCTIONS.items() if function.linear]
PARAMETERS = {"leaky_relu": (-0.3,), "clip": (-0.7, 1.1), "hard_sigmoid": (0.7, -0.2), "abs": (), **SMOOTH}


def layer(name: str, *numbers: float) -> Activation:
    return Activation("a", (0,), (1,), name, tuple(np.array([number]) for number in numbers or PARAMETERS[name]))


def sides(made: Activation, low: float, high: float) -> list[_Side]:
    curve_of = made.curve.mapped(torch.tensor, torch)
    ends = torch.tensor([[[low]]], dtype=torch.float64), torch.tensor([[[high]]], dtype=torch.float64)
    return [_Side(curve_of, ends, sign, True) for sign in (1.0, -1.0)]


def ends_of(low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[low]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64)


def lines(side: _Side, radius: float = 0.0) -> list[tuple[float, float]]:
    found = side.lines(torch.full((1,), radius, dtype=torch.float64), torch.full((1, 1, 1), -torch.inf))
    return [(float(found.slope), float(found.intercept)), (float(found.other_slope), float(found.other))]


def places(low: float, high: float) -> np.ndarray:
    near = [low + (high - low) * 2.0**-k for k in range(1, 40)] + [high - (high - low) * 2.0**-k for k in range(1, 40)]
    special = [
        -3.0,
        3.0,
        -2.4,
        2.4,
        -(2.0**0.5),
        2.0**0.5,
        0.0,
        -1.2784645427610737,
        -0.7517915246935644,
        -1.5,
        1.1,
        20.0,
    ]
    special.append(float(np.nextafter(20.0, 30.0)))
    x = np.concatenate([np.linspace(low, high, 1501), near, special])
    return np.asarray(np.clip(x, low, high))


SPANS = st.one_of(
    st.tuples(st.floats(-30, 30), st.floats(-30, 30)).map(sorted),
    st.tuples(st.floats(-4, 4), st.sampled_from([0.0, 1e-300, 1e-15, 1e-8, 1e-3])).map(lambda p: [p[0], p[0] + p[1]]),
    st.tuples(st.floats(-600, 600), st.floats(-600, 600)).map(sorted),
)
SLOPES = st.one_of(st.floats(-3, 3), st.floats(-1e-6, 1e-6), st.floats(-1e6, 1e6), st.just(0.0), st.just(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=10)
@given(span=SPANS, slope=SLOPES)
def test_lines_of_any_slope_hold(name: str, span: list[float], slope: float) -> None:
    """Against the definition in long double; what that is off by is far less than the lines allow for."""
    _lines_hold(name, span, slope)


def _lines_hold(name: str, span: list[float], slope: float) -> None:
    low, high = span
    if name == "exp":
        low, high = max(low, -300.0), min(high, 300.0)
        low = min(low, high)
    x = places(low, high)
    made = layer(name)
    y = curve(name, x, *(np.float64(p) for p in PARAMETERS[name]))
    for sign, side in zip((1.0, -1.0), sides(made, low, high), strict=True):
        asked = [(slope, float(side.intercept(torch.full((1, 1, 1), slope, dtype=torch.float64)))), *lines(side)]
        for tilt, intercept in asked:
            assert (sign * y >= tilt * x + intercept).all()


@pytest.mark.parametrize(
    "span", [(19.0, 21.0), (20.0, 20.0 + 1e-12), (20.0 - 1e-9, 20.0 + 1e-9), (19.9, 19.9 + 0.2), (20.0, 60.0)]
)
def test_a_jump_is_inside(span: tuple[float, float]) -> None:
    """At 20 the Softplus of PyTorch falls by 2e-9, which lines and intervals allow for on either side."""
    _lines_hold("softplus_threshold", list(span), 1.0)
    x = np.clip([span[0], 20.0, np.nextafter(20.0, 30.0), span[1]], *span)
    y = curve("softplus_threshold", x, np.float64(20.0))
    made = layer("softplus_threshold")
    out = Dense("d", (1,), (2,), weight=np.ones((2, 1)), bias=np.zeros(2))
    bounds = interval_bounds(
        BoundModel.of(Family.of(Network((Input("x", (), (1,)), made, out)), Radii())), *ends_of(*span)
    )
    assert float(bounds.lower[1]) <= y.min() and y.max() <= float(bounds.upper[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=1000)
@given(span=SPANS, slope=SLOPES)
def test_many_lines_hold(name: str, span: list[float], slope: float) -> None:
    _lines_hold(name, span, slope)


@pytest.mark.parametrize("name", LINEAR)
@given(data=st.data())
def test_lines_of_piecewise_linear_functions_hold_exactly(name: str, data: st.DataObject) -> None:
    """In rationals, at the ends and the breaks, which is where they could fail."""
    number = st.floats(-8, 8)
    numbers: tuple[float, ...] = ()
    if name == "leaky_relu":
        numbers = (data.draw(number),)
    elif name == "clip":
        numbers = tuple(sorted([data.draw(number), data.draw(number)]))
    elif name == "hard_sigmoid":
        numbers = (data.draw(st.floats(1e-3, 8)), data.draw(number))
    low, high = data.draw(SPANS)
    slope, made = data.draw(SLOPES), layer(name, *numbers)
    rational = [Fraction(p) for p in numbers]
    known: dict[str, list[Any]] = {"leaky_relu": [0], "abs": [0], "clip": rational}
    breaks = known.get(name) or [(target - rational[1]) / rational[0] for target in (0, 1)]
    at = [Fraction(low), Fraction(high), *(Fraction(b) for b in breaks if low <= b <= high)]
    for sign, side in zip((1, -1), sides(made, low, high), strict=True):
        asked = [(slope, float(side.intercept(torch.full((1, 1, 1), slope, dtype=torch.float64)))), *lines(side)]
        for tilt, intercept in asked:
            for x in at:
                assert sign * exact_curve(name, x, Fraction(0), *rational) >= Fraction(tilt) * x + Fraction(intercept)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_are_close(name: str, rng: np.random.Generator) -> None:
    """The least distance of a line of any slope to the function is small, so bounds lose by its slope alone."""
    for _ in range(15):
        centre, width = 2.0 * rng.normal(), rng.uniform(0.05, 4.0)
        low, high = centre - width, centre + width
        x = np.linspace(low, high, 4001)
        y = layer(name).curve.value(x)
        for sign, side in zip((1.0, -1.0), sides(layer(name), low, high), strict=True):
            for tilt, intercept in [*lines(side)]:
                assert (sign * y - tilt * x - intercept).min() <= 1e-3 * (1.0 + abs(y).max())


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=30)
@given(span=SPANS, radius=st.sampled_from([0.0, 1e-9, 0.1, 2.0]))
def test_intervals_hold_and_are_attained(name: str, span: list[float], radius: float) -> None:
    low, high = span
    if name == "exp":
        low, high = min(low, 300.0), min(high, 300.0)
    made = layer(name)
    out = Dense("d", (1,), (2,), weight=np.ones((2, 1)), bias=np.zeros(2))
    network = Network((Input("x", (), (1,)), made, out))
    model = BoundModel.of(Family.of(network, Radii(layers={"a": {"activation": radius}})))
    bounds = interval_bounds(model, *ends_of(low, high))
    least, most = reached(name, *made.parameters)
    y = curve(name, places(low, high), *(np.float64(p) for p in PARAMETERS[name]))
    ends = np.array([y.min() - radius, y.max() + radius])
    if radius:  # which is all that leaves the range of the function
        ends = np.clip(ends, least, most).ravel()
    found = [float(bounds.lower[1]), float(bounds.upper[1])]
    off = (
        2e-7 * (radius > 0) + 2.0 * made.curve.function.slack + 1e-11 * (1.0 + abs(ends).max())
    )  # `reached` has seven digits
    assert found[0] <= ends[0] + 2e-7 * (radius > 0) and ends[1] <= found[1]
    assert abs(np.array(found) - ends).max() <= off + 1e-3 * (y.max() - y.min())
    assert activation_interval(model, bounds, 1)[0].shape == (1, 1)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("size", mostly_slow([0.1, 0.6, 0.01]))
def test_members_of_smooth_networks_are_inside(name: str, size: float, rng: np.random.Generator) -> None:
    """More than 10,000 members a function: every layer by IBP and BP, margins and outputs by all kinds of bounds."""
    network = smooth(rng, name, *SMOOTH[name])
    family = Family.of(network, random_radii(network, rng, size))
    model, samples = BoundModel.of(family), inputs(network, rng)
    rough = interval_bounds(model, *box_ends(model, family.box(samples)))
    labels = torch.tensor(network.evaluate(samples).argmax(1))
    fine = tightened_bounds(model, rough)
    margins = [interval_margins(model, rough, labels), backward_margins(model, rough, labels)]
    margins.append(backward_margins(model, fine, labels))
    eye = torch.eye(3, dtype=torch.float64)
    rows = (eye[labels].unsqueeze(1) - eye).detach()
    shares = {i: torch.tensor(rng.random((6, 3, network.layers[i].size))) for i in network.activations}
    mixed = bound_with(model, fine, Quantities(rows={5: rows}), Choice(shares=shares))
    for s, x in enumerate(samples):
        for corner in (False, True):
            values = sample_members(family, x, rng, 900, corner)
            for bounds in (rough, fine):
                for i, value in enumerate(values):
                    assert (value >= bounds.lower[i][s].numpy() - 1e-9 * (1 + abs(value))).all()
                    assert (value <= bounds.upper[i][s].numpy() + 1e-9 * (1 + abs(value))).all()
            for found in margins:
                assert_margins_hold(found[s], values[-1], int(labels[s]))
            others = [j for j in range(3) if j != int(labels[s])]
            least = (values[-1][:, [int(labels[s])]] - values[-1]).min(0)[others]
            assert (mixed[s].numpy()[others] <= least + 1e-9 * (1 + abs(least))).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMOOTH, *LINEAR])
def test_many_members_are_inside(name: str, rng: np.random.Generator) -> None:
    for size in (0.003, 0.03, 0.2, 1.0):
        network = smooth(rng, name, *PARAMETERS[name])
        family = Family.of(network, random_radii(network, rng, size))
        model, samples = BoundModel.of(family), inputs(network, rng)
        bounds = tightened_bounds(model, interval_bounds(model, *box_ends(model, family.box(samples))))
        for s, x in enumerate(samples):
            values = sample_members(family, x, rng, 3000, True)
            assert_contained(bounds, s, [v.min(0) for v in values])
            assert_contained(bounds, s, [v.max(0) for v in values])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_box_of_one_point_gives_its_value(name: str, rng: np.random.Generator) -> None:
    network = smooth(rng, name, *PARAMETERS[name])
    family = Family.of(network, Radii())
    model, samples = BoundModel.of(family), inputs(network, rng)
    bounds = interval_bounds(model, *box_ends(model, family.box(samples)))
    eye = torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    wanted = network.evaluate(samples)
    scale = 1e-8 * (1.0 + abs(wanted).max())
    for low in (bounds.lower[5], -bounds.upper[5].neg(), backward_bound(model, bounds, 5, eye)):
        np.testing.assert_allclose(low.numpy(), wanted, rtol=0, atol=scale)


def test_what_overflows_is_refused() -> None:
    first = Dense("fc", (0,), (1,), weight=np.array([[100.0]]), bias=np.zeros(1))
    out = Dense("d", (2,), (2,), weight=np.ones((2, 1)), bias=np.zeros(2))
    network = Network((Input("x", (), (1,)), first, Activation("e", (1,), (1,), "exp"), out))
    model = BoundModel.of(Family.of(network, Radii(0.1)))
    with pytest.raises(RadiiError, match="'e' overflow"):
        interval_bounds(model, torch.tensor([[0.0]]).double(), torch.tensor([[9.0]]).double())


def test_unstable_are_those_that_bend() -> None:
    """A clip on its slope and a HardSwish beyond 3 do not; a clip at an end and a sigmoid do."""
    ends_of_clip: Any = (np.full(3, -1.0), np.full(3, 1.0))
    for name, numbers, wanted in (
        ("clip", ends_of_clip, [False, True, False]),
        ("hard_swish", (), [True, True, False]),
        ("sigmoid", (), [True, True, True]),
    ):
        made = Activation("a", (0,), (3,), name, numbers)
        out = Dense("d", (1,), (2,), weight=np.ones((2, 3)), bias=np.zeros(2))
        model = BoundModel.of(Family.of(Network((Input("x", (), (3,)), made, out)), Radii()))
        ends = torch.tensor([[-0.5, 0.5, 3.5]]).double(), torch.tensor([[0.5, 1.5, 4.0]]).double()
        assert bends(model, interval_bounds(model, *ends), 1)[0].tolist() == wanted, name
