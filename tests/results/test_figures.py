"""The figures of results/ on the small digits networks: what is written follows from rows that `verify` confirms."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import answer
from tests.support.paths import DIGITS, RESULTS

SCRIPT = RESULTS / "figures.py"
NORMAL = Path(DIGITS).with_name("digits_normal.onnx")
OURS: dict[str, Any] = {
    "mnist_4x256_normal": NORMAL,
    "mnist_3x64_normal": NORMAL,
    "mnist_4x256_robust_6bit": DIGITS,
    "mnist_4x256_robust_8bit": DIGITS,
    "mnist_4x256_robust_10bit": DIGITS,
    "mnist_conv_robust_8bit": DIGITS,
}


def figures(folder: Path, *more: Any, published: str = "none") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--models", str(folder / "models"), "--out", str(folder / "out")]
    command += ["--data", "digits", "--samples", "40", *map(str, more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "QVERIFY_PUBLISHED": str(folder / published)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def models(folder: Path) -> None:
    (folder / "models").mkdir()
    for name, source in OURS.items():
        shutil.copy(source, folder / "models" / f"{name}.onnx")


def rows(folder: Path, figure: str) -> list[dict[str, str]]:
    with (folder / "out" / figure / "data.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("figures")
    models(folder)
    found = figures(folder)
    assert found.returncode == 0 and found.stdout == "", found.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "plot"),
    [("figure1_radius", "radius"), ("figure2_normal_robust", "normal_robust"), ("figure3_methods", "methods")],
)
def test_every_figure_has_data_plots_and_a_page(made: Path, figure: str, plot: str) -> None:
    folder = made / "out" / figure
    assert {p.name for p in folder.iterdir()} == {"README.md", "data.csv", f"{plot}.png", f"{plot}.svg"}
    assert (folder / f"{plot}.png").stat().st_size < 100_000
    page = (folder / "README.md").read_text()
    assert "$" not in page.replace("$QVERIFY_PUBLISHED", "") and str(made) not in page
    assert "The published networks were not at hand" in page and "The first 40 test images of `digits`." in page
    assert f"python results/figures.py --only {figure[6]} --data digits --samples 40\n" in page
    assert f"![{page.splitlines()[0][2:]}]({plot}.svg)" in page


@pytest.mark.slow
def test_rows_are_what_verify_says(made: Path) -> None:
    found = rows(made, "figure2_normal_robust") + rows(made, "figure3_methods")
    assert len(found) == 18 + 24
    for row in found[::5]:
        given = ("--bits", row["bits"], "--scheme", row["scheme"], "--rounding", row["rounding"])
        expected = answer(
            "verify", OURS[row["model"]], "--data", "digits", "--samples", "0:40", *given, "--method", row["method"]
        )
        assert int(row["guaranteed"]) == expected["verified"] and int(row["clean"]) == 40 - expected["misclassified"]
        if row["attack"]:
            assert int(row["attack"]) == expected["verified"] + expected["unknown"]


@pytest.mark.slow
def test_pages_say_what_the_rows_say(made: Path) -> None:
    found = {
        (r["model"], r["bits"], r["scheme"], r["method"]): r
        for r in rows(made, "figure2_normal_robust") + rows(made, "figure3_methods")
    }

    def percent(*key: Any) -> str:
        return f"{int(found[key]['guaranteed']) / 0.4:.2f} %"

    page = (made / "out" / "figure2_normal_robust" / "README.md").read_text()
    for bits in ("6", "8", "10"):
        for scheme, rounding in (("paper", "any"), ("channel", "nearest")):
            robust = percent(f"mnist_4x256_robust_{bits}bit", bits, scheme, "auto")
            normal = percent("mnist_4x256_normal", bits, scheme, "auto")
            sentence = f"{bits} bits, scheme {scheme}, rounding {rounding}: {robust} guaranteed for the robust network"
            assert f"{sentence}, {normal} for the normal one" in page
    page = (made / "out" / "figure3_methods" / "README.md").read_text()
    cells = [percent("mnist_conv_robust_8bit", "8", "channel", method) for method in ("ibp", "bp", "auto")]
    clean = int(found["mnist_conv_robust_8bit", "8", "channel", "ibp"]["clean"]) / 0.4
    assert f"| `mnist_conv_robust_8bit` | 8 | {clean:.2f} % | {' | '.join(cells)} | 0 |" in page


@pytest.mark.slow
def test_the_radius_table_is_right(made: Path) -> None:
    found = [r for r in rows(made, "figure1_radius") if r["model"] == "mnist_4x256_normal" and r["part"] == "all"]
    kept = max(float(r["value"]) for r in found if int(r["guaranteed"]) >= 0.9 * int(r["clean"]))
    page = (made / "out" / "figure1_radius" / "README.md").read_text()
    assert re.search(rf"^\| `mnist_4x256_normal` \|.*\| {kept:g} \|$", page, re.MULTILINE)


@pytest.mark.slow
def test_nothing_is_computed_twice(made: Path) -> None:
    before = {p: p.read_bytes() for p in (made / "out" / "runs").glob("*/s*.[jc]s*[lv]")}
    pages = {p: p.read_bytes() for p in (made / "out").glob("figure*/*")}
    assert len(before) > 30 and len(pages) == 12
    again = figures(made)
    assert again.returncode == 0 and "196 points are done already; 0 are left" in again.stderr
    assert again.stderr.count("40 samples are decided already; 0 are left") == 18 + 24
    assert {p: p.read_bytes() for p in before} == before and {p: p.read_bytes() for p in pages} == pages


@pytest.mark.slow
def test_more_time_goes_on_with_what_is_there_and_less_changes_nothing(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    found = figures(tmp_path / "copy", "--only", 2, "--timeout", 121, "--timeout-normal", 3)
    assert found.returncode == 0 and found.stderr.count("40 samples are decided already; 0 are left") == 18
    limits = {r["model"]: r["timeout"] for r in rows(tmp_path / "copy", "figure2_normal_robust")}
    assert limits["mnist_4x256_robust_8bit"] == "121.0" and limits["mnist_4x256_normal"] == "5.0"
    for seconds in ("inf", 2):
        found = figures(tmp_path / "copy", "--only", 2, "--timeout", seconds)
        assert found.returncode == 0, found.stderr
        limits = {r["model"]: r["timeout"] for r in rows(tmp_path / "copy", "figure2_normal_robust")}
        assert limits["mnist_4x256_robust_8bit"] == "inf" and limits["mnist_4x256_normal"] == "5.0"


@pytest.mark.slow
def test_published_networks_are_shown_beside_ours(tmp_path: Path) -> None:
    models(tmp_path)
    (tmp_path / "theirs").mkdir()
    shutil.copy(DIGITS, tmp_path / "theirs" / "published_robust_4x256_8bit.onnx")
    found = figures(tmp_path, "--only", 3, "--samples", 5, published="theirs")
    assert found.returncode == 0, found.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"runs", "figure3_methods"}
    shown = [r["model"] for r in rows(tmp_path, "figure3_methods")]
    assert shown.count("published_robust_4x256_8bit") == 6 and "published_robust_4x256_10bit" not in shown
    page = (tmp_path / "out" / "figure3_methods" / "README.md").read_text()
    assert "Networks called `published` are ONNX conversions" in page and "not at hand" not in page


@pytest.mark.slow
def test_a_network_trained_anew_begins_anew(tmp_path: Path) -> None:
    models(tmp_path)
    few = ("--only", 3, "--samples", 5)
    assert figures(tmp_path, *few).returncode == 0
    shutil.copy(NORMAL, tmp_path / "models" / "mnist_4x256_robust_8bit.onnx")
    found = figures(tmp_path, *few)
    assert found.returncode == 0 and found.stderr.count("5 samples are decided already") == 18


@pytest.mark.slow
def test_refusals(tmp_path: Path) -> None:
    models(tmp_path)
    (tmp_path / "models" / "mnist_conv_robust_8bit.onnx").unlink()
    for given, wording in (
        (("--only", 3), "has no mnist_conv_robust_8bit.onnx; train it first."),
        (("--only", 1, "--samples", 0), "--samples takes a number of at least 1."),
        (("--only", 1, "--data", "digitz"), "There is no data set or file 'digitz'"),
    ):
        found = figures(tmp_path, *given)
        assert found.returncode == 2 and wording in found.stderr and "Traceback" not in found.stderr
