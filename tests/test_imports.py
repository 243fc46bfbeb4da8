"""What a user waits for: names load what they need and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "scipy", "onnx", "onnxruntime", "highspy", "gurobipy", "pyscipopt", "rich", "matplotlib"}


def loaded(code: str) -> set[str]:
    """The heavy packages that are loaded after some code."""
    asked = f"{code}\nimport sys\nprint(*{HEAVY!r} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120)
    return set(found.stdout.split())


@pytest.mark.parametrize(
    "code", ["import qverify; qverify.Options()", "import qverify.choices", "from qverify.cli.options import Given"]
)
def test_options_load_nothing_heavy(code):
    assert loaded(code) == set()


def test_what_is_heavy_is_seen():
    assert "torch" in loaded("from qverify import verify")


def test_the_version_stands_in_one_place():
    from importlib.metadata import version

    import qverify

    assert qverify.__version__ == version("qverify")


def test_the_package_is_a_command():
    found = subprocess.run([sys.executable, "-m", "qverify", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("qverify ")
