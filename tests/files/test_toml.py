"""TOML that nobody can mean: radii, plans and configurations refuse it in one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.errors import RadiiError, UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii, load_radii
from qverify.runs.plan import Plan
from tests.support.commands import qverify
from tests.support.networks import mlp
from tests.support.paths import DIGITS

MANY = {
    "400 digits": "9" * 400,
    "5000 digits": "1" * 5000,
    "hexadecimal": "0x" + "f" * 5000,
    "negative": "-" + "9" * 400,
}
NUMBERS = MANY | {"too large": "1e400", "long": "1" * 5000 + ".0", "65 bits": str(2**64)}
VALUES = NUMBERS | {
    "deep": "[" * 3000 + "1" + "]" * 3000,
    "less deep": "[" * 100 + "1" + "]" * 100,
    "tables": "{a = " * 100 + "1" + "}" * 100,
    "many tables": "{a = " * 3000 + "1" + "}" * 3000,
    "date": "2024-02-29",
    "time": "07:32:00",
    "moment": "1979-05-27T00:32:00.999999-07:00",
    "no date": "2024-02-31",
    "mixed": '[1, "1", true, 2024-02-29, {a = 1}, [1]]',
    "table": "{}",
    "text": '"0.5"',
    "NUL": '"a\\u0000b"',
    "escape": '"\\u001b[31m\\u202e"',
    "raw escape": '"\x1b[31m"',
    "truth": "true",
    "empty": "[]",
    "nested empty": "[[], []]",
    "truths": "[0.1, true]",
    "texts": '["0.5"]',
    "nan": "nan",
    "minus infinity": "-inf",
}


def one_sentence(message: str) -> None:
    assert message.endswith(".") and "\n" not in message and len(message) < 600, message[:1000]
    assert "Unexpected" not in message and "fault of qverify" not in message


def refused_by_the_command(*arguments: Any) -> str:
    """What a command says that ends with status 2 and one sentence, besides notes."""
    result = qverify(*arguments)
    assert result.exit_code == 2 and result.stdout == "", (result.exit_code, result.output[-600:])
    lines = [line for line in result.stderr.split("\n")[:-1] if not line.startswith("qverify: note: ")]
    assert len(lines) == 1 and lines[0].isprintable()
    one_sentence(lines[0])
    return lines[0]


# --- radii ---


@pytest.mark.parametrize("place", ["weight = {}", "input = [{}]", "[layers.dense1]\nbias = [[{}]]"])
@pytest.mark.parametrize("case", VALUES)
def test_radii_that_nobody_can_mean(tmp_path: Path, case: str, place: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(place.format(VALUES[case]))
    refused_by_the_command("verify", DIGITS, "--data", "digits", "--samples", "0:2", "--radii", path)


@pytest.mark.parametrize(
    "value", ["0.5", True, np.True_, None, b"1", 1j, np.array(["0.5"]), np.array([True]), {"a": 1}]
)
def test_text_and_truth_are_no_numbers_at_any_depth(value: Any, rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 2, 2)
    for depth in range(4):
        with pytest.raises(RadiiError, match="is not a number or a rectangular array of numbers"):
            Family.of(network, Radii(weight=value))
        value = [value] if depth % 2 else (value, 0.5)


def test_a_list_within_itself_is_no_radius(rng: np.random.Generator) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RadiiError, match="is not a number"):
        Family.of(mlp(rng, 3, 2, 2), Radii(weight=endless))


@given(st.recursive(st.floats(0, 9) | st.integers(0, 9), lambda inner: st.lists(inner, min_size=2, max_size=2)))
def test_numbers_at_any_depth_are_still_radii(
    value: float | list[float | list[float | list[float | list[float | list[Any]]]]],
) -> None:
    """Whatever broadcasts to the tensor; oracle: numpy on the nested list."""
    network = mlp(np.random.default_rng(0), 2, 2)
    try:
        expected = np.asarray(value, dtype=float)
        expected = expected.reshape(-1, 1) if expected.shape == (2,) else expected
        expected = np.broadcast_to(expected, (2, 2))
    except ValueError:
        with pytest.raises(RadiiError):
            Family.of(network, Radii(weight=value))
        return
    np.testing.assert_array_equal(Family.of(network, Radii(weight=value)).weight[1], expected)


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        1,
        np.float32(0.5),
        np.int64(1),
        Fraction(1, 2),
        np.array([0.5, 1]),
        np.array([0.5, 1], object),
        [np.float64(1), 1],
    ],
)
def test_what_else_is_a_number(value: Any, rng: np.random.Generator) -> None:
    assert Family.of(mlp(rng, 2, 2), Radii(weight=value)).weight[1].max() in (0.5, 1.0)


def test_an_integer_beyond_every_float_is_not_finite(rng: np.random.Generator) -> None:
    for value in (10**400, [0.5, 10**400]):
        with pytest.raises(RadiiError, match="holds NaN or infinity"):
            Family.of(mlp(rng, 3, 2, 2), Radii(weight=value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "states no radius, so nothing would be quantised"),
        ("# weight = 0.1\n", "states no radius"),
        ("[layers]\n", "states no radius"),
        ("weight = 0.1\n[layers.dense1]\n", "the table of layer 'dense1' states no radius; add one, or leave it out"),
        ("[layers.'\\u202e']\n", "states no radius"),
        ('"\\u001b[31m" = 1\n', "unknown key"),
        ('"" = 1\n', "unknown key ''"),
        (f"{'k' * 9999} = 1\n", "unknown key"),
        ('weight = 0.1\n[layers."\\u001b[31m"]\nweight = 0.1\n', "has no layer"),
        ("weight = 0.1\nweight = 0.2\n", "is not valid TOML"),
    ],
)
def test_empty_tables_and_odd_keys(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    assert words in refused_by_the_command("verify", DIGITS, "--data", "digits", "--radii", tmp_path / "r.toml")


def test_what_stands_in_a_file_is_what_is_meant(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "r.toml").write_text("weight = 9007199254740992\nbias = 1e308\n")
    radii = load_radii(str(tmp_path / "r.toml"))
    assert radii.weight == 2**53 and radii.bias == 1e308


# --- plans ---

KEYS = ["models", "data", "bits", "radii", "schemes", "roundings", "methods", "samples", "timeout", "clip-input"]
KEYS += ["formulation", "solver", "out"]


@pytest.mark.parametrize("key", KEYS)
def test_plans_that_nobody_can_mean(tmp_path: Path, key: str) -> None:
    """A name that no model, no data set and no file of radii has is refused where it is read, so not here."""
    names = ("models", "data", "radii", "out", "samples")
    whole = {"models": '["a.onnx"]', "data": '"digits"', "bits": "[8]"}
    for case, value in VALUES.items():
        if (key in names and case in ("escape", "text", "texts")) or (
            key == "timeout" and case in ("nan", "minus infinity")
        ):
            continue
        for literal in (value, f"[{value}]"):
            stated = whole | {key: literal}
            (tmp_path / "p.toml").write_text("".join(f"{name} = {text}\n" for name, text in stated.items()))
            if key in names and case in ("text", "texts"):
                continue
            with pytest.raises(UsageError) as caught:
                Plan.read(str(tmp_path / "p.toml"))
            one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'models = ["{"x" * 300}.onnx"]', "File name too long"),
        (f'models = ["{"x/" * 5000}"]', "File name too long"),
        (f'data = ["{"x" * 300}.npz"]', "ile name too long"),
        (f'radii = ["{"x" * 300}.toml"]', "ile name too long"),
        ('models = ["\\u001b[31m.onnx"]', "does not exist"),
        ('data = ["\\u202e.npz"]', "does not exist"),
        ("timeout = nan", "The time limit is nan seconds"),
        ("timeout = -inf", "The time limit is -inf seconds"),
        ("clip-input = [nan, 1]", "two finite numbers"),
        (f"bits = [{2**62}]", f"The bit-width is {2**62}"),
        ('samples = "１:２"', "is not of the form A:B"),
        (f'out = "{"x" * 300}"', "File name too long"),
    ],
)
def test_plans_that_name_what_cannot_be(tmp_path: Path, line: str, words: str) -> None:
    stated = {"models": f'["{DIGITS}"]', "data": '"digits"', "bits": "[8]", "out": '"out"', "samples": '"0:2"'}
    key, _, value = line.partition(" = ")
    stated |= {key: value}
    (tmp_path / "p.toml").write_text("".join(f"{name} = {text}\n" for name, text in stated.items()))
    assert words in refused_by_the_command("batch", tmp_path / "p.toml", "--jobs", 1)


# --- configurations of a training ---


@pytest.mark.parametrize("key", ["epochs", "lr", "arch", "data", "clip-input", "out", "radii", "seed", "scheme"])
def test_configurations_that_nobody_can_mean(tmp_path: Path, key: str) -> None:
    for case, value in VALUES.items():
        stated = {"data": '"digits"', "arch": '"mlp:8"', "epochs": "1", "out": f'"{tmp_path}/m.onnx"'} | {key: value}
        (tmp_path / "c.toml").write_text("".join(f"{name} = {text}\n" for name, text in stated.items()))
        result = qverify("train", "--config", tmp_path / "c.toml")
        assert result.exit_code == 2 and result.stdout == "", (case, result.stderr[-500:])
        assert "Traceback" not in result.stderr and "fault of" not in result.stderr and len(result.stderr) < 1000
        assert all(line.isprintable() for line in result.stderr.split("\n"))


# --- paths ---


def test_a_path_with_a_nul_is_no_file() -> None:
    for read in (load_radii, Plan.read):
        with pytest.raises((RadiiError, UsageError), match=r"Cannot read the .* no file can have that name"):
            read("a\0b.toml")


@pytest.mark.parametrize(
    "content", [b"\xff", b"weight = 0.1\n\x00", b"\x00", b'weight = "\xed\xa0\x80"', b"a" * 10_000_000]
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(RadiiError, match="is not valid TOML") as caught:
        load_radii(str(tmp_path / "r.toml"))
    one_sentence(str(caught.value))
    assert Path(tmp_path / "r.toml").exists()
