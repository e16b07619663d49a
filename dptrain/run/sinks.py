"""Who is told of a run while it goes on, on the first rank; a new one stands in `sinks`."""

from dptrain.record.progress import Silence
from dptrain.record.writer import Writer
from dptrain.train.control import Sink
from dptrain.train.state import Metrics


def sinks(bar: Silence, writer: Writer | None) -> list[Sink]:
    """Return those of a run: its progress, and the metrics in its directory where it has one."""
    return [bar] if writer is None else [bar, MetricsFile(writer)]


class MetricsFile:
    """Keeps the metrics in the run's directory."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def step(self, step: int, loss: float) -> None:
        """See `Sink`; a step's line is the receipt's."""

    def metrics(self, values: Metrics) -> None:
        """Add a line; see `Sink`."""
        self._writer.metrics(values)
