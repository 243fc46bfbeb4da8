"""Files inside and outside a family; what is covered is a member, whose outputs the family's bounds hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.points import Point
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.layers import BatchNorm, Conv, Input, Rounding, Scale
from qverify.network import Network
from qverify.replication.coverage import Part, coverage
from qverify.replication.moves import moves
from tests.support.networks import NETWORKS, dense
from tests.support.quantised import quantised, sample_runtimes

COVERED = ["dense", "deep", "linear", "conv_attributes", "conv_conv", "conv_last"]
"""Networks of which the helper quantises all that toolchains do."""


def case(name: str, **more: Any) -> tuple[Network, Network, Any]:
    rng = np.random.default_rng(0)
    network = NETWORKS[name](rng)
    x = rng.normal(size=(50, network.input_size))
    return network, quantised(network, x, **more), x


def family(network: Network, x: Any, factor: float = 1.0, **more: Any) -> Family:
    radii = Radii.of(Quantiser(8, "channel", "nearest", points="tflite", **more), network, x)
    return Family.of(network, radii if factor == 1.0 else radii.scaled(factor))


def outside(parts: list[Part]) -> list[Part]:
    return [part for part in parts if not part.covered]


@pytest.mark.parametrize("name", COVERED)
def test_a_file_is_covered_by_its_own_radii_and_by_none_smaller(name: str) -> None:
    network, file, x = case(name)
    parts = coverage(network, file, family(network, x), "float32")
    assert not outside(parts) and all(part.share is not None and part.share <= 1.0 for part in parts)
    smaller = outside(coverage(network, file, family(network, x, 0.99), "float32"))
    assert {part.kind for part in smaller} >= {"point"} and all((part.share or 0) > 1.0 for part in smaller)
    assert all("times the radius" in part.detail for part in smaller)
    per_tensor = quantised(network, x, channel=False)
    assert {part.kind for part in outside(coverage(network, per_tensor, family(network, x), "float32"))} >= {"weight"}


@pytest.mark.parametrize("name", COVERED)
def test_what_is_covered_lies_in_the_bounds_of_the_family(name: str) -> None:
    """Every runtime of a covered file: the family's interval bounds hold its values, drawn by an oracle."""
    network, file, x = case(name)
    own = family(network, x)
    assert not outside(coverage(network, file, own, "float32"))
    model = BoundModel.of(own)
    rng = np.random.default_rng(1)
    radii = {i: move.absolute * (1 - 1e-9) for i, move in moves(file, "float32").items()}
    for sample in x[:5]:
        lower, upper = own.box(sample[None])
        bounds = interval_bounds(model, model.tensor(lower), model.tensor(upper))
        values = sample_runtimes(file, radii, np.repeat(sample[None], 100, 0), rng)[-1]
        assert (values >= bounds.lower[-1].numpy() - 1e-9).all() and (values <= bounds.upper[-1].numpy() + 1e-9).all()


def changed(network: Network, i: int, **fields: Any) -> Network:
    return network.with_layers({i: replace(network.layers[i], **fields)})


def test_every_deviation_is_found_and_named() -> None:
    network, file, x = case("dense")
    own = family(network, x)
    fc1 = file.index("fc1")
    layer: Any = file.layers[fc1]
    step = np.broadcast_to(layer.grid, layer.weight.shape)
    moved = layer.weight + step * (np.arange(layer.weight.size).reshape(layer.weight.shape) == 3)
    bias = layer.bias + 1e-2 * (np.arange(len(layer.bias)) == 1)
    point_at = file.index("fc1.q")
    point: Any = file.layers[point_at]
    last = file.index("fc2.q")
    end: Any = file.layers[last]
    cases: list[tuple[Network, str, str, str]] = [
        (changed(file, fc1, weight=moved), "weight", "fc1", "weight deviates by"),
        (changed(file, fc1, weight=2 * layer.weight - moved), "weight", "fc1", "weight deviates by"),
        (changed(file, fc1, bias=bias), "bias", "fc1", "bias deviates by"),
        (changed(file, point_at, step=2 * point.step), "point", "relu1", "its error deviates by 2 times"),
        (changed(file, point_at, high=point.high - point.step), "point", "relu1", "its upper end is"),
        (changed(file, last, low=2 * end.low), "point", "fc2", "its lower end is"),
    ]
    for other, kind, name, why in cases:
        found = outside(coverage(network, other, own, "float32"))
        assert {(part.kind, part.name) for part in found} == {(kind, name)}
        assert why in found[0].detail


def test_places_of_rounding_points() -> None:
    """One that the family lacks is not covered, and neither is one that the file lacks: the family clips there."""
    network, file, x = case("dense")
    fewer = Family.of(network, Radii.of(Quantiser(8, "channel", "nearest"), network, x))
    (lacks,) = outside(coverage(network, file, fewer, "float32"))
    assert (lacks.kind, lacks.name) == ("point", "fc2") and "the family has no rounding point there" in lacks.detail
    unrounded = Network(file.layers[:-1], source="file")
    (missing,) = outside(coverage(network, unrounded, family(network, x), "float32"))
    assert (missing.name, missing.file) == ("fc2", "") and "the file does not" in missing.detail


def test_a_point_before_a_relu_is_one_behind_it() -> None:
    """And the same grid twice is once."""
    network, file, x = case("dense", fused=False)
    layers = list(file.layers)
    i = next(i for i, layer in enumerate(layers) if layer.name == "relu0.q")
    point: Any = layers[i]
    before = replace(point, name="early", inputs=(i - 2,), low=-point.high)
    relu = replace(layers[i - 1], inputs=(i - 1,))
    put = [*layers[: i - 1], before, relu, replace(point, inputs=(i,))]
    put += [replace(la, inputs=tuple(s + 1 for s in la.inputs)) for la in layers[i + 1 :]]
    other = Network(tuple(put), source="file")
    parts = coverage(network, other, family(network, x), "float32")
    assert not outside(parts) and [part.file for part in parts if part.name == "relu0"] == ["early", "relu0.q"]
    twice = changed(other, i + 1, step=point.step / 2)
    (again,) = outside(coverage(network, twice, family(network, x), "float32"))
    assert again.file == "relu0.q" and "twice, to two grids" in again.detail


def test_a_coarser_rule_needs_larger_radii() -> None:
    network, file, x = case("dense")
    for rule, covered in (("single", True), ("double", False), ("truncate", False)):
        assert (not outside(coverage(network, file, family(network, x), rule))) is covered
    any_rounding = Family.of(network, Radii.of(Quantiser(8, "channel", "any", points="tflite"), network, x))
    for rule in ("float32", "double"):
        assert not outside(coverage(network, file, any_rounding, rule))


def test_a_sum_may_come_out_off_0() -> None:
    """0 is kept by an integer sum times a number, and not by a sum of branches, or in floating point, rounded up."""
    network, file, _ = case("residual")
    point = Point(radius=1.0, low=(-100.0, 0.0), high=(0.0, 100.0), dead=0.0)
    names = ("x", "relu0", "left", "relu1", "relu2", "out")
    own = Family.of(network, Radii(weight=1.0, bias=1.0, points=dict.fromkeys(names, point)))
    assert not outside(coverage(network, file, own, "nearest"))
    (found,) = outside(coverage(network, file, own, "any"))
    assert found.name == "relu2" and "may round away from 0" in found.detail
    floating = Network(tuple(replace(la, kernel=False) if isinstance(la, Rounding) else la for la in file.layers))
    assert {part.name for part in outside(coverage(network, floating, own, "any"))} == set(names[1:])


def test_zero_grids_and_signs_that_the_family_keeps() -> None:
    network, file, _ = case("dense")
    wide = Radii(weight=1.0, bias=1.0)
    point = Point(radius=1.0, low=(-100.0, 0.0), high=(0.0, 100.0), dead=-1.0)
    names = [network.layers[0].name, "relu0", "relu1", "fc2"]
    base = dict.fromkeys(names, point)
    assert not outside(coverage(network, file, Family.of(network, replace(wide, points=base)), "any"))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"dead": 0.9}, "round away from 0"),
        ({"step": 0.5}, "another than the family's"),
    ]
    for change, why in changes:
        stated = replace(wide, points=base | {"fc2": replace(point, **change)})
        (found,) = outside(coverage(network, file, Family.of(network, stated), "float32"))
        assert found.name == "fc2" and why in found.detail


def test_radii_without_ranges_cover_no_file_that_clips() -> None:
    """Scheme `paper` has no ranges; of the input alone `--clip-input` says one."""
    network, file, _ = case("linear")
    own = Family.of(network, Radii(input=0.5, weight=1.0, bias=1.0, activation=1.0))
    found = outside(coverage(network, file, own, "float32"))
    assert [part.name for part in found] == ["x", "fc0"] and "no range" in found[0].detail
    clipped = Family.of(network, Radii(input=0.5, weight=1.0, bias=1.0), (-0.5, 0.5))
    assert [part.name for part in outside(coverage(network, file, clipped, "float32"))] == ["fc0"]


def test_constants_have_no_radius() -> None:
    network, file, _x = case("signed_hidden")
    i = next(i for i, layer in enumerate(file.layers) if isinstance(layer, Scale))
    layer: Any = file.layers[i]
    own = Family.of(network, Radii(weight=1.0))
    assert next(p for p in coverage(network, file, own, "float32") if p.kind == "constant").covered
    other = changed(file, i, scale=layer.scale * 1.001)
    assert not next(p for p in coverage(network, other, own, "float32") if p.kind == "constant").covered


def test_sums_that_overflow_are_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    network, file, x = case("dense")
    refused = type("K", (), {"refused": ("sums may leave int32",)})
    monkeypatch.setattr("qverify.replication.coverage.file_kernel", lambda network: refused)
    (found,) = outside(coverage(network, file, family(network, x), "float32"))
    assert found.kind == "kernel" and found.detail == "sums may leave int32"


def test_a_batchnormalization_that_the_file_keeps_apart_is_outside() -> None:
    """The family is around the folded numbers."""
    rng = np.random.default_rng(0)
    before: Any = dense(rng, "fc", 0, 4, 3)
    norm = {"scale": rng.normal(size=4), "offset": rng.normal(size=4), "mean": rng.normal(size=4)}
    factor, shift = norm["scale"] / 2.0, norm["offset"] - norm["mean"] * norm["scale"] / 2.0
    whole = replace(before, weight=before.weight * factor[:, None], bias=before.bias * factor + shift)
    record = BatchNorm("bn", "fc", before, **norm, deviation=np.full(4, 2.0))
    network = Network((Input("x", (), (3,)), whole), batchnorms=(record,))
    normed = Conv("bn", (2,), (4,), weight=factor.reshape(-1, 1, 1, 1), bias=shift, in_shape=(4, 1, 1), groups=4)
    point = Rounding.on_grid("fc.q", 1, (4,), 0.1, (-80, 80))
    file = Network((network.layers[0], before, point, normed), source="file")
    found = outside(coverage(network, file, Family.of(network, Radii(weight=9.0, bias=9.0, input=9.0)), "nearest"))
    assert {(part.kind, part.file) for part in found} == {("weight", "fc"), ("point", "fc.q"), ("weight", "bn")}
    assert "keeps a BatchNormalization apart" in found[0].detail
