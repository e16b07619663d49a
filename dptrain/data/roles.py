"""What each column of a table is for: chosen by name or pattern, or by a stored model."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dptrain.config import DataConfig
from dptrain.data.table import Kind, Table
from dptrain.words import InputError, nearest


class Picked(NamedTuple):
    """The names of the columns that are read."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    weights: tuple[str, ...]
    """One at most."""
    ids: tuple[str, ...]

    @property
    def every(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*self.features, *self.targets, *self.weights, *self.ids)))


@dataclass(frozen=True)
class Roles:
    """Which columns are inputs, targets and so on, and how they are to be understood."""

    target: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    """Names or patterns; all but the others' where there are none."""
    drop: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    weight: str | None = None
    header: bool = True
    delimiter: str = ""
    decimal: str = ""
    x: str = ""
    y: str = ""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """Of a stored model: what each of its inputs must be. Then these are the features."""
    label_kind: Kind | None = None
    """Of a stored model: what its labels are."""
    as_written: bool = False
    """Whether labels are texts wherever a number would lose how they are written."""
    ids_if_there: bool = False
    """Whether the columns of `ids` may be missing."""
    new: bool = False
    """Whether these are what a person asks of the very files: then nothing is asked in vain."""

    @staticmethod
    def of(config: DataConfig) -> "Roles":
        """Return the roles that settings give."""
        return Roles(
            config.target, config.features, config.drop, config.id, config.weight,
            not config.no_header, config.delimiter or "", config.decimal or "",
            config.x or "", config.y or "",
            as_written=config.task == "classification",
            label_kind="numbers" if config.task in ("regression", "multilabel") else None,
            new=True,
        )  # fmt: skip

    def like(self, table: Table) -> "Roles":
        """Return the roles for more rows of the same kind: its columns, understood as they are."""
        if not table.named:
            return replace(self, weight=None, new=False)
        kinds = {column.name: column.kind for column in table.columns}
        label = table.targets[0].kind if table.targets else None
        names = tuple(column.name for column in table.targets)
        return replace(self, target=names, kinds=kinds, label_kind=label, weight=None, new=False)

    def check_kind(self, kind: str, source: str, *, by_name: bool = False) -> None:
        """Raise InputError where something is asked that files of a kind don't have.

        `by_name`: whether they hold arrays by name.
        """
        asked = {
            "delimiter": self.delimiter, "decimal": self.decimal, "no-header": not self.header,
        }  # fmt: skip
        named = {"x": self.x, "y": self.y}
        vain = ({} if kind == "text" else asked) | ({} if by_name else named)
        for option, value in vain.items():
            if value and self.new:
                needed = "text" if option in asked else "a .npz or HDF5 file"
                raise InputError(f"{option} is given, but {source} is not {needed}; leave it out")

    def pick(self, names: Sequence[str], source: str) -> Picked:
        """Return which of a table's columns are what; InputError where one is not there."""
        twice = next((name for name, number in Counter(names).items() if number > 1), None)
        if twice is not None:
            raise InputError(f"{source} has two columns named {twice!r}; each needs its own name")
        targets = self._match(self.target, names, source)
        weight = self._match((self.weight,) if self.weight else (), names, source)
        if len(weight) > 1 or {*weight} & {*targets}:
            why = "is the target" if len(weight) == 1 else f"is {len(weight)} columns"
            raise InputError(f"weight {self.weight!r} {why}; name what says how much rows count")
        there = [p for p in self.ids if fnmatch.filter(names, p) or p in names]
        ids = self._match(there if self.ids_if_there else self.ids, names, source)
        if self.kinds:
            features = self._match(tuple(self.kinds), names, source)
        else:
            dropped = {*self._match(self.drop, names, source)}
            others = {*targets, *weight, *ids, *dropped}
            both = {*self.features} & others | dropped & {*targets, *weight}
            if both:
                raise InputError(
                    f"{min(both)!r} is asked for as two things of target, features, drop, id and "
                    "weight that exclude each other; leave it out of one"
                )
            chosen = self._match(self.features, names, source) if self.features else names
            features = [name for name in chosen if name not in others]
        return Picked(tuple(features), tuple(targets), tuple(weight), tuple(ids))

    def _match(self, patterns: Sequence[str], names: Sequence[str], source: str) -> list[str]:
        """Return the names that patterns fit, in the patterns' order."""
        found: dict[str, None] = {}
        known = {*names}
        for pattern in patterns:
            if pattern in known:
                fits = [pattern]
            else:
                fits = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            if not fits:
                each = "; name each column by itself" * ({*pattern.split(",")} <= known)
                valid = nearest(pattern, names)
                raise InputError(f"{source} has no column {pattern!r}; {valid}{each}")
            found |= dict.fromkeys(fits)
        return list(found)
