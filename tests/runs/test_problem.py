"""From what a user states to network, samples and family."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from qverify import datasets
from qverify.errors import DataError, UsageError
from qverify.onnx.reader import save
from qverify.runs.given import Given
from qverify.runs.problem import FamilyProblem, Problem, read_samples, stated_radii
from tests.support import networks


@pytest.fixture
def given(tmp_path: Path, rng: np.random.Generator) -> Given:
    """A network on 4 inputs with 3 classes, and 10 samples of its own answers."""
    network = networks.mlp(rng, 4, 5, 3)
    save(network, tmp_path / "m.onnx")
    x = rng.normal(size=(10, 2, 2))
    y = network.evaluate(x.reshape(10, 4)).argmax(1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return Given(model=str(tmp_path / "m.onnx"), data=str(tmp_path / "d.npz"), bits=8, samples="3:7")


def arrays(given: Given) -> tuple[np.ndarray, np.ndarray]:
    with np.load(str(given.data)) as file:
        return file["x"], file["y"]


def test_the_samples_are_those_asked_for(given: Given) -> None:
    problem, (x, y) = FamilyProblem.load(given), arrays(given)
    assert problem.indices == range(3, 7) and len(problem.everything) == 10
    assert np.array_equal(problem.inputs(), x[3:7].reshape(4, 4))
    assert [problem.label(k) for k in range(-1, 11)] == [int(y[k]) if 3 <= k < 7 else None for k in range(-1, 11)]
    assert problem.title.endswith("samples 3:7")


def test_the_question_has_the_hashes_of_the_files(given: Given) -> None:
    asked = FamilyProblem.load(given).question()
    assert asked.model_sha256 == hashlib.sha256(Path(given.model).read_bytes()).hexdigest()
    assert asked.data_sha256 == hashlib.sha256(Path(str(given.data)).read_bytes()).hexdigest()
    assert asked.samples == (3, 7) and asked.timeout == 300.0
    radii = asked.radii
    assert (radii.bits, radii.scheme, radii.rounding, radii.calibration) == (8, "paper", "any", None)
    assert radii.largest["weight"] == pytest.approx(2.0**-7)


def test_a_radii_file_is_stated_by_its_hash(given: Given, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("weight = 0.125\n")
    stated = Given(model=given.model, data=given.data, radii=str(tmp_path / "r.toml"))
    radii = FamilyProblem.load(stated).question().radii
    assert radii.sha256 == hashlib.sha256((tmp_path / "r.toml").read_bytes()).hexdigest()
    assert radii.bits is None and radii.largest["weight"] == 0.125


def test_ranges_are_taken_from_the_whole_data_set(given: Given) -> None:
    whole = Given(model=given.model, data=given.data, bits=8, scheme="tensor", samples="0:1")
    problem = FamilyProblem.load(whole)
    x, _ = arrays(given)
    low, high = min(0.0, x.min()), max(0.0, x.max())
    assert problem.family.largest()["input"] == pytest.approx((high - low) / 255, rel=1e-3)
    assert problem.question().radii.calibration == "all 10 samples of the data set"


def test_inputs_are_multiplied_as_asked(given: Given) -> None:
    x, _ = arrays(given)
    found = read_samples(Given(model=given.model, data=given.data, input_scale=0.5))
    assert found is not None and np.array_equal(found.x, 0.5 * x)
    assert read_samples(Given(model=given.model)) is None


def test_what_is_missing_is_named(given: Given, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The radii are missing"):
        FamilyProblem.load(Given(model=given.model, data=given.data))
    with pytest.raises(UsageError, match="The samples are missing"):
        FamilyProblem.load(Given(model=given.model, bits=8))
    network = Problem.load(Given(model=given.model, data=given.data)).network
    assert stated_radii(Given(model=given.model), network, None) == (None, None)
    x, _ = arrays(given)
    np.savez(tmp_path / "d.npz", x=x, y=np.full(10, 3))  # a class that the network does not have
    with pytest.raises(DataError):
        FamilyProblem.load(given)
    assert FamilyProblem.load(given, classifies=False).indices == range(3, 7)


def test_files_that_ship_with_the_package_have_no_place(given: Given, tmp_path: Path) -> None:
    assert set(FamilyProblem.load(given).places(str(tmp_path))) == {"model", "data"}
    own = datasets.load("digits")
    network = networks.mlp(np.random.default_rng(0), 64, 3, 10)
    save(network, tmp_path / "m.onnx")
    shipped = Problem.of(Given(model=given.model, data="digits"), network, own)
    kinds = {"model"} | ({"data"} if Path(own.source).exists() else set())
    assert set(shipped.places(str(tmp_path))) == kinds
