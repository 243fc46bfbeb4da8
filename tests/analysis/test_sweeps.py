"""Sweeps against `verify` with radii stated otherwise, and against properties that every guarantee has."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.analysis.sweeps import PARTS, SweepRow, by_bits, by_value, grid, sweep
from qverify.arrays import Array
from qverify.choices import Scheme
from qverify.errors import DataError, OutputError, RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.points import Point as FamilyPoint
from qverify.family.radii import Radii
from qverify.layers import Relu
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.report import plots
from qverify.runs.sweep import ROWS, SweepDirectory, sweep_csv
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status, Verdict
from tests.support import networks, starts
from tests.support.paths import MODELS

VALUES = (0.0, 0.01, 0.03, 0.1, 0.3)
IBP = Options(method="ibp", attack=False)


def right(network: Network, rng: np.random.Generator, count: int = 40) -> tuple[Array, np.ndarray]:
    """Inputs, and labels of which most are what the network says."""
    x = rng.uniform(0, 1, (count, network.input_size))
    labels = network.evaluate(x).argmax(1)
    labels[-2:] = (labels[-2:] + 1) % network.output_size
    return x, labels


# --- radii of single kinds ---


def test_only_some_kinds_stay() -> None:
    layers = {"a": {"weight": 1.0, "bias": 2.0}, "r": {"activation": 3.0}}
    entry = FamilyPoint(radius=0.1, low=(0.0, 0.0), high=(1.0, 1.0), entry=True)
    points = {"x": entry, "r": FamilyPoint(radius=0.1, low=(0.0, 0.0), high=(5.0, 5.0))}
    radii = Radii(0.1, 0.2, 0.3, 0.4, layers, points, convention="c")
    weight = radii.only("weight", "bias")
    assert (weight.input, weight.weight, weight.bias, weight.activation) == (0.0, 0.2, 0.3, 0.0)
    assert weight.layers == {"a": {"weight": 1.0, "bias": 2.0}, "r": {}}
    assert weight.points == {} and weight.convention != "c"
    assert [list(radii.only(kind).points) for kind in ("input", "activation")] == [["x"], ["r"]]
    assert radii.only("input", "weight", "bias", "activation") is radii
    with pytest.raises(RadiiError, match="no kind of radius 'weights'; the kinds are input, weight"):
        radii.only("weights")


@pytest.mark.parametrize("scheme", ["tensor", "channel"])
def test_parts_of_calibrated_schemes_do_not_clip_what_is_exact(scheme: Scheme) -> None:
    """Samples outside the calibrated ranges: only parts that quantise inputs or activations see that."""
    network, samples = onnx_io.load(MODELS / "digits.onnx"), datasets.load("digits")
    x, labels = samples.x[:50].reshape(50, -1), samples.y[:50]
    (point,) = by_bits([8], scheme, "nearest", network, 0.05 * x)
    weight, entry = (Family.of(network, point.radii.only(*PARTS[part])) for part in ("weight", "input"))
    assert not weight.points and weight.entry is None and (weight.box(x)[0] == x).all()
    assert all((r == 0).all() for r in weight.activation.values())
    assert any((r > 0).any() for r in weight.weight.values())
    assert entry.box(x)[1].max() < 0.051 < x.max() and not entry.points
    rows = {row.part: row for row in sweep(network, x, labels, grid([point]))}
    assert rows["weight"].guaranteed > 40 > rows["activation"].guaranteed >= rows["all"].guaranteed
    whole = Family.of(network, point.radii)
    relus = [i for i, layer in enumerate(network.layers) if isinstance(layer, Relu)]
    assert rows["activation"].activation == max(whole.activation[i].max() for i in relus)
    assert rows["activation"].input == rows["activation"].weight == rows["activation"].bias == 0


# --- rows ---


def test_a_row_counts_what_verify_says(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = right(network, rng)
    stated = {
        "input": Radii(input=0.03),
        "weight+activation": Radii(weight=0.03, bias=0.03, activation=0.03),
        "all": Radii(0.03, 0.03, 0.03, 0.03),
    }
    for options in (IBP, Options(method="bp", attack=False), Options(jobs=2)):
        for row in sweep(network, x, labels, grid(by_value([0.03]), stated), options):
            verdicts = verify(network, x, labels, stated[row.part], options)
            count = {status: sum(v.status is status for v in verdicts) for status in Status}
            assert row.clean == 38 and row.samples == 40 and row.method == options.method
            assert (row.guaranteed, row.unknown) == (count[Status.VERIFIED], count[Status.UNKNOWN])
            both = count[Status.VERIFIED] + count[Status.UNKNOWN]
            assert row.attack == (both if options.attack else None)
            assert row.value == 0.03 and row.bits is None and row.seconds > 0


@pytest.mark.slow
def test_guarantees_fall_with_the_radius_and_with_every_kind(rng: np.random.Generator) -> None:
    """Nothing grows, no part is above one that it contains, and radius 0 is the clean accuracy."""
    fell = 0
    for name, make in networks.NETWORKS.items():
        network = make(rng)
        x, labels = right(network, rng)
        rows = {(row.part, row.value): row for row in sweep(network, x, labels, grid(by_value(VALUES)))}
        assert len(rows) == 35
        for part, kinds in PARTS.items():
            along = [rows[part, value].guaranteed for value in VALUES]
            assert along == sorted(along, reverse=True), (name, part)
            assert along[0] == rows[part, 0.0].clean == 38
            fell += along[-1] < along[0]
            for other, fewer in PARTS.items():
                if set(fewer) <= set(kinds):
                    assert all(rows[part, v].guaranteed <= rows[other, v].guaranteed for v in VALUES), (
                        name,
                        part,
                        other,
                    )
    assert fell > 20


def test_more_bits_guarantee_more(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = right(network, rng)
    for scheme in ("paper", "channel"):
        points = by_bits(range(2, 11), scheme, "nearest", network, x)
        along = [row.guaranteed for row in sweep(network, x, labels, grid(points, ["all"]))]
        assert along == sorted(along) and along[0] < along[-1]
    rows = list(sweep(network, x, labels, grid(by_bits([8]))))
    largest = [(r.part, r.input, r.weight, r.bias, r.activation) for r in rows]
    assert largest[0] == ("input", 2**-8, 0, 0, 0) and largest[5] == ("weight+activation", 0, 2**-7, 2**-7, 2**-7)
    assert largest[6] == ("all", 2**-8, 2**-7, 2**-7, 2**-7) and {r.bits for r in rows} == {8}


def test_a_stopped_sweep_makes_no_row_of_a_point_that_was_cut_off(rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 5, 8, 6, 3)
    x, labels = right(network, rng)
    stop = threading.Event()
    seen = []

    def tell(verdict: Verdict) -> None:
        seen.append(verdict)
        if len(seen) == 50:  # in the middle of the second point
            stop.set()

    options = Options(method="exact", jobs=1)
    rows = list(sweep(network, x, labels, grid(by_value(VALUES), ["all"]), options, tell, stop))
    assert [row.value for row in rows] == [0.0] and 50 <= len(seen) < 80
    assert list(sweep(network, x, labels, grid(by_value(VALUES)), stop=stop)) == []


def test_parts_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match=r"no part 'weight\+input'; the parts are input, weight, activation, input\+w"):
        grid(by_value([0.1]), ["all", "weight+input"])


# --- on disk ---

AWKWARD = SweepRow(
    model='a, "b"',
    part="all",
    bits=None,
    value=0.1 + 0.2,
    input=1e-300,
    weight=1 / 3,
    bias=2.0**-52,
    activation=0.0,
    method="ibp",
    samples=9,
    clean=8,
    guaranteed=7,
    attack=None,
    unknown=1,
    seconds=0.123,
)
BITS = SweepRow(
    model="m",
    part="input",
    bits=8,
    value=None,
    input=2.0**-8,
    weight=0.0,
    bias=0.0,
    activation=0.0,
    method="auto",
    samples=9,
    clean=8,
    guaranteed=7,
    attack=8,
    unknown=1,
    seconds=12.0,
)


def started(path: Path, resume: bool = True, **question: Any) -> SweepDirectory:
    return starts.sweep(path, resume, **question)


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    with started(tmp_path, resume=False) as kept:
        for row in (AWKWARD, BITS):
            kept.add(row)
            assert (tmp_path / ROWS).read_text() == sweep_csv(kept.rows.values(), header=True)
    with started(tmp_path) as kept:
        assert list(kept.rows.values()) == [AWKWARD, BITS]
    assert len(json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 2


@pytest.mark.slow
def test_what_is_torn_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    header = sweep_csv([], header=True)
    content = header + sweep_csv([AWKWARD, BITS])
    for length in range(len(content)):
        with started(tmp_path / "run") as kept:
            pass
        (tmp_path / "run" / ROWS).write_bytes(content[:length].encode())
        with started(tmp_path / "run") as kept:
            whole = max(0, content[:length].count("\n") - 1)
            assert list(kept.rows.values()) == [AWKWARD, BITS][:whole]
            assert (tmp_path / "run" / ROWS).read_text() == header + sweep_csv([AWKWARD, BITS][:whole])


def test_directories_that_are_refused(tmp_path: Path) -> None:
    with started(tmp_path, data="d") as kept:
        kept.add(AWKWARD)
        with pytest.raises(OutputError, match="Another process is writing to"):
            started(tmp_path, data="d")
    with pytest.raises(UsageError, match="holds a run already; add --resume to go on with it, or name another --out"):
        started(tmp_path, resume=False, data="d")
    with pytest.raises(UsageError, match=r'asked something else \(data was "d" and is "e" now\)'):
        started(tmp_path, data="e")
    before = (tmp_path / ROWS).read_text()
    (tmp_path / ROWS).write_text(before + "what is this,,,\n" + sweep_csv([BITS]))
    with pytest.raises(DataError, match=r"Line 3 of .*sweep\.csv is damaged; delete that line, then use --resume"):
        started(tmp_path, data="d")
    (tmp_path / ROWS).write_text("a,b,c\n1,2,3\n")
    with pytest.raises(DataError, match="does not begin with the columns of a sweep"):
        started(tmp_path, data="d")


# --- pictures ---


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_a_curve_a_part_and_a_panel_a_model(tmp_path: Path, count: int) -> None:
    points = [(model, part, v) for model in range(count) for part in PARTS for v in (0.0, 0.01, 0.02)]
    rows = [
        SweepRow(
            model=f"m{model}",
            part=part,
            bits=None,
            value=v,
            input=v,
            weight=v,
            bias=v,
            activation=v,
            method="ibp",
            samples=50,
            clean=40,
            guaranteed=int(30 - 1000 * v),
            attack=None,
            unknown=0,
            seconds=0.0,
        )
        for model, part, v in points
    ]
    figure = plots.sweep_figure(rows, "what it shows")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [f"m{model}" for model in range(count)]
    for axes in panels:
        curves = {line.get_label(): line for line in axes.get_lines()}
        assert list(curves) == [*PARTS, "clean"]
        np.testing.assert_allclose(curves["weight"].get_ydata(), [60, 40, 20])  # type: ignore[arg-type]
        np.testing.assert_allclose(curves["weight"].get_xdata(), [0, 0.01, 0.02])  # type: ignore[arg-type]
        assert curves["clean"].get_ydata()[0] == 80  # type: ignore[index]
    png, svg = plots.save_figure(figure, tmp_path / "plot")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size < 100_000
    assert "what it shows" in svg.read_text() and "radius (half-width)" in svg.read_text()
    first = png.read_bytes(), svg.read_bytes()
    plots.save_figure(plots.sweep_figure(rows, "what it shows"), tmp_path / "plot")
    assert (png.read_bytes(), svg.read_bytes()) == first


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"plot\.png cannot be written"):
        plots.save_figure(plots.sweep_figure([BITS], ""), tmp_path / "none" / "plot")


def test_the_shipped_networks_differ_as_they_should() -> None:
    """Robust training shows in the curve of everything quantised."""
    samples = datasets.load("digits")
    rows = [
        next(sweep(onnx_io.load(MODELS / f"{name}.onnx"), samples.x, samples.y, grid(by_value([0.01]), ["all"])))
        for name in ("digits", "digits_normal")
    ]
    assert rows[0].guaranteed > 500 and rows[1].guaranteed < 50
