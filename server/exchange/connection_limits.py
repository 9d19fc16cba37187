"""Decides which connections to the public port stay open: values in, decisions out.

A connection is a stranger's until a call over it was made with a valid certificate. An address from
which a member made a call is known for a week, and keeps room of its own. If there is no room for a
new connection, another one ends, of whoever has most of them: first one that is silent, then one
whose handshake has not gone far. So silent connections never keep members out, however many there
are. Between strangers whose addresses have equally many, a connection first stays for two seconds,
and newer ones are refused, which costs next to nothing.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Self

from keys.certificates import Peer, Role
from server.exchange.fencing import ACTS, Claim
from server.exchange.holders import holder_of
from server.exchange.owners import Kind, Owners

MOST_CONNECTIONS = 1_024
"""The most connections at once, if the operating system allows enough descriptors."""
OWN_DESCRIPTORS = 256
"""Descriptors kept for files, databases, Flower and local commands."""
DESCRIPTORS_EACH = 3
"""What a connection needs: its own, and two for the way to gRPC inside the process."""
FEWEST_CONNECTIONS = 8
KNOWN_TIMES = 4
"""How many times as many a known address may have: many parties may be behind it."""
FIRST_CALL_SECONDS = 20.0
"""How long a connection may take for its handshake and its first call."""
SETTLED_SECONDS = 2.0
"""How long a stranger's connection stays at least, if its address has no more than others: whoever
connects again and again could otherwise keep the processor busy."""
GUEST_SECONDS = 120.0
"""How long a connection with an invitation's certificate may last; a guest can connect again."""
KNOWN_SECONDS = 7 * 24 * 3600.0
MOST_KNOWN = 4_096
"""How many addresses are remembered, at most; the one unused for longest is forgotten first."""
NETWORK_OF_ONE = 64
"""One customer has a whole IPv6 network of this prefix length: it counts as one address."""


@dataclass(frozen=True)
class Room:
    """How many connections there may be."""

    total: int
    of_address: int
    """The most connections of one unknown address that have not made a call yet."""

    @classmethod
    def within(cls, descriptors: int, of_address: int) -> Self:
        """Return the room that a process with so many descriptors has."""
        possible = (descriptors - OWN_DESCRIPTORS) // DESCRIPTORS_EACH
        return cls(max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, possible)), of_address)

    @property
    def strangers(self) -> int:
        """How much of it strangers and guests may use together."""
        return self.total // 2


@dataclass
class _Connection:
    owner: str
    """Its address, or the party that made a call over it, and the rank of its session."""
    kind: Kind
    most: int
    """The most connections that this owner may have."""
    since: float
    ends: float | None
    flights: int = 0
    """How many times its client has sent something: a handshake takes two."""
    before: int = 0
    """How many sessions acted before the one that called: of its node's, the latest ends first."""


class ConnectionLimits:
    """The open connections by number. Times are in seconds of any steady clock."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._open: dict[int, _Connection] = {}
        self._owners = Owners()
        self._strangers = 0
        self._known: OrderedDict[str, float] = OrderedDict()
        self._latest = 0

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, address: str, now: float) -> tuple[int, list[int]] | None:
        """Return the number of a new connection, and the connections that end for it.

        Returns None if it is refused: a stranger's, while there is no room among strangers.
        """
        network = network_of(address)
        known = network in self._known and now - self._known[network] < KNOWN_SECONDS
        owner, kind = f"unknown {network}", Kind.STRANGER
        if known:
            owner, kind = f"known {network}", Kind.PASSING
        elif not self._may_enter(owner, now):
            return None
        most = self._room.of_address * (KNOWN_TIMES if known else 1)
        self._latest += 1
        connection = _Connection(owner, kind, most, now, now + FIRST_CALL_SECONDS)
        self._add(self._latest, connection)
        return self._latest, self._make_room(connection)

    def received(self, number: int) -> None:
        """Note that the client of a connection has sent something."""
        if number in self._open:
            self._open[number].flights += 1

    def prove(
        self, number: int, peer: Peer, address: str, now: float, claim: Claim = ACTS
    ) -> list[int]:
        """Note a call with a valid certificate; return the connections that end for it."""
        connection, holder = self._open.get(number), holder_of(peer, claim)
        guest, owner = peer.role is Role.ENROLMENT, f"party {holder.party} {claim.rank.value}"
        if not guest:
            self._remember(network_of(address), now)
        if connection is None or (connection.owner, connection.before) == (owner, claim.before):
            return []
        kind, ends = (Kind.STRANGER, now + GUEST_SECONDS) if guest else (Kind.MEMBER, None)
        proven = replace(
            connection, owner=owner, kind=kind, most=holder.most, ends=ends, before=claim.before
        )
        self.ended(number)
        self._add(number, proven)
        return self._make_room(proven)

    def disprove(self, number: int, now: float) -> None:
        """Note a call with a certificate that is not valid any more: the connection ends soon."""
        connection = self._open.get(number)
        if connection is not None and connection.kind is Kind.MEMBER:
            owner, ends = f"former {connection.owner}", now + FIRST_CALL_SECONDS
            self.ended(number)
            self._add(number, replace(connection, owner=owner, kind=Kind.PASSING, ends=ends))

    def ended(self, number: int) -> None:
        """Forget a connection."""
        connection = self._open.pop(number, None)
        if connection is None:
            return
        self._strangers -= connection.kind is Kind.STRANGER
        self._owners.remove(connection.owner, connection.kind, number)

    def overdue(self, now: float) -> list[int]:
        """Return the connections that have lasted too long, and forget them."""
        late = [n for n, open_ in self._open.items() if open_.ends is not None and open_.ends < now]
        for number in late:
            self.ended(number)
        return late

    def _add(self, number: int, connection: _Connection) -> None:
        self._open[number] = connection
        self._owners.add(connection.owner, connection.kind, number)
        self._strangers += connection.kind is Kind.STRANGER

    def _may_enter(self, owner: str, now: float) -> bool:
        """Return whether a stranger's connection may take the place of another, if it must."""
        own = self._owners.count(owner)
        if own < self._room.of_address and self._strangers < self._room.strangers:
            return True
        largest = self._owners.largest(Kind.STRANGER) or owner
        gives_way = self._owners.of(owner if own >= self._room.of_address else largest)
        first = self._open[self._first_to_end(gives_way)]
        return now - first.since >= SETTLED_SECONDS or len(gives_way) > own + 1

    def _first_to_end(self, numbers: Iterable[int], newest: _Connection | None = None) -> int:
        """Return the connection on which least has happened; the oldest of several.

        Of the sessions of a node that acted before, a later one ends before an earlier one.
        """

        def order(number: int) -> tuple[int, bool, int]:
            connection = self._open[number]
            return -connection.before, connection is newest, connection.flights

        return min(numbers, key=order)

    def _make_room(self, newest: _Connection) -> list[int]:
        """Forget connections until every limit holds again; return them."""
        ending = []
        while (owner := self._has_too_many(newest)) is not None:
            number = self._first_to_end(self._owners.of(owner), newest)
            self.ended(number)
            ending.append(number)
        return ending

    def _has_too_many(self, newest: _Connection) -> str | None:
        """Return whose oldest connection must end; None if there is room."""
        if self._owners.count(newest.owner) > newest.most:
            return newest.owner
        if self._strangers > self._room.strangers:
            return self._owners.largest(Kind.STRANGER)
        if len(self._open) > self._room.total:
            passing = self._owners.largest(Kind.STRANGER, Kind.PASSING)
            return passing or self._owners.largest(Kind.MEMBER)
        return None

    def _remember(self, network: str, now: float) -> None:
        self._known[network] = now
        self._known.move_to_end(network)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


@lru_cache(MOST_KNOWN)
def network_of(address: str) -> str:
    """Return whom an IP address counts for: itself, or its IPv6 network of 64 bits."""
    parsed = ip_address(address.partition("%")[0])
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, NETWORK_OF_ONE), strict=False))
