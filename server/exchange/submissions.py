"""Checks what officers submit: one submission of a country at a time, in threads of its own.

What one country submits, however much and however often, delays neither the daily signatures nor
other calls. A second submission of a country is refused at once, and holds nothing while another is
checked; the same one again (a call whose answer was lost) gets the same answer.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

from keys.certificates import Peer
from protocols.wire.encoding import digest
from server.errors import CoordinatorFault

WORKERS = 2
"""How many submissions, of different countries, are checked at once; the others wait in order."""
MOST_AT_ONCE = 30
SECONDS_PER_SUBMISSION = 60.0
"""A country may submit so many times in a row, and afterwards once a minute: each new version of
its documents is stored for an hour at least, and every node fetches its list."""

Submit = Callable[[Peer, int, bytes], None]


@dataclass
class _Rate:
    """How many submissions a country has left, as of a time on a clock that only goes forward."""

    left: float
    at: float

    def seconds_until_next(self, now: float) -> float:
        """Return how long until the next submission may come; 0 if it may come now, and counts."""
        self.left = min(MOST_AT_ONCE, self.left + (now - self.at) / SECONDS_PER_SUBMISSION)
        self.at = now
        if self.left < 1:
            return (1 - self.left) * SECONDS_PER_SUBMISSION
        self.left -= 1
        return 0.0


@dataclass(frozen=True)
class _InProgress:
    content: tuple[int, str]
    done: "Future[None]"


class SubmissionQueue:
    """The submissions of all countries. Used from one event loop."""

    def __init__(self, submit: Submit, clock: Callable[[], float] = time.monotonic) -> None:
        self._submit, self._clock = submit, clock
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="submissions")
        self._in_progress: dict[str, _InProgress] = {}
        self._rates: dict[str, _Rate] = {}

    async def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Check and accept a submission. Raises the fault of the check, or CoordinatorFault.

        It is finished even if the caller does not wait for the answer.
        """
        same = kind, digest(content)
        current = self._in_progress.get(peer.country)
        if current is None or current.done.done():
            current = self._begin(peer, kind, content, same)
        elif current.content != same:
            raise CoordinatorFault(
                f"Another submission of {peer.country} is being checked",
                why="the exchange checks one submission of a country at a time",
                fix="wait a minute, and send it again",
            )
        answer = asyncio.wrap_future(current.done)
        answer.add_done_callback(_noted)  # also if nobody waits for it any more
        await asyncio.shield(answer)

    def _begin(self, peer: Peer, kind: int, content: bytes, same: tuple[int, str]) -> _InProgress:
        now = self._clock()
        rate = self._rates.setdefault(peer.country, _Rate(MOST_AT_ONCE, now))
        if wait := rate.seconds_until_next(now):
            raise CoordinatorFault(
                f"{peer.country} has submitted too often",
                why=f"a country may submit {MOST_AT_ONCE} times in a row, then once a minute",
                fix=f"send it again in {ceil(wait)} seconds",
            )
        done = self._threads.submit(self._submit, peer, kind, content)
        begun = _InProgress(same, done)
        self._in_progress[peer.country] = begun
        return begun


def _noted(answer: "asyncio.Future[None]") -> None:
    if not answer.cancelled():
        answer.exception()
