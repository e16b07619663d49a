"""A module that takes named inputs, as Hugging Face's do, learns to tell comments from code.

Such modules are called with `input_ids`, numbers of letters or words, and an `attention_mask`, 1
where there are some, and return their `logits` by name. dptrain hands over one array of an
example's inputs; five lines take it apart, and nothing else changes. Here the lines are those of
Python's own library, without the sign that begins a comment:

    python examples/comments.py lines.npz
    mpirun -n 2 dptrain train lines.npz --model examples/comments.py:build --epochs 3

With the `transformers` library, `Reader(...)` in `build` would be
`AutoModelForSequenceClassification.from_config(...)`.
"""

import string
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

LETTERS = string.printable
PLACES = 48
MOST = 4000
"""Lines of each kind."""


def encoded(lines: list[str]) -> Any:
    """Return numbers of letters and masks [m, 2, PLACES] of lines; what is longer is cut."""
    x = np.zeros((len(lines), 2, PLACES), np.uint8)
    for row, line in zip(x, lines, strict=True):
        codes = [LETTERS.index(letter) for letter in line if letter in LETTERS][:PLACES]
        row[0, : len(codes)], row[1, : len(codes)] = codes, 1
    return x


def main() -> None:
    """Write comments and lines of code, as many of each."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(errors="ignore") for path in sorted(folder.glob("*.py"))]
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line) > 12]
    comments = [line.lstrip("# ") for line in lines if line.startswith("# ")]
    code = [line for line in lines if "#" not in line and line.endswith((")", ":", "]"))]
    rng = np.random.default_rng(0)
    chosen = [str(line) for kind in (comments, code) for line in rng.choice(kind, MOST)]
    order = rng.permutation(len(chosen))
    labels = np.repeat(["comment", "code"], MOST)[order]
    np.savez(sys.argv[1], x=encoded([chosen[n] for n in order]), y=labels)


class Reader(nn.Module):
    """An encoder of letters, called by names."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(len(LETTERS), width), nn.Embedding(PLACES, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True)
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        """Return scores [m, classes], of the mean over the letters that there are."""
        z = self.letters(input_ids) + self.places.weight
        z = self.layer(z, src_key_padding_mask=attention_mask == 0)
        counts = attention_mask[:, :, None].to(z.dtype)
        return {"logits": self.classifier((z * counts).sum(1) / counts.sum(1).clamp(min=1))}


class ByName(nn.Module):
    """Calls a module with the parts of an array by their names."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        """Return the logits for numbers and masks [m, 2, places]."""
        return self.module(input_ids=x[:, 0].long(), attention_mask=x[:, 1].long())["logits"]


def build(_: tuple[int, ...], classes: int, width: int = 32) -> ByName:
    return ByName(Reader(classes, width))


if __name__ == "__main__":
    main()
