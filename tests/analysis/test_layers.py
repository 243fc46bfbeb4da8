"""The radius that single layers bear, against `verify` at single factors."""

from __future__ import annotations

import numpy as np
import pytest

from qverify import datasets
from qverify.analysis.grid import Grid
from qverify.analysis.layers import LayerSearch, layer_radii, single_layers
from qverify.errors import UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.onnx import reader as onnx_io
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support import networks
from tests.support.paths import MODELS

COARSE = Grid(8.0, 0.05)
IBP, BP = Options(method="ibp", attack=False), Options(method="bp", attack=False)


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_single_layers_add_up_to_the_radii(name: str, rng: np.random.Generator) -> None:
    network = networks.NETWORKS[name](rng)
    radii = networks.random_radii(network, rng)
    whole, parts = Family.of(network, radii), single_layers(network, radii)
    own = [(one, Family.of(network, one.radii)) for one in parts]
    for kind in ("weight", "bias", "activation"):
        for i, values in getattr(whole, kind).items():
            np.testing.assert_array_equal(values, sum([getattr(f, kind)[i] for _, f in own], np.zeros_like(values)))
    np.testing.assert_array_equal(whole.input, sum([f.input for _, f in own], np.zeros_like(whole.input)))
    assert all(sum(v > 0 for v in family.largest().values()) >= 1 for _, family in own)
    for one, family in own:
        kinds = {"weight", "bias"} if one.kind == "weight" else {one.kind}
        assert {k for k, v in family.largest().items() if v > 0} <= kinds
        assert max(one.largest, one.bias_largest or 0) == max(family.largest().values())


def test_points_stay_with_their_layers() -> None:
    network, samples = onnx_io.load(MODELS / "digits.onnx"), datasets.load("digits")
    radii = Radii.from_bits(8, "channel", "nearest", network, samples.x)
    for one in single_layers(network, radii):
        assert list(one.radii.points) == ([one.layer] if one.kind in ("input", "activation") else [])
        assert all(point.entry == (one.kind == "input") for point in one.radii.points.values())


def test_rows_of_layers_are_the_last_factor_that_verify_accepts(rng: np.random.Generator) -> None:
    network, samples = onnx_io.load(MODELS / "digits.onnx"), datasets.load("digits")
    data, radii, grid = (samples.x[:60], samples.y[:60]), Radii.from_bits(6), Grid(8, 0.05)
    layered = {
        ("input", "input"): Radii(input=radii.input),
        ("dense2", "weight"): Radii(layers={"dense2": {"weight": radii.weight, "bias": radii.bias}}),
        ("relu2", "activation"): Radii(layers={"relu2": {"activation": radii.activation}}),
    }
    for options in (IBP, BP):
        rows = {(row.layer, row.kind): row for row in layer_radii(network, data, radii, 0.9, grid, options)}
        assert len(rows) == 6
        for key, alone in layered.items():
            row = rows[key]
            assert row.factor is not None and row.samples == 60 and row.method == options.method
            above = None if row.at_end else grid.factors[grid.factors.index(row.factor) + 1]
            for factor in (row.factor, above):
                if factor is not None:
                    verdicts = verify(network, *data, alone.scaled(factor), options)
                    share = sum(v.status is Status.VERIFIED for v in verdicts) / 60
                    assert (share >= 0.9) == (factor == row.factor)
                    assert factor != row.factor or share == row.reached
            own = {"input": 2.0**-6, "weight": 2.0**-5, "activation": 2.0**-5}[row.kind]
            assert row.radius == row.factor * own
            assert row.bias_radius == (row.radius if row.kind == "weight" else None)
    assert {row.at_end for row in rows.values()} == {True, False}


def test_accuracies_that_cannot_be_asked(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 3, 4, 2)
    x = rng.normal(size=(10, 3))
    labels = network.evaluate(x).argmax(1)
    labels[0] = 1 - labels[0]
    for share in (0.0, -0.5, 1.5, np.nan):
        with pytest.raises(UsageError, match=r"The accuracy is .*; give a share above 0 and up to 1"):
            LayerSearch(network, (x, labels), share, IBP)
    with pytest.raises(UsageError, match="right on 90 % of the samples, so no radius guarantees 95 %"):
        LayerSearch(network, (x, labels), 0.95, IBP)
    with pytest.raises(UsageError, match="not searched by method 'exact'"):
        LayerSearch(network, (x, labels), 0.5, Options(method="exact"))
    (row,) = layer_radii(network, (x, labels), Radii(layers={"fc0": {"weight": 0.1, "bias": 0.0}}), 0.9, COARSE)
    assert (row.layer, row.kind, row.method, row.bias_radius) == ("fc0", "weight", "bp", 0.0)
