"""A run's files while it goes on, written by one rank: what can't be written does not end it."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dptrain import streams
from dptrain.arrays import Array
from dptrain.checked import Plain
from dptrain.record import checkpoint, receipt
from dptrain.record.files import descriptor, lock, names_in, sync_directory, write_all
from dptrain.record.journal import Journal
from dptrain.record.rundir import METRICS, RECEIPT, SECONDS

HURRY = 2**16
"""Bytes of receipt that are written at once; fewer wait for a second."""

TIMED = re.compile(rb'{"seconds": (\d{1,12}\.\d{6})}\n')
"""What `Writer.seconds` is kept as: a line that grows no shorter while the seconds grow."""


class Files(NamedTuple):
    """Where a run's receipt stands: what a checkpoint must know to go on with it."""

    receipt_lines: int = 0
    receipt_sha256: str = ""
    """The hash of its last line."""

    @classmethod
    def read(cls, values: Mapping[str, object]) -> "Files":
        """Return what a checkpoint says of it; ValueError where it can't be that."""
        lines, head = values.get("receipt_lines"), values.get("receipt_sha256")
        if type(lines) is not int or not 1 <= lines < sys.maxsize:
            raise ValueError(f"its receipt_lines are {lines!r}")
        if not isinstance(head, str):
            raise ValueError(f"its receipt_sha256 is {head!r}")
        return cls(lines, head)


class Writer:
    """Metrics, receipt and checkpoints of one run. To be made by one rank only.

    `run`: the run directory. `keep`: how many of the last checkpoints to keep. `files`: lines to
    keep of the receipt that is there, and the hash of the last one. `num_metrics`: lines to keep of
    the metrics. `locked`: an open file that keeps other processes from writing to the run, closed
    with the others.
    """

    def __init__(
        self, run: Path, keep: int, files: Files, num_metrics: int = 0, locked: int | None = None
    ) -> None:
        self.name, self.run = str(run), run.absolute()  # as the directory may be changed meanwhile
        self._lock = locked
        self.head = files.receipt_sha256
        self.trouble: str | None = None
        """The first thing that could not be written, if anything."""
        self._keep = keep
        self.warn: Callable[[str], None] = streams.warn
        """Called with what could not be written, once for each message."""
        self.saved: int | None = None
        """The step of the last checkpoint, if that could be written."""
        self._warned: set[str] = set()
        self._metrics = Journal(self.run / METRICS, num_metrics)
        self._receipt = Journal(self.run / RECEIPT, files.receipt_lines)
        self._seconds = descriptor(self.run / SECONDS, os.O_RDWR | os.O_CREAT)
        found = TIMED.fullmatch(os.pread(self._seconds, 100, 0))
        if found is None:  # a new file, or one that is damaged
            os.ftruncate(self._seconds, 0)
        self.seconds = float(found[1]) if found else 0.0
        """How long the run has trained, also where the steps are to be done again."""
        self._flushed = time.monotonic()
        self._refused = False
        self._writer = ThreadPoolExecutor(1, "dptrain checkpoint")
        self._writing: Future[None] | None = None

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        self._metrics.append(json.dumps(values).encode())
        self._try(self._metrics.path, self._metrics.flush)

    def say(self, values: Mapping[str, Any]) -> None:
        """Add a line to the receipt that is no step's: what the run is, what has changed."""
        self._add(receipt.encode(values, self.head))
        self.flush()

    def step(self, step: int, rows: NDArray[np.intp], loss: float, params: str | None) -> None:
        """Add a step's line to the receipt; see `receipt.step_line`."""
        self._add(receipt.step_line(step, receipt.rows_digest(rows), loss, params, self.head))

    def _add(self, line: bytes) -> None:
        self.head = receipt.head_of(line)
        self._receipt.append(line)
        full = len(self._receipt.waiting) > HURRY and not self._refused
        if full or time.monotonic() - self._flushed > 1:
            self.flush()

    def flush(self) -> bool:
        """Write what waits; return whether all of it has been written."""
        self._flushed = time.monotonic()
        if not self._try(self._metrics.path, self._metrics.check_size):
            self._try(self._metrics.path, self._metrics.adopt)  # no result depends on them
        metrics = self._try(self._metrics.path, self._metrics.flush)
        self._refused = not (self._try(self._receipt.path, self._receipt.flush) and metrics)
        self._try(self.run / SECONDS, self._keep_seconds)
        return not self._refused

    def _keep_seconds(self) -> None:
        os.lseek(self._seconds, 0, os.SEEK_SET)
        write_all(self._seconds, b'{"seconds": %.6f}\n' % self.seconds)

    def _keep_names(self) -> bool:
        """Return whether metrics and receipt are under their names; see `Journal.keep_name`."""
        both = self._metrics, self._receipt
        found = [self._try(each.path, partial(self._keep_name, each)) for each in both]
        return all(found)

    def _keep_name(self, journal: Journal) -> None:
        """Write a journal once more that another process has removed or replaced, and say so."""
        if journal.keep_name():
            return
        if journal is self._receipt and self._lock is not None:  # the lock was on the other file
            os.close(self._lock)
            self._lock = lock(journal.path)
        where = Path(self.name, journal.path.name)
        self.warn(f"{where} was removed or replaced by another process: written once more")

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def files(self) -> Files:
        """Return where the receipt stands."""
        return Files(self._receipt.num_lines, self.head)

    def save(
        self, step: int, tensors: Mapping[str, Array], state: Plain, values: Mapping[int, float]
    ) -> None:
        """Start to write a checkpoint; the arrays must not change any more.

        The lines that it counts on are written first, or else it isn't.
        """
        folder = self.run / checkpoint.FOLDER

        def write() -> None:
            self._metrics.sync()
            self._receipt.sync()
            if not os.path.lexists(folder):
                folder.mkdir()
                sync_directory(self.run)
            names_in(folder)  # none of a link, through which no run goes on
            checkpoint.write(checkpoint.path_of(self.run, step), tensors, state)

        def replace_older() -> None:
            if self._try(folder, write):
                self.saved = step
                self._try(folder, partial(checkpoint.prune, self.run, self._keep, values))

        self.wait()
        self.saved = None
        if self.flush() and self._keep_names():
            self._writing = self._writer.submit(replace_older)

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is on disk."""
        if self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """Write everything that waits, and close the files."""
        self.wait()
        self._writer.shutdown()
        self.flush()
        if not self._keep_names():
            self.saved = None  # the last checkpoint counts on lines that may be gone
        for journal in (self._metrics, self._receipt):
            self._try(journal.path, journal.sync)
            self._try(journal.path, journal.close)
        self._try(self.run / SECONDS, partial(os.close, self._seconds))
        if self._lock is not None:
            self._try(self._receipt.path, partial(os.close, self._lock))

    def _try(self, path: Path, action: Callable[[], None]) -> bool:
        """Return whether an action went well; say what did not, and that the run goes on."""
        try:
            action()
        except OSError as error:
            where = Path(self.name, path.name)
            self.note_trouble(f"{where} can't be written: {error.strerror or error}")
            return False
        return True

    def note_trouble(self, text: str) -> None:
        """Warn of something that could not be written, once."""
        self.trouble = self.trouble or text
        if text not in self._warned:
            self._warned.add(text)
            self.warn(f"{text}; exit status 74 will say so in the end")
