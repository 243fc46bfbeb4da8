"""Remarks: each is made where it holds, and not where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qverify.errors import QVerifyWarning, RadiiError
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.verification.hints import listed_names, of_family, remark_on
from tests.support.networks import NETWORKS, mlp, unit_inputs


def dense(top: float) -> Network:
    layer = Dense("out", (0,), (2,), weight=np.array([[top, 0.0], [0.0, -top / 2]]), bias=np.zeros(2))
    return Network((Input("x", (), (2,)), layer))


@pytest.mark.parametrize(
    ("top", "x", "said"),
    [
        (1.0, [[0.0, 1.0]], None),
        (1.5, [[0.0, 1.0]], "weights reach 1.5, but scheme paper"),
        (1.0, [[-2.0, 1.0]], "inputs go from -2 to 1, but scheme paper"),
        (1.5, [[0.0, 3.0]], "weights reach 1.5 and inputs go from 0 to 3, but scheme paper"),
        (1.5, None, "weights reach 1.5, but scheme paper"),
    ],
)
def test_scheme_paper_is_for_numbers_within_1(top: float, x: list[list[float]] | None, said: str | None) -> None:
    samples = None if x is None else np.array(x)
    found = of_family(dense(top), Radii.from_bits(8), samples)
    assert (found == []) if said is None else (len(found) == 1 and found[0].startswith(said))
    assert of_family(dense(top), Radii(weight=0.1), samples) == []


def test_places_that_toolchains_round_and_the_family_does_not(rng: np.random.Generator) -> None:
    network = NETWORKS["conv_pool"](rng)
    radii = Radii.from_bits(8, "tensor", "any", network, unit_inputs(network, rng))
    (said,) = [s for s in of_family(network, radii, None) if "does not round" in s]
    pools = [layer.name for layer in network.layers if not getattr(layer, "quantised", True)]
    assert pools and all(repr(name) in said for name in pools)
    plain = mlp(rng, 4, 6, 3)
    quantiser = Quantiser(8, "tensor", "any", points="onnxruntime")
    other = Radii.of(quantiser, plain, unit_inputs(plain, rng))
    assert not [s for s in of_family(plain, other, None) if "does not round" in s or "adds the bias" in s]
    apart = replace(plain, added_biases=("fc0",))
    assert [s for s in of_family(apart, other, None) if s.startswith("a node of its own adds the bias of 'fc0'")]


def test_kernels_that_refuse_everything_say_why(rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 6, 3)
    radii = Radii.from_bits(8, "tensor", "any", network, unit_inputs(network, rng))
    assert radii.kernel is not None
    refused = replace(radii, kernel=replace(radii.kernel, refused=("because",), dead=("relu0",)))
    said = of_family(network, refused, None)
    assert "no sample can be verified for integer kernels: because." in said
    assert any(s.startswith("few samples can be verified: Relu 'relu0'") for s in said)


def test_remarks_are_warnings() -> None:
    with pytest.warns(QVerifyWarning, match=r"weights reach 1\.5"):
        remark_on(dense(1.5), Radii.from_bits(8), np.zeros((1, 2)))
    with pytest.raises(RadiiError):
        remark_on(dense(1.5), "radii", np.zeros((1, 2)))  # type: ignore[arg-type]


def test_names_are_quoted_and_the_many_are_counted() -> None:
    assert listed_names(["a", "b"]) == "'a', 'b'"
    many = listed_names([f"n{i}" for i in range(100)])
    assert many.startswith("'n0', 'n1'") and "'n50'" not in many and len(many) < 100
