"""Packages import only what stands below them; `FLOORS` is the architecture."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.paths import PACKAGE, ROOT, TESTS

FLOORS = (
    ("text", "choices", "version", "moved"),
    ("errors",),
    ("kinds", "console", "rounding"),
    ("arrays", "files", "budget", "processes", "remarks"),
    ("parts",),
    ("layers",),
    ("activations",),
    ("gather",),
    ("forward_pass",),
    ("network",),
    ("fingerprint",),
    ("datasets", "onnx"),
    ("family", "tflite"),
    ("loading",),
    ("bounds",),
    ("exact",),
    ("verification",),
    ("analysis", "properties", "replication", "runtimes", "training", "workers"),
    ("runs", "vnnlib"),
    ("report",),
    ("library",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
RESULTS = sorted((ROOT / "results").glob("*.py"))


def part(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The parts of qverify that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "qverify":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qverify."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("qverify.")}
    return found


def test_imports_go_down() -> None:
    for path in FILES:
        own, tree = part(path), ast.parse(path.read_text(encoding="utf-8"))
        relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        assert not relative, f"{path}: imports are absolute"
        for other in imported(tree) - {own}:
            assert FLOOR[other] < FLOOR[own], f"{path}: {own} imports {other}"


def test_every_part_has_a_floor() -> None:
    assert {part(path) for path in FILES} == FLOOR.keys()


def test_what_goes_up_or_across_is_seen() -> None:
    for text in ("from qverify.cli import app", "from qverify import cli", "def f():\n    import qverify.cli.app"):
        assert imported(ast.parse(text)) == {"cli"}


# --- questions and rows ---

TYPED = {"row.py", "question.py", "start.py"}
"""The files that may read the keys of rows, questions and starts; everyone else has their fields."""
KEYS = {
    *("index", "predicted", "margin_lower", "margin_upper", "scope", "detail", "limit", "case"),
    *("semantics", "model_sha256", "network_sha256", "data_source", "data_sha256", "arrays_sha256", "input_scale"),
    *("clip_input", "formulation", "timeout", "tolerance", "radii", "scheme", "rounding", "kernel", "batchnorm"),
    *("calibration", "witnesses", "max_factor", "precision", "places", "cluster"),
}
"""Keys that are of rows, questions or starts, and of nothing else."""


def keys_read(tree: ast.AST) -> set[str]:
    """The literal keys that a file reads or writes, `x["key"]` and `x.get("key")`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            key: ast.AST | None = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            key = node.args[0] if node.func.attr in ("get", "pop", "setdefault") and node.args else None
        else:
            key = None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


def test_rows_and_questions_are_read_by_their_classes_only() -> None:
    for path in [*FILES, *RESULTS]:
        if path.name not in TYPED:
            assert not keys_read(ast.parse(path.read_text(encoding="utf-8"))) & KEYS, path


def test_keys_are_seen() -> None:
    for text in ('row["limit"]', 'question.get("timeout")', 'def f():\n    x = asked.pop("radii", {})'):
        assert keys_read(ast.parse(text)) & KEYS


def test_results_do_not_import_the_command_line() -> None:
    for path in RESULTS:
        assert "cli" not in imported(ast.parse(path.read_text(encoding="utf-8"))), path


# --- the tests ---

PACKAGES = {Path(), Path("support"), Path("fuzz"), Path("matrix")}
"""The folders of tests that are packages: whoever starts pytest in tests/ must not find tests/onnx as `onnx`."""
BESIDE = {"support", "fuzz", "matrix", "benchmarks", "results", "examples", "exporters"}
"""Folders of tests that mirror no package of qverify: those of results/ and examples/ are about programs beside
it, and exporters are what others write."""
SUITE = sorted(TESTS.rglob("*.py"))


def imported_tests(tree: ast.AST, path: Path) -> set[str]:
    """What a file imports from tests/, anywhere in it, as `support.networks`; test files also by their bare names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                folders = path.relative_to(TESTS.parent).parts[: -node.level]
                module = ".".join([*folders, module]).rstrip(".")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.startswith("tests.")}
    return {name.removeprefix("tests.") for name in ours} | {name for name in names - ours if is_test(name)}


def is_test(module: str) -> bool:
    return any(part.startswith("test_") or part == "conftest" for part in module.split("."))


def test_no_test_file_imports_another() -> None:
    """What they share is in tests/support; only the fuzzer and the matrix have modules of their own."""
    for path in SUITE:
        own = path.relative_to(TESTS).parts[0]
        allowed = {"support", own} if own in ("fuzz", "matrix") else {"support"}
        for name in imported_tests(ast.parse(path.read_text(encoding="utf-8")), path):
            assert name.split(".")[0] in allowed and not is_test(name), f"{path} imports {name}"


def test_imports_between_tests_are_seen() -> None:
    path = TESTS / "fuzz" / "test_x.py"
    for text, name in (
        ("from tests.cli.test_app import answer", "cli.test_app"),
        ("import tests.cli.test_app as app", "cli.test_app"),
        ("from tests.cli import test_app", "cli.test_app"),
        ("from .test_y import z", "fuzz.test_y"),
        ("from . import test_y", "fuzz.test_y"),
        ("from ..support.networks import mlp", "support.networks"),
        ("def f():\n    from test_app import answer", "test_app"),
        ("from conftest import rng", "conftest"),
    ):
        assert name in imported_tests(ast.parse(text), path)


def test_tests_mirror_the_package() -> None:
    """A folder of tests is a package of qverify; what is no test is in support; and no folder can be imported that
    has the name of something else."""
    packages = set()
    for path in SUITE:
        folder = path.parent.relative_to(TESTS)
        first = folder.parts[0] if folder.parts else ""
        assert first in BESIDE or (PACKAGE / folder / "__init__.py").exists(), f"{folder} is no package of qverify"
        if path.name == "__init__.py":
            packages.add(folder)
        elif not is_test(path.stem):
            assert first in {"support", "fuzz", "matrix", "benchmarks"}, f"{path} belongs in support"
    assert packages == PACKAGES
