"""The chapters: which one a person asks for, and its words, filled in with its numbers.

A chapter's words are a Markdown file in `words`, to be edited there. In it

- `{name}` stands for a number, or for the rows of a table, found in `chapters`;
- a paragraph that begins with `{name?}` is there only where that is so;
- what stands between backticks is a formula or a word of code; a fence "formulas" has a formula a
  line, a fence "drawing NAME" the caption of a drawing, a paragraph in bold that of a table.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from dptrain.config.tools import ExplainConfig
from dptrain.explain.chapters import CHAPTERS
from dptrain.plot.page import Section
from dptrain.plot.words import filled
from dptrain.words import InputError, nearest

NAMES = list(CHAPTERS)

TITLE = "What a minibatch averages, and what workers add"
LEAD = (
    "Numbers to check by hand, from one example to many workers; made by `dptrain explain --html`."
)


@cache
def words(name: str) -> str:
    """Return a chapter's words as they stand in its file."""
    return (files("dptrain.explain") / "words" / f"{name}.md").read_text(encoding="utf-8")


def chosen(asked: Sequence[str]) -> list[int]:
    """Return the numbers of chapters asked for by number, name or words of a question; or all.

    Words that are neither number nor name are taken as one question, and belong to one chapter.
    """
    known = {str(number): number for number, _ in enumerate(NAMES, 1)}
    known |= {_stem(name): number for number, name in enumerate(NAMES, 1)}
    question = " ".join(name for name in asked if _stem(name) not in known)
    found = {known[_stem(name)] for name in asked if _stem(name) in known}
    if question:
        scores = {number: _score(question, words(name)) for number, name in enumerate(NAMES, 1)}
        best = max(scores, key=lambda number: scores[number])
        if not any(scores[best]):
            raise InputError(f"there is no chapter {question!r}; {nearest(question, NAMES)}")
        found.add(best)
    return sorted(found or set(known.values()))


def _score(question: str, text: str) -> tuple[int, int]:
    """Return how many words of a question stand in a chapter's headings, and how often in all."""
    headings = "\n".join(line for line in text.splitlines() if line.lstrip("> ").startswith("#"))
    asked = set(_words(question))
    return len(asked & set(_words(headings))), sum(word in asked for word in _words(text))


def _words(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[a-z]+", text.lower())]


def _stem(word: str) -> str:
    """Return a word in small letters, in its singular."""
    return word.lower().removesuffix("s")


def chapter(config: ExplainConfig, number: int) -> Section:
    """Return a chapter by its number; only what it needs is computed."""
    name = NAMES[number - 1]
    fields, drawings = CHAPTERS[name](config)
    return Section(name, filled(name, words(name), fields), drawings)
