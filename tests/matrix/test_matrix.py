"""The matrix: networks times forms of real quantisers in real runtimes, against bounds and verdicts (matrix/ says how).

`python -m tests.matrix` makes at least 100,000 inferences; here are some of each kind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import qverify
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from tests.matrix.dynamic import DYNAMIC, dynamic_cell
from tests.matrix.forms import CALIBRATIONS, all_forms
from tests.matrix.judge import Tally
from tests.matrix.lite import FILES, run_file
from tests.matrix.networks import SMALL, TINY, present, source, tiny_folder
from tests.matrix.run import cell, matrix
from tests.support.dynamic import DynamicForm
from tests.support.marks import mostly_slow
from tests.support.toolchain import Form

CENTRED = Form(activation="QInt8", centred=True)
QUICK = [
    Form(calibration="Percentile"),
    Form("QOperator", calibration="Entropy"),
    replace(CENTRED, prepared=True),
    Form(channel=False, weight="QUInt16", activation="QUInt16", symmetric=False, prepared=True),
    replace(CENTRED, weight="QUInt8", activation="QUInt8", channel=False),
]


def test_forms_have_every_choice_beside_every_other() -> None:
    """All pairs of calibrators, pre-processing, axes, formats, signs and symmetries of activations."""
    met = Counter((f.calibration, f.prepared, f.format, f.channel, f.centred) for f in all_forms() if f.bits == 8)
    for calibration, prepared, format_ in product(CALIBRATIONS, (False, True), ("QDQ", "QOperator")):
        assert sum(n for key, n in met.items() if key[:3] == (calibration, prepared, format_)) > 0
    for channel, centred, calibration in product((False, True), (False, True), CALIBRATIONS):
        assert sum(n for key, n in met.items() if (key[3], key[4], key[0]) == (channel, centred, calibration)) > 0
    kinds = {(f.weight, f.activation, f.centred) for f in all_forms()}
    assert len({kind[:2] for kind in kinds}) == 6 and len(kinds) == 12


@pytest.mark.parametrize("name", mostly_slow(SMALL, 3))
def test_small_networks(name: str) -> None:
    tally = Tally()
    for form in QUICK:
        cell(tally, name, form, 10)
    assert tally.broken == []
    assert tally.inferences[name] == 30 * len(QUICK) and tally.verified[name] > 0
    around = f"{name} around float"
    assert tally.numbers[around] > 5000
    refused = " ".join(tally.refused)
    assert ("adds the bias" in refused) == (name == "added") and ("int32" in refused) == (name == "conv")


@pytest.mark.parametrize("name", ["mlp", "conv", "residual"])
def test_dynamic_files(name: str) -> None:
    tally, key = Tally(), f"{name} {DYNAMIC}"
    for form in (DynamicForm(), DynamicForm(channel=True, weight="QUInt8", reduced=True)):
        dynamic_cell(tally, name, form, 8)
    assert tally.broken == [] and not tally.refused
    assert tally.inferences[key] == 48 and tally.verified[key] > 0 and tally.numbers[key] > 5000
    dynamic_cell(tally, "conv", DynamicForm(prepared=False), 1)
    assert "fold it before" in " ".join(tally.refused)


def test_what_is_outside_or_wrong_is_seen() -> None:
    """The samples answered right are those of other labels, and the bounds are those of other samples."""
    tally = Tally()
    cell(tally, "mlp", Form(), 5)
    assert not tally.broken
    values, labels = np.arange(6.0).reshape(2, 3), np.array([0, 2])
    tally.judge_bounds("x", "shifted", (values + 0.5, values + 1.0), values)
    tally.judge_verdicts("x", "other", np.array([True, True]), labels, values)
    tally.judge_verdicts("x", "tied", np.array([True, True]), labels, 0.0 * values)
    assert (tally.outside["x"], tally.wrong["x"], len(tally.broken)) == (6, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_networks_of_mlperf_tiny(name: str) -> None:
    if not present(name):
        pytest.skip("MLPerf Tiny is not here")
    tally = Tally()
    for form in QUICK[:3]:
        cell(tally, name, form, 6)
    assert tally.broken == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files_of_mlperf_tiny(name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra tflite")
    if not (tiny_folder() / name).exists():
        pytest.skip("MLPerf Tiny is not here")
    tally = Tally()
    run_file(tally, name, 20)
    assert tally.broken == []


@pytest.mark.slow
def test_the_whole_matrix() -> None:
    """As `python -m tests.matrix` runs it."""
    tally = matrix(100_000)
    print("\n".join([*tally.lines(), *tally.broken]))
    assert tally.broken == []
    assert sum(tally.inferences.values()) >= 100_000
    assert not sum(tally.wrong.values()) and not sum(tally.outside.values())


@pytest.mark.slow
@pytest.mark.parametrize("points", ["activations", "onnxruntime"])
def test_no_quantiser_of_16_bits_fails_the_keyword_network(points: str) -> None:
    """The clipping that widened radii falsified 18 of 18: saturation is exact now."""
    if not present("kws"):
        pytest.skip("MLPerf Tiny is not here")
    given = source("kws")
    network = qverify.load(given.model)
    labels = np.load(tiny_folder() / TINY["kws"][1])["y_test"]
    outputs = network.evaluate(given.x[:60])
    right = np.nonzero(outputs.argmax(1) == labels[:60])[0][:18]
    radii = Radii.of(Quantiser(16, "channel", "nearest", points=points), network, given.x[-200:])
    verdicts = qverify.verify(network, given.x[right], labels[right], radii, qverify.Options(method="bp"))
    assert not [v.index for v in verdicts if v.status is qverify.Status.FALSIFIED]
    own = np.diff(np.sort(outputs[right], axis=1)[:, -2:], axis=1)[:, 0]
    assert (np.array([v.margin_upper for v in verdicts]) > own - 0.5).all()
