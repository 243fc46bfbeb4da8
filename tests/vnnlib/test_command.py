"""The command line that the standard prescribes: streams, formats, refusals; and the scripts of VNN-COMP."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qverify.version import __version__
from qverify.vnnlib.supports import CAPABILITIES
from tests.support.commands import qverify
from tests.support.paths import ROOT
from tests.support.vnnlib_queries import model, text

SCRIPTS = ROOT / "examples" / "vnncomp"
SECOND = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [2,1]) (declare-output Y real [1]))
(assert (and (<= X[0,0] 1.0) (>= X[0,0] 0.0) (<= X[1,0] 0.5) (>= X[1,0] 0.5)))
(assert (>= Y[0] {limit}))
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """y = x_0 + 2 x_1: at most 2 on the boxes below."""
    return model([(np.array([[1.0, 2.0]]), np.zeros(1))], tmp_path / "sum.onnx")


def first(limit: float) -> str:
    return text([0.0, 0.5], [1.0, 0.5], [[(np.array([-1.0]), -limit)]])


def asked(tmp_path: Path, query: str, *more: Any) -> Any:
    path = tmp_path / "q.vnnlib"
    path.write_text(query)
    return qverify("vnnlib", "verify", path, *more)


def test_version_1_prints_names_and_numbers(tmp_path: Path, network: Path) -> None:
    result = asked(tmp_path, first(1.75), "--network", f"any={network}")
    assert result.exit_code == 0
    words = [line.strip("()").split() for line in result.stdout.splitlines()]
    assert [word[0] for word in words] == ["sat", "X_0", "X_1", "Y_0"]
    assert result.stdout.startswith("sat\n((X_0 ") and result.stdout.endswith("))\n")
    x0, x1, y = (float(word[1]) for word in words[1:])
    assert (x1, y) == (0.5, x0 + 1.0) and y >= 1.75
    assert asked(tmp_path, first(2.1), "--network", network).stdout == "unsat\n"


def test_version_2_prints_tensors(tmp_path: Path, network: Path) -> None:
    pytest.importorskip("vnnlib")
    result = asked(tmp_path, SECOND.format(limit=1.75), "--network", f"f={network}")
    lines = result.stdout.splitlines()
    assert [lines[0], lines[1], lines[4]] == ["sat", "X real [2,1]", "Y real [1]"] and len(lines) == 6
    assert float(lines[3]) == 0.5 and float(lines[5]) == float(lines[2]) + 1.0 >= 1.75
    assert asked(tmp_path, SECOND.format(limit=2.1), "--network", f"f={network}").stdout == "unsat\n"


@pytest.mark.parametrize("option", ["--serialise-assignments", "--assignments"])
def test_assignments_are_written_as_tensors(option: str, tmp_path: Path, network: Path) -> None:
    pytest.importorskip("vnnlib")
    folder = tmp_path / "a" / "b"
    result = asked(tmp_path, SECOND.format(limit=1.75), "--network", f"f={network}", option, folder)
    assert result.stdout == "sat\n" and sorted(p.name for p in folder.iterdir()) == ["X.pb", "Y.pb"]
    x, y = (numpy_helper.to_array(onnx.load_tensor(str(folder / f"{name}.pb"))) for name in "XY")
    assert x.shape == (2, 1) and y.shape == (1,) and x.dtype.name == "float32"
    assert y[0] == x[0, 0] + 2 * x[1, 0] >= 1.75


def test_compressed_files_are_read(tmp_path: Path, network: Path) -> None:
    query, packed = tmp_path / "q.vnnlib.gz", tmp_path / "sum.onnx.gz"
    query.write_bytes(gzip.compress(first(2.1).encode()))
    packed.write_bytes(gzip.compress(network.read_bytes()))
    assert qverify("vnnlib", "verify", query, "--network", packed).stdout == "unsat\n"


@pytest.mark.parametrize(
    ("query", "network_option", "words"),
    [
        (first(2.0), None, "The query needs a network; give --network NAME=FILE.onnx"),
        (first(2.0).replace("(assert (<= X_0 1.0))\n", ""), "{path}", "The input X_0 has no upper limit"),
        (first(2.0).replace("(<= X_0 1.0)", "(<= X_0 -1.0)"), "{path}", "it wants X_0 >= 0 and <= -1"),
        (first(2.0) + "(declare-const Y_1 Real)", "{path}", "declares Y with 2 numbers, but sum.onnx gives 1"),
        (first(2.0) + "(assert (<= (+ Y_0 X_0) 2))", "{path}", "ties the input X_0 to an output"),
        (first(2.0) + "(assert (<= X_0 X_1))", "{path}", "ties the input X_0 to the input X_1"),
        ("", "{path}", "is empty; give a VNN-LIB query"),
        (first(2.0), "nowhere.onnx", "nowhere.onnx does not exist"),
        (SECOND.format(limit=2.0), "g={path}", "the query declares the network 'f' and no other"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    query: str, network_option: str | None, words: str, tmp_path: Path, network: Path
) -> None:
    if "vnnlib-version" in query:
        pytest.importorskip("vnnlib")
    more = [] if network_option is None else ["--network", network_option.format(path=network)]
    result = asked(tmp_path, query, *more)
    assert (result.exit_code, result.stdout) == (2, "") and words in result.stderr
    assert result.stderr.count("\n") == 1


def test_two_families_are_refused(tmp_path: Path, network: Path) -> None:
    result = asked(tmp_path, first(2.0), "--network", network, "--bits", 4, "--radii", "r.toml")
    assert result.exit_code == 2 and "--radii and --bits both state a family" in result.stderr


def test_the_numbers_of_a_softmax_are_not_those_before_it(tmp_path: Path) -> None:
    """The reader of models drops it, which would answer another question."""
    path = model([(np.eye(2), np.zeros(2))], tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("Softmax", ["z0"], ["p"]))
    proto.graph.output[0].name = "p"
    onnx.save(proto, path)
    result = asked(tmp_path, text([0.0] * 2, [1.0] * 2, [[(-np.eye(2)[0], -2.0)]]), "--network", path)
    assert result.exit_code == 2 and result.stdout == "" and "Softmax, whose numbers a property sees" in result.stderr


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_every_capability_is_answered(name: str) -> None:
    result = qverify("vnnlib", "supports", f"--{name}")
    assert result.exit_code == 0 and result.stdout.splitlines() and result.stderr == ""


def test_capabilities_are_in_the_words_of_the_standard() -> None:
    def said(name: str) -> list[str]:
        return qverify("vnnlib", "supports", f"--{name}").stdout.splitlines()

    assert said("vnnlib-versions") == ["1.0", "2.0"] and said("onnx-element-types") == ["real"]
    assert {"Conv", "Gemm", "Relu", "MaxPool"} <= set(said("onnx-operators"))
    assert not {"Softmax", "QuantizeLinear", "DequantizeLinear", "QLinearConv"} & set(said("onnx-operators"))
    oldest, newest = map(int, said("onnx-opset-versions"))
    assert oldest == 7 and newest >= 13
    assert (said("hidden-node-theories"), said("multiple-network-theories")) == (["NH"], ["SNET"])


def test_name_and_version() -> None:
    assert qverify("vnnlib", "--name").stdout == "qverify\n"
    assert qverify("vnnlib", "--version").stdout == f"{__version__}\n"


def test_one_capability_at_a_time() -> None:
    for words in ((), ("--vnnlib-versions", "--onnx-operators")):
        result = qverify("vnnlib", "supports", *words)
        assert result.exit_code == 2 and "one capability at a time" in result.stderr


# --- the scripts ---


def script(name: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"QVERIFY_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = ["sh", str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)


@pytest.mark.slow
def test_scripts_of_vnncomp_answer_an_instance(tmp_path: Path, network: Path) -> None:
    query, results = tmp_path / "q.vnnlib", tmp_path / "results.txt"
    query.write_text(first(1.75))
    assert script("prepare_instance.sh", "v1", "tiny", network, query).returncode == 0
    assert script("run_instance.sh", "v1", "tiny", network, query, results, 60).returncode == 0
    assert results.read_text().startswith("sat\n((X_0 ") and sorted(tmp_path.glob("*.partial")) == []
    query.write_text(first(2.1))
    assert script("run_instance.sh", "v1", "tiny", network, query, results, 60).returncode == 0
    assert results.read_text() == "unsat\n"


@pytest.mark.slow
def test_scripts_say_what_goes_wrong(tmp_path: Path, network: Path) -> None:
    query, results = tmp_path / "q.vnnlib", tmp_path / "results.txt"
    query.write_text("(assert")
    assert script("prepare_instance.sh", "v1", "tiny", network, query).returncode != 0
    found = script("run_instance.sh", "v1", "tiny", network, query, results, 60)
    assert found.returncode == 2 and results.read_text() == "error\n" and "never closed" in found.stderr
    for name in ("install_tool.sh", "prepare_instance.sh", "run_instance.sh"):
        refused = script(name, "v2")
        assert refused.returncode == 2 and "usage" in refused.stderr


def test_double_models_have_double_assignments(tmp_path: Path) -> None:
    path = model([(np.array([[1.0, 2.0]]), np.zeros(1))], tmp_path / "d.onnx", double=True)
    folder = tmp_path / "out"
    result = asked(tmp_path, first(1.75), "--network", path, "--assignments", folder)
    assert result.stdout == "sat\n" and onnx.load_tensor(str(folder / "X.pb")).data_type == TensorProto.DOUBLE
