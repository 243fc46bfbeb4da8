"""Every function against its definition in long double, its derivative against torch, its pieces and its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qverify.activations.functions import FUNCTIONS
from qverify.activations.layer import Activation
from qverify.errors import ModelError
from qverify.forward_pass import forward
from tests.support.networks import curve, reached

WIDE = np.concatenate([np.linspace(-8, 8, 4001), np.linspace(-600, 600, 401), [0.0, -1e-300, 1e-12, -1e-12, -745.0]])


def parameters(name: str, rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Parameters (count,) each, of both signs where they may have any."""
    if name == "leaky_relu":
        return (rng.choice([0.01, 0.3, -1.0, -0.5, 2.5, 0.0, 1.0], count),)
    if name == "clip":
        low, high = np.sort(2.0 * rng.normal(size=(2, count)), axis=0)
        return low, high
    if name == "hard_sigmoid":
        return rng.uniform(0.05, 2.0, count), rng.normal(size=count)
    if name == "softplus_threshold":
        return (rng.uniform(20.0, 30.0, count),)
    return tuple(rng.uniform(0.2, 2.5, count) for _ in FUNCTIONS[name].parameters)


def made(name: str, rng: np.random.Generator, count: int) -> Activation:
    return Activation("a", (0,), (count,), name, parameters(name, rng, count))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_definition(name: str, rng: np.random.Generator) -> None:
    layer, torches = made(name, rng, 20), []
    with np.errstate(over="ignore"):
        x = WIDE[:, None] * np.ones(20)
        got, wanted = layer.curve.value(x), curve(name, x, *layer.parameters)
        torches = layer.curve.mapped(torch.tensor, torch).value(torch.tensor(x)).numpy()
    known = np.isfinite(wanted)
    for found in (got, torches):
        off = np.abs(found - wanted, where=known, out=np.zeros_like(wanted))
        assert (off <= layer.curve.allowance(np.where(known, np.abs(wanted), 0.0))).all()
    least, most = reached(name, *layer.parameters)
    low, high = layer.curve.function.ends(np, *layer.parameters)
    assert (got >= low).all() and (got <= high).all()
    np.testing.assert_allclose(low * np.ones(20), least * np.ones(20), rtol=1e-12, atol=2e-7)
    np.testing.assert_allclose(high * np.ones(20), most * np.ones(20))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_torch_and_bend_as_stated(name: str, rng: np.random.Generator) -> None:
    layer = made(name, rng, 20)
    x = torch.tensor(rng.normal(size=(300, 20)) * 3.0, requires_grad=True)
    shape = layer.curve.mapped(torch.tensor, torch)
    (gradient,) = torch.autograd.grad(shape.value(x).sum(), [x])
    np.testing.assert_allclose(layer.curve.slope(x.detach().numpy()), gradient.numpy(), rtol=1e-9, atol=1e-9)
    edges = [np.full(20, -9.0), *(at + np.zeros(20) for at in layer.curve.breaks()), np.full(20, 9.0)]
    assert len(layer.curve.function.curvature) == len(edges) - 1
    for piece, kind in enumerate(layer.curve.function.curvature):
        share = np.linspace(0.0, 1.0, 400)[:, None]
        places = edges[piece] + share * np.maximum(edges[piece + 1] - edges[piece], 0.0)
        steps = np.diff(layer.curve.derivative(places, piece), axis=0)
        if kind == 0:
            assert (abs(steps) <= 1e-12).all()
        else:
            assert (kind * steps >= -1e-14).all() and (kind * steps).sum() > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_touching_is_where_a_piece_has_the_slope(name: str, rng: np.random.Generator) -> None:
    layer = made(name, rng, 50)
    function = layer.curve.function
    if function.touching is None:
        assert function.linear or name in ("silu", "gelu", "gelu_tanh")
        return
    edges = [np.full(50, -4.0), *(at + np.zeros(50) for at in layer.curve.breaks()), np.full(50, 4.0)]
    for piece, kind in enumerate(function.curvature):
        if kind:
            x = rng.uniform(edges[piece], edges[piece + 1])
            slope = torch.tensor(layer.curve.derivative(x, piece))
            at = function.touching(torch, slope, piece, *(torch.tensor(p) for p in layer.parameters))
            np.testing.assert_allclose(at.numpy(), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("sign", (), None), "there is no function 'sign'"),
        (("leaky_relu", (), None), "0 parameters for leaky_relu, which has slope"),
        (("clip", ([1.0] * 3, [0.0] * 3), None), "lower end is above its upper one"),
        (("elu", ([0.0] * 3,), None), "its alpha or gamma is not positive"),
        (("hard_sigmoid", ([-1.0] * 3, [0.0] * 3), None), "its alpha is not positive"),
        (("elu", ([1.0] * 2,), None), "have 3 entries"),
        (("tanh", (), [0.0, 0.0]), "have 3 entries"),
        (("leaky_relu", ([np.nan] * 3,), None), "NaN"),
    ],
)
def test_what_is_wrong_is_refused(fields: Any, said: str) -> None:
    function, numbers, offset = fields
    with pytest.raises(ModelError, match=said):
        Activation("a", (0,), (3,), function, numbers, offset)


def test_a_member_is_clipped_to_the_range() -> None:
    layer = Activation("a", (0,), (3,), "sigmoid", (), np.array([0.9, -0.9, 0.25]))
    assert forward(layer, [np.zeros((1, 3))]).tolist() == [[1.0, 0.0, 0.75]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_steepness_bounds_every_difference_quotient(name: str, rng: np.random.Generator) -> None:
    layer = made(name, rng, 30)
    ends = np.sort(rng.normal(size=(2, 200, 30)) * rng.choice([0.3, 3.0], (2, 200, 1)), axis=0)
    least, most = layer.curve.steepness(*ends)
    tightest = np.full_like(least, np.inf)
    for _ in range(30):
        a, b = (ends[0] + rng.random(least.shape) * (ends[1] - ends[0]) for _ in range(2))
        apart = abs(a - b) > 1e-5
        quotient = (layer.curve.value(a) - layer.curve.value(b))[apart] / (a - b)[apart]
        assert (quotient >= least[apart] - 1e-9).all() and (quotient <= most[apart] + 1e-9).all()
        tightest[apart] = np.minimum(tightest[apart], most[apart] - quotient)
    assert np.median(tightest) < 0.2
