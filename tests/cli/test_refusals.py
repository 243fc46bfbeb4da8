"""Bad input: every refusal is one sentence on stderr that says what to do, with the right exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.errors import InternalError
from qverify.exact.solvers import ADAPTERS
from qverify.onnx import reader as onnx_io
from tests.support import networks, onnx_models
from tests.support.commands import answer, qverify, read_rows
from tests.support.paths import DIGITS
from tests.support.refusals import refusal
from tests.support.stored_data import npz

IMAGES, LABELS = np.full((3, 8, 8), 0.5), np.array([1, 2, 3])
EIGHT = ("--data", "digits", "--bits", 8)


# --- models ---


def test_bad_models(tmp_path: Path) -> None:
    def verdict_on(path: Path) -> str:
        return refusal("verify", path, *EIGHT)

    content = Path(DIGITS).read_bytes()
    assert "does not exist; check the path of the model" in verdict_on(tmp_path / "none.onnx")
    assert "is a directory" in verdict_on(tmp_path)
    for name, data in (("cut", content[: len(content) // 2]), ("text", b"hello " * 99), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        assert str(tmp_path / name) in verdict_on(tmp_path / name)


@pytest.mark.parametrize("command", ["verify", "discrepancy", "inspect"])
def test_an_unsupported_operator_is_named(tmp_path: Path, command: str) -> None:
    built = onnx_models.model([onnx_models.node("Sinh", "x", "y")], {}, ["N", 64])
    (tmp_path / "m.onnx").write_bytes(built.SerializeToString())
    message = refusal(command, tmp_path / "m.onnx", *EIGHT)
    assert "uses what qverify does not support" in message and "Sinh" in message and "y_node" in message


# --- data ---

BAD_DATA = {
    "shape": ({"x": np.zeros((3, 5, 5)), "y": LABELS}, "have shape (5, 5), but the network reads"),
    "label": ({"x": IMAGES, "y": LABELS + 7}, "The largest label of data is 10, but the network has 10 outputs"),
    "negative label": ({"x": IMAGES, "y": LABELS - 2}, "negative label -1"),
    "NaN": ({"x": IMAGES * np.nan, "y": LABELS}, "192 NaN or infinite values"),
    "counts": ({"x": IMAGES, "y": LABELS[:2]}, "holds 3 samples but 2 labels"),
    "keys": ({"images": IMAGES, "y": LABELS}, "must hold x_test and y_test or x and y"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(tmp_path: Path, case: str) -> None:
    arrays, wording = BAD_DATA[case]
    assert wording in refusal("verify", DIGITS, "--data", npz(tmp_path, **arrays), "--bits", 8)


def test_what_classifies_nothing_takes_networks_of_one_output(tmp_path: Path) -> None:
    """Its labels do not matter either; `verify` says how to ask about two classes."""
    onnx_io.save(networks.mlp(np.random.default_rng(0), 4, 5, 1), tmp_path / "m.onnx")
    data = npz(tmp_path, x=np.full((3, 4), 0.5), y=np.array([0, 1, 7]))
    for more in ((), ("--scheme", "channel")):
        found = answer("discrepancy", tmp_path / "m.onnx", "--data", data, "--bits", 8, *more)
        assert len(found["rows"]) == 3
        assert answer("inspect", tmp_path / "m.onnx", "--data", data, "--bits", 8, *more)["layers"]
    data = npz(tmp_path, x=np.full((3, 4), 0.5), y=np.array([0, 1, 1]))
    message = refusal("verify", tmp_path / "m.onnx", "--data", data, "--bits", 8)
    assert "The network has 1 output; a classifier needs at least 2: where the sign of one number z tells" in message


def test_a_message_does_not_list_a_hundred_layers(tmp_path: Path) -> None:
    onnx_io.save(networks.mlp(np.random.default_rng(0), *[2] * 102), tmp_path / "m.onnx")
    (tmp_path / "r.toml").write_text("[layers.conv]\nweight = 0.1")
    data = npz(tmp_path, x=np.full((3, 2), 0.5), y=np.array([0, 1, 1]))
    message = refusal("verify", tmp_path / "m.onnx", "--data", data, "--radii", tmp_path / "r.toml")
    assert " and 91 more. `qverify inspect` lists all layers" in message and len(message) < 400


def test_data_that_are_not_there(tmp_path: Path) -> None:
    assert "There is no data set or file 'mnits'" in refusal("verify", DIGITS, "--data", "mnits", "--bits", 8)
    message = refusal("verify", DIGITS, "--data", tmp_path / "none.npz", "--bits", 8)
    assert "none.npz does not exist" in message


@pytest.mark.parametrize(
    ("samples", "wording"),
    [
        ("0:600", "'0:600' reaches beyond digits, which has 599 samples"),
        ("5:5", "is empty"),
        ("-3:", "is negative"),
        ("0", "is empty"),
        ("-7", "is negative"),
        ("1.5", "is not of the form A:B; write for example 0:599, or N for the first N samples"),
    ],
)
def test_samples_outside(samples: str, wording: str) -> None:
    assert wording in refusal("verify", DIGITS, *EIGHT, f"--samples={samples}")


# --- radii ---

BAD_RADII = {
    "negative": ("weight = -0.1", "is negative (-0.1)"),
    "NaN": ("activation = nan", "holds NaN or infinity"),
    "infinite": ("[layers.dense1]\nweight = inf", "The weight (dense1) radius holds NaN or infinity"),
    "shape": ("input = [[0.1, 0.2, 0.3]]", "The input radius has shape (1, 3), which fits neither"),
    "ragged": ("weight = [[0.1], [0.1, 0.2]]", "not a number or a rectangular array"),
    "text": ('bias = "small"', "not a number or a rectangular array"),
    "layer": ("[layers.dense9]\nweight = 0.1", "has no layer 'dense9' with a radius for its weight; those are: dense1"),
    "key": ("wieght = 0.1", "unknown key 'wieght'"),
    "not TOML": ("weight 0.1", "is not valid TOML"),
}


@pytest.mark.parametrize("case", BAD_RADII)
def test_bad_radii(tmp_path: Path, case: str) -> None:
    text, wording = BAD_RADII[case]
    (tmp_path / "r.toml").write_text(text)
    assert wording in refusal("verify", DIGITS, "--data", "digits", "--radii", tmp_path / "r.toml")


@pytest.mark.parametrize("command", ["verify", "discrepancy"])
def test_one_of_bits_and_radii(tmp_path: Path, command: str) -> None:
    assert "give --bits N, or --radii FILE.toml" in refusal(command, DIGITS, "--data", "digits")
    (tmp_path / "r.toml").write_text("weight = 0.1")
    assert "exclude each other" in refusal(command, DIGITS, *EIGHT, "--radii", tmp_path / "r.toml")
    assert "is not" not in refusal(command, DIGITS, "--data", "digits", "--radii", tmp_path / "none.toml")
    given = ("--data", "digits", "--radii", tmp_path / "r.toml", "--rounding", "any")
    assert "give --bits too" in refusal(command, DIGITS, *given)


def test_bits_outside_their_range() -> None:
    assert "The bit-width is 0; it must be a whole number from 1 to 32" in refusal(
        "verify", DIGITS, "--data", "digits", "--bits", 0
    )
    assert "from 2 to 32" in refusal("verify", DIGITS, "--data", "digits", "--bits", 1, "--scheme", "tensor")


# --- options ---

BAD_OPTIONS = {
    "clip": (("--clip-input", 0.5, 1), "Some inputs lie outside --clip-input 0.5 1; widen it"),
    "empty clip": (("--clip-input", 1, 1), "two finite numbers, the smaller one first"),
    "NaN clip": (("--clip-input", "nan", 1), "two finite numbers"),
    "endless clip": (("--clip-input", 0, "inf"), "two finite numbers"),
    "timeout": (("--timeout", 0), "The time limit is 0.0 seconds"),
    "NaN timeout": (("--timeout", "nan"), "The time limit is nan seconds"),
    "jobs": (("--jobs", -1), "The number of jobs is -1"),
    "device": (("--device", "abacus"), "The device 'abacus' cannot be used"),
    "resume": (("--resume",), "give --out DIR too"),
    "witnesses": (("--witnesses",), "give --out DIR too"),
    "products": (("--solver", "highs", "--formulation", "bilinear"), "use --solver gurobi or --solver scip"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str) -> None:
    given, wording = BAD_OPTIONS[case]
    assert wording in refusal("verify", DIGITS, *EIGHT, *given, status=3 if case == "products" else 2)


@pytest.mark.parametrize(
    "given",
    [
        ("--method", "best"),
        ("--jobs", "9" * 400),
        ("--bits", "x"),
        ("--fail-on", "verified"),
        ("--solver", "cplex"),
        ("--frobnicate",),
    ],
)
def test_wrong_usage_is_status_2(given: tuple[str, ...]) -> None:
    result = qverify("verify", DIGITS, *EIGHT, *given)
    assert result.exit_code == 2 and result.stdout == "" and "Error: " in result.stderr
    assert qverify("verify", DIGITS, "--bits", 8).exit_code == 2  # no --data


LISTS = {
    "commas": "4,8",
    "blanks": "4, 6, 8",
    "range": "4:8",
    "dash": "4-8",
    "open": "4:",
    "semicolons": "4;8",
}


@pytest.mark.parametrize("command", ["verify", "radius", "discrepancy", "inspect"])
@pytest.mark.parametrize("case", LISTS)
def test_a_list_of_bit_widths_points_to_what_takes_one(command: str, case: str) -> None:
    given = LISTS[case]
    message = refusal(command, DIGITS, "--data", "digits", "--bits", given)
    assert message.startswith(
        f"--bits takes one bit-width here, not '{given}'; qverify sweep takes a range, as in --bits"
    )
    assert "a plan for qverify batch a list" in message


def test_what_takes_several_bit_widths_does() -> None:
    """As the message says."""
    few = ("--data", "digits", "--samples", 5, "--method", "ibp", "--parts", "all")
    found = answer("sweep", DIGITS, *few, "--bits", "7:8")
    assert [row["bits"] for row in found["rows"]] == [7, 8]


def test_bits_of_train_are_one_number_too(tmp_path: Path) -> None:
    given = ("--data", "digits", "--arch", "mlp:4", "--out", tmp_path / "m.onnx", "--bits", "4,8")
    assert refusal("train", *given) == "--bits takes one bit-width here, not '4,8'; train a network for each."


@pytest.mark.parametrize(
    ("option", "words"), [("--scheme", "tensor,channel"), ("--rounding", "any, nearest"), ("--method", "ibp,bp")]
)
def test_a_list_of_words_points_to_what_takes_one(option: str, words: str) -> None:
    message = refusal("verify", DIGITS, *EIGHT, option, words)
    assert message.startswith(f"{option} takes one of ") and f", not '{words}'; a plan for qverify batch" in message


@pytest.mark.parametrize("given", ["-8", "8.5", "x", "8,x", ""])
def test_what_is_no_list_of_bit_widths_is_wrong_usage(given: str) -> None:
    result = qverify("verify", DIGITS, "--data", "digits", f"--bits={given}")
    assert result.exit_code == 2 and result.stdout == "" and "sweep" not in result.stderr


def test_inspect_needs_data_for_what_it_measures() -> None:
    assert "give --data too" in refusal("inspect", DIGITS, "--samples", "0:3")
    assert "give --data too" in refusal("inspect", DIGITS, "--bits", 8, "--scheme", "tensor")


# --- runs on disk ---


def test_a_directory_in_use_by_another_question(tmp_path: Path) -> None:
    given = ("verify", DIGITS, "--data", "digits", "--samples", "0:5", "--out", tmp_path, "--bits")
    answer(*given, 8)
    before = read_rows(tmp_path)
    assert "holds a run already; add --resume" in refusal(*given, 8)
    message = refusal(*given, 6, "--resume")
    assert "radii.bits was 8 and is 6 now" in message and "largest" not in message
    assert "method" in refusal(*given, 8, "--resume", "--method", "ibp")
    assert read_rows(tmp_path) == before


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal("verify", DIGITS, *EIGHT, "--out", tmp_path / "file" / "run")
    assert "cannot be written" in refusal("discrepancy", DIGITS, *EIGHT, "--out", tmp_path / "no" / "rows.jsonl")


# --- solvers ---


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path | int | str, ...]:
    """A network whose program has more variables than the small licence of Gurobi admits, and a sample with a worst
    margin that its linear relaxation (HiGHS, always) does not give."""
    folder = tmp_path_factory.mktemp("wide")
    network = networks.mlp(np.random.default_rng(3), 5, 12, 2050, 2)
    onnx_io.save(network, folder / "wide.onnx")
    x = -np.ones((1, 5))
    y = onnx_io.load(folder / "wide.onnx").evaluate(x).argmax(1)
    return ("verify", folder / "wide.onnx", "--data", npz(folder, x=x, y=y), "--bits", 14, "--method", "exact")


def test_a_program_too_large_for_the_small_licence(wide: tuple[Path | int | str, ...]) -> None:
    gurobi: Any = ADAPTERS["gurobi"]
    if not gurobi.availability().works or gurobi.full_licence():
        pytest.skip("needs Gurobi with the size-limited licence")
    message = refusal(*wide, "--solver", "gurobi", status=3)
    assert "admits 2000 variables" in message and "Use `--solver highs`" in message


def test_a_large_program_goes_to_highs_without_a_full_licence(
    wide: tuple[Path | int | str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ADAPTERS["gurobi"]), "full_licence", lambda self: False)
    found = answer(*wide, "--timeout", 3)
    assert found["by_method"].keys() == {"exact"} and found["solver"].startswith("highs")


# --- faults of qverify itself ---


@pytest.mark.parametrize(
    ("error", "wording"),
    [
        (InternalError("A bound is crossed."), "A bound is crossed. Please report this"),
        (ZeroDivisionError("division by zero"), "Unexpected ZeroDivisionError (division by zero). This is a fault"),
    ],
)
def test_an_internal_error_is_status_4_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, error: Any, wording: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("QVERIFY_DEBUG", raising=False)
    monkeypatch.setattr("qverify.runs.verify.Cascade.run", fail)
    message = refusal("verify", DIGITS, *EIGHT, status=4)
    assert wording in message and "report" in message
    monkeypatch.setenv("QVERIFY_DEBUG", "1")
    assert "Traceback" in qverify("verify", DIGITS, *EIGHT).stderr


def test_a_sample_without_a_verdict_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qverify.runs.verify.Cascade.run", lambda *_: None)
    assert "passed over without a verdict" in refusal("verify", DIGITS, *EIGHT, status=4)
