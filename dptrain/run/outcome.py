"""What a run came to, and how: its summary."""

import hashlib
import math
from dataclasses import dataclass, field, fields, replace

from dptrain.arrays import Floats
from dptrain.checked import Plain
from dptrain.run.control import RunControl
from dptrain.train.state import Metrics, Training

UNCOVERED = ("ranks", "seconds", "examples_per_second", "trouble", "saved", "run")
"""What of a summary no receipt covers: how long the run took, on what, and where it is."""


@dataclass(frozen=True)
class Summary:
    """What a run came to, and how; empty for a model that was loaded."""

    params_sha256: str = ""
    num_params: int = 0
    shards: int = 0
    threads: int = 0
    reduce: str = ""
    steps: int = 0
    epochs: int = 0
    stopped: str | None = None
    """Why it ended before its last step, if it did."""
    metrics: Metrics = field(default_factory=dict)
    """Losses and metrics by name: train_loss, validation_accuracy, test_loss and so on."""
    ranks: int = 0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    receipt_sha256: str | None = None
    """Of the receipt's last line."""
    trouble: str | None = None
    """The first thing that could not be written, if anything."""
    saved: int | None = None
    """The step of the last checkpoint, if that could be written."""
    run: str | None = None
    """The run directory."""

    def plain(self) -> Plain:
        """Return it as `train --json` prints it, each metric beside the others."""
        found: Plain = {}
        for item in fields(self):
            value = getattr(self, item.name)
            found |= value if item.name == "metrics" else {item.name: value}
        return found

    def covered(self) -> Plain:
        """Return what a receipt says of it: all that is free of times and ranks."""
        others = (*UNCOVERED, "receipt_sha256")
        return {name: value for name, value in self.plain().items() if name not in others}


def outcome(run: Training, params: Floats, test: Metrics) -> Summary:
    """Return what a run came to, without times, ranks and files.

    `params` [n] are those of the model, `test` the metrics of the test rows. Collective: every
    rank must call this.
    """
    kept = run.train_metrics if run.seen else run.kept_metrics
    return Summary(
        run.world.broadcast(run.world.rank == 0 and hashlib.sha256(params.data).hexdigest()),
        len(params),
        run.order.num_shards,
        run.config.threads,
        run.config.reduce,
        run.step,
        math.ceil(run.step / run.order.steps_per_epoch),
        run.stopped,
        kept | {f"test_{name}": value for name, value in test.items()},
    )


def circumstances(found: Summary, control: RunControl) -> Summary:
    """Return a summary with how the run came to it: times, ranks and files. Collective."""
    writer, files = control.writer, Plain()
    if writer is not None:
        files = {"receipt_sha256": writer.head, "run": writer.name}
        files |= {"trouble": writer.trouble, "saved": writer.saved}
    files = control.world.broadcast(files) | {"ranks": control.world.size}
    pace = control.examples_per_second
    return replace(found, seconds=control.run.seconds, examples_per_second=pace, **files)
