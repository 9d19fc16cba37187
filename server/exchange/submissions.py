"""Checks what officers submit: one submission of a country at a time, in threads of its own.

What one country submits, however much and however often, delays neither the daily signatures nor
other calls: its checks take a twentieth of a processor at most, and it may publish a new version
once a minute. A second submission of a country is refused at once while one is being checked; the
same one again (a call whose answer was lost) waits for that answer, and holds nothing.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil

from keys.certificates import Peer
from server.errors import CoordinatorFault

WORKERS = 2
"""How many submissions, of different countries, are checked at once; the others wait in order."""
MOST_AT_ONCE, SECONDS_PER_SUBMISSION = 30, 60.0
"""So many submissions of a country are accepted in a row, and afterwards one a minute: each new
version of its documents is stored for an hour at least, and every node fetches its list."""
SECONDS_AT_ONCE, PART_OF_TIME = 0.5, 0.05
"""The checks of one country may use a processor so long in a row, and so much of the time after
that. Few submissions take more than 50 ms; the largest that are allowed take a second."""

Submit = Callable[[Peer, int, bytes], None]


@dataclass
class _Share:
    """What a country may still use, by a clock that only goes forward."""

    at: float
    submissions: float = MOST_AT_ONCE
    seconds: float = SECONDS_AT_ONCE

    def refill(self, now: float) -> None:
        """Add what has become free since the last time."""
        passed, self.at = max(0.0, now - self.at), now
        self.submissions = min(MOST_AT_ONCE, self.submissions + passed / SECONDS_PER_SUBMISSION)
        self.seconds = min(SECONDS_AT_ONCE, self.seconds + passed * PART_OF_TIME)

    @property
    def seconds_until_next(self) -> float:
        """How long until the country may submit again; 0 if it may now."""
        return max(0.0, 1 - self.submissions) * SECONDS_PER_SUBMISSION

    @property
    def pause(self) -> float:
        """How many seconds later its next check begins, because the former ones took long."""
        return max(0.0, -self.seconds) / PART_OF_TIME


@dataclass(frozen=True)
class _InProgress:
    submitted: tuple[int, bytes]
    check: "asyncio.Task[None]"


class SubmissionQueue:
    """The submissions of all countries. Used from one event loop."""

    def __init__(
        self,
        submit: Submit,
        clock: Callable[[], float] = time.monotonic,
        thread_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`thread_clock` measures the processor time of the thread that reads it."""
        self._submit, self._clock, self._thread_clock = submit, clock, thread_clock
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
        check = asyncio.ensure_future(self._check(share, peer, kind, content))
        check.add_done_callback(partial(self._forget, peer.country))
        begun = _InProgress((kind, content), check)
        self._in_progress[peer.country] = begun
        return begun

    async def _check(self, share: _Share, peer: Peer, kind: int, content: bytes) -> None:
        """Check a submission in a thread, after a pause if the country's checks took long."""
        await asyncio.sleep(share.pause)

        def timed() -> None:
            begun = self._thread_clock()
            try:
                self._submit(peer, kind, content)
                share.submissions -= 1  # one that is refused costs its time only
            finally:
                share.seconds -= self._thread_clock() - begun

        await asyncio.get_running_loop().run_in_executor(self._threads, timed)
