"""The rounds of one run: three set-up messages, then two messages a round; three where one is gone.

It drives the coordinator's side of the private sum over any carrier, and knows neither Flower
nor what is learnt. A country that is silent is asked once more, with the same bytes. One whose
documents are not where they must be yet is asked again, with the same bytes, for as long as a node
takes to fetch them by itself. Whoever has not contributed then is left out, where enough are left;
the round after that does not wait for it again. Once the others were asked to agree that it is out,
each of them is needed, or the round is void.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.coordinator_view import Unpublished
from server.errors import GONE, OperationFault, refused_with
from server.flower.carrier import Carrier

ATTEMPTS = 2
CATCHING_UP = (1.0, 6.0, 12.0, 24.0)
"""Seconds before each time a country is asked again whose documents were behind: a node follows
one claim to newer documents every 5 s, and fetches them by itself every 30 s."""
BEHIND = frozenset({ReasonCode.DOCUMENTS_BEHIND, ReasonCode.DOCUMENTS_EXPIRED})
"""Refusals that pass without anybody's doing, and after which the same request may be answered."""
SPARED_SECONDS = 5.0
"""How long a country is waited for at least that the round before was made without."""
NO_REPLY = "no reply in time"
NOT_AGREED = "not all who were left agreed to open the sum without the others"
ANSWERED = "had answered for all countries before the run was carried on"
UNSIGNED = "its answer was not signed by it"

Take = Callable[[str, bytes], None]
Ask = Callable[[str], bytes]
Closing = Callable[[int, tuple[str, ...]], None]
"""Keeps for good the countries, fewer than the roster, that a round was closed on."""
SetUpReplies = dict[str, dict[str, bytes]]
"""What each country said in each step of set-up."""


class SetUpFailed(OperationFault):
    """A run that could not begin; `causes` says why, by country."""

    def __init__(self, causes: Mapping[str, str]) -> None:
        self.causes = dict(causes)
        listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(causes.items()))
        super().__init__(
            "The countries could not agree keys for this run",
            why=listed,
            fix="see `status` on the nodes named; launch again when they are ready: no round was "
            "charged, so the permits stay, and no cohort count is charged again under them",
        )


@dataclass(frozen=True)
class RoundReport:
    """What came of a round, for the watcher and the log; `causes` say by country what failed."""

    number: int
    phase: str
    seconds: float
    outcome: OpenedSum | VoidRound
    causes: Mapping[str, str]


@dataclass(frozen=True)
class RoundRecord:
    """What is kept of a round that is behind the run.

    `countries` are those whose sum was opened, none where it is void; `reason` says why then.
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
    """Return what is kept of a round."""
    outcome = report.outcome
    if isinstance(outcome, VoidRound):
        return RoundRecord(report.number, report.phase, (), outcome.reason, report.causes)
    return RoundRecord(report.number, report.phase, outcome.countries, "", report.causes)


@dataclass
class _Question:
    """One message to one country, until it is answered or asked in vain."""

    country: str
    frame: bytes
    reply: bytes | None = None
    cause: str = NO_REPLY
    over: bool = False
    pause: float = 0.0
    """Seconds to wait before it is asked again."""
    silences: int = ATTEMPTS
    """How many more times it may be silent."""
    catching_up: list[float] = field(default_factory=lambda: list(CATCHING_UP))

    @classmethod
    def once(cls, country: str, frame: bytes) -> "_Question":
        """Return a question that is asked a single time."""
        return cls(country, frame, silences=1, catching_up=[])

    def hear(self, reply: bytes | None, take: Take) -> None:
        """Take what the country said, or that it said nothing."""
        self.pause = 0.0
        if reply is None:
            self.silences -= 1
            self.cause, self.over = NO_REPLY, self.silences == 0
            return
        try:
            take(self.country, reply)
        except ProtocolFault as fault:
            self.cause = _cause(fault)
            self.over = not (_behind(fault) and self.catching_up)
            self.pause = 0.0 if self.over else self.catching_up.pop(0)
        else:
            self.reply, self.over = reply, True


@dataclass
class _Gathered:
    """What came of asking every country: replies taken, and what is wrong with the others."""

    replies: dict[str, bytes] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)

    def note(self, questions: Iterable[_Question]) -> None:
        """Note how questions ended."""
        for question in questions:
            if question.reply is None:
                self.causes[question.country] = question.cause
            else:
                self.replies[question.country] = question.reply


class RoundDriver:
    """Leads one run."""

    def __init__(
        self,
        run: CoordinatorRun,
        roster: tuple[str, ...],
        carrier: Carrier,
        *,
        seconds: float,
        keep_closed: Closing,
        closed: Mapping[int, tuple[str, ...]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`seconds`: how long a country may take to reply before it is asked again.

        `keep_closed` returns once it would outlast a crash; `closed` is what an earlier attempt
        kept, by round.
        """
        self._run, self._roster, self._carrier = run, roster, carrier
        self._seconds, self._sleep = seconds, sleep
        self._keep_closed, self._closed = keep_closed, dict(closed or {})
        self._left_out: tuple[str, ...] = ()
        self._may_repeat = True
        """Whether an earlier attempt may have begun the round that comes next."""

    def set_up(self) -> SetUpReplies:
        """Agree keys among all countries; returns what they said.

        Raises SetUpFailed naming those at fault.
        """
        replies: SetUpReplies = {}
        for step, (ask, take) in self._steps().items():
            gathered = self._gather(ask, take, self._roster)
            if gathered.causes:
                raise SetUpFailed(gathered.causes)
            replies[step] = gathered.replies
        self._may_repeat = False
        return replies

    def take_up(self, replies: SetUpReplies) -> None:
        """Go on after a set-up that is over: `replies` are what `set_up` returned then.

        Raises ProtocolFault where they do not fit this run.
        """
        for step, (_, take) in self._steps().items():
            for country, reply in replies[step].items():
                take(country, reply)

    def sum(self, number: int, phase: str, model: bytes) -> RoundReport:
        """Lead round `number`; returns what opened, or that it is void and why."""
        started = time.monotonic()
        current = self._run.begin_round(number, phase, model, asked=self._closed.get(number))
        causes = self._contributed(current)
        self._left_out = tuple(one for one in self._roster if one in causes)
        outcome = self._opened(current, causes)
        self._may_repeat = False
        return RoundReport(number, phase, time.monotonic() - started, outcome, causes)

    def _contributed(self, current: CoordinatorRound) -> dict[str, str]:
        """Gather contributions, those of who was left out last time after all others'.

        Where the round can do without them, they are asked once, and not waited for longer than
        twice the time that the others took.
        """
        ask, take, began = current.contribute_request, current.take_contribution, time.monotonic()
        last = self._left_out if current.asked == self._roster else ()
        first = tuple(country for country in current.asked if country not in last)
        causes = self._gather(ask, take, first).causes
        if last:
            patience = max(SPARED_SECONDS, 2 * (time.monotonic() - began))
            once = min(patience, self._seconds) if current.openable else None
            causes |= self._gather(ask, take, last, once=once).causes
        return causes

    def _opened(self, current: CoordinatorRound, causes: dict[str, str]) -> OpenedSum | VoidRound:
        """Close the round and open it; `causes` comes to name who failed on the way."""
        chosen = current.close()
        if not current.openable:
            return current.open()
        if current.smaller and not self._agreed(current, chosen, causes):
            return VoidRound(NOT_AGREED, tuple(one for one in chosen if one in causes))
        causes |= self._gather(current.answer_request, current.take_answer, chosen).causes
        opened = current.open()
        unsigned = set(chosen) - set(current.answered) - set(causes)
        causes |= dict.fromkeys(sorted(unsigned), UNSIGNED)
        return opened

    def _agreed(
        self, current: CoordinatorRound, chosen: tuple[str, ...], causes: dict[str, str]
    ) -> bool:
        """Ask all that are left to agree that they are; each must, as each must answer."""
        number = current.terms.round_number
        answered = self._may_repeat and number not in self._closed
        if number not in self._closed:
            self._keep_closed(number, chosen)
            self._closed[number] = chosen
        failed = self._gather(current.agree_request, current.take_assent, chosen).causes
        causes |= {c: ANSWERED if answered and why == GONE else why for c, why in failed.items()}
        return not failed

    def _steps(self) -> dict[str, tuple[Ask, Take]]:
        run = self._run
        return {
            "bundle": (run.bundle_request, run.take_bundle),
            "encapsulate": (run.encapsulate_request, run.take_encapsulation),
            "confirm": (run.confirm_request, run.take_confirmation),
        }

    def _gather(
        self, ask: Ask, take: Take, countries: tuple[str, ...], *, once: float | None = None
    ) -> _Gathered:
        """Ask these countries and take their replies; `once`: a single time, for so many seconds"""
        gathered = _Gathered()
        question_of = _Question if once is None else _Question.once
        open_questions = [question_of(country, ask(country)) for country in countries]
        seconds = self._seconds if once is None else once
        while open_questions:
            frames = {question.country: question.frame for question in open_questions}
            replies = self._carrier.exchange(frames, seconds)
            for question in open_questions:
                question.hear(replies.get(question.country), take)
            gathered.note(question for question in open_questions if question.over)
            open_questions = [question for question in open_questions if not question.over]
            self._pause(open_questions)
        return gathered

    def _pause(self, questions: list[_Question]) -> None:
        seconds = max((question.pause for question in questions), default=0.0)
        if seconds:
            self._sleep(seconds)


def _behind(fault: ProtocolFault) -> bool:
    refused = isinstance(fault, Refusal) and fault.code in BEHIND
    return refused or isinstance(fault, Unpublished)


def _cause(fault: ProtocolFault) -> str:
    return refused_with(fault.code) if isinstance(fault, Refusal) else fault.what
