"""Packages import only what stands below them; `FLOORS` is the architecture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "qverify"
FLOORS = (
    ("text", "choices", "version"),
    ("errors",),
    ("kinds", "console", "rounding"),
    ("arrays", "files", "budget", "processes", "remarks"),
    ("layers",),
    ("network",),
    ("fingerprint",),
    ("family", "datasets", "onnx"),
    ("bounds",),
    ("exact",),
    ("verification",),
    ("analysis", "training"),
    ("runs",),
    ("workers", "report"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def part(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    own = part(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), "imports are absolute"
    for other in imported(tree) - {own}:
        assert FLOOR[other] < FLOOR[own], f"{own} imports {other}"


def test_every_part_has_a_floor():
    assert {part(path) for path in FILES} == FLOOR.keys()


def test_what_goes_up_or_across_is_seen():
    for text in ("from qverify.cli import app", "from qverify import cli", "def f():\n    import qverify.cli.app"):
        assert imported(ast.parse(text)) == {"cli"}
