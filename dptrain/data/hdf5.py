"""HDF5 files by h5py: data sets of which rows are read when they are asked for."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.words import InputError, install


class Dataset:
    """A data set of a HDF5 file, opened by each rank for itself; texts are Python's."""

    def __init__(self, data: Any, *, text: bool) -> None:
        self._data, self._rows = data, data.asstr() if text else data
        self.shape, self.dtype = tuple(data.shape), np.dtype(object) if text else data.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Array:
        try:
            gap, found = self._gap, np.asarray(self._read(rows))
            if gap.size and found.dtype.kind in "iuf" and np.isin(found, gap).any():
                raise ValueError(f"{self._data.name} has gaps, written as {gap[0]}; fill them in")
            return found
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{self._data.file.filename} can't be read: {error}", local=True
            ) from None

    @functools.cached_property
    def _gap(self) -> Array:
        """What stands for a gap, none mostly, as netCDF has it; ValueError for what is no rows.

        The file may name any number of rows that take no room in it, as nobody wrote them, or say
        that they are in other files, which may be missing or shorter.
        """
        data, needed = self._data, 1 if self._data.size else 0
        if data.is_virtual or data.external:
            raise ValueError(
                f"{data.name} is in other files; give those that hold its rows, or copy it to one "
                "that does: copy['x'] = file['x'][:]"
            )
        if {"scale_factor", "add_offset", "_Unsigned"} & {*data.attrs}:
            raise ValueError(
                f"{data.name} has a scale_factor, add_offset or _Unsigned; store what it stands for"
            )
        if data.chunks:
            chunks = zip(self.shape, data.chunks, strict=True)
            needed = math.prod(-(-length // size) for length, size in chunks)
        if needed > (data.id.get_num_chunks() if data.chunks else data.id.get_storage_size()):
            raise ValueError(
                f"{data.name} has {len(self):,} rows, not all of which were written: cut it to "
                "those that were (resize), or write the others"
            )
        named = [data.attrs[n] for n in ("_FillValue", "missing_value") if n in data.attrs]
        return np.concatenate([*map(np.ravel, named)]) if named else np.empty(0)

    def _read(self, rows: Any) -> Any:
        """Return rows in any order; of close ones all between, as a list is slow to look up."""
        if isinstance(rows, slice):
            return self._rows[rows]
        wanted, place = np.unique(np.asarray(rows), return_inverse=True)
        if len(wanted) == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if wanted[-1] - wanted[0] < 4 * len(wanted):
            return self._rows[wanted[0] : wanted[-1] + 1][wanted - wanted[0]][place]
        return self._rows[wanted][place]


def read_hdf5(path: str) -> dict[str, Any]:
    """Return the arrays of a HDF5 file by name, of any type: those not asked for do no harm."""
    try:
        import h5py
    except ImportError as error:
        what = f"{path} is a HDF5 file, which h5py reads ({error})"
        raise InputError(f"{what}: {install('hdf5')}") from None
    found: dict[str, Any] = {}

    def visit(name: str, _: object) -> None:
        item = file.get(name)  # nothing where a link leads to nothing
        if isinstance(item, h5py.Dataset) and item.shape:
            found[name] = Dataset(item, text=h5py.check_string_dtype(item.dtype) is not None)

    try:
        file = h5py.File(Path(path), "r")
        file.visititems_links(visit)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeError) as error:
        raise InputError(f"{path} can't be read: {error}", local=True) from None
    if not any(one.dtype.kind in "biufO" for one in found.values()):
        raise InputError(
            f"{path} holds no array of numbers or texts; store each column of a table as one of "
            "its own, or the table as Parquet"
        )
    return found
