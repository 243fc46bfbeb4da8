"""The programs of examples/ run on digits, each in an empty folder, and what they print is so."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper as onnx_helper

from qverify import onnx
from tests.support.commands import qverify, read_rows
from tests.support.paths import DIGITS, EXAMPLES, MODELS

PROGRAMS = sorted(EXAMPLES.glob("*.py"))
NORMAL = str(MODELS / "digits_normal.onnx")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: Any) -> int:
    """The exit status of a program, run as `python NAME ARGUMENTS` would run it."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with torch.random.fork_rng(devices=[]), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    code = ended.value.code
    assert isinstance(code, int)
    return code


def verified(folder: Path, *given: Any) -> list[int]:
    """The indices that the command line verifies."""
    assert qverify("verify", *given, "--data", "digits", "--out", folder).exit_code == 0
    return sorted(row["index"] for row in read_rows(folder) if row["status"] == "verified")


def test_certify_before_deployment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("certify_before_deployment.py", DIGITS, "--data", "digits", "--samples", "0:40", "--bits", 6)
    share = len(verified(Path("run"), DIGITS, "--samples", 40, "--bits", 6)) / 40
    assert status(monkeypatch, *given, "--at-least", share) == 0
    assert f"certified: {share:.2%} of 40 samples" in capsys.readouterr().out
    assert Path("certificate/margins.png").read_bytes().startswith(b"\x89PNG")
    text = Path("certificate/certificate.md").read_text()
    assert f"Not proved: {round(40 * (1 - share))} samples." in text
    assert status(monkeypatch, *given, "--at-least", share + 0.01) == 1
    assert "the worst are" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_schemes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("compare_schemes.py", DIGITS, "--data", "digits", "--samples", "0:30", "--bits", 5, 8)
    assert status(monkeypatch, *given) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["scheme", "5", "bits", "8", "bits"] and len(lines) == 3
    for line, (scheme, rounding) in zip(
        lines, (("paper", "any"), ("tensor", "nearest"), ("channel", "nearest")), strict=True
    ):
        shares = [float(one) for one in re.findall(r"([\d.]+)%", line)]
        for bits, share in zip((5, 8), shares, strict=True):
            words = ("--samples", 30, "--bits", bits, "--scheme", scheme, "--rounding", rounding, "--method", "bp")
            assert share == round(100 * len(verified(Path(f"{scheme}{bits}"), DIGITS, *words)) / 30, 1)


def test_ci_gate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--data", "digits", "--samples", "0:40", "--bits", 6)
    before = verified(Path("before"), DIGITS, *given[2:])
    after = verified(Path("after"), NORMAL, *given[2:])
    lost = sorted(set(before) - set(after))
    assert lost
    assert status(monkeypatch, "ci_gate.py", DIGITS, *given, "--at-least", 0.7) == 0
    assert json.loads(Path("verified.json").read_text()) == before
    assert status(monkeypatch, "ci_gate.py", DIGITS, *given, "--at-least", 0.7) == 0
    capsys.readouterr()
    assert status(monkeypatch, "ci_gate.py", NORMAL, *given, "--at-least", 0) == 1
    assert f"verified before and not now: {', '.join(map(str, lost))}." in capsys.readouterr().err
    assert status(monkeypatch, "ci_gate.py", NORMAL, *given, "--at-least", 0.99, "--update") == 1
    assert json.loads(Path("verified.json").read_text()) == before


def test_robust_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(monkeypatch, "robust_training.py", "--epochs", 12, "--bits", 8, "--samples", "0:60") == 0
    shares = {
        line.partition(":")[0]: [float(one) for one in re.findall(r"([\d.]+)%", line)]
        for line in capsys.readouterr().out.splitlines()
    }
    assert list(shares) == ["normal", "robust"] and shares["robust"][1] > shares["normal"][1]
    assert onnx.load("robust.onnx").output_size == 10
    proved = verified(Path("run"), "robust.onnx", "--samples", 60, "--bits", 8, "--method", "bp")
    assert shares["robust"][1] == round(100 * len(proved) / 60, 1)


def test_read_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(verified(Path("run"), DIGITS, "--samples", 40, "--bits", 6))
    assert status(monkeypatch, "read_a_run.py", "run") == 0
    out = capsys.readouterr().out
    assert "digits.onnx on digits, 6 bits, scheme paper, rounding any" in out
    assert f"40 of 40 samples: {count} verified" in out and f"guaranteed {count / 40:.1%}" in out
    rows = sorted(one["margin_lower"] for one in read_rows(Path("run")) if one["status"] == "verified")
    assert [float(one) for one in re.findall(r"at least (\S+)", out)] == [float(f"{row:.4g}") for row in rows[:3]]


def test_every_program_has_a_test_here() -> None:
    own = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert {f"test_{path.stem}" for path in PROGRAMS} <= own


PUBLIC = {"qverify", "qverify.datasets", "qverify.onnx", "qverify.training", "qverify.errors"}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_use_public_names_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert all(one.name in PUBLIC for one in node.names if one.name.startswith("qverify"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qverify"):
            assert node.module in PUBLIC


def test_try_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(monkeypatch, "try_folder.py", folder) == 2
    assert "holds no .onnx" in capsys.readouterr().err
    (folder / "models").mkdir()
    (folder / "models" / "good.onnx").write_bytes(Path(DIGITS).read_bytes())
    (folder / "models" / "damaged.onnx").write_bytes(b"no model")
    det = onnx_helper.make_node("Det", ["x"], ["y"], name="d")
    x = onnx_helper.make_tensor_value_info("x", 1, ["n", 3, 3])
    graph = onnx_helper.make_graph([det], "g", [x], [onnx_helper.make_tensor_value_info("y", 1, ["n"])])
    built = onnx_helper.make_model(graph, opset_imports=[onnx_helper.make_opsetid("", 13)], ir_version=8)
    (folder / "models" / "det.onnx").write_bytes(built.SerializeToString())
    assert status(monkeypatch, "try_folder.py", folder) == 0
    out = capsys.readouterr().out
    assert "1 of 3 files are read." in out and "Det: the operator is not supported" in out and "truncated or not" in out
