"""Files cut, flipped and doubled: a message, or all the rows they say; no traceback, no hang."""

import gzip
import io
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dptrain
from dptrain import DataConfig, InputError

ALONE = dptrain.World()
ROWS = 40


@cache
def whole(kind: str) -> bytes:
    """Return a file of that kind, by its own writer."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, 3)).round(3), np.arange(ROWS) % 2
    table = pa.table({"a": x[:, 0], "b": [f"w{n % 3}" for n in range(ROWS)], "y": y})
    out = io.BytesIO()
    if kind == "csv":
        rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
        lines = (f'{a},"{b}",{y}\n' for a, b, y in rows)
        out.write(("a,b,y\n" + "".join(lines)).encode())
    elif kind == "csv.gz":
        return gzip.compress(whole("csv"))
    elif kind == "parquet":
        pa.parquet.write_table(table, out, row_group_size=15)
    elif kind == "feather":
        pa.feather.write_feather(table, out)
    elif kind == "npz":
        np.savez(out, x=x, y=y)
    elif kind == "npy":
        np.save(out, x)
    elif kind == "idx":
        out.write(b"\0\0\x08\x03" + np.array([ROWS, 4, 4], ">u4").tobytes() + bytes(ROWS * 16))
    else:
        with h5py.File(out, "w") as file:
            file["x"], file["y"] = x, y
    return out.getvalue()


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    """Return a file with some bytes flipped, left out or doubled, or cut."""
    content = bytearray(whole(kind))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        way = draw(st.sampled_from(["flip", "cut", "out", "double", "quote"]))
        if way == "flip" and content:
            content[place] ^= draw(st.integers(1, 255))
        elif way == "cut":
            del content[place:]
        elif way == "out":
            del content[place : place + draw(st.integers(1, 40))]
        elif way == "double":
            content[place:place] = content[place : place + draw(st.integers(1, 40))]
        else:
            content[place:place] = b'"'
    return bytes(content)


KINDS = ["csv", "csv.gz", "parquet", "feather", "npz", "npy", "idx", "h5"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_a_message_or_its_rows(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    np.save(folder / "y.npy", np.arange(ROWS) % 2)
    table = kind in ("csv", "csv.gz", "parquet", "feather")
    config = DataConfig(target=("y",) if table else (), task="regression")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=__name__ != "__main__",  # the long form draws others each time
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(damaged(kind))
    def check(content: bytes) -> None:
        path = folder / f"d.{kind}"
        path.write_bytes(content)
        files: list[Path] = [path, folder / "y.npy"] if kind in ("npy", "idx") else [path]
        try:
            data = dptrain.load(files, config, world=ALONE)
        except InputError:
            return
        if kind == "csv":  # a row is a line, whatever is in it, or there is a message
            lines = [line for line in content.split(b"\n")[1:] if line.strip(b"\r")]
            several = any("several lines" in line for line in data.told)
            assert len(data.train) == len(lines) or several or b"\r" in content
        elif kind not in ("csv.gz", "h5", "npz"):
            assert len(data.train) == ROWS

    check()


EXAMPLES = 40


if __name__ == "__main__":
    import tempfile

    EXAMPLES = 3000
    for kind in KINDS:
        test_a_damaged_file_gives_a_message_or_its_rows(
            kind, type("F", (), {"mktemp": lambda _, name: Path(tempfile.mkdtemp(name))})()
        )
        print(kind)
