"""Radii as a user states them: by hand, scaled, and read from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii, load_radii
from tests.support.networks import mlp


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_paper_radii_by_hand(bits: int) -> None:
    any_rounding, nearest = Radii.from_bits(bits), Radii.from_bits(bits, rounding="nearest")
    for radii, share in ((any_rounding, 1.0), (nearest, 0.5)):
        assert radii.input == share * 2.0**-bits
        assert radii.weight == radii.bias == radii.activation == share * 2.0 ** -(bits - 1)
    assert any_rounding.convention != nearest.convention and str(bits) in nearest.convention


def test_scaled_multiplies_every_radius() -> None:
    radii = Radii(input=1.0, weight=[2.0, 4.0], bias=3.0, activation=4.0, layers={"a": {"weight": [1.0, 2.0]}}).scaled(
        0.5
    )
    assert (radii.input, radii.bias, radii.activation) == (0.5, 1.5, 2.0)
    assert list(radii.weight) == [1.0, 2.0] and list(radii.layers["a"]["weight"]) == [0.5, 1.0]
    assert radii.convention.startswith("0.5 x")


GOOD = """
input = 0.01
weight = 0.5
activation = [0.1, 0.2]
[layers."fc0"]
weight = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
[layers."fc1"]
bias = [0.25, 0]
"""


def test_a_radii_file(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "radii.toml"
    path.write_text(GOOD)
    radii = load_radii(str(path))
    family = Family.of(mlp(rng, 3, 2, 2), radii)
    np.testing.assert_array_equal(family.weight[1], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert (family.weight[3] == 0.5).all() and list(family.bias[3]) == [0.25, 0.0] and list(family.bias[1]) == [0, 0]
    assert list(family.activation[2]) == [0.1, 0.2] and (family.input == 0.01).all()
    assert str(path) in radii.convention


BAD_FILES = {
    "weight = = 1": "is not valid TOML",
    "wieght = 0.1": "unknown key 'wieght'; the keys are input, weight, bias, activation",
    "ceilings = 1": "unknown key 'ceilings'",
    'layers = "all"': "layers is no table of tables",
    "[layers]\nfc0 = 0.1": "layers is no table of tables",
    '[layers."fc0"]\ninput = 0.1': "unknown key 'input'",
    '[layers."fc9"]\nweight = 0.1': "no layer 'fc9'",
    "input = [0.1, 0.2]": r"input radius has shape \(2,\)",
    "bias = -1": "bias .* radius is negative",
    "bias = nan": "bias .* holds NaN",
    'weight = "0.1 percent"': "weight .* is not a number",
    "weight = 2024-02-29": "weight .* is not a number",
    "weight = {a = 1}": "weight .* is not a number",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_bad_radii_files(text: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "radii.toml"
    path.write_text(text)
    with pytest.raises(RadiiError, match=BAD_FILES[text]):
        Family.of(mlp(rng, 3, 4, 2), load_radii(str(path)))


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(RadiiError, match=r"Cannot read the radii file .*none\.toml: No such file"):
        load_radii(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RadiiError, match="is not valid TOML"):
        load_radii(str(tmp_path / "binary.toml"))
