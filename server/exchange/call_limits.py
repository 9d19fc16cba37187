"""Limits what each party may have in progress: calls, and bytes of requests and replies.

A call counts until its reply has arrived or its connection has ended. Bytes are reserved before
they are read or sent. What one party uses does not count for another, except for the memory of
large requests and replies: a call waits until there is room for its own. While one waits for the
memory that all share, a request that arrives too slowly ends.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from keys.certificates import Peer
from server.errors import CoordinatorFault
from server.exchange.fencing import ACTS, Claim
from server.exchange.holders import ALL_BYTES, Holder, holder_of

SMALL = 64 * 2**10
"""A request or reply that is no larger needs no reservation; the number of calls limits these."""
START_SECONDS = 10.0
"""How long a request may take to get up to speed while others wait for its memory."""
SLOWEST = 200 * 2**10
"""The fewest bytes a second with which a request must arrive while others wait for its memory: with
fewer, one of largest size would not arrive within the time of its call (330 s)."""
CHECK_SECONDS = 1.0
"""How often a call that waits compares the others' speed."""


def _nothing() -> None:
    return None


@dataclass(eq=False)
class OpenCall:
    """A call in progress, and the bytes that are reserved for it."""

    holder: Holder
    bytes: int = 0
    waits_for: int = 0
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    reads: bool = False
    """Whether the bytes are those of a request that is still arriving."""
    since: float = 0.0
    """When the bytes were granted, on the loop's clock."""
    arrived: int = 0
    """The bytes of the request that have arrived."""
    end: Callable[[], None] = _nothing
    """Ends the call."""
    ended_for_others: bool = False

    def is_too_slow(self, now: float) -> bool:
        """Return whether it holds memory for a request that arrives too slowly."""
        expected = (now - self.since - START_SECONDS) * SLOWEST
        return self.reads and self.bytes > 0 and self.arrived < expected


class CallLimits:
    """The calls in progress. Use it in one event loop only."""

    def __init__(self) -> None:
        self._calls: defaultdict[str, set[OpenCall]] = defaultdict(set)
        """The calls of each party."""
        self._waiting: dict[OpenCall, None] = {}
        self._bytes = 0

    def begin(self, peer: Peer, claim: Claim = ACTS) -> OpenCall:
        """Count a call until `end`. Raises CoordinatorFault if there are too many."""
        holder = holder_of(peer, claim)
        held = sum(call.holder == holder for call in self._calls.get(holder.party, ()))
        if held >= holder.most:
            raise CoordinatorFault(
                "The call is refused",
                why=f"{holder.most} calls of this party are already in progress",
                fix="wait until one of them has ended",
            )
        call = OpenCall(holder)
        self._calls[holder.party].add(call)
        return call

    def end(self, call: OpenCall) -> None:
        """Forget a call, and what is reserved for it."""
        self._release(call)
        self._waiting.pop(call, None)
        of_party = self._calls[call.holder.party]
        of_party.discard(call)
        if not of_party:
            del self._calls[call.holder.party]
        self._grant()

    async def reserve(self, call: OpenCall, size: int, *, reads: bool = False) -> None:
        """Reserve bytes for a call, in place of those before; wait until there is room.

        `reads`: they are for a request that arrives, and `arrived` counts what has.
        """
        self._release(call)
        call.waits_for = min(size, call.holder.most_bytes) if size > SMALL else 0
        call.reads = reads
        call.granted.clear()
        self._waiting[call] = None
        self._grant()
        try:
            while not call.granted.is_set():
                await self._granted_or_checked(call)
        finally:
            self._waiting.pop(call, None)

    async def _granted_or_checked(self, call: OpenCall) -> None:
        try:
            await asyncio.wait_for(call.granted.wait(), CHECK_SECONDS)
        except TimeoutError:
            if self._has_room_of_its_own(call) and not self._has_shared_room(call):
                self._end_slow_calls()

    def _end_slow_calls(self) -> None:
        now = asyncio.get_running_loop().time()
        for other in [each for calls in self._calls.values() for each in calls]:
            if other.is_too_slow(now):
                other.ended_for_others = True
                other.end()

    def _release(self, call: OpenCall) -> None:
        self._bytes -= call.bytes
        call.bytes = 0

    def _grant(self) -> None:
        """Give room to the calls that wait, the oldest first; one that does not fit stays."""
        for call in list(self._waiting):
            if self._has_room_of_its_own(call) and self._has_shared_room(call):
                call.bytes, call.since = call.waits_for, asyncio.get_running_loop().time()
                self._bytes += call.bytes
                del self._waiting[call]
                call.granted.set()

    def _has_room_of_its_own(self, call: OpenCall) -> bool:
        calls, holder = self._calls[call.holder.party], call.holder
        held = sum(other.bytes for other in calls if holder.shares_with(other.holder))
        return held + call.waits_for <= holder.most_bytes

    def _has_shared_room(self, call: OpenCall) -> bool:
        return self._bytes + call.waits_for <= ALL_BYTES
