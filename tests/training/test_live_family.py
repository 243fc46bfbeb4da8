"""The bounds that train are the bounds that verify, and their gradients are right."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.choices import Rounding, Scheme
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii, load_radii
from qverify.family.steps import Quantiser
from qverify.training.live_family import LiveFamily, RangeFamily, StatedFamily, live_bounds, live_family
from qverify.training.live_network import LiveNetwork
from tests.support.modules import MODULES, SHAPES, batch, live_of

CLIP = (0.0, 1.0)
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 2])


def verified(
    live: LiveNetwork, radii: Radii, x: torch.Tensor, clip: tuple[float, float] | None
) -> tuple[Bounds, torch.Tensor]:
    """Oracle: what `qverify verify` computes, float64 with rounding allowances, from the exported numbers."""
    family = Family.of(live.frozen(), radii, clip)
    model = BoundModel.of(family)
    lower, upper = family.box(x.flatten(1).double().numpy())
    bounds = interval_bounds(model, model.tensor(lower), model.tensor(upper))
    return bounds, interval_margins(model, bounds, LABELS)


def trained(
    family: LiveFamily, factor: float, x: torch.Tensor, clip: tuple[float, float] | None
) -> tuple[Bounds, torch.Tensor]:
    model, bounds = live_bounds(family, factor, x, clip)
    return bounds, interval_margins(model, bounds, LABELS)


def assert_same(found: tuple[Bounds, torch.Tensor], wanted: tuple[Bounds, torch.Tensor]) -> None:
    """To float32 accuracy: 1e-5 of the scale of each layer."""
    for one, other in ((found[0].lower, wanted[0].lower), (found[0].upper, wanted[0].upper)):
        for a, b in zip([*one, found[1]], [*other, wanted[1]], strict=True):
            assert a.dtype == torch.float32 and b.dtype == torch.float64 and a.shape == b.shape
            scale = max(1.0, float(b[torch.isfinite(b)].abs().max()))
            torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5 * scale)


def ready(name: str, quantiser: Quantiser, x: torch.Tensor, **more: bool) -> tuple[LiveNetwork, LiveFamily]:
    live = live_of(name, **more)
    family = live_family(live, quantiser)
    with torch.no_grad():
        family.observe(live.values(x))
    return live, family


# --- the same bounds ---


@pytest.mark.parametrize("clip", [None, CLIP], ids=["free", "clipped"])
@pytest.mark.parametrize("rounding", ["nearest", "any"])
@pytest.mark.parametrize("scheme", ["paper", "tensor", "channel"])
@pytest.mark.parametrize("name", MODULES)
def test_bounds_of_bits_are_those_that_verify(
    name: str, scheme: Scheme, rounding: Rounding, clip: tuple[float, float] | None
) -> None:
    x = batch(name)
    live, family = ready(name, Quantiser(5, scheme, rounding), x)
    radii = Radii.from_bits(5, scheme, rounding, live.frozen(), x.double().numpy())
    wanted = verified(live, radii, x, clip)
    found = trained(family, 1.0, x, clip)
    assert_same(found, wanted)
    assert (wanted[0].upper[-1] - wanted[0].lower[-1]).min() > 0.01  # and it is no forward pass
    handed = verified(live, family.radii(x.double().numpy()), x, clip)
    torch.testing.assert_close(handed[1], wanted[1], rtol=0, atol=0)


@pytest.mark.parametrize("rounding", ["nearest", "any"])
def test_few_bits_clip_to_the_same_ends(rounding: Rounding) -> None:
    """Bounds far beyond the calibrated range end where it does, in training as in verification, and 0 stays 0."""
    x = batch("mlp")
    live, family = ready("mlp", Quantiser(2, "tensor", rounding), x)
    radii = Radii.from_bits(2, "tensor", rounding, live.frozen(), x.double().numpy())
    wanted = verified(live, radii, x, CLIP)
    found = trained(family, 1.0, x, CLIP)
    assert_same(found, wanted)
    points = Family.of(live.frozen(), radii).points
    assert points
    for i, point in points.items():
        (source,) = live.network.layers[i].inputs
        top, radius = float(point.high[1][0]), torch.as_tensor(point.radius)
        assert (wanted[0].upper[source] > top).any() and wanted[0].upper[i].max() <= top
        torch.testing.assert_close(found[0].activation[i].double(), radius, rtol=1e-5, atol=1e-6)


RADII_FILE = """
input = 0.02
weight = 0.013
bias = 0.007
activation = [0.03, 0.0, 0.01, 0.02, 0.005, 0.04]
[layers."2"]
weight = [0.01, 0.0, 0.03, 0.02, 0.04]
[layers."3"]
activation = 0.021
[layers."4"]
weight = [[0.01, 0.02, 0.0, 0.03, 0.01], [0.05, 0.0, 0.01, 0.02, 0.0], [0.0, 0.01, 0.02, 0.03, 0.04]]
bias = [0.01, 0.0, 0.02]
"""


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("clip", [None, CLIP], ids=["free", "clipped"])
def test_bounds_of_a_radii_file(tmp_path: Path, clip: tuple[float, float] | None, factor: float) -> None:
    """Per-tensor, per-channel and per-element radii, and a layer without bias, which has no radius either."""
    (tmp_path / "radii.toml").write_text(RADII_FILE)
    radii = load_radii(str(tmp_path / "radii.toml"))
    live, x = live_of("mlp"), batch("mlp")
    family = live_family(live, radii)
    assert_same(trained(family, factor, x, clip), verified(live, radii.scaled(factor), x, clip))
    assert family.radii(x) is radii


@pytest.mark.parametrize("name", MODULES)
def test_half_the_stated_radii(name: str) -> None:
    x = batch(name)
    live, family = ready(name, Quantiser(4), x)
    assert_same(trained(family, 0.5, x, CLIP), verified(live, Radii.from_bits(4).scaled(0.5), x, CLIP))


def test_bounds_follow_weights_that_change() -> None:
    x = batch("mlp")
    live, family = ready("mlp", Quantiser(5, "channel"), x)
    with torch.no_grad():
        for parameter in live.module.parameters():
            parameter.mul_(1.7)
        family.observe(live.values(x))  # larger ranges, so nothing of the old ones is left
    radii = Radii.from_bits(5, "channel", "any", live.frozen(), x.double().numpy())
    assert_same(trained(family, 1.0, x, CLIP), verified(live, radii, x, CLIP))


@pytest.mark.parametrize("scheme", ["paper", "tensor", "channel"])
@pytest.mark.parametrize("name", MODULES)
def test_factor_zero_is_the_forward_pass(name: str, scheme: Scheme) -> None:
    x = batch(name)
    live, family = ready(name, Quantiser(3, scheme), x)
    _, bounds = live_bounds(family, 0.0, x)
    for lower, upper, value in zip(bounds.lower, bounds.upper, live.values(x), strict=True):
        torch.testing.assert_close(lower, value, rtol=0, atol=2e-6)
        torch.testing.assert_close(upper, value, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scheme", ["paper", "tensor", "channel"])
@pytest.mark.parametrize("name", MODULES)
def test_bounds_widen_with_the_factor(name: str, scheme: Scheme) -> None:
    x = batch(name)
    _, family = ready(name, Quantiser(4, scheme), x)
    steps = [trained(family, factor, x, CLIP) for factor in (0.0, 0.3, 0.6, 1.0, 1.5)]
    for (before, narrow), (after, wide) in pairwise(steps):
        assert (wide[torch.isfinite(wide)] < narrow[torch.isfinite(narrow)]).all()
        for i in range(1, len(before.lower)):
            assert (after.lower[i] <= before.lower[i] + 1e-6).all() and (after.upper[i] >= before.upper[i] - 1e-6).all()


# --- gradients ---


def loss_of(family: LiveFamily, x: torch.Tensor) -> torch.Tensor:
    """A smooth function of all margins, with unequal weights."""
    model, bounds = live_bounds(family, 0.8, x, CLIP)
    margins = interval_margins(model, bounds, LABELS).masked_fill(torch.nn.functional.one_hot(LABELS, 3).bool(), 0.0)
    return (margins * torch.linspace(0.5, 1.5, margins.numel(), dtype=x.dtype).reshape(margins.shape)).sum()


@pytest.mark.parametrize("scheme", ["paper", "tensor", "channel"])
@pytest.mark.parametrize("name", MODULES)
def test_gradients_against_finite_differences(name: str, scheme: Scheme) -> None:
    """Oracle: central differences in float64, at the largest weight of each channel (which sets the step of `tensor`
    and `channel`), at a small one, and at a bias."""
    x = batch(name, dtype=torch.float64)
    live, family = ready(name, Quantiser(5, scheme, "any"), x, double=True)
    loss_of(family, x).backward()  # type: ignore[no-untyped-call]
    checked = 0
    for weight, bias in live.parameters.values():
        flat = weight.detach().abs().flatten(1)
        largest = flat.argmax(1) + torch.arange(len(flat)) * flat.shape[1]
        chosen = {(weight, int(flat.argmax())), (weight, int(largest[0])), (weight, int(flat.argmin()))}
        chosen |= set() if bias is None else {(bias, int(bias.detach().abs().argmax()))}
        for parameter, index in chosen:
            assert parameter.grad is not None
            values, step = parameter.detach().view(-1), 1e-6
            kept = float(values[index])
            ends = []
            for move in (step, -step):
                values[index] = kept + move
                ends.append(float(loss_of(family, x).detach()))
            values[index] = kept
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6
            )
            checked += 1
    assert checked >= 3 * len(live.parameters)


def test_the_largest_weight_carries_the_step() -> None:
    """Closed form for one layer: the margin has - 2 R sum |x| with R = share * max|W|, whatever the rows."""
    live = LiveNetwork.trace(torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False)).double(), (3,))
    weight = live.parameters[1][0]
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.3, -0.9, 0.2], [0.1, 0.4, -0.5]]))
    x = torch.tensor([[0.25, 0.5, 1.0]], dtype=torch.float64)
    family = RangeFamily(live, Quantiser(32, "tensor"))  # 32 bits: nothing but the weights' own step matters
    family.observe(live.values(x))
    model = family.model(2.0**30)
    margin = interval_margins(model, interval_bounds(model, x, x), torch.tensor([0]))[0, 1]
    margin.backward()  # type: ignore[no-untyped-call]
    share = 2.0**30 * (1 / (2.0**31 - 1) + 2.0**-21)
    expected = torch.stack([x[0], -x[0]])
    expected[0, 1] += 2 * share * 1.75  # d|w| / dw = -1
    torch.testing.assert_close(weight.grad, expected, rtol=1e-9, atol=1e-9)


# --- tracked ranges ---


def observed(*batches: list[float]) -> RangeFamily:
    """Ranges after batches of one layer each."""
    family = RangeFamily(live_of("mlp"), Quantiser(8, "tensor"))
    for values in batches:
        family.observe([torch.tensor([values])])
    return family


def test_ranges_grow_at_once_and_fade_slowly() -> None:
    assert (observed([-2.0, 4.0]).low, observed([-2.0, 4.0]).high) == ([-2.0], [4.0])
    assert (observed([1.0, 4.0]).low, observed([-3.0, -1.0]).high) == ([0.0], [0.0])  # they contain 0
    grown = observed([-2.0, 4.0], [-5.0, 6.0])
    assert (grown.low, grown.high) == ([-5.0], [6.0])
    faded = observed([-2.0, 4.0], *[[-0.5, 1.0]] * 3)
    assert faded.low[0] == pytest.approx(-2 * 0.999**3) and faded.high[0] == pytest.approx(4 * 0.999**3)
    assert observed([-2.0, 4.0], *[[-0.5, 1.0]] * 5000).high == [1.0]


def test_the_ranges_are_those_of_calibration() -> None:
    x = batch("conv")
    live, family = ready("conv", Quantiser(8, "tensor"), x)
    assert isinstance(family, RangeFamily)
    values = live.frozen().evaluate_all(x.double().numpy())
    np.testing.assert_allclose(family.high, [max(0.0, v.max()) for v in values], rtol=1e-5)
    np.testing.assert_allclose(family.low, [min(0.0, v.min()) for v in values], rtol=1e-5)


def test_state_and_restore() -> None:
    x = batch("mlp")
    live, family = ready("mlp", Quantiser(6, "tensor"), x)
    state = family.state()
    other = live_family(live, Quantiser(6, "tensor"))
    other.restore(state)
    assert torch.equal(trained(other, 1.0, x, None)[1], trained(family, 1.0, x, None)[1])
    other.observe(live.values(3 * x))
    assert state == family.state() != other.state()  # what was handed over is nobody's to change
    assert live_family(live, Quantiser(6)).state() == {}


# --- which family ---


def test_which_family() -> None:
    live = live_of("mlp")
    assert isinstance(live_family(live, Quantiser(8)), StatedFamily)
    assert isinstance(live_family(live, Radii(weight=0.1)), StatedFamily)
    assert isinstance(live_family(live, Quantiser(8, "channel")), RangeFamily)


@pytest.mark.parametrize(
    ("stated", "wording"),
    [
        (Quantiser(0), "bit-width is 0"),
        (Quantiser(40, "tensor"), "bit-width is 40"),
        (Quantiser(1, "tensor"), "bit-width is 1"),
        (Quantiser(8, "tensor", "up"), "Unknown rounding 'up'"),
        (Quantiser(8, "rows"), "Unknown scheme 'rows'"),
        (Radii(layers={"fc": {"weight": 0.1}}), "no layer 'fc'"),
        (Radii(weight=[0.1, 0.2]), "fits neither"),
    ],
)
def test_radii_that_do_not_fit(stated: Radii | Quantiser, wording: str) -> None:
    with pytest.raises(RadiiError, match=wording):
        live_family(live_of("mlp"), stated)


def test_radii_taken_from_ranges_cannot_be_trained_as_numbers() -> None:
    """Their rounding points would have the ranges of another network."""
    live = live_of("mlp")
    radii = Radii.from_bits(8, "tensor", "any", live.frozen(), batch("mlp").numpy())
    with pytest.raises(RadiiError, match="which training changes; state bits and scheme instead"):
        live_family(live, radii)


def test_shapes_are_shared_by_name() -> None:
    assert set(SHAPES) == set(MODULES)
