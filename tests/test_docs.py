"""The pages of docs/ have all that they promise: commands and options, operators, public names, words, packages."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import qverify
from qverify import choices, datasets, errors, onnx, training
from qverify.cli import main
from qverify.exact.solvers import ADAPTERS
from qverify.layers import Layer
from qverify.onnx.operators import OPERATORS
from qverify.tflite.reader import OPERATORS as TFLITE_OPERATORS
from tests.support.paths import ROOT, TESTS

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SITE = (ROOT / ".ci" / "mkdocs.yml").read_text(encoding="utf-8")
PAGES = sorted(DOCS.rglob("*.md"))
ALSO = {
    "qverify.family.radii_file.load_radii",
    "qverify.analysis.sweeps.sweep",
    "qverify.analysis.factors.largest_factors",
    "qverify.analysis.layers.layer_radii",
    "qverify.errors",
}
"""What is public besides the names of the package and of the packages that hand names on."""
BORROWED = {"--help", "--version", "--only", "--memory-limit", "--nthreads", "--scheduler-file"}
"""Options that pages name and that are no command's own: also those of Dask."""


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def first_cells(markdown: str) -> list[list[str]]:
    """What stands in backticks in the first cell of every line of a table."""
    rows = [line.split("|")[1] for line in markdown.splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", cell) for cell in rows]


# --- the site ---


def hooks() -> ModuleType:
    """What the site is made with; skips where its tools are not installed (they need a newer Python)."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / ".ci" / "mkdocs_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ *- (\S+\.md)$", SITE, re.MULTILINE)
    assert sorted(listed) == sorted(["index.md", *(path.relative_to(DOCS).as_posix() for path in PAGES)])


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("README.md", "[a](docs/onnx.md)", "[a](onnx.md)"),
        ("README.md", "[a](docs/formats.md#1-questions)", "[a](formats.md#1-questions)"),
        ("README.md", "see [LICENSE](LICENSE).", "see LICENSE."),
        ("docs/performance.md", "[results/scale](../results/scale/README.md)", "results/scale"),
        ("docs/commands/verify.md", "[a](../trust.md) [b](radius.md)", "[a](../trust.md) [b](radius.md)"),
        ("docs/commands/verify.md", "[a](../../README.md)", "[a](../index.md)"),
        ("docs/trust.md", "[a](#x) [b](https://example.org/c)", "[a](#x) [b](https://example.org/c)"),
    ],
)
def test_links_fit_the_site(path: str, before: str, after: str) -> None:
    assert hooks().linked(before, path) == after


# --- commands ---


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_a_page_and_a_line_in_readme(name: str) -> None:
    page = text(f"commands/{name}.md")
    assert page.startswith(f"# qverify {name}\n") and f"\n<!-- options of {name} -->\n" in page
    assert f"[`qverify {name}`](docs/commands/{name}.md)" in README


def test_no_page_is_about_a_command_that_is_gone() -> None:
    assert {path.stem for path in (DOCS / "commands").iterdir()} == main.commands.keys()


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_is_in_the_table_that_the_site_shows(name: str) -> None:
    table = hooks().on_page_markdown(text(f"commands/{name}.md"), page_at(f"commands/{name}.md"))
    shown = re.findall(r"^\| <code>(.*?)</code> \|", table, re.MULTILINE)
    flags = {flag for names in shown for flag in re.findall(r"(?<![\w-])--?[\w-]+", names)}
    assert flags == options(main.commands[name]) | {"-h", "--help"}
    assert "<!--" not in table


def options(command: click.Command) -> set[str]:
    found = (param for param in command.params if isinstance(param, click.Option))
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = {flag for param in found for flag in (*param.opts, *param.secondary_opts)}
    return own.union(*map(options, inner))


def page_at(path: str) -> Any:
    """As much of a page as the hooks look at."""

    class Page:
        class file:
            src_uri = path

    return Page


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_every_option_named_exists(path: Path) -> None:
    known = set[str]().union(*(options(command) for command in main.commands.values())) | BORROWED
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"))))
    assert named <= known


# --- what code has in tables ---


def test_the_operators_are_those_that_are_read() -> None:
    for page, operators in (("onnx.md", OPERATORS), ("tflite.md", TFLITE_OPERATORS)):
        cells = first_cells(text(page))
        assert {name for names in cells for name in names} == set(operators)


def test_words_are_explained() -> None:
    """A word of an option stands in concepts or on the page of what it chooses."""
    concepts = "\n".join(map(text, ("concepts.md", "trust.md", "commands/verify.md", "solvers.md")))
    for words in (choices.SCHEMES, choices.ROUNDINGS, choices.KERNELS, choices.BATCHNORMS, choices.STAGES):
        assert all(re.search(rf"`(?:--\w+ )?{re.escape(word)}`", concepts) for word in words), words
    for word in (*choices.SCHEMES, *choices.ROUNDINGS, *choices.KERNELS, *choices.BATCHNORMS, *choices.SOLVERS):
        assert f"`{word}`" in text("formats.md"), word


def test_solvers_are_named() -> None:
    page = text("solvers.md").lower()
    assert all(name in page for name in ADAPTERS)


def test_the_types_of_layers_are_listed() -> None:
    """As `inspect --json` names them."""
    kinds = {kind.__name__ for kind in Layer.__subclasses__() if kind.__module__.startswith("qverify.")}
    section = text("formats.md").split("\n### 12.6 ")[1].split("\n### ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith("| `kind` |")]
    assert set(re.findall(r"`(\w+)`", line)) - {"kind"} == kinds


def test_packages_stand_in_the_order_of_their_floors() -> None:
    """The table of architecture.md against `FLOORS` of test_architecture.py."""
    tree = ast.parse((TESTS / "test_architecture.py").read_text(encoding="utf-8"))
    (floors,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    floor = {name: number for number, names in enumerate(ast.literal_eval(floors)) for name in names}
    rows = [[re.sub(r"(\.py|/)$", "", name) for name in names] for names in first_cells(text("architecture.md"))]
    rows = [names for names in rows if set(names) & floor.keys()]
    assert {name for names in rows for name in names} == floor.keys() - {"moved", "__main__"}
    heights = [(min(map(floor.__getitem__, names)), max(map(floor.__getitem__, names))) for names in rows]
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(heights))


def test_tests_that_architecture_names_exist() -> None:
    for name in re.findall(r"`(tests/[\w/.]+)`", text("architecture.md") + text("contributing.md")):
        assert (ROOT / name).exists(), name


# --- Python ---


def entries() -> dict[str, list[str]]:
    """What api.md shows, and the members that it picks."""
    page = text("api.md")
    found = re.findall(r"^::: (\S+)\n((?:^ +.*\n|^\n(?= ))*)", page, re.MULTILINE)
    return {
        name: re.findall(r"\w+", match[1]) if (match := re.search(r"members: \[(.*)\]", options)) else []
        for name, options in found
    }


def resolved(name: str) -> Any:
    """The object of a dotted name; raises where there is none."""
    for length in range(name.count(".") + 1, 0, -1):
        parts = name.split(".")
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def test_every_public_name_is_in_api() -> None:
    shown = entries()
    errors_too = {f"qverify.{name}" for name in vars(errors) if f"qverify.{name}" in shown}
    among_errors = {"qverify.QVerifyWarning", "qverify.NotProved"}
    assert {f"qverify.{name}" for name in qverify.__all__} - among_errors <= shown.keys() | errors_too
    assert shown.keys() >= ALSO
    for face in (datasets, training):
        assert sorted(shown[face.__name__]) == sorted(face.__all__)
    assert {*shown["qverify.onnx"], "load", "save"} == set(onnx.__all__)


def test_every_error_is_shown() -> None:
    """By its module: none is private, and each says what it is."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert qverify.QVerifyWarning in kinds and errors.QVerifyError in kinds
    assert all(kind.__doc__ and not kind.__name__.startswith("_") for kind in kinds)


@pytest.mark.parametrize("name", sorted(entries()))
def test_every_name_in_api_exists(name: str) -> None:
    found = resolved(name)
    for member in entries()[name]:
        assert hasattr(found, member), member


# --- the glossary ---

WORDS = """attack bracket chord family gain margin member position question radius rival row scheme scope stage
verdict witness"""


def test_the_glossary_is_in_order_and_has_the_words_of_this_house() -> None:
    words = re.findall(r"^\*\*(.+?)\.\*\* \S", text("glossary.md"), re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    assert {*WORDS.split(), "rounding point"} <= {word.lower() for word in words}
