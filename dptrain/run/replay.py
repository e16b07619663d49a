"""Steps of a run done once more, and compared with what the run says of them."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dptrain.arrays import Array
from dptrain.checked import Plain
from dptrain.guard import STOPS
from dptrain.optim.schedule import OF_LENGTH
from dptrain.order import Batch
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.receipt import End, Receipt, Step
from dptrain.reduce.digest import digest
from dptrain.run.check import Difference, Found
from dptrain.run.config import RunConfig, told
from dptrain.run.control import BY_FUNCTION
from dptrain.run.identity import LENGTH, NOTED
from dptrain.run.outcome import outcome
from dptrain.run.resume import Start, find
from dptrain.run.trained import Trained, end_of
from dptrain.train.control import Control, Sink
from dptrain.train.evaluate import evaluate
from dptrain.train.loop import close_epoch, train_epoch
from dptrain.train.state import Training, forms, restore, snapshot, take_result
from dptrain.words import InputError
from dptrain.world import World

WINDOW = 1000
"""Lines of the receipt that the ranks have at a time."""


class Replay(Control):
    """Does steps once more and compares them with a run's files, in place of writing some.

    `run`: the run that does them, from where it stands. `path`, `found`: the directory, which only
    rank 0 needs to see, and what is known of its files.
    """

    def __init__(self, run: Training, path: Path, found: Found) -> None:
        self._run, self._world, self._path, self._found = run, run.world, path, found
        start = run.step
        steps = (step for step in receipt.follow(path, Receipt()) if step is not None)
        self._lines = (step for step in steps if step.step > start)
        self._window: deque[Step] = deque()
        self._pause = self._last = start
        self._sinks: Sequence[Sink] = ()
        self.first_difference: Difference | None = None

    def go(self, last: int, sinks: Sequence[Sink]) -> None:
        """Do the steps up to the last one, epoch by epoch as the run did. Collective."""
        run, ends = self._run, self._found.ends
        self._last, self._sinks = last, sinks
        notes = self._found.receipt.notes
        pauses = {*(note.step for note in notes), *(end.step for end in ends), last}
        for self._pause in sorted(step for step in pauses if run.step < step <= last):
            while run.step < self._pause and not self.first_difference:
                with self._world.together():
                    settings = told(self._found.receipt, run.step + 1).settings
                    config = RunConfig.read(settings).train
                run.stopped, run.num_steps = None, config.num_steps(run.order.steps_per_epoch)
                train_epoch(run, self, sinks)
                if not self.first_difference:
                    self._close([end for end in ends if end.step == run.step])

    def _close(self, ends: list[End]) -> None:
        """Measure the epoch if it is over, and compare what the run comes to with its ends here.

        Where a signal ended it, it was before the test rows were measured, and perhaps before this.
        """
        run = self._run
        run.stopped = None
        early = [end for end in ends if _signal(end) and "validation_loss" not in end.end]
        for end in early:
            self._compare_end(end)
        if run.epoch_is_over:
            close_epoch(run, self, self._sinks)
        for end in ends:
            if end not in early:
                self._compare_end(end)

    def after_step(self, batch: Batch, loss: float, asked: int) -> None:  # noqa: ARG002
        """Compare a step, and end the run at the first difference; see `Control`."""
        run, line = self._run, self._next()
        found = {"rows": receipt.rows_digest(batch.rows), "loss": loss.hex(), "params": None}
        if run.step % run.config.steps_between_hashes == 0 or run.epoch_is_over:
            found["params"] = digest(self._world, run.reducer.params)
        self._compare(line._asdict(), found | {"step": run.step})
        if self._found.within.get(run.step, False) or not run.epoch_is_over:
            self._compare_checkpoint()
        if run.step == self._pause:
            run.stopped = run.stopped or "paused"

    def after_epoch(self) -> None:
        """Compare the run's state where an epoch is over; see `Control`."""
        if self._run.step < self._last:  # so it did not end here
            self._compare({"stopped": None}, {"stopped": self._run.stopped})
        if not self._found.within.get(self._run.step, True):
            self._compare_checkpoint()

    def _compare(self, stored: Plain, found: Plain) -> None:
        """Note the first values that are not as they are stored; the run stops with them."""
        wrong = receipt.unlike(stored, found)
        if wrong and not self.first_difference:
            there, here = ({name: each.get(name) for name in wrong} for each in (stored, found))
            self.first_difference = Difference(self._run.step, there, here)
            self._run.stopped = "different"

    def _next(self) -> Step:
        """Return the next step's line. Collective."""
        if not self._window:
            self._window.extend(self._world.first(self._more))
        return self._window.popleft()

    def _more(self) -> list[Step]:
        """Return the lines that follow; InputError where there are none any more."""
        found = [*islice(self._lines, WINDOW)]
        if not found:
            raise InputError(f"{self._path / rundir.RECEIPT} has lost lines meanwhile")
        return found

    def _compare_checkpoint(self) -> None:
        """Compare the run's state with its checkpoint, where there is one that is whole."""
        step = self._run.step
        if step not in self._found.within:
            return
        arrays, state = snapshot(self._run)
        both: tuple[Plain, Plain] = {}, {}
        if self._world.rank == 0:
            with suppress(OSError, checkpoint.DamagedError):  # by the run, which goes on
                stored = checkpoint.read(checkpoint.path_of(self._path, step))
                for name in ("run", "receipt_lines", "receipt_sha256"):  # which have been checked
                    stored[1].pop(name, None)
                both = _hashes(stored[0]) | stored[1], _hashes(arrays) | state.plain()
        self._compare(*self._world.broadcast(both))

    def _compare_end(self, end: End) -> None:
        """Compare what the run comes to here with what it says of its end."""
        run, known, signal = self._run, self._found.receipt, _signal(end)
        over = run.step == run.num_steps and run.seen == 0
        going = run.params.copy()
        take_result(run)
        params, test = run.reducer.params, {}
        if signal is None and run.data.test is not None:
            test = evaluate(run.model, params, run.data.test, run.world)
        summary = outcome(run, params, test)
        if signal is not None and not (over and run.data.test is None):
            summary = replace(summary, stopped=signal)
        elif not over and run.stopped is None:
            by_function = run.seen == 0 and end.end.get("stopped") == BY_FUNCTION
            early = f"{run.num_steps - run.step} steps before its end"
            summary = replace(summary, stopped=BY_FUNCTION if by_function else early)
        version = str(known.run_before(run.step).get("dptrain"))
        encoding, threads = run.data.encoding, run.config.threads
        trained = Trained(run.model, params, encoding, summary, threads=threads)
        here = self._world.first(lambda: end_of(trained, version))
        self._compare(end.end | {"model": end.model}, here.end | {"model": here.model})
        run.params[:] = going
        run.reducer.allgather()


def _signal(end: End) -> str | None:
    stopped = end.end.get("stopped")
    return str(stopped) if stopped in STOPS.values() else None


def _hashes(arrays: dict[str, Array]) -> Plain:
    return {name: digest(World(), array.reshape(-1)) for name, array in arrays.items()}


def check_unchanged(found: Receipt, start: int, last: int) -> None:
    """Raise InputError where the run went on otherwise within the steps to be replayed."""
    for note in found.notes:
        settings = note.changed.get("settings", {})
        noted = {*note.changed} - {*NOTED}
        only_longer = noted <= {"settings"} and {*settings} <= {*LENGTH}
        rate_follows = found.run_before(note.step)["settings"].get("schedule") in OF_LENGTH
        if noted and start < note.step < last and (rate_follows or not only_longer):
            changed = ", ".join(dict.fromkeys([*settings, *sorted(noted)]))
            raise InputError(
                f"after step {note.step} the run went on changed ({changed}), and the replay "
                f"would go from step {start} to {last}; replay to {note.step}, or from a "
                "checkpoint after it",
                everywhere=True,
            )


def go_to(run: Training, path: Path, step: int, world: World) -> None:
    """Set a run to its newest checkpoint before a step, or leave it at its start. Collective."""
    found, arrays, wanted = Start(), dict[str, Array](), forms(run)
    with world.together():
        if world.rank == 0:
            found = find(path, wanted, lambda _: None, before=step - 1)
            arrays, found.arrays = found.arrays, {}
    start: Start = world.broadcast(found)
    if start.state is not None:
        restore(run, arrays, start.state, [])
