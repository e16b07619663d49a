"""Who is told of a run while it goes on, on the first rank; a new one stands in `sinks`."""

from collections.abc import Mapping

from dptrain.record.progress import Silence
from dptrain.record.writer import Writer
from dptrain.train.control import Sink


def sinks(bar: Silence, writer: Writer | None) -> list[Sink]:
    """Return those of a run: its progress, and the metrics in its directory where it has one."""
    files = [] if writer is None else [MetricsFile(writer)]
    return [bar, *files]


class MetricsFile(Silence):
    """Keeps the metrics in the run's directory; a step's line is the receipt's."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def metrics(self, values: Mapping[str, float]) -> None:
        self._writer.metrics(values)
