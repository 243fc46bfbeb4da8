"""The commands in this process: what they print, where, and what it agrees with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import choices, datasets
from qverify.cli import options
from qverify.exact.solvers import ADAPTERS
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.onnx import reader as onnx_io
from qverify.runs.given import Given
from qverify.runs.verify import RunDirectory
from qverify.verification.cascade import verify
from qverify.verification.row import STATUSES
from qverify.verification.verdict import Options, Status
from qverify.version import __version__
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS

# --- verify ---


def test_json_says_what_the_library_says() -> None:
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    verdicts = verify(network, samples.x[50:100], samples.y[50:100], Radii.from_bits(6))
    count = {s.value: sum(v.status is s for v in verdicts) for s in Status}
    assert count["verified"] and count["falsified"] and count["misclassified"]
    found = answer("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", "50:100")
    assert {name: found[name] for name in count} == count
    assert found["samples"] == 50 and found["seconds"] > 0 and found["interrupted"] is False
    assert found["clean_accuracy"] == (50 - count["misclassified"]) / 50
    assert found["guaranteed_accuracy"] == count["verified"] / 50
    assert found["attack_accuracy"] == (count["verified"] + count["unknown"]) / 50
    assert found["sample_range"] == [50, 100] and found["data_sha256"] == samples.sha256
    assert found["convention"] == "6 bits, scheme paper, rounding any" and found["tolerance"] == 1e-8
    assert sum(sum(v for k, v in m.items() if k != "seconds") for m in found["by_method"].values()) == 50


def test_a_number_of_samples_means_the_first_ones(tmp_path: Path) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--method", "ibp", "--samples")
    for n, text in enumerate(("12", "0:12", ":12")):
        assert answer(*given, text, "--out", tmp_path / str(n))["sample_range"] == [0, 12]
    rows = [sorted(row["index"] for row in read_rows(tmp_path / str(n))) for n in range(3)]
    assert rows == [list(range(12))] * 3
    assert answer(*given, "20", "--out", tmp_path / "0", "--resume")["samples"] == 20  # more of the same


def test_rows_carry_the_index_in_the_data_set(tmp_path: Path) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--samples", "100:130", "--out", tmp_path)
    answer(*given)
    rows = read_rows(tmp_path)
    samples = datasets.load("digits")
    assert sorted(r["index"] for r in rows) == list(range(100, 130))
    assert [r["label"] for r in rows] == [samples.y[r["index"]] for r in rows]
    predicted = onnx_io.load(DIGITS).evaluate(samples.x[100:130]).argmax(1)
    assert [r["predicted"] for r in rows] == [predicted[r["index"] - 100] for r in rows]
    keep = [r for r in rows if r["index"] % 3]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in keep))
    answer(*given, "--resume")
    again = read_rows(tmp_path)
    assert again[: len(keep)] == keep and len(again) == 30
    for r in again[len(keep) :]:
        before = next(b for b in rows if b["index"] == r["index"])
        assert (r["status"], r["label"], r["predicted"]) == (before["status"], before["label"], before["predicted"])
    assert json.loads((tmp_path / "run.json").read_text())["samples"] == [100, 130]


def test_a_finished_run_is_summed_up_again_without_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--out", tmp_path, "--resume")
    first = answer(*given)
    monkeypatch.setattr("qverify.runs.verify.Cascade", None)
    again = answer(*given)
    assert {**again, "seconds": 0, "runs": 0} == {**first, "seconds": 0, "runs": 0} and len(again["runs"]) == 2


def test_run_json_holds_what_is_needed_to_repeat_the_run(tmp_path: Path) -> None:
    given = ("--scheme", "channel", "--rounding", "nearest", "--clip-input", 0, 1, "--method", "bp", "--timeout", 7)
    answer("verify", DIGITS, "--data", "digits", "--bits", 8, *given, "--samples", "3:5", "--out", tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["qverify"] == __version__ and record["model"] == DIGITS
    assert record["radii"]["calibration"] == "all 599 samples of the data set"
    assert (record["radii"]["bits"], record["radii"]["scheme"], record["radii"]["rounding"]) == (
        8,
        "channel",
        "nearest",
    )
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    family = Family.of(network, Radii.from_bits(8, "channel", "nearest", network, samples.x))
    assert record["radii"]["largest"]["weight"] == max(r.max() for r in family.weight.values())
    assert record["radii"]["largest"]["activation"] == max(r.max() for r in family.activation.values())
    assert (record["method"], record["clip_input"], record["timeout"]) == ("bp", [0, 1], 7)
    assert record["runs"][0]["solver"] is None and record["samples"] == [3, 5] and record["tolerance"] == 1e-8
    assert {r["method"] for r in read_rows(tmp_path)} <= {"forward", "ibp", "attack", "bp"}


def test_a_clipped_input_has_larger_margins(tmp_path: Path) -> None:
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    found = []
    for name, clip in (("free", None), ("clipped", (0.0, 1.0))):
        given = ("--bits", 8, "--method", "ibp", "--samples", "0:9", *(("--clip-input", *clip) if clip else ()))
        answer("verify", DIGITS, "--data", "digits", *given, "--out", tmp_path / name)
        expected = verify(network, samples.x[:9], samples.y[:9], Radii.from_bits(8), Options(method="ibp", clip=clip))
        found.append({r["index"]: r["margin_lower"] for r in read_rows(tmp_path / name)})
        assert found[-1] == {v.index: v.row().margin_lower for v in expected}
    free, clipped = found
    assert clipped[0] > free[0]


def test_the_table_for_people() -> None:
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 8, "--clip-input", 0, 1)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert words.startswith("digits.onnx on digits: 599 samples in ")
    samples = datasets.load("digits")
    clean = int((onnx_io.load(DIGITS).evaluate(samples.x).argmax(1) == samples.y).sum())
    assert f"clean {clean / 5.99:.2f} % {clean} of 599" in words and "guaranteed 9" in words and "attack 9" in words
    assert "Family: 8 bits, scheme paper, rounding any; largest radii (half-widths" in words
    assert "weight 0.007812" in words
    assert "No sample needed the exact step (its solver: " in words and "Kept in" not in words
    assert "Quantised inputs stay between 0 and 1." in words and "by the exact step" not in words
    assert "but scheme paper takes the step" in result.stderr and "note" not in result.stdout


def test_witnesses_are_written_for_every_falsified_sample(tmp_path: Path) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 6, "--samples", "10:70", "--method", "ibp")
    found = answer(*given, "--out", tmp_path, "--witnesses")
    falsified = [r for r in read_rows(tmp_path) if r["status"] == "falsified"]
    assert found["falsified"] == len(falsified) > 1
    names = {path.name for path in (tmp_path / "witnesses").iterdir()}
    assert names == {f"{r['index']}.{kind}" for r in falsified for kind in ("onnx", "npz")}
    samples = datasets.load("digits")
    for r in falsified:
        stored = np.load(tmp_path / "witnesses" / f"{r['index']}.npz")
        np.testing.assert_array_equal(stored["x"], samples.x[r["index"]])
        assert r["label"] == samples.y[r["index"]]
        assert stored["margin"] == r["margin_upper"] and stored["label"] == r["label"]
        assert np.abs(stored["input"] - stored["x"]).max() <= 2**-6


def test_the_table_says_where_the_run_is_kept(tmp_path: Path) -> None:
    given = ("--bits", 6, "--samples", "300:320", "--method", "exact", "--out", tmp_path)
    words = qverify("verify", DIGITS, "--data", "digits", *given).stdout
    assert "Solver of the exact step: " in words and f"Kept in {tmp_path}: run.json" in words
    assert "by the exact step, from the duals" in words and "counts less 1e-08 times the network's gain" in words


@pytest.mark.parametrize(("words", "status"), [("falsified", 1), ("unknown", 0), ("unknown, misclassified", 1)])
def test_fail_on(words: str, status: int) -> None:
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 8, "--fail-on", words, "--json")
    assert result.exit_code == status and json.loads(result.stdout)["unknown"] == 0


def test_a_time_limit_leaves_samples_unknown() -> None:
    given = ("--bits", 5, "--method", "exact", "--timeout", 0.001, "--samples", "0:30")
    found = answer("verify", DIGITS, "--data", "digits", *given)
    assert found["unknown"] >= 3 and found["attack_accuracy"] > found["guaranteed_accuracy"]


@pytest.mark.slow
def test_more_time_and_more_samples_go_on_with_what_is_there(tmp_path: Path) -> None:
    given = ("--bits", 5, "--method", "exact", "--out", tmp_path)
    words = qverify("verify", DIGITS, "--data", "digits", *given, "--timeout", 0.001, "--samples", "0:30").stdout
    first = {row["index"]: row for row in read_rows(tmp_path)}
    limited = {index for index, row in first.items() if "limit" in row}
    assert all(first[index]["limit"] == 0.001 and "time limit" in first[index]["detail"] for index in limited)
    assert {index for index, row in first.items() if row["status"] == "unknown"} <= limited and len(limited) >= 3
    assert f"{len(limited)} samples ran into the time limit" in words
    more = ("--samples", "0:33", "--resume", "--timeout", 60, "--json")
    result = qverify("verify", DIGITS, "--data", "digits", *given, *more)
    left = f"{len(limited) + 3} are left, {len(limited)} of them again, with a longer time limit."
    assert f"{30 - len(limited)} samples are decided already; {left}" in result.stderr
    found, rows = json.loads(result.stdout), read_rows(tmp_path)
    assert found["samples"] == 33 and found["unknown"] == 0 and found["interrupted"] is False
    assert rows[:30] == list(first.values()) and {row["index"] for row in rows[30:]} == limited | {30, 31, 32}
    answers = {row["index"]: row["status"] for row in rows}
    alone = answer("verify", DIGITS, "--data", "digits", *given[:-2], "--samples", "0:33")
    assert {s: alone[s] for s in STATUSES} == {s: list(answers.values()).count(s) for s in STATUSES}
    report = qverify("report", tmp_path)
    assert f"{len(limited)} rows were replaced by later ones of the same sample" in report.stdout + report.stderr


def test_rows_of_an_older_meaning_are_not_gone_on_with(tmp_path: Path) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--bits", 8, "--samples", "0:3", "--out", tmp_path, "--resume")
    answer(*given)
    record = json.loads((tmp_path / "run.json").read_text())
    for older in ({}, {"semantics": 1}):
        kept = {key: value for key, value in record.items() if key != "semantics"} | older
        (tmp_path / "run.json").write_text(json.dumps(kept))
        result = qverify(*given)
        assert result.exit_code == 2 and f"and is {record['semantics']} now" in result.stderr


def test_biases_that_toolchains_round_like_activations_are_named(tmp_path: Path) -> None:
    """The digits network as MatMul and Add: schemes tensor and channel take its biases as int32."""
    model = onnx.load(DIGITS)
    graph = model.graph
    gemm = next(n for n in graph.node if n.op_type == "Gemm")
    weight = next(t for t in graph.initializer if t.name == gemm.input[1])
    array = onnx.numpy_helper.to_array(weight)
    transposed = any(a.name == "transB" and a.i for a in gemm.attribute)
    weight.CopyFrom(onnx.numpy_helper.from_array(array.T.copy() if transposed else array, weight.name))
    product = onnx.helper.make_node("MatMul", list(gemm.input[:2]), ["product"], name="matmul")
    added = onnx.helper.make_node("Add", ["product", gemm.input[2]], list(gemm.output), name="add")
    place = list(graph.node).index(gemm)
    nodes = [*graph.node[:place], product, added, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, tmp_path / "m.onnx")
    given = ("verify", tmp_path / "m.onnx", "--data", "digits", "--bits", 8, "--samples", "0:2", "--scheme")
    assert "a node of its own adds the bias of 'matmul'; scheme channel takes" in qverify(*given, "channel").stderr
    assert "adds the bias" not in qverify(*given, "paper").stderr
    assert "adds the bias" not in qverify(*given[:1], DIGITS, *given[2:], "tensor").stderr


def test_no_time_limit(tmp_path: Path) -> None:
    given = ("--bits", 6, "--method", "exact", "--timeout", "inf", "--samples", "0:4", "--out", tmp_path)
    assert answer("verify", DIGITS, "--data", "digits", *given)["unknown"] == 0
    assert json.loads((tmp_path / "run.json").read_text())["timeout"] is None


def test_a_second_ctrl_c_ends_at_once_and_keeps_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Any, row: dict[str, Any]) -> None:
        add(self, row)  # type: ignore[arg-type]
        if len(self.rows) >= 3:
            os.kill(os.getpid(), signal.SIGINT)

    add = RunDirectory.add
    monkeypatch.setattr(RunDirectory, "add", twice)
    before = signal.getsignal(signal.SIGINT)
    result = qverify("verify", DIGITS, "--data", "digits", "--bits", 8, "--out", tmp_path)
    assert result.exit_code == 130 and "interrupted: 4 of 599 samples are decided and kept" in result.stderr
    assert "interrupted: 595 are not decided" in result.stdout and "Shares of what is decided so far" in result.stdout
    assert len(read_rows(tmp_path)) == 4 and signal.getsignal(signal.SIGINT) is before


def test_a_radii_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('weight = 0.01\n[layers."dense2"]\nweight = 0.0\nbias = 0.5\n')
    found = answer("verify", DIGITS, "--data", "digits", "--radii", tmp_path / "r.toml", "--samples", ":40")
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    radii = Radii(weight=0.01, layers={"dense2": {"weight": 0.0, "bias": 0.5}})
    verdicts = verify(network, samples.x[:40], samples.y[:40], radii)
    assert found["verified"] == sum(v.status is Status.VERIFIED for v in verdicts)
    assert found["radii"]["largest"] == {"input": 0.0, "weight": 0.01, "bias": 0.5, "activation": 0.0}


# --- what the options promise ---


def test_choices_are_those_of_the_library() -> None:
    assert tuple(ADAPTERS) == choices.SOLVERS
    assert {"verified", *options.FAILING} == {status.value for status in Status}
    given = Given(model=DIGITS)
    default = Options()
    assert (given.timeout, given.method, given.solver) == (default.seconds, default.method, default.solver)
