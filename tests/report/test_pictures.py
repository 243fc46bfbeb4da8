"""Falsified samples as pictures, what their witnesses answer, and layers with unstable neurons."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify import datasets
from qverify.datasets import sources as data_sources
from qverify.onnx import reader as onnx_io
from qverify.report.pictures import MOST, data_uri, galleries
from qverify.report.sources import Sources
from qverify.runs.reading import read_runs
from tests.support.commands import answer, read_rows
from tests.support.pages import written
from tests.support.paths import DIGITS
from tests.support.runs_on_disk import question, row, write_rows, write_run


def test_pictures_are_the_samples_and_answers_those_of_the_witnesses(digits_run: Path) -> None:
    cases = read_runs([str(digits_run)])
    falsified = {r["index"]: r for r in read_rows(digits_run) if r["status"] == "falsified"}
    samples = datasets.load("digits")
    (gallery,) = galleries(cases, Sources())
    assert gallery.falsified == len(falsified) == len(gallery.pictures) and not gallery.missing
    assert {p.row.index for p in gallery.pictures} == set(falsified)
    for picture in gallery.pictures:
        assert picture.row.label == samples.y[picture.row.index]
        assert picture.picture == data_uri(samples.x[picture.row.index])
        stored = np.load(digits_run / "witnesses" / f"{picture.row.index}.npz")
        assert picture.answer is not None and picture.answer.predicted == stored["rival"] != picture.row.label
        assert picture.answer.margin == pytest.approx(falsified[picture.row.index]["margin_upper"], abs=1e-9)
        assert picture.answer.picture == data_uri(stored["input"])
    worst = min(falsified.values(), key=lambda r: r["margin_upper"])
    assert gallery.pictures[0].row.index == worst["index"]
    text = written(digits_run)
    assert text.count('alt="input of the witness"') == len(falsified)
    answered = gallery.pictures[0].answer
    assert answered is not None and f"the witness answers <b>{answered.predicted}</b>" in text


def pixels(uri: str) -> np.ndarray:
    """A PNG without filters, read back: (height, width, channels)."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = struct.unpack(">IIBB", content[16:26])
    length = struct.unpack(">I", content[33:37])[0]
    assert depth == 8 and content[37:41] == b"IDAT"
    lines = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3 if kind == 2 else 1)


def test_pictures_hold_the_pixels(rng: np.random.Generator) -> None:
    grey, colour = rng.random((5, 7)), rng.random((3, 6, 4))
    np.testing.assert_array_equal(pixels(data_uri(grey))[:, :, 0], np.rint(255 * grey))
    np.testing.assert_array_equal(pixels(data_uri(colour)), np.rint(255 * colour.transpose(1, 2, 0)))
    np.testing.assert_array_equal(pixels(data_uri(grey[None])), pixels(data_uri(grey)))
    signed = np.array([[-1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(pixels(data_uri(signed))[:, :, 0], [[0, 64], [128, 255]])
    assert pixels(data_uri(rng.random((200, 100)))).shape == (50, 25, 1)


def test_pictures_are_shared_among_cases(tmp_path: Path) -> None:
    y = datasets.load("digits").y
    sha256 = datasets.load("digits").sha256
    counts = {"few": 5, "many": 50, "most": 90}
    for name, count in counts.items():
        labels = [dict.fromkeys(("label", "predicted"), int(y[k])) for k in range(count)]
        margins = [{"margin_lower": -99.0, "margin_upper": -1.0 - k} for k in range(count)]
        rows = [row(k, "falsified", "attack", **labels[k], **margins[k]) for k in range(count)]
        write_run(tmp_path / name, rows, data="digits", data_sha256=sha256)
    found = galleries(read_runs([str(tmp_path / name) for name in counts]), Sources())
    assert [len(gallery.pictures) for gallery in found] == [5, 27, 28] and MOST == 60
    assert [picture.row.index for picture in found[1].pictures] == list(range(49, 22, -1))
    assert all(picture.answer is None for gallery in found for picture in gallery.pictures)


def test_unstable_neurons_are_those_that_inspect_counts(digits_run: Path) -> None:
    found = answer("inspect", DIGITS, "--data", "digits", "--bits", 6, "--samples", "20:80")
    relus = [layer for layer in found["layers"] if layer["kind"] == "Relu"]
    text = written(digits_run)
    for relu in relus:
        cells = "".join(
            f'<td class="number">{relu[f"unstable_{name}"]:.1f}<meter[^>]*></meter></td>' for name in ("ibp", "bp")
        )
        assert re.search(f'<td>{relu["name"]}</td><td class="number">{relu["shape"][0]}</td>{cells}', text)
    assert "the mean over 60 samples" in text and text.count('class="most"') == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nowhere.onnx"}, ["Not counted: nowhere.onnx is not there."]),
        ({"model_sha256": "ab"}, ["digits.onnx has changed since the run."]),
        ({"network_sha256": "ab"}, ["Not counted: the weights of", "have changed since the run."]),
        ({"network_sha256": "ab", "semantics": 1}, ["Not counted: digits.onnx is hashed otherwise than"]),
        ({"data": "gone.npz"}, ["Not counted: gone.npz is not there.", "No pictures: gone.npz is not there."]),
        ({"data": "mnist"}, ["No pictures: the data set mnist is not on this machine."]),
        ({"data_sha256": "ab"}, ["No pictures: digits has changed since the run."]),
        ({"radii": question()["radii"] | {"bits": 99}}, ["Not counted: The bit-width is 99"]),
        ({"radii": question()["radii"] | {"file": "r.toml"}}, ["Not counted: r.toml is not there."]),
        ({"radii": question()["radii"] | {"scheme": "tensor"}}, ["the mean over 60 samples"]),
    ],
)
def test_what_is_missing_is_said(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.setattr(data_sources, "find_here", lambda name: None)
    monkeypatch.setattr(data_sources, "_fetch", None)
    record = json.loads((digits_run / "run.json").read_text())
    (digits_run / "run.json").write_text(json.dumps(record | changes))
    text = unescape(written(digits_run))
    for each in words:
        assert each in text


def test_a_run_without_witnesses_shows_failing_networks_found_again(digits_run: Path) -> None:
    """Inputs in their box, answers that are wrong; and nothing is shown without the network or the radii."""
    shutil.rmtree(digits_run / "witnesses")
    (gallery,) = galleries(read_runs([str(digits_run)]), Sources())
    by = {r["index"]: r["method"] for r in read_rows(digits_run)}
    attacked = [picture for picture in gallery.pictures if by[picture.row.index] == "attack"]
    assert len(attacked) >= 3 and gallery.missing == ""
    for picture in attacked:  # what only the solver broke, an attack need not find
        assert picture.answer is not None and picture.answer.again
        assert picture.answer.predicted != picture.row.label and picture.answer.margin < 0
        apart = pixels(picture.picture).astype(int) - pixels(picture.answer.picture).astype(int)
        assert 0 < np.abs(apart).max() <= 2 * 255 / 2**6 + 1  # pictures are stretched to what lies beyond [0, 1]
    record = json.loads((digits_run / "run.json").read_text())
    (digits_run / "run.json").write_text(json.dumps(record | {"model_sha256": "ab"}))
    (gallery,) = galleries(read_runs([str(digits_run)]), Sources())
    assert gallery.pictures and all(picture.answer is None for picture in gallery.pictures)


def test_radii_that_are_not_those_of_the_run_are_said(digits_run: Path) -> None:
    """As if an older version had made other radii of the same words: nothing is sought in another family."""
    shutil.rmtree(digits_run / "witnesses")
    record = json.loads((digits_run / "run.json").read_text())
    said = "This version of qverify makes other radii than those of the run"
    assert said not in written(digits_run)
    record["radii"]["largest"]["weight"] *= 1 + 1e-12  # computed elsewhere
    (digits_run / "run.json").write_text(json.dumps(record))
    assert said not in written(digits_run)
    for kind in ("input", "activation"):
        changed = json.loads(json.dumps(record))
        changed["radii"]["largest"][kind] *= 1.01
        (digits_run / "run.json").write_text(json.dumps(changed))
        text = written(digits_run)
        assert said in text and "the mean over 60 samples" in text and "found again answers" not in text


def test_samples_that_are_read_otherwise_than_then_are_not_shown(digits_run: Path) -> None:
    """The file is the same, its arrays are not."""
    record = json.loads((digits_run / "run.json").read_text())
    sha256 = datasets.load("digits").arrays_sha256
    for arrays, shown in ((sha256, True), ("ab", False)):
        (digits_run / "run.json").write_text(json.dumps(record | {"arrays_sha256": arrays}))
        text = written(digits_run)
        assert ('alt="sample ' in text) is shown
        assert ("No pictures: digits is read otherwise than by the version that made the run." in text) is not shown


def test_damaged_witnesses_and_rows_that_do_not_fit(digits_run: Path) -> None:
    falsified = [r for r in read_rows(digits_run) if r["status"] == "falsified"]
    first, second, third = (r["index"] for r in falsified[:3])
    (digits_run / "witnesses" / f"{first}.onnx").write_bytes(b"no model")
    (digits_run / "witnesses" / f"{second}.npz").unlink()
    onnx_io.save(onnx_io.load(DIGITS), digits_run / "witnesses" / f"{third}.onnx")
    cases = read_runs([str(digits_run)])
    (gallery,) = galleries(cases, Sources())
    answers = {picture.row.index: picture.answer for picture in gallery.pictures if picture.answer is not None}
    assert answers[third].margin > 0 and not answers[third].again
    for index in (first, second):  # another attack finds what was lost
        assert answers[index].again and answers[index].margin < 0
    assert gallery.missing == f"The witness of sample {first} is damaged, so its answer is missing."
    text = written(digits_run)
    assert "which is right (margin" in text and "a failing network found again answers <b>" in text
    write_rows(digits_run, [r | dict.fromkeys(("label", "predicted"), (r["label"] + 1) % 10) for r in falsified])
    (gallery,) = galleries(read_runs([str(digits_run)]), Sources())
    assert gallery.pictures == [] and "do not fit the data set" in gallery.missing
