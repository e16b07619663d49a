"""What ranks of other nodes are doing, asked by the first rank of each node, by UDP.

Each asks the next node only, and only where this one has waited long: who is at fault is next to a
node that isn't. So a question costs the same on any number of nodes. A rank that ends says so to
the first rank of every node.
"""

import contextlib
import json
import socket
from collections.abc import Sequence

from dptrain.board import Line, State

MOST_LINES = 200
"""Lines in a datagram: those that are furthest behind."""

ASK, ANSWER, ENDED, END = b"?", b"!", b"x", b"."

HELLOS = 10
"""Ticks in which the next node is asked whether it can be heard at all: there may be a firewall."""

Card = tuple[str, list[tuple[str, int]]]
"""Who the first rank of a node is, in words, and where it can be reached."""


class Neighbour:
    """The way to the first ranks of other nodes."""

    def __init__(self) -> None:
        self.over = False
        """Whether another node has said that the job ends."""
        self.ended: dict[int, Line] = {}
        """Ranks of other nodes that have ended."""
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(("", 0))
        self._socket.setblocking(False)
        self.name = ""
        """Who the first rank of the next node is."""
        self._next: list[tuple[str, int]] = []
        self._others: list[tuple[str, int]] = []
        self._key = b""
        self._hellos = HELLOS
        self._heard = False
        self._lines: list[Line] = []

    def card(self, line: Line) -> Card:
        """Return who this one is, and where to be reached."""
        port = self._socket.getsockname()[1]
        return line.name, [(address, port) for address in addresses(self._socket.family)]

    def meet(self, cards: Sequence[Card], own: int, key: bytes) -> None:
        """Take the cards of all nodes' first ranks, the number of this node, and the job's key.

        No other job's question is answered.
        """
        self.name, self._next = cards[(own + 1) % len(cards)]
        self._others = [place for card in cards if card is not cards[own] for place in card[1]]
        self._key = key

    def tick(self, lines: list[Line]) -> None:
        """Answer with what this node's ranks are doing, and see whether the next can be heard."""
        self._answer(lines)
        if not self._heard and self._hellos:
            self._hellos -= 1
            self._send(ASK, self._next)

    def ask(self) -> None:
        """Ask what the ranks of the next node are doing."""
        self._lines = []
        self._send(ASK, self._next)

    @property
    def answer(self) -> list[Line] | None:
        """What has been answered; None where a node is silent that has been heard before."""
        return self._lines or (None if self._heard else [])

    def say_ended(self, line: Line) -> None:
        """Tell every node that a rank of this one has ended."""
        self._send(ENDED + _encode([line]), self._others)

    def end_all(self) -> None:
        """Tell every node that the job ends: launchers have been seen to forget one."""
        self._send(END, self._others)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def _send(self, message: bytes, places: Sequence[tuple[str, int]]) -> None:
        for place in places:
            with contextlib.suppress(OSError):
                self._socket.sendto(self._key + message, place)

    def _answer(self, lines: list[Line]) -> None:
        """Take every message that has come."""
        with contextlib.suppress(OSError):  # none is left
            while True:
                message, sender = self._socket.recvfrom(2**16)
                kind, rest = message[len(self._key) :][:1], message[len(self._key) + 1 :]
                if not message.startswith(self._key):
                    continue
                if kind == ASK:
                    furthest = sorted(lines, key=lambda line: line.done)[:MOST_LINES]
                    self._send(ANSWER + _encode(furthest), [sender[:2]])
                elif kind == ANSWER:
                    self._heard, self._lines = True, _decode(rest)
                elif kind == END:
                    self.over = True
                elif kind == ENDED:
                    self.ended |= {line.rank: line for line in _decode(rest)}


def _encode(lines: Sequence[Line]) -> bytes:
    return json.dumps([line._asdict() for line in lines]).encode()


def _decode(text: bytes) -> list[Line]:
    return [Line(**line | {"state": State(line["state"])}) for line in json.loads(text)]


def addresses(family: socket.AddressFamily) -> list[str]:
    """Return this host's addresses, but for its own loopback, as a socket of a family takes them.

    For IPv6 those of IPv4 are mapped; link-local ones are left out, as they need an interface.
    """
    import psutil

    found = [item for items in psutil.net_if_addrs().values() for item in items]
    four = [i.address for i in found if i.family == socket.AF_INET]
    six = [i.address for i in found if i.family == socket.AF_INET6 and "%" not in i.address]
    four = [name for name in four if not name.startswith("127.")] or ["127.0.0.1"]
    if family == socket.AF_INET:
        return four
    return [f"::ffff:{name}" for name in four] + [name for name in six if name != "::1"]
