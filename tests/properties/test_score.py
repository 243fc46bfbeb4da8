"""Anomaly scores: closed forms of one layer, members and inputs at random, and replays of what violates."""

from __future__ import annotations

import itertools
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import qverify as package
from qverify import Options, Radii, onnx
from qverify.errors import DataError, UsageError
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.network import Network
from qverify.properties import members, samples
from qverify.properties.decide import Candidate
from qverify.properties.reading import read_property
from qverify.properties.samples import PropertyRow
from qverify.properties.score import SCORES, Score
from tests.support.commands import answer, qverify
from tests.support.networks import mlp, sample_members
from tests.support.properties import decided_of, linear, subjects_of
from tests.support.tflite_models import LiteRT, mlperf

WEIGHT = np.array([[0.9, 0.2, 0.0], [-0.1, 1.2, 0.3], [0.0, 0.1, 0.6]])
LINE = linear(WEIGHT, [0.05, 0.0, -0.1])
X = np.array([[1.0, -0.5, 0.25]])
RADIUS = 0.05


def score(kind: str, residual: Any) -> Any:
    """Of residuals (..., n), written anew."""
    size = np.abs(residual)
    return {"mse": (size**2).mean(-1), "mae": size.mean(-1), "linf": size.max(-1)}[kind]


def ends(kind: str) -> tuple[float, float]:
    """The least and the largest score of the family of `LINE`: every row's sum moves by `RADIUS |x|_1` by itself."""
    residual, reach = WEIGHT @ X[0] + [0.05, 0.0, -0.1] - X[0], RADIUS * np.abs(X[0]).sum()
    least = np.maximum(np.abs(residual) - reach, 0.0)
    return float(score(kind, least)), float(score(kind, np.abs(residual) + reach))


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("share", [0.999, 1.001])
@pytest.mark.parametrize("decision", ["normal", "anomalous"])
def test_the_score_of_one_layer_has_a_closed_form(kind: str, share: float, decision: str) -> None:
    low, high = ends(kind)
    assert 0.01 < low < high
    threshold = share * (high if decision == "normal" else low)
    radii = Radii(weight=RADIUS, activation=9.0)  # which no layer of the network has
    (row,) = decided_of(LINE, subjects_of(X), radii, Score(kind, threshold, decision))
    assert row.status == ("holds" if (share > 1) == (decision == "normal") else "violated")


def test_the_decision_is_that_of_the_network_or_of_the_label() -> None:
    own = float(score("mse", LINE.evaluate(X)[0] - X[0]))
    for threshold, right in ((3 * own, 0), (own / 3, 1)):
        rows = [
            decided_of(LINE, subjects_of(X, labels=[label]), Radii(weight=0.001), Score("mse", threshold, decision))[0]
            for decision, label in (("same", 0), ("label", right), ("label", 1 - right))
        ]
        assert [(row.status, row.itself) for row in rows] == [("holds", True), ("holds", True), ("violated", False)]


def test_a_score_at_the_threshold_is_normal() -> None:
    (row,) = decided_of(linear([[1.0]], [0.5]), subjects_of([[0.25]]), Radii(), Score("linf", 0.5, "normal"))
    assert row.itself and row.status != "violated"


@pytest.mark.parametrize("kind", SCORES)
def test_no_member_changes_a_decision_that_holds(kind: str) -> None:
    rng = np.random.default_rng(8)
    network = mlp(rng, 4, 6, 3, 6, 4)
    radii, seen = Radii(input=0.01, weight=0.01, bias=0.01, activation=0.01), set()
    x, family = rng.uniform(size=(3, 4)), Family.of(network, radii)
    for factor in (0.5, 0.8, 0.98, 1.02, 1.25, 2.0):
        for place, one in enumerate(x):
            own = float(score(kind, network.evaluate(one[None])[0] - one))
            threshold = factor * own
            (row,) = decided_of(network, subjects_of(x[place : place + 1]), radii, Score(kind, threshold))
            seen.add(row.status)
            for corner in (False, True) if row.status == "holds" else ():
                found = score(kind, sample_members(family, one, rng, 500, corner)[-1] - one)
                assert ((found > threshold) == (own > threshold)).all()
    assert {"holds", "violated"} <= seen


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("reach", [0.0, 0.02])
def test_no_input_of_a_box_and_no_member_changes_a_decision_that_holds(kind: str, reach: float) -> None:
    rng = np.random.default_rng(9)
    network = mlp(rng, 2, 5, 2, 2)
    radii, seen = Radii(input=reach, weight=0.005, bias=0.005), set()
    family = Family.of(network, radii)
    low, high = np.array([[0.2, 0.4]]), np.array([[0.35, 0.5]])
    grid = np.array(list(itertools.product(*(np.linspace(a, b, 5) for a, b in zip(low[0], high[0], strict=True)))))
    own = score(kind, network.evaluate(grid) - grid)
    for threshold, decision in (
        (own.max() * 1.4, "normal"),
        (own.max() * 0.99, "normal"),
        (own.min() * 0.5, "anomalous"),
        (own.min() * 1.01, "anomalous"),
    ):
        wanted = Score(kind, float(threshold), decision)
        (row,) = decided_of(network, subjects_of(low, upper=high), radii, wanted)
        seen.add(row.status)
        for x, corner in itertools.product(grid, (False, True)) if row.status == "holds" else ():
            found = score(kind, sample_members(family, x, rng, 50, corner)[-1] - x)
            assert ((found > threshold) == (decision == "anomalous")).all()
    assert seen == {"holds", "violated"}


@pytest.mark.parametrize(("threshold", "found"), [(0.0999, "violated"), (0.1001, "holds")])
def test_the_input_of_a_score_is_that_before_quantisation(threshold: float, found: str) -> None:
    """The identity errs by the input radius alone."""
    subjects = subjects_of([[0.2]], upper=[[0.6]])
    (row,) = decided_of(linear([[1.0]], [0.0]), subjects, Radii(input=0.1), Score("linf", threshold, "normal"))
    assert row.status == found


@pytest.mark.parametrize("kind", SCORES)
def test_what_violates_is_a_member_that_does_in_onnxruntime(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision: its weights are within their radii, and its outputs have another score."""
    found: list[Candidate] = []
    judge = members.satisfies

    def spied(candidate: Candidate, *more: Any) -> bool:
        fits = judge(candidate, *more)
        if fits:
            found.append(candidate)
        return fits

    monkeypatch.setattr(samples, "satisfies", spied)
    network = mlp(np.random.default_rng(8), 4, 6, 3, 6, 4)
    radii, x = Radii(weight=0.02, bias=0.02), np.full(4, 0.5)
    threshold = 1.02 * float(score(kind, network.evaluate(x[None])[0] - x))
    (row,) = decided_of(network, subjects_of(x[None]), radii, Score(kind, threshold))
    assert row.status == "violated"
    (candidate,) = found
    member = Network(candidate.member.layers[: len(network.layers)])
    assert not membership(Family.of(network, radii), member, x, candidate.entry)
    onnx.save(member, tmp_path / "m.onnx", dtype="float64")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (y,) = session.run(None, {session.get_inputs()[0].name: candidate.entry[None]})
    assert score(kind, y[0] - x) > threshold


# --- the user's autoencoder ---


def test_the_anomaly_detector_of_mlperf_tiny_decides_the_same_on_every_runtime() -> None:
    """The int8 file: every sample on every runtime that rounds in float32, and no proof next to the threshold."""
    network = package.load(mlperf("ad01_int8.tflite"))
    with np.load(mlperf("ad_196.npz")) as data:
        x = data["x_test"][:4].astype(np.float64)
    own = ((network.evaluate(x) - x) ** 2).mean(1)
    radii, rows = Radii.of_file(network), list[PropertyRow]()
    subjects = subjects_of(x)
    options = Options(seconds=20.0, isolated=False)
    wanted = Score("mse", float(own.mean()))
    samples.decide_subjects(network, subjects, radii, wanted, options, rows.append, threading.Event())
    assert [row.status for row in rows] == ["holds"] * 4 and all(row.itself for row in rows)
    assert {bool(one > wanted.threshold) for one in own} == {True, False}
    runtime = LiteRT(mlperf("ad01_int8.tflite").read_bytes())
    theirs = runtime.run(x.astype(np.float32), runtime.logits())
    assert ((((theirs - x) ** 2).mean(1) > wanted.threshold) == (own > wanted.threshold)).all()


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("threshold = 1", "score is None; give one of 'mse', 'mae', 'linf'"),
        ("score = 'mse'", "threshold is None; give a number above 0"),
        ("score = 'mse'\nthreshold = -1", "threshold is -1"),
        ("score = 'mse'\nthreshold = 1\ndecision = 'odd'", "decision is 'odd'; give one of 'same', 'label'"),
        ("score = 'mse'\nthreshold = 1\nnorm = 2", "'norm' is no key of score"),
    ],
)
def test_files_that_state_no_score_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(f'property = "score"\n{text}\n')
    with pytest.raises(UsageError, match=re.escape(words)):
        read_property(str(tmp_path / "p.toml"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="reads 2 numbers and gives 1; give an autoencoder"):
        decided_of(linear([[1.0, 2.0]], [0.0]), subjects_of([[1.0, 0.0]]), Radii(), Score("mse", 1.0))
    with pytest.raises(DataError, match="about labels, and the data have none"):
        decided_of(LINE, subjects_of(X), Radii(), Score("mse", 1.0, "label"))
    with pytest.raises(DataError, match="A label is 2, but"):
        decided_of(LINE, subjects_of(X, labels=[2]), Radii(), Score("mse", 1.0, "label"))
    wide = linear(np.eye(1001), np.zeros(1001))
    with pytest.raises(UsageError, match="take mse or mae"):
        decided_of(wide, subjects_of(np.ones((1, 1001))), Radii(), Score("linf", 1.0))


def test_boxes_of_inputs_on_a_grid_are_refused() -> None:
    radii = Radii.from_bits(8, "tensor", "nearest", LINE, np.vstack([X, -X]))
    with pytest.raises(UsageError, match="scores of boxes are not worked out for these"):
        decided_of(LINE, subjects_of(X, upper=X + 0.1), radii, Score("mse", 1.0))
    (row,) = decided_of(LINE, subjects_of(X), radii, Score("mse", 1.0))
    assert row.status == "holds"


def test_the_command_decides_scores(tmp_path: Path) -> None:
    onnx.save(LINE, tmp_path / "auto.onnx")
    np.savez(tmp_path / "d.npz", x=np.vstack([X, 20 * X]), y=np.array([0, 1]))
    (tmp_path / "p.toml").write_text('property = "score"\nscore = "mse"\nthreshold = 1.0\ndecision = "label"\n')
    given = ("property", tmp_path / "auto.onnx", "--data", tmp_path / "d.npz", "--property", tmp_path / "p.toml")
    assert answer(*given, "--bits", 8)["holds"] == 2
    result = qverify(*given, "--bits", 8)
    assert "by its mean squared error, anomalous above 1, every input is decided as it is labelled" in result.stdout
    assert re.search(r"^decided right +2 +proved", result.stdout, re.MULTILINE)
