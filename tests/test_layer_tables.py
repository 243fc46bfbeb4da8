"""Everything that is done to layers has an entry for every type of layer, and fails for a type it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import qverify
from qverify import forward_pass
from qverify.bounds import backward, interval
from qverify.bounds.sample import SampleBounds
from qverify.exact import bilinear, gain, relational
from qverify.exact.maps import Maps
from qverify.family import family as quantisation
from qverify.family import float_errors
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Input, Layer
from qverify.network import Network
from qverify.onnx import writer as onnx_export
from qverify.verification import member_pass
from tests.support.networks import mlp

WITH_INPUT: dict[str, Any] = {
    "IBP": interval.INTERVAL,
    "BP": backward.BACKWARD,
    "attack": member_pass.FORWARD,
    "relational program": relational.RELATIONAL,
    "bilinear program": bilinear.BILINEAR,
    "gain": gain.GAIN,
    "radii": quantisation.RESOLVED,
    "float32 in a file": float_errors.FLOAT_ERRORS,
}
WITHOUT_INPUT: dict[str, Any] = {"forward pass": forward_pass._FORWARD, "export": onnx_export._WRITERS}


@pytest.mark.parametrize("name", [*WITH_INPUT, *WITHOUT_INPUT])
def test_every_table_has_every_type(name: str) -> None:
    types = set(Layer.__subclasses__()) - ({Input} if name in WITHOUT_INPUT else set())
    types = {kind for kind in types if kind.__module__.startswith("qverify.")}
    assert set({**WITH_INPUT, **WITHOUT_INPUT}[name]) == types


@dataclass(frozen=True, eq=False)
class Twice(Layer):
    """A type that nothing knows."""


def test_a_type_that_nothing_knows_is_never_passed_over(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it taken for another type, or left out, sound bounds would be none."""
    known = mlp(rng, 3, 4, 2)
    monkeypatch.setitem(forward_pass._FORWARD, Twice, lambda layer, x: 2 * x[0])
    unknown = Network((*known.layers[:2], Twice("t", (1,), (4,)), *(
        type(layer)(**{**vars(layer), "inputs": (i + 2,)}) for i, layer in enumerate(known.layers[2:])
    )))  # fmt: skip
    assert np.isfinite(unknown.evaluate(rng.random((2, 3)))).all()
    with pytest.raises(KeyError):
        Family.of(unknown, Radii(0.1))
    monkeypatch.setitem(quantisation.RESOLVED, Twice, quantisation._no_radius)
    with pytest.raises(KeyError):
        qverify.verify(unknown, rng.random((2, 3)), [0, 0], Radii(0.1))
    bounds = SampleBounds(
        lower=[np.zeros(layer.size) for layer in unknown.layers],
        upper=[np.ones(layer.size) for layer in unknown.layers],
        activation={3: 0.1},  # type: ignore[dict-item]
    )
    maps = Maps(Family.of(unknown, Radii(0.1)))
    for ask in (
        lambda: relational.Relational(maps, bounds),
        lambda: bilinear.Bilinear(maps, bounds),
        lambda: gain.gain(maps, bounds, np.array([1.0, -1.0])),
    ):
        with pytest.raises(KeyError):
            ask()
