"""results/scale.py on the small digits network: what it writes is what the runs say, and it sees what is wrong."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qverify.verification.row import Row, Status
from tests.support.batches import linux
from tests.support.commands import read_rows
from tests.support.paths import DIGITS, RESULTS

pytestmark = linux


def scale(folder: Path, *more: Any, published: str = "none") -> subprocess.CompletedProcess[str]:
    (folder / "models").mkdir(exist_ok=True)
    shutil.copy(DIGITS, folder / "models" / "mnist_4x256_robust_8bit.onnx")
    command = [sys.executable, str(RESULTS / "scale.py"), "--models", str(folder / "models")]
    command += ["--out", str(folder / "out"), "--data", "digits", *map(str, more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "QVERIFY_PUBLISHED": str(folder / published)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def written(folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    """The values of data.csv by part and quantity, and the page."""
    values: dict[str, dict[str, str]] = {}
    with (folder / "out" / "scale" / "data.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            values.setdefault(line["part"], {})[line["quantity"]] = line["value"]
    return values, (folder / "out" / "scale" / "README.md").read_text()


@pytest.mark.slow
def test_speed_and_kills_are_what_the_runs_say(tmp_path: Path) -> None:
    found = scale(tmp_path, "--samples", 40, "--only", "speed", "--only", "kills", "--kills", 1)
    assert found.returncode == 0 and found.stdout == "", found.stderr
    values, page = written(tmp_path)
    assert set(values) == {"speed", "kills"}
    (run,) = (tmp_path / "out" / "runs").glob("scale-*/mnist_4x256_robust_8bit--jobs-2/out")
    rows = read_rows(run)
    name = "models.mnist_4x256_robust_8bit"
    for status in ("verified", "falsified", "unknown", "misclassified"):
        count = sum(row["status"] == status for row in rows)
        assert values["speed"][f"{name}.jobs.1.{status}"] == values["speed"][f"{name}.jobs.2.{status}"] == str(count)
    for stage in {row["method"] for row in rows}:
        seconds = sum(row["seconds"] for row in rows if row["method"] == stage)
        assert float(values["speed"][f"{name}.jobs.2.stages.{stage}.seconds"]) == pytest.approx(seconds, abs=1e-5)
    one, two = (float(values["speed"][f"{name}.jobs.{jobs}.seconds"]) for jobs in (1, 2))
    assert f"{two:.1f} s with 2 jobs, {one:.1f} s with 1, {one / two:.2f} times as fast" in page
    assert "all 40 rows are the same" in page and "the same rows after 1 kill | 1 kill, 0 of 1 run with" in page
    assert page.count("Not measured yet.") == 2 and str(tmp_path) not in page and "$" not in page
    assert "`published_robust_4x256_8bit` was not at hand" in page and "not judged" in page
    assert "python results/scale.py --data digits --samples 40 --seed 0 --kills 1\n" in page


@pytest.mark.slow
def test_refusals(tmp_path: Path) -> None:
    for given, wording in (
        (("--samples", 0), "--samples takes a number of at least 1."),
        (("--models", tmp_path), "has no mnist_4x256_robust_8bit.onnx; train it first."),
    ):
        found = scale(tmp_path, *given)
        assert found.returncode == 2 and wording in found.stderr and "Traceback" not in found.stderr


# --- what is wrong is seen ---


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(RESULTS))
    import scale_browser
    import scale_runs

    return scale_runs, scale_browser


def row(index: int, status: str = "verified", **more: Any) -> Row:
    fields: dict[str, Any] = {"method": "ibp", "seconds": 1.0, "margin_lower": None, "margin_upper": None} | more
    return Row(index=index, label=0, predicted=0, status=Status(status), key=f"k{index}", **fields)


def test_rows_that_differ_are_counted(modules: tuple[ModuleType, ModuleType]) -> None:
    runs, _ = modules
    expected = [row(0), row(1), row(2), row(3)]
    assert runs.same(runs.differences([row(3, seconds=9.0), *expected[:3]], expected))
    found = runs.differences([row(0), row(0), row(1, margin_lower=0.1), row(3), row(7)], expected)
    assert found == {"rows": 5, "missing": 1, "duplicates": 1, "added": 1, "different": 1}
    for wrong in (expected[1:], [*expected, row(0)], [*expected, row(4)], [row(0, status="unknown"), *expected[1:]]):
        assert not runs.same(runs.differences(wrong, expected))
    assert runs.other_verdicts([row(0), row(1, status="falsified"), row(2)], expected) == 2


def test_the_rest_of_a_run_bounds_unfinished_chunks_again(modules: tuple[ModuleType, ModuleType]) -> None:
    runs, _ = modules
    rows = [row(0), row(1, method="exact", seconds=5.0), row(64), row(65, method="exact", seconds=7.0)]
    rest = runs.Rest(runs.ScaleRun(Path(), rows, 10.0, 0.0), 2, 64)
    assert rest.seconds([]) == 10.0
    assert rest.seconds(rows[:2]) == 3.0 + 8.0 / 2
    assert rest.seconds(rows[:3]) == 3.0 + 8.0 / 2
    assert rest.seconds(rows) == 3.0


def test_cells_that_differ_from_the_csv_are_named(modules: tuple[ModuleType, ModuleType]) -> None:
    _, browser = modules
    accuracies = {"clean": 2, "ibp": 0, "bp": 1, "guaranteed": 2, "attack": 3}
    shares = ["66.66 %", "0.00 %", "33.33 %", "66.66 %", "100.00 %"]
    record = {"model": "net", "bits": "8", "samples": "3", "unknown": "0", "seconds": "1.234567"}
    record |= {name: str(count) for name, count in accuracies.items()}
    record |= {f"{name}_accuracy": str(count / 3) for name, count in accuracies.items()}
    table = f"{','.join(record)}\n{','.join(record.values())}\n"
    heads = ["model", "radii", "samples", "clean", "IBP", "BP", "guaranteed", "attack", "unknown", "seconds"]
    counted = [f"{share} {count}" for share, count in zip(shares, accuracies.values(), strict=True)]
    cells = ["net", "8 bits", "3", *counted, "0", "1.23"]

    def shown(*lines: list[str]) -> Any:
        text = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
        return browser.Shown(f"<table><tr><td>x</td></tr></table><table id='summary'>{text}</table>")

    assert browser.compared(shown(heads, cells), table) == (10, [])
    _, wrong = browser.compared(shown(heads, [*cells[:-1], "1.24"]), table)
    assert wrong == ["line 1, seconds: '1.24' instead of '1.23'"]
    for lines in ([heads], [heads, cells, cells], [heads[1:], cells[1:]], [[*heads, "more"], [*cells, "1"]], []):
        assert browser.compared(shown(*lines), table)[1]


# --- everything at once ---


@pytest.mark.slow
def test_all_parts(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    shutil.copy(DIGITS, tmp_path / "theirs" / "published_robust_4x256_8bit.onnx")
    found = scale(tmp_path, "--samples", 300, "--kills", 2, published="theirs")
    assert found.returncode == 0, found.stderr
    values, page = written(tmp_path)
    assert set(values) == {"speed", "kills", "dask", "page"} and "**" not in page and "not at hand" not in page
    if "absent" not in values["dask"]:
        assert page.count("all 300 rows are the same") >= 3 and 0 < int(values["dask"]["kill.rows"]) < 300
    if "absent" not in values["page"]:
        assert values["page"]["cells"] == "10" and "All are as the CSV says" in page
    again = scale(tmp_path, "--samples", 300, "--kills", 2, "--only", "page", published="theirs")
    assert again.returncode == 0 and "part speed" not in again.stderr
    values, page = written(tmp_path)
    assert set(values) == {"speed", "kills", "dask", "page"} and "Not measured yet." not in page
