"""What the site has besides the pages in docs/: README as its first page, and the options of every command.

README and pages are written for a reader of the files; here their links are made to fit the site, so that no sentence
has to stand twice. What docstrings cite becomes a link, too.
"""

from __future__ import annotations

import html
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File
from pymdownx.slugs import slugify

from qverify.cli import main

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]\n]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_LOG = logging.getLogger("mkdocs.hooks")
"""What warns here fails a strict build."""
_CITED = re.compile(r"\b(mathematics|formats)\.md, sections? (\d+(?:\.\d+)?)")
_WIDE = ".md-grid { max-width: 78rem; }\n"
"""Room for the formulas."""
_OPTIONS = re.compile(r"^<!-- options of (\w+) -->$", re.MULTILINE)


def on_files(files: Any, config: Any) -> None:
    """Add the first page, and how wide pages are."""
    text = linked((ROOT / "README.md").read_text(encoding="utf-8"), "README.md")
    files.append(File.generated(config, "index.md", content=text))
    files.append(File.generated(config, "wide.css", content=_WIDE))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in options, and make links fit."""
    markdown = _OPTIONS.sub(lambda match: options(match[1]), markdown)
    return markdown if page.file.src_uri == "index.md" else linked(markdown, f"docs/{page.file.src_uri}")


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Link what docstrings cite; complain of a list that was not seen as one, for want of an empty line before it."""
    for paragraph in re.findall(r"<p>(.*?)</p>", content, re.DOTALL):
        if re.search(r"^([-*]|\d+\.) ", paragraph.partition("\n")[2], re.MULTILINE):
            _LOG.warning("%s: a list within a paragraph: %s", page.file.src_uri, paragraph[:80])
    return _CITED.sub(lambda match: cited(*match.groups()), content) if page.file.src_uri == "api.md" else content


def cited(name: str, section: str) -> str:
    """A link to a numbered section."""
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    (title,) = re.findall(rf"^#+ ({re.escape(section)} .*)$", text, re.MULTILINE)
    return f'<a href="{name}.html#{slugify(case="lower")(title, "-")}">{name}, section {section}</a>'


def linked(text: str, path: str) -> str:
    """The text of the file at `path` of the checkout with links that fit the site: what a link out of docs/ leads to is
    no part of it, so only its words remain."""
    folder = posixpath.dirname(path.removeprefix("docs/"))

    def fitted(match: re.Match[str]) -> str:
        words, place, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), place))
        if target == "README.md":
            target = "docs/index.md"
        if not target.startswith("docs/"):
            return words
        return f"[{words}]({posixpath.relpath(target.removeprefix('docs/'), folder or '.')}{anchor})"

    return _LINK.sub(fitted, text)


def options(name: str) -> str:
    """The options of a command as a table, in the words of its `--help`."""
    return _options(main.commands[name], click.Context(main, **main.context_settings))


def _options(command: click.Command, parent: click.Context) -> str:
    """The table of a command; of a group its own, and one a command in it."""
    context = click.Context(command, info_name=command.name, parent=parent)
    parameters = (one for one in command.get_params(context) if isinstance(one, click.Option))
    records = [parameter.get_help_record(context) for parameter in parameters]
    rows = [f"| <code>{_cell(names)}</code> | {_cell(says)} |" for names, says in filter(None, records)]
    tables = ["\n".join(["| option | meaning |", "|---|---|", *rows])]
    if isinstance(command, click.Group):
        inner = ((one.name, _options(one, context)) for one in command.commands.values())
        tables += [f"`{command.name} {name}`:\n\n{table}" for name, table in inner]
    return "\n\n".join(tables)


def _cell(text: str) -> str:
    """As Markdown takes for plain text: no borders of cells, no references."""
    return re.sub(r"[|\[\]]", lambda match: f"&#{ord(match[0])};", html.escape(" ".join(text.split())))
