"""The networks that ship in models/: what the .json beside each says is true of it, and its .toml makes it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify import datasets
from qverify.cli import app as cli
from qverify.errors import DataError
from qverify.family.radii import Radii
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.paths import MODELS

NAMES = sorted(path.stem for path in MODELS.glob("*.onnx"))
WANTED = {
    "digits",
    "digits_normal",
    "mnist_4x256_normal",
    "mnist_4x256_robust_6bit",
    "mnist_4x256_robust_8bit",
    "mnist_4x256_robust_10bit",
    "mnist_3x64_normal",
    "mnist_conv_robust_8bit",
}


def described(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def samples(name: str) -> datasets.Samples:
    try:
        return datasets.load(name)
    except DataError as error:  # no copy of the data and no network
        pytest.skip(str(error))


def question(name: str) -> tuple[datasets.Samples, Network, Radii]:
    """The test set, the network, and the radii it was trained for."""
    found = described(name)
    stated, data = found["radii"], samples(found["data"])
    network = onnx_io.load(MODELS / f"{name}.onnx")
    return data, network, Radii.from_bits(stated["bits"], stated["scheme"], stated["rounding"], network, data.x)


def test_all_networks_are_there_and_small() -> None:
    assert set(NAMES) == WANTED
    assert all((MODELS / f"{name}.onnx").stat().st_size <= 2 * 2**20 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_is_that_of_the_file(name: str) -> None:
    assert described(name)["sha256"] == hashlib.sha256((MODELS / f"{name}.onnx").read_bytes()).hexdigest()
    assert described(name)["interrupted"] is False


@pytest.mark.parametrize("name", NAMES)
def test_the_command_is_what_its_toml_says(name: str) -> None:
    """Both ways of stating a training, as click reads them, come to the same settings."""
    command = described(name)["command"].split()
    assert command[:2] == ["qverify", "train"]
    train = cli.main.commands["train"]
    with train.make_context("train", command[2:]) as stated:
        pass
    with train.make_context("train", ["--config", str(MODELS / f"{name}.toml")]) as configured:
        pass
    assert stated.params == configured.params


@pytest.mark.parametrize("name", NAMES)
def test_clean_accuracy_by_onnxruntime(name: str) -> None:
    """Oracle: onnxruntime's own float32 pass over the test set; a handful of ties may fall otherwise."""
    found = described(name)
    data = samples(found["data"])
    session = onnxruntime.InferenceSession(str(MODELS / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    x = data.x.astype(np.float32).reshape(len(data), *entry.shape[1:])
    predicted = np.concatenate([session.run(None, {entry.name: part})[0].argmax(1) for part in np.split(x, [2000])])
    assert abs(float((predicted == data.y).mean()) - found["clean_accuracy"]) <= 2 / len(data)


@pytest.mark.parametrize("name", [name for name in NAMES if described(name)["radii"] is not None])
def test_guaranteed_accuracy_on_the_first_samples(name: str) -> None:
    """What IBP proves on a part of the test set is near what the .json says of all of it, and no attack breaks it."""
    data, network, radii = question(name)
    count = 500
    verdicts = verify(network, data.x[:count], data.y[:count], radii, Options(method="ibp"))
    proved = sum(verdict.status is Status.VERIFIED for verdict in verdicts)
    p = described(name)["guaranteed_by_ibp"]
    assert abs(proved - count * p) <= 4 * np.sqrt(count * p * (1 - p)) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if described(name)["radii"] is not None])
def test_guaranteed_accuracy_on_all_samples(name: str) -> None:
    data, network, radii = question(name)
    verdicts = verify(network, data.x, data.y, radii, Options(method="ibp", attack=False))
    proved = sum(verdict.status is Status.VERIFIED for verdict in verdicts)
    assert abs(proved / len(data) - described(name)["guaranteed_by_ibp"]) <= 2 / len(data)
