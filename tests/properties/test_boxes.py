"""Properties over boxes of inputs: closed forms, grids of inputs with members, and the files that state boxes."""

from __future__ import annotations

import itertools
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qverify as package
from qverify import Options, Radii, onnx
from qverify.errors import DataError, QVerifyError, UsageError
from qverify.family.family import Family
from qverify.properties.kinds import Distance, Holds, Margin
from qverify.properties.reading import read_property
from qverify.properties.samples import PropertyRow, decide_subjects
from tests.support.commands import answer, qverify
from tests.support.networks import mlp, sample_members
from tests.support.properties import decided_of, linear, subjects_of

LINE = linear([[1.0, -1.0], [0.5, 2.0]], [0.0, 0.25])
LOW, HIGH = np.array([[-1.0, 0.0]]), np.array([[1.0, 0.5]])


@pytest.mark.parametrize(("by", "found"), [(1e-6, "holds"), (-1e-6, "violated")])
@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("y[0] >= {:.9f}", -1.5 - 0.1 * 1.5),  # at (-1, 0.5) with both weights off by 0.1
        ("y[0] <= {:.9f}", 1.0 + 0.1),  # at (1, 0)
        ("y[1] <= {:.9f}", 0.5 + 1.0 + 0.25 + 0.1 * 1.5),
        ("y[1] - y[0] >= {:.9f}", -0.5 + 0.25 - 0.1 * 2.0),
    ],
)
def test_the_worst_of_one_layer_is_at_a_corner(text: str, end: float, by: float, found: str) -> None:
    limit = end - by if ">=" in text else end + by
    subjects = subjects_of(LOW, upper=HIGH)
    (row,) = decided_of(LINE, subjects, Radii(weight=0.1), Holds(((text.format(limit),),)))
    assert row.status == found


def test_an_input_radius_widens_the_box() -> None:
    subjects = subjects_of(LOW, upper=HIGH)
    for limit, found in ((1.19, "violated"), (1.21, "holds")):
        (row,) = decided_of(LINE, subjects, Radii(input=0.1), Holds(((f"y[0] <= {limit}",),)))
        assert row.status == found  # 1.1 + 0.1


def test_no_input_and_no_member_violates_what_holds() -> None:
    """Every input of a grid with members at random, and with all weights at ends; halved, as inputs are few."""
    rng = np.random.default_rng(2)
    network = mlp(rng, 2, 5, 4, 2)
    radii, seen = Radii(weight=0.01, bias=0.01), set()
    low, high = np.array([[-0.5, -0.2]]), np.array([[0.5, 0.4]])
    grid = np.array(list(itertools.product(*(np.linspace(a, b, 9) for a, b in zip(low[0], high[0], strict=True)))))
    values, family = network.evaluate(grid), Family.of(network, radii)
    spread = float(values.max() - values.min())
    for share in (-0.05, 0.1, 0.4):
        most, least = float(values[:, 0].max()) + share * spread, float(values[:, 1].min()) - share * spread
        wanted = Holds(((f"y[0] <= {most:.6f}", f"y[1] >= {least:.6f}"),))
        (row,) = decided_of(network, subjects_of(low, upper=high), radii, wanted)
        seen.add(row.status)
        for x, corner in itertools.product(grid, (False, True)) if row.status == "holds" else ():
            y: Any = sample_members(family, x, rng, 20, corner)[-1]
            assert (y[:, 0] <= most + 1e-5).all() and (y[:, 1] >= least - 1e-5).all()
            # Comparisons are scaled so that their largest factor, here 1, is from 1 to 2.
            true = min(most - y[:, 0].max(), y[:, 1].min() - least)
            assert row.margin_lower is not None and row.margin_lower / 2.0 <= true
    assert seen == {"holds", "violated"}


def test_the_margin_proved_by_halving_is_below_that_of_every_input() -> None:
    rng = np.random.default_rng(2)
    network = mlp(rng, 2, 12, 12, 1)
    low, high = np.array([[-1.0, -1.0]]), np.array([[1.0, 1.0]])
    grid = np.array(list(itertools.product(np.linspace(-1, 1, 201), repeat=2)))
    values = network.evaluate(grid)[:, 0]
    limit = round(float(values.max() + 0.05 * (values.max() - values.min())), 6)
    rows: list[PropertyRow] = []
    options, stop = Options(method="bp", seconds=60.0, isolated=False), threading.Event()
    wanted = Holds(((f"y[0] <= {limit}",),))
    decide_subjects(network, subjects_of(low, upper=high), Radii(), wanted, options, rows.append, stop)
    (row,) = rows
    assert (row.status, row.method) == ("holds", "halving") and row.margin_lower is not None
    assert 0 < row.margin_lower / 2.0 <= limit - values.max()


def test_labels_and_targets_go_with_boxes() -> None:
    subjects = subjects_of([[0.9, -0.1]], labels=[0], targets=[[1.0, 0.75]], upper=[[1.1, 0.1]])
    rows = [
        decided_of(LINE, subjects, Radii(), wanted)[0].status
        for wanted in (Margin(0.0), Margin(0.5), Distance(0.3, targets=True), Distance(0.1, targets=True))
    ]
    assert rows == ["violated", "violated", "holds", "violated"]


def test_boxes_beyond_the_range_that_inputs_are_clipped_to_are_refused() -> None:
    with pytest.raises(DataError, match="outside clip_input 0 1; widen it"):
        package.verify_property(LINE, "y[0] > 0", (LOW, HIGH), radii=Radii(), clip_input=(0.0, 1.0))
    (row,) = package.verify_property(LINE, "y[0] > -9", (LOW, HIGH), radii=Radii(input=9.0), clip_input=(-1.0, 1.0))
    assert row.status == "holds"


def test_the_networks_own_outputs_are_none_of_a_box() -> None:
    with pytest.raises(UsageError, match="differ from input to input of a box"):
        decided_of(LINE, subjects_of(LOW, upper=HIGH), Radii(), Distance(1.0))


# --- files ---


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(LINE, tmp_path / "line.onnx")
    return tmp_path / "line.onnx"


PROPERTY = '[[holds]]\nall = ["y[0] <= 1.15", "y[1] - y[0] >= -0.5"]\n'


def test_boxes_come_in_the_property_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        f"{PROPERTY}[[boxes]]\nlow = [-1, 0]\nhigh = [1.0, 0.5]\n[[boxes]]\nlow = [0.5, 0]\nhigh = [1.1, 0.5]\n"
    )
    (tmp_path / "r.toml").write_text("weight = 0.1\n")
    given = ("property", model, "--radii", tmp_path / "r.toml", "--property", tmp_path / "p.toml")
    found = answer(*given)
    assert [row["status"] for row in found["rows"]] == ["holds", "violated"]
    assert found["data"].endswith("p.toml") and found["sample_range"] == [0, 2]
    result = qverify(*given)
    assert re.search(r"^violated +1  boxes 1", result.stdout, re.MULTILINE) and "2 boxes in" in result.stdout
    rows = package.verify_property(model, tmp_path / "p.toml", radii=Radii(weight=0.1))
    assert [row.status for row in rows] == ["holds", "violated"]


def test_boxes_come_in_a_data_set(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", low=np.array([[-1, 0.0], [0.5, 0.0]]), high=np.array([[1.0, 0.5], [1.1, 0.5]]))
    (tmp_path / "p.toml").write_text(PROPERTY)
    (tmp_path / "r.toml").write_text("weight = 0.1\n")
    given = ("property", model, "--radii", tmp_path / "r.toml", "--property", tmp_path / "p.toml")
    found = answer(*given, "--data", tmp_path / "d.npz")
    assert [row["status"] for row in found["rows"]] == ["holds", "violated"]
    found = answer(*given, "--data", tmp_path / "d.npz", "--samples", "1:2")
    assert [(row["index"], row["status"]) for row in found["rows"]] == [(1, "violated")]
    found = answer(*given, "--data", tmp_path / "d.npz", "--input-scale", 0.5)
    assert [row["status"] for row in found["rows"]] == ["holds", "holds"]
    ends = np.array([[-1, 0.0], [0.5, 0.0]]), np.array([[1.0, 0.5], [1.1, 0.5]])
    rows = package.verify_property(model, "y[0] <= 1.15", ends, radii=Radii(weight=0.1))
    assert [row.status for row in rows] == ["holds", "violated"]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ("boxes = 3", "boxes are tables [[boxes]]"),
        ("[[boxes]]\nlow = [0]", "a box has the keys 'low'; its keys are low and high"),
        ("[[boxes]]\nlow = [0]\nhigh = [1]\nlabel = 0\ntargets = [1]", "its keys are low and high, and label or"),
        ("[[boxes]]\nlow = [0]\nhigh = [1]\n[[boxes]]\nlow = [0]\nhigh = [1]\nlabel = 0", "box 2 has other keys"),
        ("[[boxes]]\nlow = [0]\nhigh = [nan]", "lists of numbers"),
        ("[[boxes]]\nlow = [0]\nhigh = [inf]", "lists of numbers"),
        ("[[boxes]]\nlow = [0]\nhigh = [1]\nlabel = -1", "the label of box 1 is -1"),
        (
            "[[boxes]]\nlow = [0]\nhigh = [1]\n[[boxes]]\nlow = [0, 1]\nhigh = [1, 1]",
            "box 2 has lists of other lengths",
        ),
        ("[[boxes]]\nlow = [0, 1]\nhigh = [1]", "have shapes (1, 2) and (1, 1)"),
        ("[[boxes]]\nlow = [2]\nhigh = [1]", "box 0 has a lower end above its upper one"),
    ],
)
def test_senseless_boxes_are_refused(boxes: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(f"{boxes}\n{PROPERTY}" if boxes.startswith("boxes") else f"{PROPERTY}{boxes}\n")
    with pytest.raises(QVerifyError, match=re.escape(words)):
        read_property(str(tmp_path / "p.toml"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--data", "digits"), "has boxes of its own, so --data has nothing to say"),
        (("--input-scale", "2"), "boxes of a property file are as stated"),
        (("--bits", "8", "--scheme", "channel"), "boxes are not; give --calibration"),
    ],
)
def test_options_that_do_not_go_with_boxes_are_refused(
    model: Path, more: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(f"{PROPERTY}[[boxes]]\nlow = [-1, 0]\nhigh = [1.0, 0.5]\n")
    bits = () if "--bits" in more else ("--bits", "8")
    result = qverify("property", model, "--property", tmp_path / "p.toml", *bits, *more)
    assert result.exit_code == 2 and words in result.stderr.replace("which boxes are not", "boxes are not")


def test_without_samples_and_boxes_there_is_nothing_to_ask(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PROPERTY)
    result = qverify("property", model, "--property", tmp_path / "p.toml", "--bits", 8)
    assert result.exit_code == 2 and "or boxes of inputs in the property file" in result.stderr


def test_a_box_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=re.escape("the network reads (2,)")):
        package.verify_property(LINE, "y[0] > 0", (np.zeros((1, 3)), np.ones((1, 3))), radii=Radii())
