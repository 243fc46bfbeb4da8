"""Errors of tensors against sums written out."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.layers import Rounding
from qverify.replication import tensors
from qverify.replication.matching import match
from qverify.replication.tensors import errors
from tests.support.networks import NETWORKS
from tests.support.quantised import quantised


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["dense", "residual", "conv_pool"])
def test_errors_are_those_of_the_values(name: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of two samples too."""
    rng = np.random.default_rng(0)
    network = NETWORKS[name](rng)
    file = quantised(network, 0.5 * rng.normal(size=(30, network.input_size)), 4, fused)
    x = rng.normal(size=(7, network.input_size))
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    monkeypatch.setattr(type(network), "samples_at_once", 2)
    matched = match(network, file)
    found = errors(matched, x, labels, True)
    first, second = network.evaluate_all(x), file.evaluate_all(x)
    names = [layer.name for layer in file.layers]
    clipped = 0
    for tensor in found.tensors:
        j = names.index(tensor.name)
        layer = file.layers[j]
        assert not any(isinstance(file.layers[u], Rounding) for u in file.consumers[j])
        signal, noise = first[matched.layers[j]], second[j] - first[matched.layers[j]]
        assert network.layers[matched.layers[j]].name == tensor.trained
        assert tensor.snr_db == pytest.approx(20 * np.log10(np.linalg.norm(signal) / np.linalg.norm(noise)))
        assert tensor.largest == pytest.approx(abs(noise).max()) and tensor.values == noise.size
        if isinstance(layer, Rounding):
            assert tensor.at_high == sum(v >= h for row in second[j] for v, h in zip(row, layer.high, strict=True))
            low = sum(v <= lo < 0 for row in second[j] for v, lo in zip(row, layer.low, strict=True))
            assert (tensor.at_low or 0) == low
            clipped += (tensor.at_high or 0) + low
    assert clipped
    assert {i for t in found.tensors for i in [names.index(t.name)]} >= {len(names) - 1}
    classes = first[-1].argmax(1), second[-1].argmax(1)
    assert (found.right, found.right_file) == tuple(int((c == labels).sum()) for c in classes)
    assert found.agree == int((classes[0] == classes[1]).sum()) and found.samples == 7
    assert found.to_json() == {"float_right": found.right, "file_right": found.right_file, "same_class": found.agree}
    assert set(errors(matched, x, labels, False).to_json().values()) == {None}


def test_no_noise_has_no_ratio() -> None:
    tensor = tensors.TensorError(name="a", trained="a")
    tensor.add(np.ones((1, 2)), np.ones((1, 2)), None)
    assert tensor.snr_db is None and tensor.to_json()["at_high"] is None
