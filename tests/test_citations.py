"""Every citation of the documents leads somewhere.

Code and text cite `PAGE.md, section N`, `PAGE.md, sections N, N and N` or `N to N`, and the same with formulas, whose
numbers stand in brackets; `formula (N)` alone means that of mathematics.md. Markdown links to files and headings.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import PACKAGE, ROOT

DOCS = ROOT / "docs"
PAGES = ("mathematics.md", "formats.md")
"""Those whose sections have numbers."""
CODE = [path for part in (PACKAGE, ROOT / "tests", ROOT / "results") for path in sorted(part.rglob("*.py"))]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "results").rglob("*.md"))]


def shown(path: Path) -> str:
    """A file as messages call it: `qverify/...`, wherever the package lies, or from the checkout."""
    base = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT
    return path.relative_to(base).as_posix()


NUMBERS = r"(?:,? and |,? to |, )"
PLACE = rf"sections? (\d[\d.]*\d|\d)((?:{NUMBERS}(?:\d[\d.]*\d|\d))*)"
FORMULA = rf"formulas? \((\d+)\)((?:{NUMBERS}\(\d+\))*)"
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


def words(text: str) -> str:
    """Text as it reads: line breaks, and what begins a line of a comment or a quotation, are spaces."""
    return re.sub(r"\s*\n\s*(?:[#>] ?)?\s*", " ", text)


@cache
def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@cache
def sections(name: str) -> frozenset[str]:
    """The numbers of a page's headings."""
    titles = [title for _, title in HEADING.findall(page(name))]
    return frozenset(match[1] for title in titles if (match := re.match(r"(\d+(?:\.\d+)?) ", title)))


@cache
def formulas(name: str) -> tuple[int, ...]:
    """The numbers at the ends of indented lines, in order."""
    return tuple(map(int, re.findall(r"^ {4,}\S.* {2,}\((\d+)\)$", page(name), re.MULTILINE)))


def slugs(text: str) -> set[str]:
    """The anchors of headings, as GitHub and mkdocs make them: a title in small letters, without punctuation."""
    titles = [
        re.sub(r"[`*]", "", title) for _, title in HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def wrong(text: str, own: str = "") -> list[str]:
    """The citations in a text that lead nowhere; `own`: the page it is, if it is one, for what it says of itself."""
    text, found = words(text), []
    for match in re.finditer(rf"(?:(\w+\.md)\)?,? )?(?:{PLACE}|{FORMULA})", text):
        name, first, more, formula, others = match.groups()
        cited = name or (own if own in PAGES else "")
        if first is not None and cited in PAGES:
            numbers = [first, *re.findall(r"\d[\d.]*\d|\d", more)]
            found += [match[0] for number in numbers if number not in sections(cited)]
        elif formula is not None and (cited or PAGES[0]) in PAGES:
            numbers = [formula, *re.findall(r"\d+", others)]
            found += [match[0] for number in numbers if int(number) not in formulas(cited or PAGES[0])]
    return found


def test_citations_lead_somewhere() -> None:
    for path in [*CODE, *TEXTS]:
        if path.name == Path(__file__).name:
            continue
        text = path.read_text(encoding="utf-8")
        assert not wrong(text, path.name if path.parent == DOCS else ""), shown(path)
        assert "design" + ".md" not in text, f"{shown(path)}: the repository has no such page"


def test_code_says_which_section() -> None:
    """A page alone is no citation, and a section without its page none either."""
    for path in [path for path in CODE if path.is_relative_to(PACKAGE)]:
        text, file = words(path.read_text(encoding="utf-8")), shown(path)
        for name in PAGES:
            for match in re.finditer(rf"\b{re.escape(name)}\b", text):
                assert re.match(rf", (?:{PLACE}|{FORMULA})", text[match.end() :]), (file, text[match.start() :][:60])
        for match in re.finditer(r"\bsections? \d", text):
            before = text[: match.start()]
            assert re.search(r"(?:\w+\.md|Numerical Algorithms), $", before), (file, text[match.start() - 40 :][:80])


def test_links_lead_somewhere() -> None:
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            place, _, anchor = target.partition("#")
            file = path.parent / place if place else path
            assert file.exists(), (shown(path), target)
            assert not anchor or anchor in slugs(file.read_text(encoding="utf-8")), (shown(path), target)


@pytest.mark.parametrize("name", PAGES)
def test_numbers_count_up(name: str) -> None:
    """Sections and formulas are numbered from 1, and within a section again."""
    numbers = [title.split()[0] for marks, title in HEADING.findall(page(name)) if len(marks) == 2]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    inner = [title.split()[0].split(".") for marks, title in HEADING.findall(page(name)) if len(marks) == 3]
    assert inner == [[a, str([b for b, _ in inner[:k]].count(a) + 1)] for k, (a, _) in enumerate(inner)]
    assert formulas(name) == tuple(range(1, len(formulas(name)) + 1))


def test_formulas_that_the_mathematics_names_are_there() -> None:
    """In its own text a formula is named by its number alone."""
    text = re.sub(r"`[^`]*`", "", re.sub(r"^ {4,}.* {2,}\(\d+\)$", "", page(PAGES[0]), flags=re.MULTILINE))
    assert {int(number) for number in re.findall(r"\((\d+)\)", text)} <= set(formulas(PAGES[0]))
    assert len(formulas(PAGES[0])) > 20


@pytest.mark.parametrize(
    "text",
    [
        "(mathematics.md, section 99)",
        "mathematics.md, sections 1, 2 and 99",
        "mathematics.md, sections\n    98 to 99.",
        "formats.md, section 1.99",
        "# as mathematics.md,\n# section 99",
        "formula (99)",
        "mathematics.md, formulas (1) and (99)",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize("text", ["mathematics.md, sections 1, 4 and 5.", "mathematics.md, formula (2)", "formula (1)"])
def test_a_citation_that_leads_somewhere_passes(text: str) -> None:
    assert not wrong(text)


# --- files of the code ---

ELSEWHERE = {"random.py"}
"""Files that are spoken of and are not qverify's."""


def missing_files(text: str) -> set[str]:
    """The Python files that a text names and that are not there, by the end of their path."""
    found = set(re.findall(r"(?<![\w*<{$-])((?:[a-z_]+/)*[a-z_]+\.py)\b", text))
    here = list(map(shown, CODE))
    return {name for name in found - ELSEWHERE if not any(f"/{path}".endswith(f"/{name}") for path in here)}


def test_files_that_are_named_exist() -> None:
    for path in [*CODE, *TEXTS]:
        if not path.is_relative_to(ROOT / "tests"):  # tests make files of their own
            assert missing_files(path.read_text(encoding="utf-8")) == set(), shown(path)


def test_a_file_that_does_not_exist_is_seen() -> None:
    assert missing_files("see `family/none.py`, interval.py and bounds/interval.py") == {"family/none.py"}
