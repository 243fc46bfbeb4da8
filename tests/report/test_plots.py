"""Pictures of sweeps and factors: whatever is asked for and however files are called, nothing is cut or lost."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from qverify import datasets
from qverify.analysis.grid import Bracket
from qverify.analysis.sweeps import PARTS, SweepRow
from qverify.report import plots
from tests.support.commands import qverify
from tests.support.marks import mostly_slow
from tests.support.paths import DIGITS

LONG = "mnist_4x256_robust_8bit_kappa_0.5_seed_42_retrained_with_augmentation"
ODD = [
    "a$b$c",
    "cost$5_{x",
    "$\\frac{",
    "a_b^c\\d{e}",
    "$$",
    "a\nb",
    "\t\x1b[31m",
    "\u6a21\u578b",
    "net\U0001f600",
    "\udcff",
    "%d&<b>",
]
TITLE = "599 samples of digits, by auto; radius (half-width): the same number for every quantised kind"


def rows(
    models: Any, parts: Any, places: Any, guaranteed: int = 30, clean: int = 48, bits: bool = False
) -> list[SweepRow]:
    return [
        SweepRow(
            model=m,
            part=p,
            bits=v if bits else None,
            value=None if bits else v,
            input=v,
            weight=v,
            bias=v,
            activation=v,
            method="ibp",
            samples=50,
            clean=clean,
            guaranteed=guaranteed,
            attack=None,
            unknown=0,
            seconds=0.0,
        )
        for m, p, v in itertools.product(models, parts, places)
    ]


def brackets(*factors: float | None) -> list[Bracket]:
    return [
        Bracket(
            index=i,
            label=0,
            predicted=0,
            lower=f,
            upper=f and 1.1 * f,
            proved_by="bp",
            broken_by="attack",
            detail="",
            seconds=0.0,
        )
        for i, f in enumerate(factors)
    ]


def inches(figure: Any) -> tuple[Any, dict[str, Any]]:
    """The figure's size, and the box of every text that is drawn by its words and a number; in inches."""
    canvas, drawn, draw = FigureCanvasAgg(figure), {}, Text.draw

    def watched(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn[id(self)] = self
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that matter come when the picture is made and saved
        patched.setattr(Text, "draw", watched)
        canvas.draw()  # type: ignore[no-untyped-call]
    scale = figure.dpi_scale_trans.inverted()
    found = {f"{n}: {text.get_text()}": text for n, text in enumerate(drawn.values())}
    boxes = {n: t.get_window_extent(canvas.get_renderer()).transformed(scale) for n, t in found.items()}  # type: ignore[no-untyped-call]
    return figure.bbox_inches, boxes


def check(figure: Any, least: float = 2.0) -> None:
    """Every text is whole, on none of the panels and on no other text; panels have room, and about half of it all."""
    size, boxes = inches(figure)
    panels = [axes.get_window_extent().transformed(figure.dpi_scale_trans.inverted()) for axes in figure.axes]
    assert len(panels) > 0 and all(box.width >= 1.5 * least and box.height >= least for box in panels)
    assert sum(box.width * box.height for box in panels) >= 0.35 * size.width * size.height * len(panels) / 9
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= size.width and box.y1 <= size.height, f"{name!r} is cut"
        for panel in panels:
            assert not overlap(box, panel), f"{name!r} lies on a panel"
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not overlap(a, b), f"{one!r} lies on {other!r}"


def overlap(a: Any, b: Any) -> bool:
    hair = 0.01
    return bool(a.x0 < b.x1 - hair and b.x0 < a.x1 - hair and a.y0 < b.y1 - hair and b.y0 < a.y1 - hair)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


RADII = (0.0, 0.01, 0.02, 0.03)
SWEEPS: dict[str, list[SweepRow]] = {
    **{f"{n} parts": rows(["m"], list(PARTS)[:n], RADII) for n in (1, 2, 3, 6)},
    **{f"all of {n}": rows([f"m{k}" for k in range(n)], ["all"], RADII) for n in range(1, 8)},
    **{f"7 parts of {n}": rows([f"m{k}" for k in range(n)], PARTS, RADII) for n in (1, 2, 3, 4, 5, 7)},
    "long names": rows([f"{LONG}_{k}" for k in range(3)], PARTS, RADII),
    "one long name": rows([LONG * 5], ["all"], RADII),
    "no spaces": rows(["W" * 255, "i" * 255], ["all"], RADII),
    "all bits": rows("mn", PARTS, range(1, 33), bits=True),
    "a bit-width": rows("m", ["all"], [8], bits=True),
    "two bit-widths": rows("m", ["all"], [4, 32], bits=True),
    "decades": rows("mn", PARTS, (0.0, 1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1)),
    "decades without 0": rows("mno", ["input"], (1e-9, 1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1, 10.0)),
    "hundreds of decades": rows("m", ["all"], (1e-300, 1.0, 1e300)),
    "fifty": rows("m", ["all"], (0.0, 0.02, 1.0)),
    "many digits": rows("mno", ["all"], (0.12345, 0.1234567, 0.12345678)),
    "tiny": rows("mno", ["all"], (0.0, 1.25e-12, 2.5e-12)),
    "nothing proved": rows("m", PARTS, RADII, guaranteed=0),
    "nothing right": rows("m", PARTS, RADII, guaranteed=0, clean=0),
    "everything": rows("m", PARTS, RADII, guaranteed=50, clean=50),
    "a point": rows("m", ["all"], [0.01]),
    "a point at 0": rows("m", ["all"], [0.0]),
    "0 and a point": rows("m", ["all"], [0.0, 0.01]),
    "parts that differ": [*rows("m", ["input"], RADII), *rows("n", ["weight"], [0.5])],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_nothing_is_cut_in_a_sweep(name: str, tmp_path: Path) -> None:
    figure = plots.sweep_figure(SWEEPS[name], TITLE)
    check(figure)
    drawn = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
    (legend,) = figure.legends
    assert drawn - {"clean"} == {row.part for row in SWEEPS[name]}
    assert {text.get_text() for text in legend.get_texts()} >= {"clean", SWEEPS[name][0].part}
    assert all(path.stat().st_size > 1000 for path in plots.save_figure(figure, tmp_path / "plot"))
    below = [axes for axes in figure.axes if any(label.get_visible() for label in axes.get_xticklabels())]
    assert {round(axes.get_position().x0, 3) for axes in below} == {round(a.get_position().x0, 3) for a in figure.axes}


@pytest.mark.parametrize(
    "title", mostly_slow([LONG * 10, "a\nb", "", "word " * 200, f"599 samples of {LONG}.npz, by auto; bits"], 2)
)
def test_titles_are_whole(title: str) -> None:
    for models in (["m"], ["m", "n", "o"]):
        check(plots.sweep_figure(rows(models, ["all"], RADII), title))
    check(plots.factor_figure(brackets(0.5, 1.5), title, 16.0))


def test_a_title_that_fits_stays_one_line() -> None:
    figure = plots.sweep_figure(rows("mn", ["all"], RADII), TITLE)
    assert figure.get_suptitle() == TITLE
    shown = plots.sweep_figure(rows(["m"], ["all"], RADII), f"{LONG} {LONG}").get_suptitle()
    assert shown == f"{LONG}\n{LONG}"


FACTORS: dict[str, tuple[list[Bracket], float]] = {
    "usual": (brackets(*np.geomspace(0.1, 4, 300), None, 0.0), 16.0),
    "one": (brackets(1.0), 16.0),
    "close": (brackets(1.0, 1.001), 16.0),
    "none": (brackets(None, None), 16.0),
    "far apart": (brackets(1e-9, 1.0, 1e9), 1e9),
    "above 1": (brackets(3.0, 5.0), 16.0),
    "at the end": (
        [
            Bracket(
                index=0,
                label=0,
                predicted=0,
                lower=16.0,
                upper=None,
                proved_by="bp",
                broken_by="",
                detail="",
                seconds=0.0,
            )
        ],
        16.0,
    ),
    "many": (brackets(*[2.0] * 10_000), 16.0),
}


@pytest.mark.parametrize("name", FACTORS)
def test_nothing_is_cut_in_a_histogram(name: str, tmp_path: Path) -> None:
    figure = plots.factor_figure(FACTORS[name][0], f"{LONG}.onnx, 599 samples, by auto;\n1 is 6 bits", FACTORS[name][1])
    check(figure)
    assert all(path.stat().st_size > 1000 for path in plots.save_figure(figure, tmp_path / "plot"))


@pytest.mark.parametrize("odd", mostly_slow(ODD, 3), ids=ascii)
def test_names_are_text_and_nothing_else(odd: str, tmp_path: Path) -> None:
    """Neither formulas nor line breaks; what a font lacks is a box, and the SVG has the letter itself."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in odd)
    figure = plots.sweep_figure(rows([odd, odd + "2"], ["all"], RADII), f"3 samples of {odd}.npz")
    assert [axes.get_title() for axes in figure.axes] == [plain, plain + "2"]
    check(figure)
    _, svg = plots.save_figure(figure, tmp_path / "sweep")
    assert unescape(svg.read_text(encoding="utf-8")).count(plain) >= 3 - ("\n" in odd)
    figure = plots.factor_figure(brackets(1.0), f"{plain}\n1 is radii file {plain}", 16.0)
    check(figure)
    _, svg = plots.save_figure(figure, tmp_path / "radius")
    assert unescape(svg.read_text(encoding="utf-8")).count(plain) == 2


def test_models_of_one_name_are_told_apart_without_their_folders() -> None:
    figure = plots.sweep_figure(rows(["/home/me/a/net.onnx", "/home/me/b/net.onnx"], ["all"], RADII), "")
    assert [axes.get_title() for axes in figure.axes] == ["a/net.onnx", "b/net.onnx"]


def test_settings_of_the_user_do_not_matter(tmp_path: Path) -> None:
    def drawn(stem: str) -> list[bytes]:
        figures = plots.sweep_figure(rows("m", PARTS, RADII), "a_b"), plots.factor_figure(brackets(1.0), "a_b", 2.0)
        made = [path for n, figure in enumerate(figures) for path in plots.save_figure(figure, tmp_path / f"{stem}{n}")]
        return [path.read_bytes() for path in made]

    before = drawn("a")
    own = {
        "text.usetex": True,
        "figure.dpi": 31,
        "font.size": 30,
        "figure.constrained_layout.use": True,
        "axes.linewidth": 9,
    }
    with matplotlib.rc_context(own):  # type: ignore[arg-type]
        assert drawn("b") == before
        assert matplotlib.rcParams["figure.dpi"] == 31


# --- on the command line ---


SWEEP = ("--values", "0,0.01,0.02", "--parts", "input,weight", "--method", "ibp", "--samples", "0:40")
RADIUS = ("--method", "ibp", "--samples", "0:20", "--precision", "0.2")


@pytest.mark.parametrize("name", ["a$b$c_{x^2", "$", "\u6a21\u578b", "a\nb"], ids=ascii)
def test_files_of_any_name_are_drawn(name: str, tmp_path: Path) -> None:
    model, data, radii = (tmp_path / f"{name}.{kind}" for kind in ("onnx", "npz", "toml"))
    shutil.copy(DIGITS, model)
    shutil.copy(datasets.samples._DIGITS, data)
    radii.write_text("input = 0.01\nweight = 0.01\n")
    commands = {"sweep": SWEEP, "radius": (*RADIUS, "--radii", radii)}
    for command, given in commands.items():
        out = tmp_path / command
        result = qverify(command, model, "--data", data, *given, "--out", out)
        assert result.exit_code == 0 and "arning" not in result.stderr and "missing" not in result.stderr
        assert f"{command}.png and {command}.svg show them" in result.stdout
        assert (out / f"{command}.png").stat().st_size > 5000
        svg = unescape((out / f"{command}.svg").read_text(encoding="utf-8"))
        assert name.replace("\n", "\ufffd") in svg and str(tmp_path) not in svg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "given", "table"), [("sweep", SWEEP, "sweep.csv"), ("radius", (*RADIUS, "--bits", 6), "factors.csv")]
)
def test_a_picture_that_cannot_be_drawn_costs_nothing_else(
    command: str, given: tuple[Any, ...], table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (command, DIGITS, "--data", "digits", *given, "--out", tmp_path)
    whole = qverify(*asked)
    rows_kept = (tmp_path / table).read_text()
    assert whole.exit_code == 0 and (tmp_path / f"{command}.png").is_file()

    def broken(*_: Any) -> Any:
        raise ValueError("no\nsuch figure")

    with monkeypatch.context() as patched:
        patched.setattr(plots, f"{'sweep' if command == 'sweep' else 'factor'}_figure", broken)
        result = qverify(*asked, "--resume")
    assert result.exit_code == 0 and (tmp_path / table).read_text() == rows_kept
    said = f"qverify: the picture {command}.png is missing (no); the rows are kept, and --resume draws them again.\n"
    assert result.stderr.count(said) == 1 and "show them" not in result.stdout
    assert not list(tmp_path.glob(f"{command}.png*")) and not list(tmp_path.glob(f"{command}.svg*"))
    (tmp_path / f"{command}.png").mkdir()  # no file can have this name now
    result = qverify(*asked, "--resume", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["interrupted"] is False
    assert f"{command}.png is missing (" in result.stderr and str(tmp_path / f"{command}.png") in result.stderr
    (tmp_path / f"{command}.png").rmdir()
    assert "show them" in qverify(*asked, "--resume").stdout
