"""One submission of a country at a time, and no more of its time than its share."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from governance.errors import DocumentFault
from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange.submissions import (
    MOST_AT_ONCE,
    PART_OF_TIME,
    SECONDS_AT_ONCE,
    SECONDS_PER_SUBMISSION,
    SubmissionQueue,
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
        self.queue = SubmissionQueue(self.check, lambda: self.now, lambda: self.used)

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
        checks.fault = DocumentFault("It is not signed by the officer")
        for _ in range(MOST_AT_ONCE + 5):
            with pytest.raises(DocumentFault):
                await checks.submit("DK")
        checks.fault = None
        await checks.submit("DK")

    run(act)


@pytest.mark.parametrize("fault", [None, DocumentFault("It is too old")], ids=["good", "refused"])
def test_long_checks_are_followed_by_a_pause(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def paused(seconds: float) -> None:
        pauses.append(seconds)

    async def act(checks: Checks) -> None:
        checks.takes, checks.fault = 1.0, fault
        for country in ("DK", "DK", "EE"):
            await asyncio.gather(checks.submit(country), return_exceptions=True)

    monkeypatch.setattr("server.exchange.submissions.asyncio.sleep", paused)
    run(act)
    assert pauses == [0.0, pytest.approx((1.0 - SECONDS_AT_ONCE) / PART_OF_TIME), 0.0]


def test_short_checks_are_followed_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def paused(seconds: float) -> None:
        pauses.append(seconds)

    async def act(checks: Checks) -> None:
        checks.takes = 0.02
        for _ in range(20):
            await checks.submit("DK")

    monkeypatch.setattr("server.exchange.submissions.asyncio.sleep", paused)
    run(act)
    assert set(pauses) == {0.0}
