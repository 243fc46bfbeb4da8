"""A path, a module, a number or text in the wrong place of a public function is one sentence, never a fault inside."""

from __future__ import annotations

import math
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qverify
from qverify import budget, datasets, fingerprint
from qverify.analysis import discrepancies as discrepancy
from qverify.analysis import factors as radius
from qverify.analysis import layers as layer_radius
from qverify.analysis import sweeps as sweep
from qverify.analysis.grid import Grid
from qverify.errors import QVerifyError
from qverify.family import radii as stated_radii
from qverify.family.family import Family
from qverify.family.points import Point
from qverify.family.steps import Quantiser
from qverify.layers import Conv, Dense, Input, Relu, Scale
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.runs import plan
from qverify.training import architectures, live_family
from qverify.training import live_network as modules
from qverify.training import loop as training
from qverify.training.loop import Training
from qverify.training.settings import Settings
from tests.support.paths import DIGITS

NETWORK, SAMPLES = onnx_io.load(DIGITS), datasets.load("digits")
POINT = Point(radius=0.1, low=(0.0, 0.0), high=(2.0, 2.0))
RADII, OPTIONS = qverify.Radii.from_bits(8), qverify.Options(method="ibp", attack=False)
X, Y = SAMPLES.x[:3], SAMPLES.y[:3]
POINTS = sweep.by_bits([8])
GRID = Grid(2.0, 0.5)
MODULE = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
JUNK: list[Any] = [
    *[3, -2.5, math.nan, True, "abc", "", b"abc", None, Path("no such file"), [], [1, 2], ["a", "b"], ("a",), {"a": 1}],
    *[{}, object(), types, MODULE, nn.Module, len, np.ones(3), np.array("a"), np.array([None]), [[1, 2], [3]], 1j],
    *[torch.ones(2, requires_grad=True), NETWORK, SAMPLES, RADII, OPTIONS, Quantiser(8), Settings(), 10**400],
]
"""What may stand in a wrong place by mistake."""

Call = tuple[Any, dict[str, Any]]


def live() -> modules.LiveNetwork:
    return modules.LiveNetwork.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (8, 8))


def calls(folder: Path) -> dict[str, Call]:
    """Every public function with arguments that are right."""
    settings = Settings(epochs=1, batch_size=300, validation=0.0)
    data = {"network": NETWORK, "x": X, "y": Y}
    few = datasets.select(SAMPLES, "0:20")[0]
    return {
        "load": (qverify.load, {"source": DIGITS}),
        "save": (qverify.save, {"network": NETWORK, "path": folder / "m.onnx", "dtype": "float32"}),
        "to_onnx": (onnx_io.to_onnx, {"network": NETWORK, "dtype": "float32"}),
        "verify": (
            qverify.verify,
            data | {"radii": RADII, "options": OPTIONS, "on_verdict": lambda verdict: None, "stop": threading.Event()},
        ),
        "worst_case_discrepancy": (
            discrepancy.worst_case_discrepancy,
            {"network": NETWORK, "x": X, "radii": RADII, "options": OPTIONS, "on_result": None, "stop": None},
        ),
        "Options": (
            qverify.Options,
            {"method": "ibp", "formulation": "relational", "solver": "auto", "clip": (0, 1), "seconds": 3.0, "jobs": 1}
            | {"device": "cpu", "attack": True, "memory": None, "isolated": True},
        ),
        "Radii.from_bits": (
            qverify.Radii.from_bits,
            {"bits": 8, "scheme": "channel", "rounding": "any", "network": NETWORK, "calibration": X}
            | {"kernel": "any", "batchnorm": "either"},
        ),
        "Radii.of": (qverify.Radii.of, {"quantiser": Quantiser(8, "tensor"), "network": NETWORK, "calibration": X}),
        "Radii": (
            lambda **given: Family.of(NETWORK, qverify.Radii(**given)),
            {"input": 0.1, "weight": 0.1, "bias": 0.1, "activation": 0.1, "layers": {"dense1": {"weight": 1.0}}}
            | {"points": {"relu1": POINT}, "saturations": {}, "kernel": None}
            | {"quantiser": None, "convention": "mine"},
        ),
        "Radii.scaled": (RADII.scaled, {"factor": 2.0}),
        "Radii.only": (lambda kind: RADII.only("input", kind), {"kind": "weight"}),
        "load_radii": (stated_radii.load_radii, {"path": radii_file(folder)}),
        "Family.of": (Family.of, {"network": NETWORK, "radii": RADII, "clip": (0.0, 1.0)}),
        "Network": (lambda layers: Network(layers).evaluate(X), {"layers": NETWORK.layers}),
        "Network.evaluate": (NETWORK.evaluate, {"x": X}),
        "Network.evaluate_all": (NETWORK.evaluate_all, {"x": X}),
        "Input": (Input, {"name": "x", "inputs": (), "shape": (2,)}),
        "Relu": (Relu, {"name": "x", "inputs": (0,), "shape": (2,), "offset": np.ones(2)}),
        "Dense": (
            Dense,
            {"name": "d", "inputs": (0,), "shape": (1,), "weight": np.ones((1, 2)), "bias": np.ones(1)},
        ),
        "Scale": (Scale, {"name": "s", "inputs": (0,), "shape": (1,), "scale": np.ones(1), "shift": np.ones(1)}),
        "Conv": (
            Conv,
            {"name": "c", "inputs": (0,), "shape": (1, 2, 2), "weight": np.ones((1, 1, 1, 1)), "bias": np.ones(1)}
            | {"in_shape": (1, 2, 2), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1},
        ),
        "datasets.load": (datasets.load, {"name_or_path": "digits"}),
        "datasets.load_train": (datasets.load_train, {"name_or_path": "digits"}),
        "datasets.select": (datasets.select, {"samples": SAMPLES, "text": "0:3"}),
        "datasets.flatten": (datasets.flatten, {"samples": SAMPLES, "network": NETWORK}),
        "datasets.fit": (datasets.fit, {"samples": SAMPLES, "network": NETWORK}),
        "Samples": (datasets.Samples, {"name": "mine", "x": X, "y": Y, "sha256": "", "source": "here"}),
        "build": (
            architectures.build,
            {"text": "mlp:3", "input_shape": (8, 8), "classes": 10, "generator": torch.Generator()},
        ),
        "Settings": (
            Settings,
            {"epochs": 1, "lr": 0.1, "clip": (0.0, 1.0), "device": "cpu", "kappa": 0.5, "validation": 0.1},
        ),
        "Training.of": (
            Training.of,
            {"module": MODULE, "shape": (8, 8), "stated": Quantiser(8), "settings": settings},
        ),
        "Training.run": (
            lambda **given: training.Training.of(
                nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (8, 8), RADII, settings
            ).run(**given),
            {"samples": few, "on_epoch": None, "stop": None, "state": None},
        ),
        "LiveNetwork.trace": (modules.LiveNetwork.trace, {"module": MODULE, "input_shape": (8, 8)}),
        "live_family": (live_family.live_family, {"live": live(), "stated": Quantiser(8, "channel")}),
        "Plan.read": (plan.Plan.read, {"path": plan_file(folder)}),
        "by_value": (sweep.by_value, {"values": [0.1, 0.2]}),
        "by_bits": (sweep.by_bits, {"bits": [7, 8], "scheme": "paper", "rounding": "any"}),
        "grid": (sweep.grid, {"points": POINTS, "parts": ["all"]}),
        "sweep": (
            lambda **given: list(sweep.sweep(**given)),
            data | {"cases": [("all", POINTS[0])], "options": OPTIONS, "on_verdict": None, "stop": None},
        ),
        "Grid": (Grid, {"max_factor": 2.0, "precision": 0.1}),
        "largest_factors": (radius.largest_factors, data | {"radii": RADII, "grid": GRID, "options": OPTIONS}),
        "layer_radii": (
            layer_radius.layer_radii,
            {"network": NETWORK, "data": (X, Y), "radii": RADII, "accuracy": 0.5, "grid": GRID, "options": OPTIONS},
        ),
        "single_layers": (layer_radius.single_layers, {"network": NETWORK, "radii": RADII}),
        "parse_memory": (budget.parse_memory, {"text": "4G"}),
        "fingerprint": (fingerprint.fingerprint, {"network": NETWORK}),
    }


def radii_file(folder: Path) -> Path:
    (folder / "r.toml").write_text("weight = 0.1\n")
    return folder / "r.toml"


def plan_file(folder: Path) -> str:
    (folder / "p.toml").write_text('models = ["a"]\ndata = "digits"\nbits = 8\n')
    return str(folder / "p.toml")


with tempfile.TemporaryDirectory() as place:
    NAMES = list(calls(Path(place)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_right_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function, given = calls(tmp_path)[name]
    function(**given)


@pytest.mark.parametrize("name", NAMES)
def test_anything_in_a_wrong_place_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of it is right there, and then taken."""
    monkeypatch.chdir(tmp_path)  # where some would write a file
    function, given = calls(tmp_path)[name]
    refused = 0
    for argument in given:
        for junk in JUNK:
            if argument.startswith("on_") and callable(junk):  # what it does when it is called is its own affair
                continue
            try:
                function(**given | {argument: junk})
            except QVerifyError as error:
                refused += 1
                text = str(error)
                assert text.endswith(".") and "\n" not in text and len(text) < 700, (argument, junk, text)
            except Exception as error:
                raise AssertionError(f"{name}({argument}={junk!r}) ends in {type(error).__name__}: {error}") from error
    assert refused >= len(JUNK) // 3
