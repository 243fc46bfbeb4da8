"""Properties on samples: closed forms of one layer, members drawn at random, and `verify` where it asks the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import Options, Radii, verify
from qverify.errors import UsageError
from qverify.family.family import Family
from qverify.properties.kinds import Distance, Margin, Property, Subject, TopK
from qverify.properties.reading import read_property
from tests.support.commands import answer, qverify
from tests.support.networks import NETWORKS, sample_members
from tests.support.paths import ROOT
from tests.support.properties import decided, linear

DIGITS = ROOT / "models" / "digits.onnx"


@pytest.mark.parametrize(("share", "wanted"), [(0.999, "violated"), (1.001, "holds")])
def test_the_distance_of_one_layer_has_a_closed_form(share: float, wanted: str) -> None:
    """|y - f| is at most r |x| + r_b, at any x."""
    network, x = linear([[1.0, -2.0], [0.5, 0.25]], [0.1, 0.0]), np.array([[0.5, -0.25]])
    most = 0.1 * 0.75 + 0.05
    rows = decided(network, x, [0], Radii(weight=0.1, bias=0.05), Distance(share * most))
    assert [row.status for row in rows] == [wanted]


def test_a_distance_may_be_of_some_outputs() -> None:
    network, x = linear([[1.0], [0.0]], [0.0, 0.0]), np.array([[1.0]])
    radii = Radii(layers={"dense": {"weight": np.array([[0.5], [0.0]])}})
    found = [decided(network, x, [0], radii, Distance(0.1, chosen))[0].status for chosen in (None, (0,), (1,))]
    assert found == ["violated", "violated", "holds"]


@pytest.mark.parametrize(("margin", "wanted"), [(0.49, "holds"), (0.51, "violated")])
def test_the_margin_of_one_layer_has_a_closed_form(margin: float, wanted: str) -> None:
    """Both rows move by r |x|: the margin 0.7 - 2 * 0.1 is reached."""
    network = linear([[1.0], [0.3]], [0.0, 0.0])
    rows = decided(network, np.array([[1.0]]), [0], Radii(weight=0.1), Margin(margin))
    assert [row.status for row in rows] == [wanted]


@pytest.mark.parametrize(("k", "wanted"), [(1, "violated"), (2, "violated"), (3, "holds")])
def test_the_top_k_of_one_layer(k: int, wanted: str) -> None:
    """Outputs 1, 0.9, 0.85, 0 that move by 0.1 each: two others can be above the first, not three."""
    network = linear([[1.0], [0.9], [0.85], [0.0]], np.zeros(4))
    rows = decided(network, np.array([[1.0]]), [0], Radii(weight=0.1), TopK(k))
    assert [row.status for row in rows] == [wanted]


def broken(wanted: Property, y: Any, label: int, own: Any) -> Any:
    """Mask of the outputs y (N, n_out) that violate a property, written anew."""
    if isinstance(wanted, TopK):
        return (np.delete(y, label, 1) >= y[:, [label]]).sum(1) >= wanted.k
    if isinstance(wanted, Margin):
        return y[:, label] - np.delete(y, label, 1).max(1) <= wanted.margin
    return (abs(y - own) >= getattr(wanted, "distance", 0.0)).any(1)


@pytest.mark.parametrize("name", ["deep", "conv_attributes", "residual", "conv_max_pool"])
def test_no_member_violates_what_holds(name: str) -> None:
    rng = np.random.default_rng(5)
    network = NETWORKS[name](rng)
    radii, seen = Radii(input=0.02, weight=0.01, bias=0.01, activation=0.01), set()
    x = rng.normal(size=(3, network.input_size))
    outputs, family = network.evaluate(x), Family.of(network, radii)
    labels = outputs.argmax(1)
    for wanted in (TopK(1), Margin(0.1), Distance(0.2), Distance(2.0)):
        for row in decided(network, x, labels, radii, wanted):
            seen.add(row.status)
            for corner in (False, True) if row.status == "holds" else ():
                y = sample_members(family, x[row.index], rng, 200, corner)[-1]
                assert not broken(wanted, y, labels[row.index], outputs[row.index]).any()
    assert "holds" in seen


def test_the_top_1_is_what_verify_asks() -> None:
    rng = np.random.default_rng(6)
    network = NETWORKS["deep"](rng)
    x = rng.normal(size=(12, network.input_size))
    labels, radii = network.evaluate(x).argmax(1), Radii(input=0.01, weight=0.01, bias=0.01, activation=0.01)
    verdicts = [v.status.value for v in verify(network, x, labels, radii, Options(isolated=False))]
    rows = [row.status for row in decided(network, x, labels, radii, TopK(1))]
    assert rows == [{"verified": "holds", "falsified": "violated"}.get(v, v) for v in verdicts]
    assert {"holds", "violated"} <= set(rows)


# --- files and the command ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('property = "flat"', "states no property 'flat'"),
        ("k = 2", "states no property None"),
        ('property = "top-k"', "k is None; give a whole number from 1"),
        ('property = "top-k"\nk = true', "k is True; give a whole number"),
        ('property = "top-k"\nk = 1\nmargin = 2', "'margin' is no key of top-k"),
        ('property = "margin"\nmargin = -1', "margin is -1; give a number from 0"),
        ('property = "distance"\ndistance = 0', "distance is 0; give a number above 0"),
        ('property = "distance"\ndistance = nan', "distance is nan; give a number above 0"),
        ('property = "distance"\ndistance = 1\noutputs = [-1]', "outputs is [-1]; give a list"),
        ("property = ", "is not valid TOML"),
    ],
)
def test_what_states_no_property_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_property(str(path))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (TopK(2), "always in the top 2"),
        (Distance(1.0, (5,)), "The property names output 5, but the network has 2"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(wanted: Property, words: str) -> None:
    network = linear([[1.0], [0.3]], [0.0, 0.0])
    with pytest.raises(UsageError, match=words):
        decided(network, np.array([[1.0]]), [0], Radii(weight=0.1), wanted)


def test_many_alternatives_are_refused() -> None:
    with pytest.raises(UsageError, match="more than 1000 alternatives"):
        TopK(10).clauses(Subject(lower=np.zeros(1), upper=np.zeros(1), label=0), np.zeros(100))


def test_the_command_counts_and_fails_on_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('property = "margin"\nmargin = 0.5\n')
    given = ("property", DIGITS, "--data", "digits", "--samples", "0:3", "--bits", 7, "--property", path)
    found = answer(*given)
    assert (found["samples"], found["holds"] + found["violated"]) == (3, 3) and found["violated"] > 0
    assert [row["index"] for row in found["rows"]] == [0, 1, 2]
    result = qverify(*given, "--fail-on", "violated")
    assert result.exit_code == 1 and "by more than 0.5; 3 samples" in result.stdout
    assert qverify(*given, "--fail-on", "unknown").exit_code == 0
