"""Radii files: what is written is read again as it was, and what is no radii file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.radii_file import load_radii, read_family, write_radii
from qverify.family.steps import LayerBits, Quantiser
from tests.support.networks import NETWORKS

QUANTISERS = [
    Quantiser(8, "channel", "nearest"),
    Quantiser(8, "tensor", "any", points="tflite", input="exact"),
    Quantiser(8, "channel", "double", points="onnxruntime", weight_bits=4),
    Quantiser(6, "channel", "nearest", activations="symmetric", bias_bits=8),
    Quantiser(4),
]


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda one: f"{one.width}-{one.scheme}-{one.points}")
@pytest.mark.parametrize("name", ["dense", "conv_pool", "residual"])
def test_written_radii_are_read_as_they_were(
    name: str, quantiser: Quantiser, rng: np.random.Generator, tmp_path: Path
) -> None:
    network = NETWORKS[name](rng)
    x = rng.normal(size=(20, network.input_size))
    radii = Radii.of(quantiser, network, x)
    write_radii(radii, str(tmp_path / "r.toml"), ("a remark",))
    ours, theirs = Family.of(network, radii), Family.of(network, load_radii(str(tmp_path / "r.toml")))
    for kind in ("weight", "bias", "activation"):
        one, other = getattr(ours, kind), getattr(theirs, kind)
        assert one.keys() == other.keys() and all((one[i] == other[i]).all() for i in one), kind
    assert ours.points.keys() == theirs.points.keys() and (ours.entry is None) == (theirs.entry is None)
    for i, point in ours.points.items():
        for mine, its in ((point.low, theirs.points[i].low), (point.high, theirs.points[i].high)):
            assert all((a == b).all() for a, b in zip(mine, its, strict=True))
        assert (point.dead == theirs.points[i].dead).all()
    assert all((one == other).all() for one, other in zip(ours.box(x), theirs.box(x), strict=True))
    assert (
        load_radii(str(tmp_path / "r.toml")).only("activation").points.keys() == radii.only("activation").points.keys()
    )


def test_a_quantiser_in_words(tmp_path: Path) -> None:
    path = tmp_path / "q.toml"
    path.write_text(
        '[quantiser]\nbits = "W4A8"\nscheme = "channel"\ninput-bits = 10\n[layers."a"]\nbits = 8\nblock = 32\n'
    )
    found, _ = read_family(str(path))
    assert found == Quantiser(
        8, "channel", weight_bits=4, activation_bits=8, input_bits=10, layers=(("a", LayerBits(bits=8, block=32)),)
    )
    with pytest.raises(RadiiError, match="states a quantiser, whose radii follow from a network"):
        load_radii(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[quantiser]\nscheme = "channel"', "the quantiser has no bits"),
        ('weight = 0.1\n[quantiser]\nbits = 8', "states a quantiser and radii beside it"),
        ('[quantiser]\nbits = "W4"', "no|none; write a number such as 8, or W4A8"),
        ('[quantiser]\nbits = 8\nsteps = 3', "unknown key 'steps'"),
        ('[quantiser]\nbits = 8\n[layers."a"]\nweight = 1', "unknown key 'weight'"),
        ('[points."a"]\nradius = 0.1\nlow = 0', "has no high"),
        ('[points."a"]\nradius = 0.1\nlow = 0\nhigh = 1\ntop = 2', "unknown key 'top'"),
        ('points = 3', "points is no table of tables"),
        ('', "states no radius"),
        ('[layers."a"]', "states no radius; add one"),
        ('depth = 1', "unknown key 'depth'"),
    ],
)  # fmt: skip
def test_what_is_no_radii_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(RadiiError, match=said):
        read_family(str(path))


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("radius = 0.1\nlow = 0.5\nhigh = 1", "no interval around 0"),
        ("radius = 0.1\nlow = 0\nhigh = [2, 1]", "no interval around 0"),
        ("radius = -0.1\nlow = 0\nhigh = 1\ndead = -1", "negative"),
        ("radius = 0.1\nlow = 0\nhigh = 1\ndead = 0.2", "moves what it keeps at 0"),
        ("radius = 0.1\nlow = 0\nhigh = nan", "NaN"),
    ],
)
def test_points_that_cannot_be(point: str, said: str, rng: np.random.Generator, tmp_path: Path) -> None:
    network = NETWORKS["dense"](rng)
    name = network.layers[-1].name
    path = tmp_path / "r.toml"
    path.write_text(f'[points."{name}"]\n{point}\n')
    with pytest.raises(RadiiError, match=said):
        Family.of(network, load_radii(str(path)))
