"""Checks what officers submit: one submission of a country at a time, in threads of its own.

What one country submits, however much and however often, delays neither the daily signatures nor
other calls: its checks take a twentieth of a processor at most, and it may publish a new version
once a minute. The time of Cedar's process counts, too, and each refusal costs a little more. When a
country has used up its time, its next submission is refused at once; other time is kept for a
renewal, which repeats what is published. A second submission of a country is refused at once while
one is being checked; the same one again (a call whose answer was lost) waits for that answer, and
holds nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from governance.cedar.process import seconds_of_thread
from governance.errors import DocumentFault
from keys.certificates import Peer
from server.errors import CoordinatorFault

WORKERS = 2
"""How many submissions, of different countries, are checked at once; the others wait in order."""
MOST_AT_ONCE, SECONDS_PER_SUBMISSION = 30, 60.0
"""So many submissions of a country are accepted in a row, and afterwards one a minute: each new
version of its documents is stored for an hour at least, and every node fetches its list."""
SECONDS_AT_ONCE, PART_OF_TIME = 1.0, 0.05
"""The checks of one country may use a processor so long in a row, and so much of the time after
that. Few submissions take more than 50 ms; the largest that are allowed take a second."""
SECONDS_PER_REFUSAL = 0.125
"""What a refusal costs, beside the time that it took: eight in a row, then one in 2.5 seconds."""

Submit = Callable[[Peer, int, bytes], None]
IsRenewal = Callable[[Peer, int, bytes], bool]


def _seconds_used() -> float:
    """Return the processor time of this thread, and of Cedar's process for it."""
    return time.thread_time() + seconds_of_thread()


@dataclass
class _Time:
    """Seconds that checks may still use; below 0 if the last one took longer."""

    seconds: float = SECONDS_AT_ONCE

    def refill(self, passed: float) -> None:
        self.seconds = min(SECONDS_AT_ONCE, self.seconds + passed * PART_OF_TIME)

    @property
    def seconds_until_next(self) -> float:
        """How long until a check may begin; 0 if it may now."""
        return max(0.0, -self.seconds) / PART_OF_TIME


@dataclass
class _Share:
    """What a country may still use, by a clock that only goes forward."""

    at: float
    submissions: float = MOST_AT_ONCE
    time: _Time = field(default_factory=_Time)
    time_of_renewals: _Time = field(default_factory=_Time)

    def refill(self, now: float) -> None:
        """Add what has become free since the last time."""
        passed, self.at = max(0.0, now - self.at), now
        self.submissions = min(MOST_AT_ONCE, self.submissions + passed / SECONDS_PER_SUBMISSION)
        self.time.refill(passed)
        self.time_of_renewals.refill(passed)

    @property
    def seconds_until_next(self) -> float:
        """How long until the country may publish again; 0 if it may now."""
        return max(0.0, 1 - self.submissions) * SECONDS_PER_SUBMISSION


@dataclass(frozen=True)
class _InProgress:
    submitted: tuple[int, bytes]
    check: "asyncio.Task[None]"


class SubmissionQueue:
    """The submissions of all countries. Used from one event loop."""

    def __init__(
        self,
        submit: Submit,
        is_renewal: IsRenewal,
        clock: Callable[[], float] = time.monotonic,
        thread_clock: Callable[[], float] = _seconds_used,
    ) -> None:
        """`is_renewal` is whether a submission only repeats what is published, properly signed.

        `thread_clock` measures the time that the thread that reads it has used.
        """
        self._submit, self._is_renewal = submit, is_renewal
        self._clock, self._thread_clock = clock, thread_clock
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="submissions")
        self._in_progress: dict[str, _InProgress] = {}
        self._shares: dict[str, _Share] = {}

    async def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Check and accept a submission. Raises the fault of the check, or CoordinatorFault.

        It is finished even if the caller does not wait for the answer.
        """
        current = self._in_progress.get(peer.country)
        if current is None:
            current = self._begin(peer, kind, content)
        elif current.submitted != (kind, content):
            raise CoordinatorFault(
                f"Another submission of {peer.country} is being checked",
                why="the exchange checks one submission of a country at a time",
                fix="wait a minute, and send it again",
            )
        await asyncio.shield(current.check)

    def _forget(self, country: str, check: "asyncio.Task[None]") -> None:
        """Free a checked submission; a fault that nobody waits for is not logged as lost."""
        del self._in_progress[country]
        if not check.cancelled():
            check.exception()

    def _begin(self, peer: Peer, kind: int, content: bytes) -> _InProgress:
        now = self._clock()
        share = self._shares.setdefault(peer.country, _Share(now))
        share.refill(now)
        if wait := share.seconds_until_next:
            raise CoordinatorFault(
                f"{peer.country} has submitted too often",
                why=f"a country may submit {MOST_AT_ONCE} times in a row, then once a minute",
                fix=f"send it again in {ceil(wait)} seconds",
            )
        if share.time.seconds_until_next and share.time_of_renewals.seconds_until_next:
            raise _time_is_over(peer, share)
        check = asyncio.ensure_future(self._check(share, peer, kind, content))
        check.add_done_callback(partial(self._forget, peer.country))
        begun = _InProgress((kind, content), check)
        self._in_progress[peer.country] = begun
        return begun

    async def _check(self, share: _Share, peer: Peer, kind: int, content: bytes) -> None:
        """Check a submission in a thread; only a renewal is checked if the time is used up."""
        submission = peer, kind, content
        check = self._renew if share.time.seconds_until_next else self._accept
        await asyncio.get_running_loop().run_in_executor(self._threads, check, share, *submission)

    def _accept(self, share: _Share, peer: Peer, kind: int, content: bytes) -> None:
        try:
            with self._timed(share.time):
                self._submit(peer, kind, content)
        except DocumentFault:
            share.time.seconds -= SECONDS_PER_REFUSAL
            raise
        share.submissions -= 1

    def _renew(self, share: _Share, peer: Peer, kind: int, content: bytes) -> None:
        with self._timed(share.time_of_renewals):
            if not self._is_renewal(peer, kind, content):
                raise _time_is_over(peer, share)
            self._submit(peer, kind, content)
        share.submissions -= 1

    @contextmanager
    def _timed(self, available: _Time) -> Iterator[None]:
        begun = self._thread_clock()
        try:
            yield
        finally:
            available.seconds -= self._thread_clock() - begun


def _time_is_over(peer: Peer, share: _Share) -> CoordinatorFault:
    return CoordinatorFault(
        f"{peer.country} has used up its time",
        why="its submissions took long to check, or were refused too often; only a renewal of what "
        "is published is accepted now",
        fix=f"send it again in {ceil(share.time.seconds_until_next)} seconds",
    )
