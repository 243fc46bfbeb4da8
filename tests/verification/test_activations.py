"""Networks with activations other than Relu from end to end: bounds and attack, schemes with rounding points."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qverify
from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.errors import RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense
from qverify.network import Network, margins
from qverify.verification import hints
from qverify.verification.verdict import Options, Status
from tests.support.commands import answer
from tests.support.networks import NETWORKS, SMOOTH, convolve, curve, inputs, sample_members, smooth

Array = np.ndarray


@pytest.mark.parametrize("name", ["sigmoid", "silu", "elu"])
def test_smooth_networks_are_decided_by_bounds_and_attack(name: str, rng: np.random.Generator) -> None:
    network, seen = smooth(rng, name, *SMOOTH[name]), set()
    samples = inputs(network, rng)
    labels = network.evaluate(samples).argmax(1)
    for radius in (0.001, 0.03, 0.3):
        radii = Radii(radius, radius, radius, radius)
        with pytest.warns(UserWarning, match="'act0', 'act1' are smooth: bounds and attack alone"):
            found = qverify.verify(network, samples, labels, radii, Options(jobs=1))
        family = Family.of(network, radii)
        for x, label, verdict in zip(samples, labels, found, strict=True):
            seen.add(verdict.status)
            assert verdict.method != "exact"
            if verdict.status is Status.FALSIFIED:
                witness: Any = verdict.witness()
                assert not membership(family, witness.network, x, witness.input)
                assert margins(witness.network.evaluate(witness.input[None]), [label])[0] <= 0
            elif verdict.status is Status.VERIFIED:
                outputs = sample_members(family, x, rng, 2000, True)[-1]
                assert (margins(outputs, np.full(2000, label)) >= verdict.margin_lower - 1e-9).all()
    assert {Status.VERIFIED, Status.FALSIFIED} <= seen


def test_what_is_left_open_says_why(rng: np.random.Generator) -> None:
    network = smooth(rng, "tanh")
    samples = inputs(network, rng)
    labels = network.evaluate(samples).argmax(1)
    for radius in np.linspace(0.002, 0.05, 12):
        options = Options(attack=False, jobs=1, seconds=1.0)
        found = qverify.verify(network, samples, labels, Radii(radius, radius, radius, radius), options)
        open_ = [verdict for verdict in found if verdict.status is Status.UNKNOWN]
        if open_:
            assert {(v.method, v.limit) for v in open_} == {("bp-branched", 1.0)}
            assert all(re.fullmatch("time limit; bounds lose most at 'act.'", v.detail) for v in open_)
            return
    raise AssertionError("nothing was left open")


def test_exact_methods_are_refused_for_smooth_networks(rng: np.random.Generator) -> None:
    network = smooth(rng, "gelu")
    for ask in (
        lambda: qverify.verify(network, np.zeros((1, 9)), [0], Radii(0.1), Options(method="exact")),
        lambda: worst_case_discrepancy(network, np.zeros((1, 9)), Radii(0.1), Options(method="exact")),
    ):
        with pytest.raises(UsageError, match="is not piecewise linear, so no exact program has it"):
            ask()
    assert len(worst_case_discrepancy(network, np.zeros((1, 9)), Radii(0.1))) == 1


def test_radii_of_activations_go_by_name(rng: np.random.Generator) -> None:
    network = smooth(rng, "sigmoid")
    family = Family.of(network, Radii(layers={"act0": {"activation": 0.25}}))
    assert family.activation[2].tolist() == [0.25] * network.layers[2].size and not family.activation[4].any()
    with pytest.raises(RadiiError, match="those are: act0, act1"):
        Family.of(network, Radii(layers={"fc": {"activation": 0.25}}))


# --- rounding points -----------------------------------------------------------------------------------------


def simulated(network: Network, x: Array, ranges: list[tuple[float, float]], bits: int, channel: bool) -> Array:
    """The outputs of a fake-quantised network: weights symmetric, a step a channel or a tensor, the input and what each
    activation gives on asymmetric grids of these ranges, to the nearest."""

    def rounded(values: Array, ends: tuple[float, float]) -> Array:
        low, high = min(0.0, ends[0]), max(0.0, ends[1])
        step = float(np.float32((high - low) / (2**bits - 1)))
        zero = np.rint(-low / step)
        return np.asarray((np.clip(np.rint(values / step) + zero, 0, 2**bits - 1) - zero) * step)

    values = [rounded(x, ranges[0])]
    for i, layer in enumerate(network.layers[1:], start=1):
        source = values[layer.inputs[0]]
        if isinstance(layer, (Dense, Conv)):
            weight, bias = layer.weight, layer.bias
            if layer.quantised:
                rows = abs(weight.reshape(len(weight), -1))
                top = rows.max(1) if channel else np.full(len(weight), rows.max())
                step = (top / (2 ** (bits - 1) - 1)).reshape(-1, *[1] * (weight.ndim - 1))
                weight = np.rint(weight / step) * step
            if isinstance(layer, Dense):
                values.append(source @ weight.T + bias)
            else:
                many = np.broadcast_to(weight, (len(source), *weight.shape))
                values.append(convolve(layer, many, np.broadcast_to(bias, (len(source), len(bias))), source))
        else:
            known: Any = layer
            if type(layer).__name__ == "Add":
                values.append(values[layer.inputs[0]] + values[layer.inputs[1]])
            else:
                values.append(rounded(curve(known.function, source, *known.parameters), ranges[i]))
    return values[-1]


CASES = ["leaky_clip", "conv_hard_sigmoid", "sigmoid", "tanh", "silu", "elu"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scheme", ["tensor", "channel"])
def test_points_behind_activations_cover_a_quantiser(name: str, scheme: Any, rng: np.random.Generator) -> None:
    """Margins of the simulated quantiser are never below what is proved for all; on samples beyond the ranges too."""
    network = NETWORKS[name](rng) if name in NETWORKS else smooth(rng, name, *SMOOTH[name])
    data = rng.normal(size=(40, network.input_size))
    radii = Radii.from_bits(8, scheme, network=network, calibration=data)
    points = {layer.name for layer in network.layers if type(layer).__name__ == "Activation"}
    assert set(radii.points) == points | {"x"}
    family = Family.of(network, radii)
    assert all(not family.activation[i].any() for i in family.network.activations)
    values = network.evaluate_all(data)
    ranges = [(float(v.min()), float(v.max())) for v in values]
    x = np.concatenate([data[:8], 1.3 * data[8:12]])
    labels = network.evaluate(x).argmax(1)
    outputs = simulated(network, x, ranges, 8, scheme == "channel")
    found = qverify.verify(network, x, labels, radii, Options(method="bp", jobs=1, attack=False))
    for output, label, verdict in zip(outputs, labels, found, strict=True):
        margin = margins(output[None], np.array([label]))[0]
        assert verdict.status is Status.MISCLASSIFIED or margin >= verdict.margin_lower - 1e-9
        assert verdict.status is not Status.VERIFIED or margin > 0
    assert any(verdict.status is Status.VERIFIED for verdict in found)


def test_points_that_are_not_known_are_refused(rng: np.random.Generator) -> None:
    network = NETWORKS["leaky_clip"](rng)
    quantiser = qverify.Quantiser(8, "channel", points="onnxruntime")
    with pytest.raises(RadiiError, match=r"'clip' \(clip\): the range behind it holds 0 and its own does not"):
        Radii.of(quantiser, network, rng.normal(size=(5, 4)))


def test_remarks(rng: np.random.Generator) -> None:
    assert hints.of_family(NETWORKS["leaky_clip"](rng), Radii(0.1), None) == []
    assert len(hints.of_family(smooth(rng, "tanh"), Radii(0.1), None)) == 1


def test_inspect_names_the_function(rng: np.random.Generator, tmp_path: Path) -> None:
    qverify.save(NETWORKS["leaky_clip"](rng), tmp_path / "net.onnx")
    found = answer("inspect", tmp_path / "net.onnx", "--bits", 8)
    kinds = {layer["name"]: layer.get("function") for layer in found["layers"]}
    assert kinds == {"leaky": "leaky_relu", "size": "abs", "clip": "clip"} | dict.fromkeys(
        ["input", "fc0", "fc1", "fc2", "total", "out"]
    )
    assert {layer["kind"] for layer in found["layers"]} == {"Input", "Dense", "Activation", "Add"}
