"""One submission of a country at a time, and no more of its time than its share."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import ceil
from typing import Any

import pytest

from governance.errors import DocumentFault
from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange.submissions import (
    MOST_AT_ONCE,
    PART_OF_TIME,
    SECONDS_AT_ONCE,
    SECONDS_PER_REFUSAL,
    SECONDS_PER_SUBMISSION,
    SubmissionQueue,
    _seconds_used,
)


def officer(country: str) -> Peer:
    return Peer("nordic-heart", country, Role.OFFICER, 1, datetime(2027, 1, 1, tzinfo=UTC))


class Checks:
    """Checks that wait for a test, or refuse, and take as long as it says."""

    def __init__(self) -> None:
        self.now, self.used, self.takes = 0.0, 0.0, 0.0
        self.begun: list[tuple[str, bytes]] = []
        self.go, self.fault = threading.Event(), None
        self.go.set()
        self.loop, self.started = asyncio.get_running_loop(), asyncio.Semaphore(0)
        self.queue = SubmissionQueue(
            self.check, self.is_renewal, lambda: self.now, lambda: self.used
        )

    def is_renewal(self, _: Peer, __: int, content: bytes) -> bool:
        self.used += self.takes if content == b"junk" else 0.0
        return content == b"a renewal"

    fault: Exception | None

    def check(self, peer: Peer, _: int, content: bytes) -> None:
        self.begun.append((peer.country, content))
        self.loop.call_soon_threadsafe(self.started.release)
        assert self.go.wait(10)
        self.used += self.takes
        if self.fault is not None:
            raise self.fault

    async def submit(self, country: str, content: bytes = b"a bundle") -> None:
        await self.queue.submit(officer(country), 1, content)


def run(act: Callable[[Checks], Awaitable[Any]]) -> Checks:
    async def with_checks() -> Checks:
        checks = Checks()
        await act(checks)
        return checks

    return asyncio.run(with_checks())


def test_a_second_submission_of_a_country_is_refused_and_another_country_s_is_not() -> None:
    async def act(checks: Checks) -> None:
        checks.go.clear()
        first = asyncio.ensure_future(checks.submit("DK"))
        await checks.started.acquire()
        for number in range(16):
            with pytest.raises(CoordinatorFault, match="Another submission of DK"):
                await checks.submit("DK", b"%d" % number)
        other = asyncio.ensure_future(checks.submit("EE"))
        await checks.started.acquire()
        checks.go.set()
        await asyncio.gather(first, other)

    assert run(act).begun == [("DK", b"a bundle"), ("EE", b"a bundle")]


def test_the_same_submission_again_gets_the_answer_of_the_first() -> None:
    async def act(checks: Checks) -> None:
        checks.go.clear()
        checks.fault = DocumentFault("It is too old")
        calls = [asyncio.ensure_future(checks.submit("DK")) for _ in range(3)]
        await checks.started.acquire()
        checks.go.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers == [checks.fault] * 3

    assert len(run(act).begun) == 1


def test_a_submission_whose_caller_has_gone_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    async def act(checks: Checks) -> None:
        checks.go.clear()
        checks.fault = DocumentFault("It is too old")
        call = asyncio.ensure_future(checks.submit("DK"))
        await checks.started.acquire()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(CoordinatorFault, match="Another"):  # it is still in progress
            await checks.submit("DK", b"another")
        checks.go.set()
        with pytest.raises(DocumentFault, match="too old"):
            await checks.submit("DK")

    assert len(run(act).begun) == 1
    assert "never retrieved" not in caplog.text


def test_accepted_submissions_are_limited_in_number() -> None:
    async def act(checks: Checks) -> None:
        for _ in range(MOST_AT_ONCE):
            await checks.submit("DK")
        with pytest.raises(CoordinatorFault, match="DK has submitted too often") as caught:
            await checks.submit("DK")
        assert caught.value.fix == "send it again in 60 seconds"
        await checks.submit("EE")
        checks.now += SECONDS_PER_SUBMISSION
        await checks.submit("DK")
        with pytest.raises(CoordinatorFault):
            await checks.submit("DK")

    assert len(run(act).begun) == MOST_AT_ONCE + 2


def test_refused_submissions_take_nothing_from_the_number_of_accepted_ones() -> None:
    """Otherwise whoever has copied an officer's certificate could use up the officer's."""

    async def act(checks: Checks) -> None:
        for _ in range(MOST_AT_ONCE + 5):
            checks.fault = DocumentFault("It is not signed by the officer")
            with pytest.raises(DocumentFault):
                await checks.submit("DK")
            checks.now += SECONDS_PER_REFUSAL / PART_OF_TIME
        checks.fault = None
        await checks.submit("DK")

    run(act)


async def use_up(checks: Checks, fault: Exception | None, takes: float) -> int:
    """Submit until the country is refused at once; return how many were checked."""
    checks.fault, checks.takes = fault, takes
    while len(checks.begun) < 1_000:
        checked = len(checks.begun)
        try:
            await checks.submit("DK")
        except (DocumentFault, CoordinatorFault):
            if len(checks.begun) == checked:
                break
    checks.fault, checks.takes = None, 0.0
    return len(checks.begun)


@pytest.mark.parametrize(
    ("fault", "takes", "most"),
    [
        (None, 1.0, ceil(SECONDS_AT_ONCE)),
        (DocumentFault("It is too old"), 1.0, ceil(SECONDS_AT_ONCE / (1 + SECONDS_PER_REFUSAL))),
        (DocumentFault("It is too old"), 0.0, ceil(SECONDS_AT_ONCE / SECONDS_PER_REFUSAL)),
    ],
    ids=["long", "long and refused", "refused"],
)
def test_a_country_that_has_used_up_its_time_is_refused_at_once_until_it_has_some_again(
    fault: Exception | None, takes: float, most: int
) -> None:
    async def act(checks: Checks) -> None:
        assert await use_up(checks, fault, takes) <= most + 1
        with pytest.raises(CoordinatorFault, match="DK has used up its time") as refusal:
            await checks.submit("DK")
        await checks.submit("EE")
        wait = int(refusal.value.fix.removeprefix("send it again in ").removesuffix(" seconds"))
        checks.now += wait - 1
        with pytest.raises(CoordinatorFault, match="used up"):
            await checks.submit("DK")
        checks.now += 1.1
        await checks.submit("DK")

    run(act)


def test_a_renewal_has_time_of_its_own_and_other_submissions_use_up_that_too() -> None:
    async def act(checks: Checks) -> None:
        await use_up(checks, DocumentFault("It is too old"), 30.0)
        await checks.submit("DK", b"a renewal")
        checks.takes = SECONDS_AT_ONCE + 0.1
        with pytest.raises(CoordinatorFault, match="used up"):
            await checks.submit("DK", b"junk")
        with pytest.raises(CoordinatorFault, match="used up"):
            await checks.submit("DK", b"a renewal")
        checks.takes = 0.0
        checks.now += 3.0
        await checks.submit("DK", b"a renewal")

    assert [content for _, content in run(act).begun].count(b"a renewal") == 2


def test_a_disk_that_is_full_is_not_the_fault_of_the_country() -> None:
    async def act(checks: Checks) -> None:
        checks.fault = CoordinatorFault("The exchange cannot store documents now")
        for _ in range(MOST_AT_ONCE):
            with pytest.raises(CoordinatorFault, match="cannot store"):
                await checks.submit("DK")

    run(act)


def test_the_time_of_cedars_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.exchange.submissions.time.thread_time", lambda: 1.0)
    monkeypatch.setattr("server.exchange.submissions.seconds_of_thread", lambda: 20.0)
    assert _seconds_used() == 21.0
