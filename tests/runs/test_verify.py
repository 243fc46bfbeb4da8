"""A run on disk: what is kept through a kill, a full disk and a second start, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from qverify.errors import DataError, OutputError, UsageError
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.runs.start import Start
from qverify.runs.stored import ROWS, RUN
from qverify.runs.verify import RunDirectory
from qverify.verification.cascade import verify
from qverify.verification.row import Row
from tests.support import networks
from tests.support.runs_on_disk import asked, question, row, typed

QUESTION = {"samples": [2, 6], "timeout": 5.0, "model_sha256": "ab"}
"""Changes to the question of all tests here."""
NOW = Start(started="now", jobs=1)


def begun(path: Path, resume: bool = False, **changes: Any) -> RunDirectory:
    return RunDirectory.start(str(path), asked(**QUESTION | changes), NOW, resume)


def line(*what: Any, **more: Any) -> Row:
    return typed(row(*what, **more))


def filled(path: Path, count: int) -> bytes:
    """A run of some rows; the content of samples.jsonl."""
    with begun(path) as run:
        for index in range(count):
            run.add(line(index))
    return (path / ROWS).read_bytes()


def resumed(path: Path, **changes: Any) -> RunDirectory:
    return begun(path, resume=True, **changes)


# --- rows ---


def test_rows_are_on_disk_as_soon_as_they_are_added(tmp_path: Path) -> None:
    with begun(tmp_path / "new" / "run") as run:
        for index in (3, 0):
            run.add(line(index))
            lines = (tmp_path / "new" / "run" / ROWS).read_text().splitlines()
            assert json.loads(lines[-1]) == row(index)
    assert len(lines) == 2


def test_a_run_goes_on_with_its_rows(tmp_path: Path) -> None:
    before = filled(tmp_path, 2)
    with resumed(tmp_path) as run:
        assert run.rows == {0: line(0), 1: line(1)}
        run.add(line(2))
    assert (tmp_path / ROWS).read_bytes().startswith(before)
    record = json.loads((tmp_path / RUN).read_text())
    assert record["samples"] == [2, 6] and record["runs"] == [NOW.to_json()] * 2 and record["format"] == 1


def test_resume_without_a_run_begins_one(tmp_path: Path) -> None:
    with resumed(tmp_path / "none") as run:
        assert run.rows == {}


@pytest.mark.parametrize("lost", range(1, 90, 8))
def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(tmp_path: Path, lost: int) -> None:
    content = filled(tmp_path, 3)
    (tmp_path / ROWS).write_bytes(content[:-lost])
    whole = content[:-lost].rfind(b"\n") + 1
    with resumed(tmp_path) as run:
        assert list(run.rows) == list(range(content[:whole].count(b"\n")))
        assert (tmp_path / ROWS).read_bytes() == content[:whole]
        run.add(line(2))
    assert [json.loads(line)["index"] for line in (tmp_path / ROWS).read_text().splitlines()][-1] == 2


@pytest.mark.parametrize("tail", [b"\0" * 50, b'{"index": 3}\n', b"[]\n", b"\xff\xfe\n"])
def test_a_last_line_that_is_no_row_is_cut_off_too(tmp_path: Path, tail: bytes) -> None:
    content = filled(tmp_path, 2)
    (tmp_path / ROWS).write_bytes(content + tail)
    with resumed(tmp_path) as run:
        assert list(run.rows) == [0, 1]
    assert (tmp_path / ROWS).read_bytes() == content


def test_damage_before_the_last_line_is_not_passed_over(tmp_path: Path) -> None:
    lines = filled(tmp_path, 3).splitlines(keepends=True)
    (tmp_path / ROWS).write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"Line 2 of .*samples\.jsonl is damaged; delete that line"):
        resumed(tmp_path)


# --- the question ---


def test_a_directory_with_a_run_is_refused_without_resume(tmp_path: Path) -> None:
    before = filled(tmp_path, 1)
    with pytest.raises(UsageError, match="holds a run already; add --resume to go on with it, or name another --out"):
        begun(tmp_path)
    assert (tmp_path / ROWS).read_bytes() == before
    assert len(json.loads((tmp_path / RUN).read_text())["runs"]) == 1


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"model_sha256": "cd"}, r'\(model_sha256 was "ab" and is "cd" now\)'),
        ({"radii": question(6)["radii"]}, r"\(radii\.bits was 8 and is 6 now\)"),
        ({"clip_input": [0.0, 1.0]}, r"\(clip_input was not given and is \[0\.0, 1\.0\] now\)"),
        ({"samples": [3, 9], "method": "ibp"}, r"samples was \[2, 6\] and is \[3, 9\] now; method was \"auto\" and is"),
        ({"samples": [0, 5]}, r"samples was \[2, 6\] and is \[0, 5\] now"),
        ({"timeout": 4.0}, r"timeout was 5\.0 and is 4\.0 now"),
    ],
)
def test_another_question_is_refused_and_the_difference_named(
    tmp_path: Path, changes: dict[str, Any], wording: str
) -> None:
    filled(tmp_path, 1)
    record = (tmp_path / RUN).read_bytes()
    with pytest.raises(UsageError, match=wording):
        resumed(tmp_path, **changes)
    assert (tmp_path / RUN).read_bytes() == record


@pytest.mark.parametrize(
    "wider", [{"samples": [2, 7]}, {"samples": [0, 6]}, {"timeout": 6.0}, {"timeout": None, "samples": [1, 9]}]
)
def test_a_run_goes_on_with_more_samples_and_more_time(tmp_path: Path, wider: dict[str, Any]) -> None:
    before = filled(tmp_path, 1)
    with resumed(tmp_path, **wider) as run:
        assert len(run.rows) == 1
    record = json.loads((tmp_path / RUN).read_text())
    assert {**record, **json.loads(json.dumps(wider))} == record and (tmp_path / ROWS).read_bytes() == before
    with pytest.raises(UsageError, match="asked something else"):
        resumed(tmp_path)


def test_the_last_row_of_a_sample_counts(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with resumed(tmp_path) as run:
        run.add(line(0, "falsified", "attack"))
    with resumed(tmp_path) as run:
        assert run.rows == {0: line(0, "falsified", "attack"), 1: line(1)}


def test_a_model_that_was_moved_is_the_same_question(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    with resumed(tmp_path, model="elsewhere/a.onnx") as run:
        assert len(run.rows) == 1


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}"])
def test_rows_without_a_readable_question_are_not_trusted(tmp_path: Path, content: bytes | None) -> None:
    filled(tmp_path, 1)
    (tmp_path / RUN).unlink()
    if content is not None:
        (tmp_path / RUN).write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json is missing or damaged, so its rows cannot be trusted"):
        resumed(tmp_path)


# --- places that cannot be written ---


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        begun(tmp_path),
        pytest.raises(OutputError, match="Another process is writing"),
    ):
        resumed(tmp_path)
    resumed(tmp_path).close()


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot be written \(.*\); name another --out\."):
            begun(path)


class FullDisk:
    """Takes a few bytes of what is written, as a disk does that is full after them."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, line: Any) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        part = bytes(line[: min(7, self.room)])
        self.room -= len(part)
        self.file.write(part)
        return len(part)

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_keeps_the_rows_before_it(tmp_path: Path) -> None:
    size = len(filled(tmp_path / "size", 1))
    with begun(tmp_path / "run") as run:
        run.files = {ROWS: FullDisk(run.files[ROWS], 2 * size + 10)}  # type: ignore[dict-item]
        run.add(line(0))
        run.add(line(1))
        with pytest.raises(
            OutputError, match=r"\(No space left on device\); 2 samples are kept, go on later with --res"
        ):
            run.add(line(2))
    assert len((tmp_path / "run" / ROWS).read_bytes()) == 2 * size + 10
    with resumed(tmp_path / "run") as run:
        assert list(run.rows) == [0, 1]


# --- witnesses ---


def test_a_witness_fails_in_onnxruntime_and_is_in_the_family(tmp_path: Path, rng: np.random.Generator) -> None:
    network = networks.mlp(rng, 4, 6, 3)
    x = rng.uniform(-1, 1, (30, 4))
    radii = Radii(input=0.05, weight=0.1, bias=0.1, activation=0.05)
    verdicts = verify(network, x, network.evaluate(x).argmax(1), radii)
    verdict = next(v for v in verdicts if v.status.value == "falsified")
    sample, witness = x[verdict.index], verdict.witness()
    assert witness is not None
    with begun(tmp_path) as run:
        run.add_witness(17, sample, witness)
    stored = np.load(tmp_path / "witnesses" / "17.npz")
    session = onnxruntime.InferenceSession(tmp_path / "witnesses" / "17.onnx", providers=["CPUExecutionProvider"])
    output = session.run(None, {"input": stored["input"][None]})[0][0]
    assert output.dtype == np.float64
    assert output[stored["label"]] - output[stored["rival"]] == pytest.approx(stored["margin"], abs=1e-12)
    assert stored["margin"] <= 0 and output[stored["label"]] <= output[stored["rival"]]
    np.testing.assert_array_equal(stored["x"], sample)
    assert membership(Family.of(network, radii), witness.network, sample, stored["input"]) == []
