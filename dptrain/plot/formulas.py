"""How formulas are written: plain letters in a terminal, Greek ones and subscripts on a page.

`delta_1 = delta_out*v1*(1 - a1^2)` is what both are given. No line breaks inside brackets.
"""

import html
import re
from collections.abc import Iterable, Iterator

MINUS = "\N{MINUS SIGN}"

SIGNS = (
    (r"delta_out_(\w)", r"δ<sub>out,\1</sub>"),
    (r"\bback_(\w)", r"back<sub>\1</sub>"),
    (r"delta_(out|\w)", r"δ<sub>\1</sub>"),
    (r"Delta_out", "Δ<sub>out</sub>"),
    (r"Delta\b", "Δ"),
    (r"\bdelta\b", "δ"),
    (
        r"(?:\b|(?<=/d))([wbvxzagpyc])_?(\d{1,2}|\d?[jk]|(?<=_)(?:n|t|ij|ji|jk))\b",
        r"\1<sub>\2</sub>",
    ),
    (r"\)_(\d+)", r")<sub>\1</sub>"),
    (r"\^([T2])", r"<sup>\1</sup>"),
    (r" ?\* ?", "·"),
    (r" - ", f" {MINUS} "),
    (r"^-$|(?<!\w)-(?=[\da-z(])", MINUS),
)
"""How letters and signs of the terminal are written on a page."""

SHORT = 30
"""A formula of so many letters never breaks."""

SHORT_SHOWN = 34
"""Nor does one of so many on a page, where a phone's line has room for it."""

CODE = r"(dptrain|mpirun|python)\b|--|.*\.[a-z]"
"""How a word of code begins, such as an option or a file's name; all else is a formula."""


def signs(text: str) -> str:
    """Return a formula as HTML, with Greek letters, subscripts and minus signs."""
    text = html.escape(text, quote=False)
    for pattern, sign in SIGNS:
        text = re.sub(pattern, sign, text)
    return text


def small(text: str) -> str:
    """Return a name or number for a drawing, in the signs that exist as letters of their own."""
    text = text.replace("delta_out", "δ").replace("delta_", "δ")
    subscript = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    text = re.sub(r"\b([wxzabvsyc]|δ)(\d+)", lambda m: m[1] + m[2].translate(subscript), text)
    return re.sub(r"(?<!\w)-(?=\d)|(?<= )-(?= )", MINUS, text).replace(" * ", "·")


def chunks(text: str) -> Iterator[str]:
    """Yield the parts of a formula between spaces that stand outside of brackets.

    >>> list(chunks("(1 - a)*b + f(c d)"))
    ['(1 - a)*b', '+', 'f(c d)']
    """
    begin = depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == " " and depth == 0:
            yield text[begin:place]
            begin = place + 1
    yield text[begin:]


def formula(parts: Iterable[str]) -> str:
    """Return the parts of a formula as HTML that breaks only between them."""
    return " ".join(f"<span>{signs(part)}</span>" for part in parts)


def code(text: str) -> str:
    """Return what stands between backticks as HTML: a word of code, or else a formula."""
    if re.match(CODE, text):
        words = (f"<span>{html.escape(word)}</span>" for word in text.split())
        return f"<code>{' '.join(words)}</code>"
    whole = formula([text])
    shown = html.unescape(re.sub("<.*?>", "", whole))
    parts = whole if len(shown) <= SHORT_SHOWN else formula(chunks(text))
    return f'<span class="formula">{parts}</span>'
