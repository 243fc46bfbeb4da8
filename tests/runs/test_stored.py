"""Rows and questions read back: what was written comes back as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.choices import VERIFY_METHODS
from qverify.errors import DataError
from qverify.family.radii import Radii
from qverify.runs.batch import BatchDirectory
from qverify.runs.reading import read_runs
from qverify.runs.start import Start
from qverify.runs.stored import RowLines
from qverify.runs.verify import RunDirectory
from qverify.verification.cascade import verify
from qverify.verification.row import Row
from qverify.verification.verdict import Options, Status, Verdict
from tests.support import networks
from tests.support.commands import qverify
from tests.support.refusals import sentence
from tests.support.runs_on_disk import START, asked, question, row, write_batch, write_run

NOW = Start(started="now")
PATH = Path("rows")


def resume(folder: Path, **changes: Any) -> dict[int, Row]:
    with RunDirectory.start(str(folder), asked(**changes), NOW, resume=True) as run:
        return run.rows


# --- rows of samples ---

NONE_OF_THESE = ["null", "[]", "[1]", "{}", "true", "false", '""', '"1"', "NaN", "-Infinity", "1e999", "-1", "1.5"]
NUMBERS = ["[]", "[1]", "{}", "true", '""', '"1"', "NaN", "Infinity", "1e999", "-1e999", "9" * 400, "1" + "0" * 5000]
ODD = {
    "index": [*NONE_OF_THESE, "9007199254740992", "1" * 5000],
    "label": [*NONE_OF_THESE, "1e2"],
    "predicted": NONE_OF_THESE,
    "status": ["null", "1", "[]", '["verified"]', "true", '""', '"fine"', '"VERIFIED"', '"verified "', "NaN"],
    "method": ["null", "1", "[]", '["ibp"]', "true", '""', '"crown"', '"IBP"', "{}"],
    "margin_lower": NUMBERS,
    "margin_upper": NUMBERS,
    "seconds": [*NUMBERS, "null", "-0.001", "-1", "1e300"],
    "limit": [*NUMBERS, "null", "0", "-1"],
    "scope": ["null", "1", "[]", '""', '"other"'],
    "detail": ["null", "1", "[]", "true", "{}"],
}


@pytest.mark.parametrize("key", ODD)
def test_a_row_with_an_odd_value_is_refused_by_all_who_read_it(tmp_path: Path, key: str) -> None:
    more = {"scope": "exact", "detail": "words", "limit": 5.0}
    run = write_run(tmp_path, [row(0, "unknown", "exact", **more), row(1), row(2)])
    content = (run / "samples.jsonl").read_text()
    first, _, rest = content.partition("\n")
    for literal in ODD[key]:
        parts = [f'"{name}": {literal if name == key else json.dumps(own)}' for name, own in json.loads(first).items()]
        (run / "samples.jsonl").write_text("{" + ", ".join(parts) + "}\n" + rest)
        for read in (lambda: resume(run), lambda: read_runs([str(run)])):
            with pytest.raises(DataError, match=r"Line 1 of .*samples\.jsonl is damaged; delete that line") as caught:
                read()
            assert len(sentence(caught)) < 200 + len(str(run))


@pytest.mark.parametrize("key", ["index", "label", "predicted", "status", "method", "margin_lower", "seconds"])
def test_a_row_that_lacks_something_is_refused(tmp_path: Path, key: str) -> None:
    lacking = {name: value for name, value in row(0).items() if name != key}
    run = write_run(tmp_path, [row(1)])
    (run / "samples.jsonl").write_text(json.dumps(lacking) + "\n" + json.dumps(row(1)) + "\n")
    with pytest.raises(DataError, match=rf"Line 1 of .* \({key} is missing\)\."):
        resume(run)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff\xfe{\x00}\x00",
        json.dumps(row(0)).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(row(0)).encode(),
        json.dumps(row(0)).replace('"index": 0', '"index": 0, "index": 1').encode(),
        json.dumps(row(0)).encode().replace(b"}", b', "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        json.dumps(row(0)).encode().replace(b"}", b', "more": ' + b"[" * 40 + b"]" * 40 + b"}"),
        json.dumps(row(0)).encode().replace(b"}", b', "more": NaN}'),
        json.dumps(row(0)).encode().replace(b"}", b', "more": ' + b"9" * 5000 + b"}"),
        json.dumps(row(0)).encode() + json.dumps(row(0)).encode(),
    ],
    ids=range(15),
)
def test_lines_that_are_no_rows(tmp_path: Path, line: bytes) -> None:
    run = write_run(tmp_path, [row(1)])
    good = (run / "samples.jsonl").read_bytes()
    (run / "samples.jsonl").write_bytes(good + line + b"\n" + good)
    for read in (lambda: resume(run), lambda: read_runs([str(run)])):
        with pytest.raises(DataError, match=r"Line 2 of .*samples\.jsonl is damaged; delete that line") as caught:
            read()
        sentence(caught)


@pytest.mark.parametrize(
    "contradiction",
    [
        row(0, margin_lower=-1e-9),
        row(0, margin_lower=0.0),
        row(0, margin_lower=None),
        row(0, margin_lower=3.0),
        row(0, predicted=2),
        row(0, method="attack"),
        row(0, method="forward"),
        row(0, "falsified", "attack", margin_upper=1e-9),
        row(0, "falsified", "attack", margin_upper=None),
        row(0, "falsified", "attack", predicted=3),
        row(0, "falsified", "ibp"),
        row(0, "misclassified", "forward", margin_upper=0.5),
        row(0, "misclassified", "exact"),
        row(0, "unknown", "exact", predicted=0),
    ],
)
def test_a_row_that_contradicts_itself_does_not_count(tmp_path: Path, contradiction: dict[str, Any]) -> None:
    run = write_run(tmp_path, [contradiction, row(1)])
    for read in (lambda: resume(run), lambda: read_runs([str(run)])):
        with pytest.raises(DataError, match=r"Line 1 of .*samples\.jsonl is damaged; delete that line"):
            read()


@pytest.mark.parametrize("key", ["key", "case"])
def test_rows_of_a_batch_name_case_and_key(tmp_path: Path, key: str) -> None:
    named = row(0, case="a", key="k")
    odd: Any
    for odd in (None, 3, [], {}, True, 1.5):
        write_batch(tmp_path, {"a": question()}, [named | {key: odd}, named])
        with pytest.raises(DataError, match=rf"Line 1 of .* delete that line and start again \({key} is"):
            BatchDirectory.start(str(tmp_path), {"a": asked()}, NOW)


MARGIN = st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False)
STAGE = {
    "verified": st.sampled_from(["ibp", "bp", "bp-layers", "bp-optimised", "bp-branched", "ties", "halving", "exact"]),
    "falsified": st.sampled_from(["attack", "ties", "halving", "exact"]),
    "unknown": st.sampled_from(["ibp", "bp", "exact"]),
    "misclassified": st.just("forward"),
}


@st.composite
def verdicts(draw: Any) -> Verdict:
    """A verdict that does not contradict itself, with awkward numbers and words."""
    status, label = draw(st.sampled_from(Status)), draw(st.integers(0, 2**53 - 1))
    low, high = sorted([draw(MARGIN), draw(MARGIN)])
    lower, upper = {
        "verified": (low, high),
        "falsified": (-high, -low),
        "unknown": (draw(st.sampled_from([-low, -math.inf])), draw(st.sampled_from([high, math.inf]))),
        "misclassified": (-math.inf, draw(st.sampled_from([0.0, -low]))),
    }[status.value]
    predicted = draw(st.integers(0, 99)) if status is Status.MISCLASSIFIED else label
    more = {
        "scope": draw(st.sampled_from(["", "exact", "independent positions"])),
        "detail": draw(st.text(st.characters(codec=None, exclude_categories=()))),
        "limit": draw(st.none() | st.floats(0, exclude_min=True, allow_infinity=False)),
    }
    seconds, index = draw(st.floats(0, 1e9)), draw(st.integers(0, 2**53 - 1))
    return Verdict(
        index=index,
        label=label,
        predicted=predicted,
        status=status,
        margin_lower=lower,
        margin_upper=upper,
        method=draw(STAGE[status.value]),
        seconds=seconds,
        **more,
    )


@given(st.lists(verdicts(), max_size=4))
def test_rows_come_back_as_they_were(found: list[Verdict]) -> None:
    rows = [verdict.row() for verdict in found]
    content = b"".join(json.dumps(one.to_json(), allow_nan=False).encode() + b"\n" for one in rows)
    assert RowLines().in_order(PATH, content) == (rows, len(content))
    assert RowLines().in_order(PATH, content + b'{"index": 3') == (rows, len(content))


@pytest.mark.parametrize("method", VERIFY_METHODS)
def test_what_verify_says_is_read_back(rng: np.random.Generator, method: str) -> None:
    network = networks.NETWORKS["conv_pool"](rng) if method == "bp" else networks.mlp(rng, 4, 8, 8, 3)
    x = rng.uniform(-1, 1, (40, network.input_size))
    y = network.evaluate(x).argmax(1)
    y[:3] = (y[:3] + 1) % network.output_size
    options = Options(method=method, jobs=1, seconds=5)
    found = verify(network, x, y, Radii(0.02, 0.03, 0.03, 0.02), options)
    content = b"".join(json.dumps(one.row().to_json()).encode() + b"\n" for one in found)
    assert len(RowLines().read(PATH, content)[0]) == 40
    assert {one.status.value for one in found} >= {"misclassified", "verified"}


# --- questions ---

WORDS = ["1", "[]", "{}", "true", '""', '"other"', '["auto"]']
TEXTS = ["1", "[]", "{}", "true"]
ODD_QUESTION = {
    "model": TEXTS,
    "data": TEXTS,
    "samples": [
        "1",
        '"0:4"',
        "[]",
        "[0]",
        "[0, 1, 2]",
        "[4, 4]",
        "[5, 2]",
        "[-1, 4]",
        "[0, 4.0]",
        "[true, 4]",
        "[0, NaN]",
    ],
    "clip_input": ["1", "[]", "[1]", "[1, 0]", "[0, true]", '["0", "1"]', "[NaN, 1]", "[0, 1e999]", "true", "{}"],
    "method": WORDS,
    "formulation": WORDS,
    "solver": WORDS,
    "timeout": ["0", "-1", "true", '"5"', "[]", "NaN", "Infinity", "1e999", "9" * 5000],
    "tolerance": ["-1", "true", '"x"', "[]", "NaN", "1e999"],
    "data_sha256": TEXTS,
    "data_samples": ['"1"', "[]", "1.5", "true", "-1"],
    "network_sha256": TEXTS,
    "format": ['"1"', "[]", "1.5", "true", "-1"],
    "witnesses": ["1", "[]", '"yes"'],
    "radii": ["1", "[]", '"radii"', "true"],
    "runs": [
        *("null", "1", "{}", '"x"', "[1]", "[[]]", "[null]", '[{"solver": "highs"}]', '[{"solver": []}]'),
        *('[{"solver": {"name": 1, "version": "2"}}]', '[{"solver": {"name": "highs"}}]', '[{"jobs": "4"}]'),
        *('[{"started": []}]', '[{"device": 1}]', '[{"cluster": {}}]', '[{"accuracy": "x"}]', '[{"jobs": NaN}]'),
    ],
    "radii.convention": TEXTS,
    "radii.largest": [
        "1",
        "[]",
        '{"input": "x"}',
        '{"input": true}',
        '{"input": -1}',
        '{"input": NaN}',
        '{"other": 1}',
    ],
    "radii.bits": ['"8"', "[null]", "true", "1.5", "{}", "-1"],
    "radii.scheme": ["1", "[]", '"other"', "true"],
    "radii.rounding": ["1", "[]", '"other"', "true"],
    "radii.file": TEXTS,
    "radii.sha256": TEXTS,
    "radii.calibration": TEXTS,
}


def changed(asked: dict[str, Any], key: str, literal: str) -> str:
    """The question as JSON with one value, at a dotted key, written otherwise."""
    asked = json.loads(json.dumps(asked))
    *above, last = key.split(".")
    inner = asked[above[0]] if above else asked
    inner[last] = "@@"
    return json.dumps(asked).replace('"@@"', literal)


@pytest.mark.parametrize("key", ODD_QUESTION)
def test_a_question_with_an_odd_value_is_refused_by_all_who_read_it(tmp_path: Path, key: str) -> None:
    run, several = write_run(tmp_path / "run", [row(0)]), tmp_path / "batch"
    write_batch(several, {"a": question(), "b": question(6)}, [row(0, case="a", key="k")])
    record, cases = (json.loads(path.read_text()) for path in (run / "run.json", several / "batch.json"))
    for literal in ODD_QUESTION[key]:
        (run / "run.json").write_text(changed(record, key, literal))
        for read in (lambda: resume(run), lambda: read_runs([str(run)])):
            with pytest.raises(DataError, match=r"run\.json is (missing or )?damaged") as caught:
                read()
            sentence(caught)
        if key == "runs":
            text = changed(cases, key, literal)
        else:
            text = json.dumps(cases | {"cases": cases["cases"] | {"b": "@@"}})
            text = text.replace('"@@"', changed(cases["cases"]["b"], key, literal))
        (several / "batch.json").write_text(text)
        reads: tuple[Callable[[], Any], ...] = (
            lambda: BatchDirectory.start(str(several), {"a": asked()}, NOW),
            lambda: read_runs([str(several)]),
        )
        for read in reads:
            with pytest.raises(DataError, match=r"batch\.json(, case b)? is (missing or )?damaged") as caught:
                read()
            sentence(caught)


@pytest.mark.parametrize(
    "literal", ["null", "1", "[]", '"a"', '{"a": 1}', '{"a": []}', '{"a": null}', '{"a": {}, "a": {}}']
)
def test_odd_lists_of_cases(tmp_path: Path, literal: str) -> None:
    write_batch(tmp_path, {}, [row(0, case="a", key="k")])
    (tmp_path / "batch.json").write_text(f'{{"format": 1, "cases": {literal}, "runs": []}}')
    with pytest.raises(DataError, match=r"batch\.json is missing or damaged"):
        BatchDirectory.start(str(tmp_path), {"a": asked()}, NOW)
    with pytest.raises(DataError, match=r"batch\.json is damaged"):
        read_runs([str(tmp_path)])


def test_what_may_be_missing_may_be_missing(tmp_path: Path) -> None:
    """Questions of older versions and of other commands have fewer keys, and starts on a cluster others."""
    few = {key: question()[key] for key in ("model", "data", "samples", "method", "formulation", "tolerance", "radii")}
    few["radii"] = {"convention": "radii file r.toml", "largest": {}}
    write_run(tmp_path, [row(0)])
    starts = [{}, START, {"cluster": "tcp://h:1", "solver": None}, {"solver": START["solver"] | {"licence": "MIT"}}]  # type: ignore[operator]
    (tmp_path / "run.json").write_text(json.dumps(few | {"runs": starts}))
    (case,) = read_runs([str(tmp_path)])
    assert len(case.rows) == 1 and case.run.solvers == ["highs 1.2.3"]


def test_a_refusal_quotes_no_more_than_it_must(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(0), row(1)])
    lines = (run / "samples.jsonl").read_text().replace('"ibp"', json.dumps("\x1b[31m" + "x" * 10_000), 1)
    (run / "samples.jsonl").write_text(lines)
    result = qverify("report", run)
    assert result.exit_code == 2 and len(result.stderr) < 400 and "\x1b" not in result.stderr
