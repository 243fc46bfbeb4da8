"""The note on kernels that saturate, on files that onnxruntime's quantiser makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime import quantization

from qverify import datasets
from qverify.onnx.reader import load
from tests.support.paths import DIGITS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SAID = "may leave int16"


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        name = onnx.load(DIGITS).graph.input[0].name
        shape = (1, 8, 8)
        self.left = [{name: x.reshape(shape).astype(np.float32)} for x in datasets.load("digits").x[:20]]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


def noted(path: Path, **how: Any) -> list[str]:
    made = str(path / "made.onnx")
    kinds = {"weight_type": quantization.QuantType.QInt8, "activation_type": quantization.QuantType.QUInt8}
    quantization.quantize_static(DIGITS, made, Images(), per_channel=True, **(kinds | how))
    return [note for note in load(made).notes if SAID in note]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_8_bits_may_saturate(form: str, tmp_path: Path) -> None:
    (note,) = noted(tmp_path, quant_format=quantization.QuantFormat[form])
    assert all(f"'dense{k}" in note for k in (1, 2, 3)) and 'session.x64quantprecision to "1"' in note


def test_a_reduced_range_fits(tmp_path: Path) -> None:
    assert noted(tmp_path, quant_format=quantization.QuantFormat.QDQ, reduce_range=True) == []


@pytest.mark.parametrize("kind", ["QInt4", "QUInt8"])
def test_4_bits_fit_and_uint8_has_other_kernels(kind: str, tmp_path: Path) -> None:
    how = {"weight_type": quantization.QuantType[kind]}
    assert noted(tmp_path, quant_format=quantization.QuantFormat.QDQ, **how) == []


def test_dynamic_files_may_saturate(tmp_path: Path) -> None:
    made = str(tmp_path / "made.onnx")
    quantization.quantize_dynamic(DIGITS, made, per_channel=True, weight_type=quantization.QuantType.QInt8)
    assert sum(SAID in note for note in load(made).notes) == 1
