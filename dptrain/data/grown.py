"""A column of a table while it is read, piece by piece, and what it turns out to be."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.arrays import Array
from dptrain.data.cells import Asked, Fault, Piece
from dptrain.data.spool import Pieces
from dptrain.data.table import Column, Kind, Rowwise, Stacked
from dptrain.data.texts import texts
from dptrain.words import InputError


class Growing:
    """A column of which pieces are added.

    Texts are kept as numbers of the different ones: what they mean, all together, is looked at
    once all are there, and then stands for each number.
    """

    def __init__(self, asked: Asked, pieces: Pieces) -> None:
        self.asked, self._keep = asked, pieces.keep
        self._kind: Kind = "words"
        self._parts: list[Rowwise] = []
        self._texts: list[pa.Array] = []

    def add(self, piece: Piece) -> None:
        """Add some rows."""
        if isinstance(piece, Column):
            self._kind = piece.kind
            shapes = [some.shape[1:] for some in (*self._parts[:1], piece.values)]
            if shapes[0] != shapes[-1]:
                raise InputError(
                    f"{self.asked.source}: column {self.asked.name!r} holds lists of "
                    f"{shapes[0][0]} numbers and of {shapes[-1][0]}; give lists of as many"
                )
            self._parts.append(self._keep(np.asarray(piece.values)))
            return
        different = piece.dictionary.cast(pa.large_string())
        if piece.null_count:
            different = pa.concat_arrays([different, pa.nulls(1, different.type)])
        places = piece.indices.fill_null(len(different) - 1).to_numpy(zero_copy_only=False)
        self._parts.append(self._keep(places.astype(np.int32, copy=False)))
        self._texts.append(different)

    def column(self, line: Callable[[int], str]) -> tuple[Column, str | None]:
        """Return the column, and what a person should know of it; InputError where it is none."""
        asked, found, told = self.asked, None, None
        if self._texts:
            every = pa.chunked_array(self._texts).combine_chunks()
            coded = every.dictionary_encode(null_encoding="encode")
            ends = np.cumsum([len(some) for some in self._texts])[:-1]
            places = np.split(coded.indices.to_numpy(), ends)
            try:
                found = texts(asked, coded.dictionary)
            except Fault as fault:
                where = line(self._row(fault.place, places))
                raise InputError(f"{asked.source}: {where} {fault}") from None
            lines = pc.index(pc.match_substring(coded.dictionary, "\n"), True).as_py()
            if asked.written and lines >= 0:
                told = (
                    f"{asked.source}: {line(self._row(lines, places))} has a text of several lines "
                    f"in column {asked.name!r}; is there a quote too many?"
                )
            meanings = np.asarray(found.values)
            values = Stacked(self._parts, [meanings[some] for some in places])
            return Column(asked.name, found.kind, values, found.text, found.ends), told
        return Column(asked.name, self._kind, Stacked(self._parts)), None

    def _row(self, place: int, places: list[Array]) -> int:
        """Return the first row that has a text, given by its place among the different ones."""
        start = 0
        for part, meant in zip(self._parts, places, strict=True):
            rows = np.flatnonzero(meant[part[:]] == place)
            if len(rows):
                return start + int(rows[0])
            start += len(part)
        raise IndexError(place)
