"""Markdown and drawings as one page of HTML: no script, no network; for phones, paper, the dark."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from dptrain.plot.formulas import MINUS, chunks, code, formula

STYLE = (files("dptrain.plot") / "page.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Section:
    """A part of a page: its name in links, its Markdown that begins with a title, its drawings.

    Besides what Markdown has, a fence "drawing NAME" stands for a drawing, and what stands in it
    is the caption; a fence "formulas" has a formula a line; a paragraph in bold right before a
    table is the table's caption; what stands between backticks is written as `formulas` says.
    """

    name: str
    words: str
    drawings: Mapping[str, str]

    @property
    def title(self) -> str:
        """The text of the first line."""
        return self.words.partition("\n")[0].lstrip("# ")


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return sections as a page that stands by itself; `lead` is Markdown, its first words."""
    write = _writer()
    contents = "\n".join(f"- [{one.title}](#{one.name})" for one in sections)
    parts = "".join(
        f'<section id="{one.name}">\n{write.render(f"#{one.words}", {"drawings": one.drawings})}'
        "</section>\n"
        for one in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>{html.escape(title)}</h1>\n{write.render(lead)}"
        f"<nav>{write.render(contents)}</nav>\n{parts}</main>\n</body>\n</html>\n"
    )


def _writer() -> MarkdownIt:
    """Return what turns Markdown into HTML in the way of these pages."""
    found = MarkdownIt("commonmark", {"html": False}).enable("table")
    for rule in (text, code_inline, fence, paragraph_open, table_open, table_close):
        found.add_render_rule(rule.__name__, rule)
    return found


def text(_: RendererHTML, tokens: Sequence[Token], place: int, *_more: Any) -> str:
    """Write words, with minus signs before numbers."""
    return re.sub(r"(?<!\w)-(?=\d)", MINUS, html.escape(tokens[place].content, quote=False))


def code_inline(_: RendererHTML, tokens: Sequence[Token], place: int, *_more: Any) -> str:
    """Write what stands between backticks."""
    return code(tokens[place].content)


def fence(
    _: RendererHTML, tokens: Sequence[Token], place: int, _options: Any, env: Mapping[str, Any]
) -> str:
    """Write a drawing with its caption, or formulas."""
    kind, *names = tokens[place].info.split()
    content = tokens[place].content.strip()
    if kind == "drawing":
        caption = _writer().renderInline(content)
        return f"<figure><figcaption>{caption}</figcaption>{env['drawings'][names[0]]}</figure>\n"
    return f'<div class="formulas">\n{"".join(map(_formula, content.splitlines()))}</div>\n'


def _formula(line: str) -> str:
    """Write a formula with a line for each equal sign, the last value in bold."""
    name, *sides = line.split(" = ")
    value = f" <b>= {formula([sides.pop()])}</b>" if len(sides) > 1 else ""
    lines = [f"= {formula(chunks(side))}" for side in sides]
    lines[-1] += value
    rest = "".join(f'<span class="side">{side}</span>' for side in lines[1:])
    return f'<p class="formula">{formula([name])} {lines[0]}{rest}</p>\n'


def paragraph_open(
    writer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: Any
) -> str:
    """Begin a paragraph; the caption of a table is one of its own kind."""
    if place + 3 < len(tokens) and tokens[place + 3].type == "table_open":
        return '<p class="caption">'
    return writer.renderToken(tokens, place, options, env)


def table_open(_: RendererHTML, tokens: Sequence[Token], place: int, *_more: Any) -> str:
    """Begin a table, in a box that scrolls by itself, should a screen be too narrow for it."""
    name = html.escape(tokens[place - 2].content.strip("*")) if place else ""
    row = [token.type for token in tokens[place:]]
    wide = ' class="wide"' * (row[: row.index("tr_close")].count("th_open") > 6)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table{wide}>'


def table_close(*_: Any) -> str:
    """End a table and its box."""
    return "</table></div>\n"
