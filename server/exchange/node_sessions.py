"""Registers admitted nodes with the SuperLink, and opens their sessions at the relay.

The SuperLink forgets everything when it ends. So every admitted node is registered again at each
start, with a new Flower node id.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from keys.errors import KeyFault
from keys.pem import parse_node_auth, without_comment
from protocols.wire.invitation import Statement
from server.exchange.relay import Relay
from server.flower.presence import Presence, PresenceUpdate
from server.flower.superlink import SuperLink, node_key_bytes

AT_ONCE = 4
"""How many nodes are registered in parallel."""
LONGEST_WAIT = 30.0
_log = logging.getLogger("pratique.exchange")


class NodeSessions:
    """The nodes' sessions at the relay. Call from any thread; the relay runs in one event loop."""

    def __init__(self, relay: Relay, superlink: SuperLink) -> None:
        self._relay, self._superlink = relay, superlink
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[str, str] = {}
        """By country, the public key for which a session is open."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the relay's calls in this event loop from now on."""
        self._loop = loop

    def open_all(self, nodes: Iterable[Statement]) -> None:
        """Register every admitted node with a new SuperLink, which knows none.

        A node whose key cannot be read stays away, and does not keep the others waiting.
        """
        self._open.clear()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._open_or_log, nodes))

    def _open_or_log(self, node: Statement) -> None:
        try:
            self.open_session(node)
        except KeyFault as fault:
            details = {"country": node.country, "why": fault.sentence}
            _log.error("an admitted node is not registered", extra=details)

    def open_session(self, node: Statement) -> None:
        """Register one node and open its session; a session with the same key is kept."""
        line = without_comment(node.node_auth or "")
        if self._open.get(node.country) == line:
            return
        key = parse_node_auth(line)
        node_id = self._superlink.register(line)
        self._in_loop(lambda: self._relay.open_session(node.country, node_id, node_key_bytes(key)))
        self._open[node.country] = line

    def mark_offline(self, country: str) -> None:
        """Count a country's node as disconnected, after its revocation."""
        self._in_loop(lambda: self._relay.mark_offline(country))

    def announce(self, countries: Iterable[str]) -> None:
        """Wake the nodes that wait: one message was pushed for each of these countries."""
        notified = tuple(countries)
        self._in_loop(lambda: self._relay.announce(notified))

    def presence(self) -> dict[str, Presence]:
        """Return each node's presence, by country."""
        return self._relay.presence()

    def presence_update(self, count: int, wait: float) -> PresenceUpdate:
        """Return the presences once there are more than `count` changes, or after `wait` s."""
        reached = self._relay.changes.after(count, min(wait, LONGEST_WAIT))
        return PresenceUpdate(reached, self._relay.presence())

    def online(self) -> dict[str, bool]:
        """Return whether each registered node is connected, by country."""
        return self._relay.online()

    def disputes(self) -> tuple[str, ...]:
        """Return the countries whose node's identity two machines have."""
        return self._relay.disputes()

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call)
