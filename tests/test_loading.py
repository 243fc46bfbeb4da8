"""A file is read by what is in it, whatever it is called."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import qverify
from qverify.errors import ModelError
from tests.support.paths import DIGITS
from tests.support.tflite_models import Graph, stored


def tflite() -> bytes:
    graph = Graph("FLOAT32", (1, 3))
    graph.add("RELU", [0], graph.tensor("FLOAT32", (1, 3)))
    return graph.content()


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model", "model.gz"])
def test_the_name_does_not_matter(tmp_path: Path, name: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 64))
    expected = qverify.load(DIGITS).evaluate(x)
    shutil.copy(DIGITS, tmp_path / name)
    np.testing.assert_array_equal(qverify.load(tmp_path / name).evaluate(x), expected)
    for content in (tflite(), gzip.compress(tflite())):
        network = qverify.load(str(stored(content, tmp_path, name)))
        np.testing.assert_array_equal(network.evaluate(x[:, :3]), np.maximum(x[:, :3], 0))


def test_a_model_in_memory() -> None:
    assert len(qverify.load(onnx.load(DIGITS)).layers) == len(qverify.load(DIGITS).layers)


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(tflite())[:20])
    for path, message in (
        (tmp_path / "none.tflite", "does not exist"),
        (tmp_path, "is a directory"),
        (f"{tmp_path}/m\0", "is not the path of a file"),
        (tmp_path / "cut.gz", "is damaged or was cut short"),
    ):
        with pytest.raises(ModelError, match=message):
            qverify.load(path)
    with pytest.raises(ModelError, match="give the path"):
        qverify.load(3)  # type: ignore[arg-type]
