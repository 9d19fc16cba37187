"""Limits what each certificate may have in progress: calls, and bytes of requests and replies.

A call counts until its reply has arrived or its connection has ended. Bytes are reserved before
they are read or sent. What one certificate uses does not count for another, except for the memory
of large requests and replies: a call waits until there is room for its own. A node's certificate
may be in two machines. So the calls of the session that acts count for themselves, and others have
few.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange.fencing import Rank

OF_MEMBER, OF_GUEST = 16, 2
"""The most calls in progress with one certificate: of a member (a long poll, a heartbeat, some
documents), and of an invitation."""
OF_OTHERS = 6
"""The most calls with a node's certificate of the sessions of each other rank. A node of an earlier
version has no more, and one that signs in needs no more."""
MEMBER_BYTES = 64 * 2**20
"""The most bytes that the calls of a party may hold: one request or reply of largest size. Those of
a node's other sessions may hold as much, together."""
ALL_BYTES = 4 * MEMBER_BYTES
SMALL = 64 * 2**10
"""A request or reply that is no larger needs no reservation; the number of calls limits these."""


@dataclass(eq=False)
class OpenCall:
    """A call in progress, and the bytes that are reserved for it."""

    serial: int
    rank: Rank = Rank.ACTS
    bytes: int = 0
    waits_for: int = 0
    granted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acts(self) -> bool:
        """Whether its party is the only one that can make it, as far as the exchange knows."""
        return self.rank is Rank.ACTS


class CallLimits:
    """The calls in progress. Use it in one event loop only."""

    def __init__(self) -> None:
        self._calls: defaultdict[int, set[OpenCall]] = defaultdict(set)
        self._waiting: dict[OpenCall, None] = {}
        self._bytes = 0

    def begin(self, peer: Peer, rank: Rank = Rank.ACTS) -> OpenCall:
        """Count a call until `end`. Raises CoordinatorFault if there are too many."""
        most = _most(peer.role, rank)
        if sum(call.rank is rank for call in self._calls.get(peer.serial, ())) >= most:
            raise CoordinatorFault(
                "The call is refused",
                why=f"{most} calls with this certificate are already in progress",
                fix="wait until one of them has ended",
            )
        call = OpenCall(peer.serial, rank)
        self._calls[peer.serial].add(call)
        return call

    def end(self, call: OpenCall) -> None:
        """Forget a call, and what is reserved for it."""
        self._release(call)
        self._waiting.pop(call, None)
        of_certificate = self._calls[call.serial]
        of_certificate.discard(call)
        if not of_certificate:
            del self._calls[call.serial]
        self._grant()

    async def reserve(self, call: OpenCall, size: int) -> None:
        """Reserve bytes for a call, in place of those before; wait until there is room."""
        self._release(call)
        call.waits_for = min(size, MEMBER_BYTES) if size > SMALL else 0
        call.granted.clear()
        self._waiting[call] = None
        self._grant()
        try:
            await call.granted.wait()
        finally:
            self._waiting.pop(call, None)

    def _release(self, call: OpenCall) -> None:
        self._bytes -= call.bytes
        call.bytes = 0

    def _grant(self) -> None:
        """Give room to the calls that wait, the oldest first; one that does not fit stays."""
        for call in list(self._waiting):
            calls = self._calls[call.serial]
            of_party = sum(other.bytes for other in calls if other.acts is call.acts)
            if (
                of_party + call.waits_for <= MEMBER_BYTES
                and self._bytes + call.waits_for <= ALL_BYTES
            ):
                call.bytes = call.waits_for
                self._bytes += call.bytes
                del self._waiting[call]
                call.granted.set()


def _most(role: Role, rank: Rank) -> int:
    if role is Role.ENROLMENT:
        return OF_GUEST
    return OF_MEMBER if rank is Rank.ACTS else OF_OTHERS
