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
from dptrain.explain.letters import Letters
from dptrain.explain.problem import problems
from dptrain.plot.page import Section
from dptrain.plot.words import filled
from dptrain.words import InputError, nearest

NAMES = list(CHAPTERS)

TITLE = "What a minibatch averages, and what workers add"
LEAD = "Numbers to check by hand, from one example to many workers; by `dptrain explain --html`."


@cache
def words(name: str) -> str:
    """Return a chapter's words as they stand in its file."""
    return (files("dptrain.explain") / "words" / f"{name}.md").read_text(encoding="utf-8")


def chosen(asked: Sequence[str]) -> list[int]:
    """Return the numbers of chapters asked for by number, name or words of a question; or all.

    Words that are neither number nor name are taken as one question, and belong to one chapter: to
    that in whose headings most of them stand, and among such to that which has them most often.
    """
    known = {str(number): number for number, _ in enumerate(NAMES, 1)}
    known |= {_stem(name): number for number, name in enumerate(NAMES, 1)}
    found = {known[_stem(name)] for name in asked if _stem(name) in known}
    rest = " ".join(name for name in asked if _stem(name) not in known)
    question = set(_stems(rest))

    def score(number: int) -> tuple[int, int]:
        text = words(NAMES[number - 1])
        headings = re.findall(r"^[> ]*#.*", text, re.MULTILINE)
        shared = question & set(_stems(" ".join(headings)))
        return len(shared), sum(word in question for word in _stems(text))

    if rest:
        best = max(known.values(), key=score)
        if not any(score(best)):
            raise InputError(f"there is no chapter {rest!r}; {nearest(rest, NAMES)}")
        found.add(best)
    return sorted(found or set(known.values()))


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[a-z]+", text.lower())]


def _stem(word: str) -> str:
    """Return a word in small letters, in its singular."""
    return word.lower().removesuffix("s")


def chapter(config: ExplainConfig, number: int) -> Section:
    """Return a chapter by its number; only what it needs is computed."""
    name, problem = NAMES[number - 1], problems(config)[number == 8]
    size, hidden, workers = map(str, (config.examples, config.hidden, config.workers))
    fields, drawings = CHAPTERS[name](Letters(problem), config.seed)
    fields |= {"size": size, "hidden": hidden, "workers": workers}
    return Section(name, filled(name, words(name), fields), drawings)
