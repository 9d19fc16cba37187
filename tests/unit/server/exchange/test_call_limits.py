"""What each certificate may have in progress: calls and bytes."""

import asyncio
from datetime import UTC, datetime

import pytest

from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange.call_limits import (
    ALL_BYTES,
    MEMBER_BYTES,
    OF_GUEST,
    OF_MEMBER,
    OF_OTHERS,
    SMALL,
    CallLimits,
    OpenCall,
)
from server.exchange.fencing import Rank


def peer(serial: int, role: Role = Role.NODE) -> Peer:
    return Peer("danube", "AT", role, serial, datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(("role", "most"), [(Role.NODE, OF_MEMBER), (Role.ENROLMENT, OF_GUEST)])
def test_calls_are_counted_for_each_certificate(role: Role, most: int) -> None:
    limits = CallLimits()
    calls = [limits.begin(peer(1, role)) for _ in range(most)]
    with pytest.raises(CoordinatorFault, match="already in progress"):
        limits.begin(peer(1, role))
    limits.begin(peer(2, role))
    limits.end(calls[0])
    limits.begin(peer(1, role))


@pytest.mark.parametrize("rank", [Rank.LIKELY, Rank.OTHER])
def test_a_copy_uses_up_no_calls_of_the_session_that_acts(rank: Rank) -> None:
    limits = CallLimits()
    for _ in range(OF_OTHERS):
        limits.begin(peer(1), rank)
    with pytest.raises(CoordinatorFault, match=f"{OF_OTHERS} calls"):
        limits.begin(peer(1), rank)
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


def test_bytes_of_one_certificate_wait_for_its_own_and_not_for_others() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        first, second, other = (limits.begin(peer(serial)) for serial in (1, 1, 2))
        assert await waits(limits, first, MEMBER_BYTES) is None
        waiting = await waits(limits, second, SMALL + 1)
        assert waiting is not None
        assert await waits(limits, other, MEMBER_BYTES) is None
        limits.end(first)
        await waiting

    asyncio.run(reserve())


def test_bytes_that_copies_hold_are_not_those_of_the_session_that_acts() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        copy, second = limits.begin(peer(1), Rank.OTHER), limits.begin(peer(1), Rank.LIKELY)
        node = limits.begin(peer(1))
        assert await waits(limits, copy, MEMBER_BYTES) is None
        assert await waits(limits, node, MEMBER_BYTES) is None
        waiting = await waits(limits, second, SMALL + 1)
        assert waiting is not None
        limits.end(copy)
        await waiting

    asyncio.run(reserve())


def test_all_bytes_together_are_limited_and_small_requests_never_wait() -> None:
    async def reserve() -> None:
        limits = CallLimits()
        full = [limits.begin(peer(serial)) for serial in range(ALL_BYTES // MEMBER_BYTES)]
        for call in full:
            assert await waits(limits, call, 2 * MEMBER_BYTES) is None
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
        await limits.reserve(first, MEMBER_BYTES)
        waiting = await waits(limits, second, MEMBER_BYTES)
        assert waiting is not None
        waiting.cancel()
        limits.end(second)
        limits.end(first)
        third = limits.begin(peer(1))
        assert await waits(limits, third, MEMBER_BYTES) is None

    asyncio.run(reserve())
