"""`qverify.verify` on a model with several inputs: arrays by names, joined, or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import qverify
from qverify.errors import DataError, UsageError
from tests.support.several_inputs import answers, samples, two_branches

SHAPES = {"a": (3,), "b": (1, 4, 4)}


def test_samples_in_every_form(tmp_path: Path) -> None:
    model = two_branches(np.random.default_rng(3))
    x = samples(np.random.default_rng(4), 8, SHAPES)
    y = answers(model, x).argmax(1)
    joined = np.concatenate([x["a"], x["b"].reshape(8, 16)], axis=1)
    kept: dict[str, Any] = {**x, "y": y}
    np.savez(tmp_path / "d.npz", **kept)
    onnx.save(model, tmp_path / "m.onnx")
    found = [
        qverify.verify(model, x, y, 7),
        qverify.verify(tmp_path / "m.onnx", dict(reversed(x.items())), y, 7),
        qverify.verify(qverify.load(model), x, y, qverify.Radii.from_bits(7)),
        qverify.verify(model, joined, y, 7),
        qverify.verify(model, radii=7, data=str(tmp_path / "d.npz")),
    ]
    rows = [[(v.index, v.status, v.margin_lower) for v in result] for result in found]
    assert all(one == rows[0] for one in rows) and len(rows[0]) == 8
    assert any(status is qverify.Status.VERIFIED for _, status, _ in rows[0])


def test_samples_that_do_not_fit() -> None:
    model = two_branches(np.random.default_rng(3))
    x = samples(np.random.default_rng(4), 8, SHAPES)
    y = np.zeros(8, int)
    with pytest.raises(DataError, match="The samples have no 'b'; give one array for each input"):
        qverify.verify(model, {"a": x["a"]}, y, 7)
    with pytest.raises(DataError, match="give one array for each of its inputs, 'a', 'b'"):
        qverify.verify(model, x["a"], y, 7)
    with pytest.raises((DataError, UsageError)):
        qverify.verify(torch.nn.Linear(3, 2), {"a": x["a"]}, y, 7)
