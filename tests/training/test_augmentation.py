"""Distorted images: moved by what is promised, every one by itself, and only where asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qverify.training.augmentation import distorted


def centre(images: torch.Tensor) -> torch.Tensor:
    """Centre of mass (N, 2) in pixels, row and column."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in images.shape[-2:]), indexing="ij")
    mass = images.sum((-2, -1))
    return torch.stack([(images * rows).sum((-2, -1)) / mass, (images * columns).sum((-2, -1)) / mass], -1)


def blob(count: int = 400) -> torch.Tensor:
    """A rectangle, longer than wide, off the middle of images of 40 x 32."""
    images = torch.zeros(count, 40, 32)
    images[:, 12:24, 17:22] = 1.0
    return images


def test_amount_zero_changes_nothing_and_draws_nothing() -> None:
    images, state = blob(), torch.get_rng_state()
    assert distorted(images, 0.0) is images and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(5, 7), (5,), (5, 2, 3, 4, 4)])
def test_what_is_no_image_stays_as_it_is(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert distorted(x, 1.0) is x


def test_every_image_moves_by_itself_and_not_too_far() -> None:
    """A turn of 15 degrees, 15 % of scale, 0.2 of shear and a twentieth of the image move a centre 9 pixels from the
    middle by at most 0.26 * 9 + 0.15 * 9 + 0.2 * 9 + 0.05 * 40 < 8 pixels."""
    torch.manual_seed(0)
    images = blob()
    moved = distorted(images, 1.0)
    assert moved.shape == images.shape and moved.dtype == images.dtype
    assert moved.min() >= 0 and moved.max() <= 1 + 1e-6 and len(moved.unique(dim=0)) == len(moved)  # type: ignore[no-untyped-call]
    away = (centre(moved) - centre(images)).norm(dim=1)
    assert 1 < away.median() < 4 and away.max() < 8
    assert (moved.sum((1, 2)) / images.sum((1, 2)) - 1).abs().max() < 0.45  # (1 / 0.85)^2 = 1.38


def test_half_the_amount_moves_half_as_far() -> None:
    far: list[Any] = []
    near: list[Any] = []
    for amount, found in ((1.0, far), (0.5, near)):
        torch.manual_seed(0)
        found.append((centre(distorted(blob(), amount)) - centre(blob())).norm(dim=1).mean())
    assert float(near[0] / far[0]) == pytest.approx(0.5, abs=0.05)


def test_channels_move_together() -> None:
    torch.manual_seed(0)
    flat = distorted(blob(6), 0.7)
    torch.manual_seed(0)
    colour = distorted(torch.stack([blob(6), 0.25 * blob(6)], 1), 0.7)
    assert torch.equal(colour[:, 0], flat)
    assert torch.allclose(colour[:, 1], torch.where(0.25 * flat < 0.02, 0.0, 0.25 * flat))


def test_fringes_are_black() -> None:
    """Resampling spreads an edge over pixels of any brightness; the faintest are set to 0, the others stay."""
    torch.manual_seed(0)
    moved = distorted(blob(), 0.3)
    assert not ((moved > 0) & (moved < 0.02)).any() and ((moved > 0.02) & (moved < 0.1)).any()
