"""Gives admitted nodes their place at the SuperLink and the relay.

The SuperLink forgets everything when it ends, so every admitted node is registered anew at each
start and gets a new Flower node id.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from protocols.wire.invitation import Statement
from server.errors import OperationFault
from server.exchange.relay import Relay
from server.flower.presence import Presence, PresenceUpdate
from server.flower.superlink import SuperLink, node_key_bytes

AT_ONCE = 4
LONGEST_WAIT = 30.0


class NodeSessions:
    """Seats at the relay, given from any thread; the relay lives in the exchange's loop."""

    def __init__(self, relay: Relay, superlink: SuperLink) -> None:
        self._relay, self._superlink = relay, superlink
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[str, str] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin: the relay's calls run in `loop`."""
        self._loop = loop

    def open_all(self, nodes: Iterable[Statement]) -> None:
        """Register every admitted node with a fresh SuperLink, which knows none."""
        self._open.clear()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.open_session, nodes))

    def open_session(self, node: Statement) -> None:
        """Register one node and give its country the seat; one that has it keeps it."""
        line = " ".join((node.node_auth or "").split()[:2])  # less its comment
        if self._open.get(node.country) == line:
            return
        key = load_ssh_public_key(line.encode())
        if not isinstance(key, EllipticCurvePublicKey):
            raise OperationFault(f"The SuperLink key of {node.country} is not an EC key")
        node_id = self._superlink.register(line)
        self._in_loop(lambda: self._relay.open_session(node.country, node_id, node_key_bytes(key)))
        self._open[node.country] = line

    def leave(self, country: str) -> None:
        """Count a country's node as gone: it was revoked."""
        self._in_loop(lambda: self._relay.leave(country))

    def announce(self, countries: Iterable[str]) -> None:
        """Wake the nodes that wait: one message was pushed for each of these countries."""
        sent = tuple(countries)
        self._in_loop(lambda: self._relay.announce(sent))

    def presence(self) -> dict[str, Presence]:
        """Return who is there, by seated country."""
        return self._relay.presence()

    def news(self, count: int, wait: float) -> PresenceUpdate:
        """Return who is there once more than `count` things happened, or after `wait` seconds."""
        reached = self._relay.changes.after(count, min(wait, LONGEST_WAIT))
        return PresenceUpdate(reached, self._relay.presence())

    def online(self) -> dict[str, bool]:
        """Return which seated nodes are connected."""
        return self._relay.online()

    def _in_loop(self, act: object) -> None:
        if self._loop is not None and callable(act):
            self._loop.call_soon_threadsafe(act)
