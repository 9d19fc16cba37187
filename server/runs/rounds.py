"""Drives the rounds of one run: three set-up messages, then two messages in each round.

A round in which a country is missing needs a third message. This module drives the coordinator's
side of the private sum over any carrier; it knows neither Flower nor what is learnt.

- A silent country is asked once more, with the same bytes.
- A country whose documents are not as new as they must be is asked again, with the same bytes, for
  as long as a node needs to fetch them by itself.
- A country that has not contributed then is left out if enough countries remain. The next round
  does not wait for it again.
- Once the others were asked to agree that a country is left out, each of them is needed, or the
  round is void.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.coordinator_view import Unpublished
from protocols.private_sum.messages import LARGEST_WORDLESS, largest_contribution
from server.errors import GONE, CoordinatorFault, refused_with
from server.flower.carrier import Carrier

ATTEMPTS = 2
"""How many times a country may be silent to one request."""
CATCHING_UP = (1.0, 6.0, 12.0, 24.0)
"""The pauses, in seconds, before a country is asked again whose documents were too old. A node
checks one claim to newer documents every 5 s, and fetches documents by itself every 30 s."""
BEHIND = frozenset({ReasonCode.DOCUMENTS_BEHIND, ReasonCode.DOCUMENTS_EXPIRED})
"""Refusals that pass by themselves; the same request may be answered later."""
SPARED_SECONDS = 5.0
"""The least time to wait for a country that was left out of the round before."""
NO_REPLY = "no reply in time"
NOT_AGREED = "not all remaining countries agreed to open the sum without the others"
ANSWERED = "had answered for all countries before the run was resumed"
UNSIGNED = "its answer was not signed by it"

Take = Callable[[str, bytes], None]
"""Accepts a country's reply, or raises ProtocolFault."""
Ask = Callable[[str], bytes]
"""Returns the request to a country."""
KeepClosed = Callable[[int, tuple[str, ...]], None]
"""Stores the countries, fewer than the roster, on which a round was closed."""
SetUpReplies = dict[str, dict[str, bytes]]
"""Each country's reply in each step of set-up, by step and country."""


class SetUpFailed(CoordinatorFault):
    """A run that could not begin; `causes` are by country."""

    def __init__(self, causes: Mapping[str, str]) -> None:
        self.causes = dict(causes)
        listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(causes.items()))
        super().__init__(
            "The countries could not agree on keys for this run",
            why=listed,
            fix="see `status` on the nodes named, and launch again when they are ready; no round "
            "was charged, so the permits stay, and no cohort count is charged again under them",
        )


@dataclass(frozen=True)
class RoundReport:
    """The result of a round, for the watcher and the log; `causes` say by country what failed."""

    number: int
    phase: str
    seconds: float
    outcome: OpenedSum | VoidRound
    causes: Mapping[str, str]


@dataclass(frozen=True)
class RoundRecord:
    """The stored part of a finished round.

    `countries` are those in the opened sum, none if the round was void; `reason` then says why.
    """

    number: int
    phase: str
    countries: tuple[str, ...]
    reason: str
    causes: Mapping[str, str]

    @property
    def opened(self) -> bool:
        """Whether the round opened a sum."""
        return bool(self.countries)


def recorded(report: RoundReport) -> RoundRecord:
    """Return the part of a round's result that is stored."""
    outcome = report.outcome
    if isinstance(outcome, VoidRound):
        return RoundRecord(report.number, report.phase, (), outcome.reason, report.causes)
    return RoundRecord(report.number, report.phase, outcome.countries, "", report.causes)


@dataclass
class _Request:
    """One request to one country, until the country replies or is not asked again."""

    country: str
    frame: bytes
    reply: bytes | None = None
    cause: str = NO_REPLY
    done: bool = False
    pause: float = 0.0
    """Seconds to wait before the request is sent again."""
    silences: int = ATTEMPTS
    """How many more times the country may be silent."""
    catching_up: list[float] = field(default_factory=lambda: list(CATCHING_UP))

    @classmethod
    def once(cls, country: str, frame: bytes) -> Self:
        """Return a request that is sent only once."""
        return cls(country, frame, silences=1, catching_up=[])

    def receive(self, reply: bytes | None, take: Take) -> None:
        """Process the country's reply, or its silence."""
        self.pause = 0.0
        if reply is None:
            self.silences -= 1
            self.cause, self.done = NO_REPLY, self.silences == 0
            return
        try:
            take(self.country, reply)
        except ProtocolFault as fault:
            self.cause = _cause(fault)
            self.done = not (_behind(fault) and self.catching_up)
            self.pause = 0.0 if self.done else self.catching_up.pop(0)
        else:
            self.reply, self.done = reply, True


@dataclass
class _Gathered:
    """The accepted replies by country, and why the other countries failed."""

    replies: dict[str, bytes] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)

    def note(self, requests: Iterable[_Request]) -> None:
        """Note the results of requests that are done."""
        for request in requests:
            if request.reply is None:
                self.causes[request.country] = request.cause
            else:
                self.replies[request.country] = request.reply


class RoundDriver:
    """Drives the set-up and the rounds of one run."""

    def __init__(
        self,
        run: CoordinatorRun,
        roster: tuple[str, ...],
        carrier: Carrier,
        *,
        seconds: float,
        keep_closed: KeepClosed,
        closed: Mapping[int, tuple[str, ...]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`seconds`: how long a country may take to reply before it is asked again.

        `keep_closed` returns when the countries are stored so that a crash cannot lose them.
        `closed` is what an earlier attempt stored, by round.
        """
        self._run, self._roster, self._carrier = run, roster, carrier
        self._seconds, self._sleep = seconds, sleep
        self._keep_closed, self._closed = keep_closed, dict(closed or {})
        self._left_out: tuple[str, ...] = ()
        self._may_repeat = True
        """Whether an earlier attempt may have begun the next round."""

    def set_up(self) -> SetUpReplies:
        """Agree on keys among all countries; return their replies.

        Raises SetUpFailed with the countries that failed.
        """
        replies: SetUpReplies = {}
        for step, (ask, take) in self._steps().items():
            gathered = self._gather(ask, take, self._roster)
            if gathered.causes:
                raise SetUpFailed(gathered.causes)
            replies[step] = gathered.replies
        self._may_repeat = False
        return replies

    def resume(self, replies: SetUpReplies) -> None:
        """Continue after a finished set-up; `replies` are what `set_up` returned then.

        Raises ProtocolFault if they do not fit this run.
        """
        for step, (_, take) in self._steps().items():
            for country, reply in replies[step].items():
                take(country, reply)

    def sum(self, number: int, phase: str, model: bytes) -> RoundReport:
        """Drive round `number`; report the opened sum, or why the round is void."""
        started = time.monotonic()
        current = self._run.begin_round(number, phase, model, asked=self._closed.get(number))
        causes = self._gather_contributions(current)
        self._left_out = tuple(country for country in self._roster if country in causes)
        outcome = self._open(current, causes)
        self._may_repeat = False
        return RoundReport(number, phase, time.monotonic() - started, outcome, causes)

    def _gather_contributions(self, current: CoordinatorRound) -> dict[str, str]:
        """Gather contributions, first without the countries left out of the round before.

        Those are asked afterwards. If the round can open without them, they are asked only once,
        and waited for at most twice as long as the others took.
        """
        ask, take, began = current.contribute_request, current.take_contribution, time.monotonic()
        last = self._left_out if current.asked == self._roster else ()
        first = tuple(country for country in current.asked if country not in last)
        largest = largest_contribution(current.terms.words)
        causes = self._gather(ask, take, first, largest=largest).causes
        if last:
            patience = max(SPARED_SECONDS, 2 * (time.monotonic() - began))
            once = min(patience, self._seconds) if current.openable else None
            causes |= self._gather(ask, take, last, once=once, largest=largest).causes
        return causes

    def _open(self, current: CoordinatorRound, causes: dict[str, str]) -> OpenedSum | VoidRound:
        """Close the round and open it; add to `causes` the countries that fail on the way."""
        remaining = current.close()
        if not current.openable:
            return current.open()
        if current.smaller and not self._agree(current, remaining, causes):
            return VoidRound(
                NOT_AGREED, tuple(country for country in remaining if country in causes)
            )
        causes |= self._gather(current.answer_request, current.take_answer, remaining).causes
        opened = current.open()
        causes |= current.share_faults.convicted
        unsigned = set(remaining) - set(current.answered) - set(causes)
        causes |= dict.fromkeys(sorted(unsigned), UNSIGNED)
        return opened

    def _agree(
        self, current: CoordinatorRound, remaining: tuple[str, ...], causes: dict[str, str]
    ) -> bool:
        """Return whether all remaining countries agree to open the sum without the others."""
        number = current.terms.round_number
        answered = self._may_repeat and number not in self._closed
        if number not in self._closed:
            self._keep_closed(number, remaining)
            self._closed[number] = remaining
        failed = self._gather(current.agree_request, current.take_assent, remaining).causes
        causes |= {
            country: ANSWERED if answered and cause == GONE else cause
            for country, cause in failed.items()
        }
        return not failed

    def _steps(self) -> dict[str, tuple[Ask, Take]]:
        run = self._run
        return {
            "bundle": (run.bundle_request, run.take_bundle),
            "encapsulate": (run.encapsulate_request, run.take_encapsulation),
            "confirm": (run.confirm_request, run.take_confirmation),
        }

    def _gather(
        self,
        ask: Ask,
        take: Take,
        countries: tuple[str, ...],
        *,
        once: float | None = None,
        largest: int = LARGEST_WORDLESS,
    ) -> _Gathered:
        """Send requests to these countries and receive their replies, of at most `largest` bytes.

        `once`: send each request only once, and wait this many seconds for the replies.
        """
        gathered = _Gathered()
        new_request = _Request if once is None else _Request.once
        pending = [new_request(country, ask(country)) for country in countries]
        seconds = self._seconds if once is None else once
        while pending:
            frames = {request.country: request.frame for request in pending}
            replies = self._carrier.exchange(frames, seconds, largest)
            for request in pending:
                request.receive(replies.get(request.country), take)
            gathered.note(request for request in pending if request.done)
            pending = [request for request in pending if not request.done]
            self._pause(pending)
        return gathered

    def _pause(self, requests: list[_Request]) -> None:
        seconds = max((request.pause for request in requests), default=0.0)
        if seconds:
            self._sleep(seconds)


def _behind(fault: ProtocolFault) -> bool:
    refused = isinstance(fault, Refusal) and fault.code in BEHIND
    return refused or isinstance(fault, Unpublished)


def _cause(fault: ProtocolFault) -> str:
    return refused_with(fault.code) if isinstance(fault, Refusal) else fault.what
