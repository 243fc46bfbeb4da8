"""What a user waits for: names load what they need and no more."""

from __future__ import annotations

import importlib
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
    "code", ["import qverify; qverify.Options()", "import qverify.choices", "from qverify.runs.given import Given"]
)
def test_options_load_nothing_heavy(code: str) -> None:
    assert loaded(code) == set()


def test_what_is_heavy_is_seen() -> None:
    assert "torch" in loaded("from qverify import verify")


def test_the_version_stands_in_one_place() -> None:
    from importlib.metadata import version

    import qverify

    assert qverify.__version__ == version("qverify")


def test_the_package_is_a_command() -> None:
    found = subprocess.run([sys.executable, "-m", "qverify", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("qverify ")


@pytest.mark.slow
def test_modules_are_found_where_they_lay_before() -> None:
    """The very modules: a class is one class, whatever path it came by."""
    code = """
import warnings
warnings.simplefilter("error")
from qverify.family.radii import Radii
try:
    import qverify.quantisation
except DeprecationWarning as said:
    assert str(said) == "qverify.quantisation is qverify.family.family now"
warnings.simplefilter("ignore")
from qverify import onnx_io
from qverify.bounds.model import BoundModel
from qverify.network import Conv, Dense, Input, Relu
from qverify.quantisation import Radii as before
import qverify.layers, qverify.family.family as new
assert before is Radii and Dense is qverify.layers.Dense and onnx_io.load is qverify.onnx.load
assert new.__spec__.name == new.__name__ == "qverify.family.family"
from qverify.moved import MOVED
import importlib
for old, now in MOVED.items():
    assert importlib.import_module(f"qverify.{old}") is importlib.import_module(f"qverify.{now}"), old
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


FORMER = {
    "qverify.analysis.sweeps": ("Row",),
    "qverify.quantisation": ("Radii", "Family", "load_radii", "read_radii", "KINDS", "outward"),
    "qverify.family.family": ("Radii", "Family", "load_radii", "read_radii", "KINDS", "outward"),
    "qverify.report.text": ("csv_text", "latex", "markdown"),
    "qverify.runs.sweep": ("csv_text",),
    "qverify.training.live_family": ("Quantiser", "StatedRadii", "RangeRadii"),
    "qverify.verification.attack": ("forward",),
    "qverify.verification.exact_step": ("in_threads", "program_memory", "solver_process"),
    "qverify.verification.hints": ("names",),
}
"""Names that a module had, and has no longer or under another name."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in FORMER.items() for name in names])
def test_names_are_found_where_they_lay_before(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


def test_a_name_that_moved_says_where_it_is_now() -> None:
    from qverify.family import family, radii_file

    with pytest.warns(
        DeprecationWarning, match=r"^qverify.family.family.load_radii is qverify.family.radii_file.load_radii"
    ):
        assert family.load_radii is radii_file.load_radii
    with pytest.raises(AttributeError, match=r"module 'qverify\.family\.family' has no attribute 'nothing'"):
        _ = family.nothing
