"""What each party may have in progress: calls and bytes."""

import asyncio
import itertools
from datetime import UTC, datetime
from functools import partial

import pytest

from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange import call_limits
from server.exchange.call_limits import SLOWEST, SMALL, START_SECONDS, CallLimits, OpenCall
from server.exchange.fencing import Claim, Rank
from server.exchange.holders import (
    ALL_BYTES,
    LITTLE_BYTES,
    NODE_BYTES,
    OF_GUEST,
    OF_MEMBER,
    OF_OTHERS,
)

SERIALS = itertools.count()


def peer(country: int, role: Role = Role.NODE) -> Peer:
    """Return a party, with another certificate each time; a guest's is the invitation."""
    serial = country if role is Role.ENROLMENT else next(SERIALS)
    return Peer("danube", f"A{country}", role, serial, datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(("role", "most"), [(Role.NODE, OF_MEMBER), (Role.ENROLMENT, OF_GUEST)])
def test_calls_are_counted_for_each_party_whatever_its_certificates(role: Role, most: int) -> None:
    limits = CallLimits()
    calls = [limits.begin(peer(1, role)) for _ in range(most)]
    with pytest.raises(CoordinatorFault, match="already in progress"):
        limits.begin(peer(1, role))
    limits.begin(peer(2, role))
    limits.end(calls[0])
    limits.begin(peer(1, role))


@pytest.mark.parametrize("rank", [Rank.FORMER, Rank.LIKELY, Rank.OTHER])
def test_a_copy_uses_up_no_calls_of_the_session_that_acts(rank: Rank) -> None:
    limits = CallLimits()
    for _ in range(OF_OTHERS):
        limits.begin(peer(1), Claim(rank, 1))
    with pytest.raises(CoordinatorFault, match=f"{OF_OTHERS} calls"):
        limits.begin(peer(1), Claim(rank, 1))
    limits.begin(peer(1), Claim(Rank.FORMER, 0))  # one that acted before the copies
    for _ in range(OF_MEMBER):
        limits.begin(peer(1))
    with pytest.raises(CoordinatorFault, match=f"{OF_MEMBER} calls"):
        limits.begin(peer(1))


async def waits(limits: CallLimits, call: OpenCall, size: int) -> "asyncio.Task[None] | None":
    """Reserve, and return the task if it has to wait."""
    task = asyncio.create_task(limits.reserve(call, size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return None if task.done() else task


def test_bytes_of_one_party_wait_for_its_own_and_not_for_others() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        first, second, other = (limits.begin(peer(serial)) for serial in (1, 1, 2))
        assert await waits(limits, first, NODE_BYTES) is None
        waiting = await waits(limits, second, SMALL + 1)
        assert waiting is not None
        assert await waits(limits, other, NODE_BYTES) is None
        limits.end(first)
        await waiting

    asyncio.run(reserve())


def test_sessions_that_do_not_act_and_officers_hold_little_and_not_what_the_node_needs() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        copy = limits.begin(peer(1), Claim(Rank.OTHER))
        second = limits.begin(peer(1), Claim(Rank.LIKELY))
        node, officer = limits.begin(peer(1)), limits.begin(peer(1, Role.OFFICER))
        for call in (copy, officer, node):
            assert await waits(limits, call, NODE_BYTES) is None
        assert (copy.bytes, officer.bytes, node.bytes) == (LITTLE_BYTES, LITTLE_BYTES, NODE_BYTES)
        waiting = await waits(limits, second, SMALL + 1)
        assert waiting is not None
        limits.end(copy)
        await waiting

    asyncio.run(reserve())


def test_three_countries_cannot_use_up_the_memory_whatever_their_certificates_and_sessions() -> (
    None
):
    async def reserve() -> None:
        limits, held = CallLimits(), list[asyncio.Task[None]]()
        claims = [Claim(rank, before) for rank in Rank for before in range(3)]
        for country in range(3):
            calls = [limits.begin(peer(country), claim) for claim in claims]
            calls += [limits.begin(peer(country, Role.OFFICER)) for _ in claims]
            for call in calls:
                held += filter(None, [await waits(limits, call, NODE_BYTES)])
        assert await waits(limits, limits.begin(peer(9)), NODE_BYTES) is None
        assert len(held) > 3
        for task in held:
            task.cancel()

    asyncio.run(reserve())


def test_a_request_that_is_too_slow_ends_only_while_others_wait_for_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_limits, "CHECK_SECONDS", 0.0)

    async def reserve() -> None:
        limits, now = CallLimits(), asyncio.get_running_loop().time()
        stalled, timely, read, replied = calls = [limits.begin(peer(each)) for each in range(4)]
        for call in calls:
            await limits.reserve(call, NODE_BYTES, reads=call is not replied)
            call.since, call.end = now - START_SECONDS - 60.0, partial(limits.end, call)
        stalled.arrived, timely.arrived, read.reads = 59 * SLOWEST, 61 * SLOWEST, False
        own = await waits(limits, limits.begin(peer(0)), SMALL + 1)  # waits for its own call
        assert own is not None
        await asyncio.sleep(0.01)
        assert not stalled.ended_for_others
        own.cancel()
        little = [limits.begin(peer(each), Claim(Rank.OTHER)) for each in range(8)]
        for call in little:
            await limits.reserve(call, LITTLE_BYTES)
        async with asyncio.timeout(5.0):
            await limits.reserve(limits.begin(peer(9)), NODE_BYTES)
        assert [call.ended_for_others for call in calls] == [True, False, False, False]

    asyncio.run(reserve())


def test_all_bytes_together_are_limited_and_small_requests_never_wait() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        full = [limits.begin(peer(country)) for country in range(4)]
        rest = [limits.begin(peer(country, Role.OFFICER)) for country in range(8)]
        for call in (*full, *rest):
            assert await waits(limits, call, 2 * NODE_BYTES) is None
        assert sum(call.bytes for call in (*full, *rest)) == ALL_BYTES
        large, small = limits.begin(peer(100)), limits.begin(peer(101))
        waiting = await waits(limits, large, SMALL + 1)
        assert waiting is not None
        assert await waits(limits, small, SMALL) is None
        await limits.reserve(full[0], 0)  # the request is done, and its reply is small
        await waiting

    asyncio.run(reserve())


def test_a_call_that_ends_while_it_waits_gets_nothing() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        first, second = limits.begin(peer(1)), limits.begin(peer(1))
        await limits.reserve(first, NODE_BYTES)
        waiting = await waits(limits, second, NODE_BYTES)
        assert waiting is not None
        waiting.cancel()
        limits.end(second)
        limits.end(first)
        third = limits.begin(peer(1))
        assert await waits(limits, third, NODE_BYTES) is None

    asyncio.run(reserve())
