"""Regression: outputs near the network's own or near targets, by closed forms of one layer and members at random."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import Radii, onnx
from qverify.errors import DataError, UsageError
from qverify.family.family import Family
from qverify.network import Network
from qverify.properties.kinds import Distance
from qverify.properties.reading import read_property
from tests.support.commands import answer, qverify
from tests.support.networks import NETWORKS, mlp, sample_members
from tests.support.properties import decided_of, linear, subjects_of

ONE = linear([[2.0, -1.0]], [0.5])
"""At x = (1, 0.5) it gives 2; with weights off by 0.1 anything in [1.85, 2.15]."""
X = np.array([[1.0, 0.5]])


def status(wanted: Distance, target: Any) -> str:
    (row,) = decided_of(ONE, subjects_of(X, targets=[target]), Radii(weight=0.1), wanted)
    assert row.label is None
    return row.status


@pytest.mark.parametrize(
    ("wanted", "target", "found"),
    [
        (Distance(0.16, targets=True), [2.0], "holds"),
        (Distance(0.14, targets=True), [2.0], "violated"),
        (Distance(0.26, targets=True), [1.9], "holds"),
        (Distance(0.24, targets=True), [1.9], "violated"),
        (Distance(0.0, None, 0.14, True), [1.9], "holds"),
        (Distance(0.0, None, 0.13, True), [1.9], "violated"),
        (Distance(0.0, None, 0.076, True), [2.0], "holds"),
        (Distance(0.05, None, 0.051, True), [2.0], "holds"),
        (Distance(0.05, None, 0.049, True), [2.0], "violated"),
        (Distance(0.0, None, 0.076), [7.0], "holds"),
        (Distance(0.0, None, 0.074), [7.0], "violated"),
    ],
)
def test_the_tolerance_of_one_output_has_a_closed_form(wanted: Distance, target: Any, found: str) -> None:
    assert status(wanted, target) == found


def test_a_negative_target_has_its_size() -> None:
    network = linear([[-2.0]], [0.0])
    for relative, found in ((0.11, "holds"), (0.09, "violated")):
        wanted = Distance(0.0, None, relative, True)
        (row,) = decided_of(network, subjects_of([[1.0]], targets=[[-2.0]]), Radii(weight=0.2), wanted)
        assert row.status == found


def test_targets_go_with_the_outputs_that_are_named() -> None:
    network = linear([[1.0], [5.0], [9.0]], np.zeros(3))
    subjects = subjects_of([[1.0]], targets=[[9.0, 1.0]])
    rows = [decided_of(network, subjects, Radii(), Distance(0.1, chosen, 0.0, True))[0] for chosen in ((2, 0), (0, 2))]
    assert [(row.status, row.itself) for row in rows] == [("holds", True), ("violated", False)]


@pytest.mark.parametrize("name", ["deep", "conv_max_pool"])
def test_no_member_leaves_what_holds(name: str) -> None:
    rng = np.random.default_rng(11)
    network = NETWORKS[name](rng)
    radii, seen = Radii(input=0.02, weight=0.01, bias=0.01, activation=0.01), set()
    x = rng.normal(size=(3, network.input_size))
    targets, family = network.evaluate(x) + rng.normal(size=(3, network.output_size)) * 0.05, Family.of(network, radii)
    for distance, relative in ((0.05, 0.0), (0.1, 0.1), (1.0, 0.0), (0.5, 1.0)):
        rows = decided_of(network, subjects_of(x, targets=targets), radii, Distance(distance, None, relative, True))
        for row, target in zip(rows, targets, strict=True):
            seen.add(row.status)
            for corner in (False, True) if row.status == "holds" else ():
                y = sample_members(family, x[row.index], rng, 200, corner)[-1]
                assert (abs(y - target) < distance + relative * abs(target)).all()
    assert {"holds", "violated"} <= seen


# --- files and the command ---


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Network]:
    network = mlp(np.random.default_rng(3), 4, 6, 1)
    onnx.save(network, tmp_path / "price.onnx")
    return tmp_path / "price.onnx", network


def test_the_command_speaks_of_tolerances(model: tuple[Path, Network], tmp_path: Path) -> None:
    path, network = model
    x = np.random.default_rng(4).uniform(size=(6, 4))
    y = network.evaluate(x)[:, 0] + np.array([0, 0, 0, 0, 0, 9.0])
    np.savez(tmp_path / "d.npz", x=x, y=y)
    (tmp_path / "p.toml").write_text('property = "distance"\nto = "targets"\ndistance = 0.2\nrelative = 0.1\n')
    given = ("property", path, "--data", tmp_path / "d.npz", "--bits", 10, "--property", tmp_path / "p.toml")
    found = answer(*given, "--samples", "3:6")
    assert (found["holds"], found["violated"], found["itself"]) == (2, 1, 2)
    assert [(row["index"], row["label"]) for row in found["rows"]] == [(3, None), (4, None), (5, None)]
    result = qverify(*given)
    assert "every output is less than 0.2 + 0.1 |target| from its target" in result.stdout
    assert re.search(r"^within tolerance +5 +proved", result.stdout, re.MULTILINE)
    assert re.search(r"^violated +1 +samples 5", result.stdout, re.MULTILINE)


def test_samples_need_no_labels(model: tuple[Path, Network], tmp_path: Path) -> None:
    path, _ = model
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(4).uniform(size=(2, 4)))
    (tmp_path / "p.toml").write_text('property = "distance"\ndistance = 1\n')
    given = ("property", path, "--data", tmp_path / "d.npz", "--bits", 10, "--property", tmp_path / "p.toml")
    assert answer(*given)["holds"] == 2
    (tmp_path / "p.toml").write_text('property = "distance"\nto = "targets"\ndistance = 1\n')
    result = qverify(*given)
    assert result.exit_code == 2 and "is about targets, and the data have none" in result.stderr


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros((2, 3)), "The data have 3 targets a sample, but the property is about 1 outputs"),
        (np.zeros(3), "has 3 entries for 2 inputs"),
        (np.array([0.0, np.nan]), "holds NaN or infinite values"),
        (np.array(["a", "b"]), "is no array of labels (N,) or of numbers"),
    ],
)
def test_senseless_targets_are_refused(model: tuple[Path, Network], y: Any, words: str, tmp_path: Path) -> None:
    path, _ = model
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4)), y=y)
    (tmp_path / "p.toml").write_text('property = "distance"\nto = "targets"\ndistance = 1\n')
    given = ("property", path, "--data", tmp_path / "d.npz", "--bits", 10, "--property", tmp_path / "p.toml")
    result = qverify(*given)
    assert result.exit_code == 2 and words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distance = 1\nto = 'labels'", "to is 'labels'; give one of 'network', 'targets'"),
        ("relative = 0", "relative is 0; give a number above 0"),
        ("relative = 0.1\ndistance = 0", "distance is 0; give a number above 0"),
        ("distance = 1\noutputs = [0, 0]", "one of them twice"),
        ("to = 'targets'", "distance is None; give a number above 0"),
        ("distance = inf", "distance is inf; give a number above 0"),
    ],
)
def test_senseless_tolerances_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(f'property = "distance"\n{text}\n')
    with pytest.raises(UsageError, match=re.escape(words)):
        read_property(str(tmp_path / "p.toml"))


def test_targets_that_are_missing_are_refused() -> None:
    with pytest.raises(DataError, match="the data have none"):
        decided_of(ONE, subjects_of(X, labels=[0]), Radii(), Distance(1.0, targets=True))
