"""The files of a run are found again from any folder and after moves, and no report says where they lie."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.files.names import file_name, short_names, without_folders
from qverify.onnx import reader as onnx_io
from tests.support.commands import qverify
from tests.support.networks import mlp
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import question, row, write_batch, write_run

FORMS = ("markdown", "csv", "latex", "html")

pytestmark = pytest.mark.slow
"""Each asks in processes of its own."""


def done(*arguments: Any) -> str:
    result = qverify(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def reported(run: Any, out: Path) -> str:
    """The page as text, and with it the CSV that it offers."""
    done("report", run, "--format", "html", "--out", out)
    page = unescape(out.read_text(encoding="utf-8"))
    (packed,) = re.findall(r"base64,([\w+/=]+)\">The same as CSV", page)
    return page + base64.b64decode(packed).decode()


def whole(page: str) -> bool:
    """Whether model, data and radii were found: layers are counted, and pictures shown."""
    return "the mean over 30 samples" in page and 'alt="sample ' in page and "Not counted" not in page


def nameless(page: str, *folders: Any) -> None:
    for folder in (*folders, Path.home(), Path.cwd()):
        assert f"{folder}/" not in page and f"{folder}\n" not in page
    assert not re.search(r"(?<![\w<.])/(tmp|home|root|usr|private)/", page)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, data and radii of its own; and the run `runs/one` of them, started there."""
    folder = tmp_path / "first" / "project"
    for name in ("models", "data", "runs"):
        (folder / name).mkdir(parents=True)
    shutil.copy(DIGITS, folder / "models" / "net.onnx")
    shutil.copy(datasets.samples._DIGITS, folder / "data" / "images.npz")
    (folder / "data" / "radii.toml").write_text("input = 0.03\nweight = 0.03\nbias = 0.03\nactivation = 0.03\n")
    monkeypatch.chdir(folder)
    given = ("models/net.onnx", "--data", "data/images.npz", "--radii", "data/radii.toml", "--samples", "20:50")
    done("verify", *given, "--out", "runs/one")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_a_run_is_reported_from_another_folder(project: Path, tmp_path: Path) -> None:
    page = reported(project / "runs" / "one", tmp_path / "page.html")
    assert whole(page)
    nameless(page, tmp_path, "data", "models")


def test_a_run_is_reported_after_it_was_moved_with_its_files(project: Path, tmp_path: Path) -> None:
    project.parent.rename(tmp_path / "second")
    page = reported("../second/project/runs/one", tmp_path / "page.html")
    assert whole(page)
    nameless(page, tmp_path)


def test_a_run_is_reported_after_it_was_moved_alone(project: Path, tmp_path: Path) -> None:
    (project / "runs" / "one").rename(tmp_path / "elsewhere" / "one")
    assert whole(reported("one", tmp_path / "page.html"))


def test_a_run_is_reported_through_a_link(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "linked").symlink_to(project / "runs" / "one")
    project.parent.rename(tmp_path / "second")
    (tmp_path / "elsewhere" / "linked").unlink()
    (tmp_path / "elsewhere" / "linked").symlink_to(tmp_path / "second" / "project" / "runs" / "one")
    assert whole(reported("linked", tmp_path / "page.html"))


def test_the_hash_decides_which_file_is_meant(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved alone, beside files of the same names that are others; and what was given is tried before the root."""
    other = tmp_path / "second"
    shutil.copytree(project, other)
    (other / "models" / "net.onnx").write_bytes((other / "models" / "net.onnx").read_bytes() + b"\x00")
    (other / "data" / "radii.toml").write_text("input = 0.5\n")
    assert whole(reported(other / "runs" / "one", tmp_path / "page.html"))
    project.rename(tmp_path / "gone")
    page = reported(other / "runs" / "one", tmp_path / "page.html")
    assert "Not counted: net.onnx has changed since the run." in page and 'alt="sample ' in page
    monkeypatch.chdir(tmp_path / "gone")
    assert whole(reported(other / "runs" / "one", tmp_path / "page.html"))


def test_what_is_nowhere_is_named_without_its_folder(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / "data")
    page = reported(project / "runs" / "one", tmp_path / "page.html")
    assert "No pictures: images.npz is not there." in page and "Not counted: images.npz is not there." in page
    nameless(page, tmp_path)


def test_runs_of_older_versions_are_looked_for_as_given(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((project / "runs" / "one" / "run.json").read_text())
    del record["places"]
    (project / "runs" / "one" / "run.json").write_text(json.dumps(record))
    page = reported(project / "runs" / "one", tmp_path / "page.html")
    assert "Not counted: net.onnx is not there." in page
    monkeypatch.chdir(project)
    assert whole(reported("runs/one", tmp_path / "page.html"))


@pytest.mark.parametrize(
    "places",
    [
        7,
        None,
        [],
        {"model": 7, "data": [], "radii": None},
        {"model": {"relative": 7, "absolute": None}},
        {"model": {"relative": "a\0/net.onnx", "absolute": "\udcff/net.onnx"}},
        {"model": {"relative": "x/" * 5000 + "net.onnx"}},
        {"model": {"absolute": "/etc/passwd", "relative": "../../../../../../../etc/passwd"}},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_senseless_places_are_no_places(project: Path, tmp_path: Path, places: Any) -> None:
    record = json.loads((project / "runs" / "one" / "run.json").read_text())
    (project / "runs" / "one" / "run.json").write_text(json.dumps(record | {"places": places}))
    assert "Not counted: net.onnx is not there." in reported(project / "runs" / "one", tmp_path / "page.html")


def test_a_run_goes_on_where_its_files_are_now(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under other paths, and under another name of the model; then it is reported from there."""
    project.parent.rename(tmp_path / "second")
    folder = tmp_path / "second" / "project"
    (folder / "models" / "net.onnx").rename(folder / "models" / "renamed.onnx")
    monkeypatch.chdir(folder / "data")
    given = ("../models/renamed.onnx", "--data", "data/images.npz", "--radii", "radii.toml", "--samples", "20:50")
    (folder / "data" / "data").symlink_to(folder / "data")
    done("verify", *given, "--out", "../runs/one", "--resume")
    monkeypatch.chdir(tmp_path)
    page = reported("second/project/runs/one", tmp_path / "page.html")
    assert whole(page) and "<dt>model</dt><dd>renamed.onnx</dd>" in page


def test_batches_are_found_again(project: Path, tmp_path: Path) -> None:
    (project / "plan.toml").write_text(
        'models = ["models/net.onnx"]\ndata = ["data/images.npz"]\nradii = ["data/radii.toml"]\nsamples = "20:50"\n'
        'out = "runs/batch"\n'
    )
    done("batch", "../first/project/plan.toml", "--jobs", 1)
    project.parent.rename(tmp_path / "second")
    page = reported(tmp_path / "second" / "project" / "runs" / "batch", tmp_path / "page.html")
    assert whole(page)
    nameless(page, tmp_path, "data")


@pytest.mark.parametrize(
    ("command", "given", "kept"),
    [
        ("sweep", ("--values", "0.01", "--parts", "all"), "sweep.json"),
        ("radius", ("--radii", "data/radii.toml", "--precision", "0.5"), "radius.json"),
    ],
)
def test_places_are_no_part_of_the_question(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, given: tuple[str, ...], kept: str
) -> None:
    monkeypatch.chdir(project)
    files = ("models/net.onnx", "--data", "data/images.npz", "--method", "ibp", "--samples", "20:30")
    done(command, *files, *given, "--out", "runs/kept")
    before = json.loads((project / "runs" / "kept" / kept).read_text())["places"]
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    stated = done(command, *files, *given, "--out", "runs/kept", "--resume", "--json")
    after = json.loads(Path("runs", "kept", kept).read_text())["places"]
    assert "places" not in json.loads(stated)
    assert before["data"]["relative"] == after["data"]["relative"] == "../../data/images.npz"
    assert before["data"]["absolute"] == str(project / "data" / "images.npz")
    assert after["data"]["absolute"] == str(tmp_path / "moved" / "data" / "images.npz")


def test_named_sets_are_found_where_they_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """$QVERIFY_DATA may be a relative path, and may be set no more."""
    (tmp_path / "data").mkdir()
    network = mlp(rng, 784, 5, 10)
    onnx_io.save(network, tmp_path / "net.onnx")
    x = rng.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    y = network.evaluate(x.reshape(30, -1) / 255).argmax(1)
    np.savez(tmp_path / "data" / "mnist.npz", x_test=x, y_test=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QVERIFY_DATA", "data")
    done("verify", "net.onnx", "--data", "mnist", "--bits", 3, "--method", "ibp", "--out", "run")
    monkeypatch.setenv("QVERIFY_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = reported("../run", tmp_path / "page.html")
    assert whole(page)
    nameless(page, tmp_path)
    (tmp_path / "data" / "mnist.npz").rename(tmp_path / "mnist.npz")
    np.savez(tmp_path / "data" / "mnist.npz", x_test=x[:, ::-1], y_test=y)
    assert 'alt="sample ' not in reported("../run", tmp_path / "page.html")


# --- nothing names a folder ---


def test_no_report_names_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the question holds: runs of older versions, other systems, and text with paths in it."""
    home = "/home/somebody/with spaces"
    asked: dict[str, Any] = {"model": f"{home}/models/net.onnx", "data": f"{home}/data.npz"}
    asked |= {
        "data_source": f"{home}/data.npz",
        "device": "C:\\Users\\somebody\\x",
        "note": "see ~/runs/a and /srv/b/c",
    }
    radii = {k: v for k, v in question()["radii"].items() if k not in ("bits", "scheme", "rounding")}
    radii |= {"convention": f"radii file {home}/r.toml", "file": f"{home}/r.toml", "sha256": "ab"}
    runs = [write_run(tmp_path / side / "same", [row(0)], radii=radii, **asked) for side in ("left", "right")]
    asked["model"] = "C:\\Users\\somebody\\windows.onnx"
    cases = {"one": question(6, 1, **asked), "two": question(8, 1, radii=radii, **asked)}
    runs.append(write_batch(tmp_path / "batch", cases, [row(0, case=case) for case in cases]))
    record = json.loads((runs[0] / "run.json").read_text())
    record["runs"] = [
        {"started": "now", "solver": None, "log": "/home/somebody/log.txt", "cluster": "tcp://10.0.0.1:8786"}
    ]
    (runs[0] / "run.json").write_text(json.dumps(record))
    texts = {form: done("report", *runs, "--format", form) for form in FORMS[:3]} | {"terminal": done("report", *runs)}
    done("report", *runs, "--format", "html", "--out", tmp_path / "page.html")
    texts["html"] = unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    for form, text in texts.items():
        for words in ("/home", "with spaces", "Users", str(tmp_path), "~/", "/srv"):
            assert words not in text, (form, words)
        for words in ("net", "windows", "left/same", "right/same", "radii file r.toml"):
            assert words in text.replace("\\_", "_") or form == "terminal", (form, words)
    for words in (
        "<dd>net.onnx</dd>",
        "<dd>data.npz</dd>",
        "<dd>see a and c</dd>",
        "<dd>log.txt</dd>",
        "tcp://10.0.0.1:8786",
    ):
        assert words in texts["html"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b c/d.onnx", "d.onnx"),
        ("d.onnx", "d.onnx"),
        ("a/", "a"),
        ("C:\\x\\d.onnx", "d.onnx"),
        ("C:/x/d.onnx", "d.onnx"),
        ("\\\\host\\share\\d.onnx", "d.onnx"),
        ("a\\b.onnx", "a\\b.onnx"),
        ("/", "/"),
        ("", ""),
        ("..", ".."),
    ],
)
def test_names_of_files(path: str, name: str) -> None:
    assert file_name(path) == name


def test_short_names_tell_apart() -> None:
    assert short_names(["/a/x/n", "/a/y/n", "/a/m"]) == ["x/n", "y/n", "m"]
    assert short_names(["/x/n", "/n", "z"]) == ["x/n", "n", "z"]
    assert short_names(["m0", "m1"]) == ["m0", "m1"] and short_names([]) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Cannot read the radii file /home/me/r.toml: No such file", "Cannot read the radii file r.toml: No such file"),
        ("'/home/me/x' and ~/y/z.npz, C:\\u\\w.npz.", "'x' and z.npz, w.npz."),
        ("1/2 of a/b, and/or 1e-8/3, tcp://h:1/x/y, </a>", "1/2 of a/b, and/or 1e-8/3, tcp://h:1/x/y, </a>"),
    ],
)
def test_texts_without_folders(text: str, left: str) -> None:
    assert without_folders(text) == left
    assert without_folders("see /my own/dir/x.npz.", ["/my own/dir/x.npz"]) == "see x.npz."
