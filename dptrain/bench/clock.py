"""A clock around what a step calls, and the products that a step does, to be done again alone."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dptrain.data.prepare import Feed
from dptrain.optim.optimizer import Optimizer
from dptrain.train.state import Training
from dptrain.world import World

PARTS = ("products", "other_arithmetic", "waiting", "reducing", "optimizer", "data", "loop")


@dataclass
class Clock:
    """Seconds of each part; at any instant the time goes to exactly one of them."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    part: str = "loop"
    since: float = field(default_factory=time.perf_counter)

    def switch(self, part: str) -> None:
        """From now on the time goes to this part."""
        now = time.perf_counter()
        self.seconds[self.part] += now - self.since
        self.part, self.since = part, now

    def around(self, function: Callable[..., Any], part: str, then: str) -> Callable[..., Any]:
        """Return a function whose time goes to `part`, and what follows it to `then`."""

        def clocked(*args: Any, **options: Any) -> Any:
            self.switch(part)
            result = function(*args, **options)
            self.switch(then)
            return result

        return clocked


@contextlib.contextmanager
def replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """Let a module or a class have another function under a name, for a while."""
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def clocked(run: Training, clock: Clock, world: World) -> Iterator[None]:
    """Put a clock around what a step calls.

    To share is to wait within a node; between nodes the new parameters are sent.
    """
    sharing = "waiting" if len(world.nodes) == 1 else "reducing"
    reducer = type(run.reducer)
    with contextlib.ExitStack() as stack:
        for owner, name, part, then in (
            (np, "matmul", "products", "other_arithmetic"),
            (type(run.model), "loss_and_grad_sum", "other_arithmetic", "loop"),
            (reducer, "allgather_sums", "waiting", "loop"),
            (reducer, "reduce_scatter", "reducing", "loop"),
            (reducer, "norm", "reducing", "loop"),
            (reducer, "allgather", sharing, "loop"),
            (Optimizer, "update", "optimizer", "loop"),
            (Feed, "__getitem__", "data", "loop"),
        ):
            by = clock.around(getattr(owner, name), part, then)
            stack.enter_context(replaced(owner, name, by))
        yield


@dataclass(frozen=True)
class Products:
    """The products of one epoch's steps on this rank, with the very arrays they were made of."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note every product that is computed, for a while."""
        matmul = np.matmul

        def note(*args: Any, **options: Any) -> Any:
            self.calls.append((args, options))
            return matmul(*args, **options)

        with replaced(np, "matmul", note):
            yield

    def compute(self, times: int) -> None:
        """Compute them again, nothing else."""
        for _ in range(times):
            for args, options in self.calls:
                np.matmul(*args, **options)

    @property
    def flop(self) -> int:
        """How many additions and multiplications they are."""
        return sum(2 * np.size(a) * np.shape(b)[-1] for (a, b, *_), _ in self.calls)
