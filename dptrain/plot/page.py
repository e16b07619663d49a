"""Markdown and drawings as one page of HTML: no script, no network; for phones, paper, the dark."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from dptrain.plot.formulas import MINUS, chunks, code, formula

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #595959; --line: #c9c9c9;
  --box: #f4f4f1; --s0: #0072b2; --s1: #b34e00; --s2: #00795a; --s3: #a3487d; --s4: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #ececec; --soft: #b3b3b3;
  --line: #4b4f53; --box: #222528; --s0: #56b4e9; --s1: #f0a020; --s2: #35c99b; --s3: #e39cc4;
  --s4: #b5b5b5; } }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #333; --line: #999;
  --box: #f4f4f1; --s0: #0072b2; --s1: #b34e00; --s2: #00795a; --s3: #a3487d; --s4: #5c5c5c; }
  body { font-size: 10.5pt; } svg { max-width: 26rem; } h2, h3, .caption { break-after: avoid; }
  p:has(+ .formulas), p:has(+ .caption) { break-after: avoid; }
  figure, blockquote, .scroll { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin: 3rem 0 .5rem; line-height: 1.25; }
h3 { margin: 0 0 .3rem; font-size: 1.1rem; } a { color: var(--s0); }
blockquote { margin: 1.2rem 0; padding: .8rem 1rem; background: var(--box);
  border-left: .3rem solid var(--s0); } blockquote p { margin: 0; }
.formula span:not(.side), code span { white-space: nowrap; } code { font-size: .9em; }
.formulas { columns: 21rem; column-gap: 2rem; font-size: .9rem; }
.formulas p { margin: 0 0 .6rem; padding-left: 1.2rem; text-indent: -1.2rem; break-inside: avoid;
  font-variant-numeric: tabular-nums; }
.formulas .side { display: block; margin-left: -1.2rem; padding-left: 1.2rem; }
.formulas b { white-space: nowrap; font-weight: 600; }
.scroll { overflow-x: auto; margin-bottom: 1.4rem; }
@media screen { .scroll { background:
  linear-gradient(90deg, var(--paper) 40%, transparent) 0 / 3rem 100% no-repeat local,
  linear-gradient(-90deg, var(--paper) 40%, transparent) 100% / 3rem 100% no-repeat local,
  linear-gradient(90deg, var(--line), transparent) 0 / 1rem 100% no-repeat,
  linear-gradient(-90deg, var(--line), transparent) 100% / 1rem 100% no-repeat; } }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
sub, sup { line-height: 0; }
th, td { padding: .18rem 0 .18rem 1.4rem; text-align: right; white-space: nowrap; }
.wide td, .wide th { padding-left: .8rem; }
th:first-child, td:first-child { padding-left: 0; text-align: left; font-weight: 600; }
thead th { border-bottom: 1px solid var(--line); font-weight: 600; color: var(--soft); }
figure { margin: 1.4rem 0; } figcaption, .caption { color: var(--soft); font-size: .9rem; }
.caption { margin: 1.4rem 0 0; } .caption strong { font-weight: inherit; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: .4rem 0;
  font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg text { fill: var(--ink); } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .back { fill: var(--s1); } svg rect { fill: var(--box); stroke: var(--soft); }
svg circle { fill: var(--s0); } polyline { fill: none; stroke: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: .5; } svg .curve { stroke-width: 2; }
.s0 { --own: var(--s0); } .s1 { --own: var(--s1); } .s2 { --own: var(--s2); }
.s3 { --own: var(--s3); } .s4 { --own: var(--s4); }
svg .curve { stroke: var(--own); } svg .mark { fill: var(--own); stroke: var(--paper); }
@media (max-width: 30rem) { main { padding: .75rem; } table { font-size: .67rem; min-width: 75%; }
  td, th { padding-left: .5rem; } .wide td, .wide th { padding-left: .2rem; } }
"""


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
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
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
