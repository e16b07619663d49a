"""The chapters as one page of HTML: no script, no network; for phones, paper, light and dark."""

import html
import re
from collections.abc import Sequence
from itertools import groupby

from dptrain.explain import blocks, drawings

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #595959; --line: #c9c9c9;
  --box: #f4f4f1; --s0: #0072b2; --s1: #b34e00; --s2: #00795a; --s3: #a3487d; --s4: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #ececec; --soft: #b3b3b3;
  --line: #4b4f53; --box: #222528; --s0: #56b4e9; --s1: #f0a020; --s2: #35c99b; --s3: #e39cc4;
  --s4: #b5b5b5; } }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #333; --line: #999;
  --box: #f4f4f1; --s0: #0072b2; --s1: #b34e00; --s2: #00795a; --s3: #a3487d; --s4: #5c5c5c; }
  body { font-size: 10.5pt; } svg { max-width: 26rem; } h2, h3 { break-after: avoid; }
  figure, .question { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin: 3rem 0 .5rem; line-height: 1.25; }
h3 { margin: 0 0 .3rem; font-size: 1.1rem; } a { color: var(--s0); }
.question { margin: 1.2rem 0; padding: .8rem 1rem; background: var(--box);
  border-left: .3rem solid var(--s0); } .question p { margin: 0; }
.formulas { columns: 21rem; column-gap: 2rem; font-size: .9rem; }
.formula { margin: 0 0 .6rem; padding-left: 1.2rem; text-indent: -1.2rem; break-inside: avoid;
  font-variant-numeric: tabular-nums; } .formula span { display: block; }
.formula b { white-space: nowrap; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
sub, sup { line-height: 0; }
th, td { padding: .18rem 0 .18rem 1.4rem; text-align: right; white-space: nowrap; }
.wide td, .wide th { padding-left: .8rem; }
table th:first-child { padding-left: 0; text-align: left; font-weight: 600; }
thead th { border-bottom: 1px solid var(--line); font-weight: 600; color: var(--soft); }
figure { margin: 1.4rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: .4rem 0;
  font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg text { fill: var(--ink); } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .back { fill: var(--s1); } svg .halo { paint-order: stroke; stroke: var(--paper);
  stroke-width: 4px; } svg rect { fill: var(--box); stroke: var(--soft); }
svg circle { fill: var(--s0); } polyline { fill: none; stroke: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: .5; } svg .curve { stroke-width: 2; }
.s0 { --own: var(--s0); } .s1 { --own: var(--s1); } .s2 { --own: var(--s2); }
.s3 { --own: var(--s3); } .s4 { --own: var(--s4); }
svg .curve { stroke: var(--own); } svg .mark { fill: var(--own); stroke: var(--paper); }
@media (max-width: 30rem) { main { padding: .75rem; } table { font-size: .67rem; min-width: 75%; }
  td, th { padding-left: .25rem; } .wide td, .wide th { padding-left: .2rem; } }
"""

SIGNS = (
    (r"delta_(out|\w)", r"δ<sub>\1</sub>"),
    (r"Delta_out", "Δ<sub>out</sub>"),
    (r"Delta\b", "Δ"),
    (r"\bdelta(?=\(l)", "δ"),
    (r"(?:\b|(?<=/d))([wbvxzag])_?(\d{1,2}|\d?j|(?<=_)n)\b", r"\1<sub>\2</sub>"),
    (r"\)_(\d+)", r")<sub>\1</sub>"),
    (r"\^([T2])", r"<sup>\1</sup>"),
    (r" ?\* ?", "·"),
    (r" - ", " \N{MINUS SIGN} "),
    (r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}"),
)
"""How letters and signs of the terminal are written on the page."""


def page(chapters: Sequence[blocks.Chapter]) -> str:
    """Return chapters as a page that stands by itself."""
    contents = "".join(
        f'<li value="{c.number}"><a href="#{c.name}">{html.escape(c.title)}</a></li>'
        for c in chapters
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What a minibatch averages</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        "<main>\n<h1>What a minibatch averages, and what workers add</h1>\n"
        "<p>Numbers to check by hand, from one example to many workers; made by "
        f"<code>dptrain explain --html</code>.</p>\n<nav><ol>{contents}</ol></nav>\n"
        f"{''.join(map(_chapter, chapters))}</main>\n</body>\n</html>\n"
    )


def _chapter(chapter: blocks.Chapter) -> str:
    parts = []
    for formulas, group in groupby(chapter.blocks, lambda block: isinstance(block, blocks.Formula)):
        content = "".join(map(_block, group))
        parts.append(f'<div class="formulas">\n{content}</div>\n' if formulas else content)
    title = f"{chapter.number}. {html.escape(chapter.title)}"
    return f'<section id="{chapter.name}">\n<h2>{title}</h2>\n{"".join(parts)}</section>\n'


def _signs(text: str) -> str:
    """Return text escaped, with Greek letters, subscripts and minus signs."""
    text = html.escape(text, quote=False)
    for pattern, sign in SIGNS:
        text = re.sub(pattern, sign, text)
    return text


def _formula(formula: blocks.Formula) -> str:
    sides = [f"= {_signs(side)}" for side in (formula.letters, formula.filled) if side]
    sides[-1] += f" <b>= {_signs(formula.value)}</b>"
    lines = "".join(f"<span>{side}</span>" for side in sides[1:])
    return f'<p class="formula">{_signs(formula.name)} {sides[0]}{lines}</p>\n'


def _block(block: blocks.Block) -> str:
    match block:
        case blocks.Text():
            return f"<p>{_signs(block.text)}</p>\n"
        case blocks.Question():
            question, answer = html.escape(block.question), _signs(block.answer)
            return f'<div class="question"><h3>{question}</h3><p>{answer}</p></div>\n'
        case blocks.Formula():
            return _formula(block)
        case blocks.Table():
            return _table(block)
        case blocks.Network():
            return _figure(block.caption, drawings.network(block))
        case blocks.Tree():
            return _figure(block.caption, drawings.tree(block))
        case blocks.Curve():
            return _figure(block.caption, drawings.curve(block))


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{_signs(caption)}</figcaption>{drawing}</figure>\n"


def _table(table: blocks.Table) -> str:
    """Return a table in a box that scrolls by itself, should a screen be too narrow for it."""
    head = "".join(f'<th scope="col">{_signs(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{_signs(row[0])}</th>'
        + "".join(f"<td>{_signs(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    name, wide = html.escape(table.caption), ' class="wide"' * (len(table.head) > 6)
    return _figure(
        table.caption,
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table{wide}>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>",
    )
