"""Messages between ranks: in pieces that MPI can count, and such as go the same way each step."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from dptrain.arrays import Floats
from dptrain.world import World

LARGEST = 2**18
"""Entries in a message. Measured: over 1 Gbit/s such pieces take 1.06 times the link's time, whole
slices 1.2 to 1.6 times; and some MPI libraries can't count beyond 2**31 - 1."""

Message = tuple[Floats, int]
"""A vector, contiguous, and the rank that it goes to or comes from."""


def pieces(vector: Floats) -> Iterator[Floats]:
    """Yield a vector's parts, each small enough for a message."""
    for first in range(0, len(vector), LARGEST):
        yield vector[first : first + LARGEST]


def send(world: World, vector: Floats, rank: int) -> None:
    """Send a vector; `receive` takes it."""
    for piece in pieces(vector):
        world.comm.Send(piece, rank)


def receive(world: World, vector: Floats, rank: int) -> None:
    """Receive a vector, contiguous, into its place."""
    for piece in pieces(vector):
        world.comm.Recv(piece, rank)


class Wire:
    """Messages that are the same in each step, begun stretch by stretch and waited for so.

    Each stretch says what goes out and what comes in, the same stretches on all ranks. Who starts
    one may compute meanwhile, but not touch its arrays until `wait`. MPI is told of each message
    once (persistent requests). Between two ranks messages keep their order, which both know.
    """

    def __init__(
        self, world: World, stretches: Sequence[tuple[Sequence[Message], Sequence[Message]]]
    ) -> None:
        self._requests: list[list[Any]] = []
        for messages_out, messages_in in stretches:
            begun: list[Any] = []
            for vector, rank in messages_in:
                begun += [world.comm.Recv_init(piece, rank) for piece in pieces(vector)]
            for vector, rank in messages_out:
                begun += [world.comm.Send_init(piece, rank) for piece in pieces(vector)]
            self._requests.append(begun)

    def start(self, stretch: int) -> None:
        """Begin to send and receive a stretch."""
        for request in self._requests[stretch]:
            request.Start()

    def wait(self, stretch: int) -> None:
        """Wait until a stretch that was started is sent and received."""
        for request in self._requests[stretch]:
            request.Wait()

    def close(self) -> None:
        """Have MPI forget the messages, and with them their arrays."""
        for request in itertools.chain.from_iterable(self._requests):
            request.Free()
        self._requests = []
