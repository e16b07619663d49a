"""The Markdown of `page` in a terminal: 80 columns of plain characters, laid out by rich."""

import io
import textwrap
from collections.abc import Iterable, Iterator

from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from dptrain.plot.formulas import SHORT, chunks

WIDTH = 80

KEPT = "\N{BRAILLE PATTERN BLANK}"
"""Stands for a space inside brackets until lines are broken, which rich does at every space."""

COLOURS = Theme({"markdown.code": "cyan", "markdown.h1": "bold", "markdown.h3": "bold"})


def text(words: str, colours: bool = False) -> str:
    """Return Markdown as text that ends with an empty line."""
    console = Console(
        file=io.StringIO(), width=WIDTH, theme=COLOURS, highlight=False,
        force_terminal=colours, color_system="standard" if colours else None,
    )  # fmt: skip
    with console.capture() as found:
        console.print(Words(words))
    lines = (line.rstrip() for line in found.get().replace(KEPT, " ").splitlines())
    return "\n".join(lines) + "\n"


def _kept(parts: Iterable[str]) -> str:
    """Return the parts of a formula so that lines break only between them."""
    return " ".join(part.replace(" ", KEPT) for part in parts)


class Heading(markdown.Heading):
    """A heading at the left, the title underlined."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text
        if self.tag == "h1":
            yield Text("=" * len(self.text))


class BlockQuote(markdown.BlockQuote):
    """A question and its answer, beside a line of plain characters."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update(width=options.max_width - 2)
        for line in console.render_lines(self.elements, inner, pad=False):
            yield from (Segment("| "), *line, Segment("\n"))


class Fence(markdown.CodeBlock):
    """Formulas."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for formula in str(self.text).splitlines():
            yield Text("\n".join(_lines(formula)))


def _lines(formula: str) -> Iterator[str]:
    """Yield a formula in one line where that fits, else in a line for each of its equal signs."""
    if len(formula) <= WIDTH:
        yield formula
        return
    name, first, *sides, value = formula.split(" = ")
    sides[-1] += f" = {value}"
    indent = " " * min(len(name), 9)
    yield from _wrap(f"{name} = {first}", "", f"{indent}   ")
    for side in sides:
        yield from _wrap(side, f"{indent} = ", f"{indent}   ")


def _wrap(words: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        _kept(chunks(words)),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )


class TableElement(markdown.TableElement):
    """A table without lines, each column as wide as its widest cell."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = self.header.row.cells if self.header and self.header.row else []
        lines = [head, *(row.cells for row in self.body.rows)] if self.body else [head]
        widths = [max(len(cell.content) for cell in column) for column in zip(*lines, strict=True)]
        apart = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
        table = Table(box=None, padding=(0, apart, 0, 0), pad_edge=False)
        for cell in head:
            table.add_column(cell.content, justify=cell.justify, no_wrap=True)
        for row in lines[1:]:
            table.add_row(*(cell.content for cell in row))
        yield table


class Words(markdown.Markdown):
    """Markdown as this file lays it out; drawings have their place on the page only."""

    elements = markdown.Markdown.elements | {
        "heading_open": Heading,
        "blockquote_open": BlockQuote,
        "fence": Fence,
        "table_open": TableElement,
    }

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.parsed = [one for one in self.parsed if not one.info.startswith("drawing")]
        for token in self.parsed:
            for child in token.children or []:
                if child.type == "code_inline":
                    whole = child.content
                    child.content = _kept([whole] if len(whole) <= SHORT else chunks(whole))
