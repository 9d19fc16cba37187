"""The rounds of one run: three set-up messages, then two messages a round.

It drives the coordinator's side of the private sum over any carrier, and knows neither Flower
nor what is learnt. A country that is silent is asked once more, with the same bytes; it answers
with the same bytes, or the round is void. One whose documents are not where they must be yet is
asked again, with the same bytes, for as long as a node takes to fetch them by itself.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.coordinator import CoordinatorRun
from protocols.private_sum.opening import OpenedSum, VoidRound
from server.carrier import Carrier
from server.errors import OperationFault

ATTEMPTS = 2
CATCHING_UP = (1.0, 6.0, 12.0, 24.0)
"""Seconds before each time a country is asked again whose documents were behind: a node follows
one claim to newer documents every 5 s, and fetches them by itself every 30 s."""
BEHIND = frozenset({ReasonCode.DOCUMENTS_BEHIND, ReasonCode.DOCUMENTS_EXPIRED})
"""Refusals that pass without anybody's doing, and after which the same request may be answered."""
NO_REPLY = "no reply in time"

Take = Callable[[str, bytes], None]
Ask = Callable[[str], bytes]
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
            fix="see `status` on the nodes named; launch again when they are ready",
        )


@dataclass(frozen=True)
class RoundReport:
    """What came of a round, for the watcher and the log."""

    number: int
    phase: str
    seconds: float
    outcome: OpenedSum | VoidRound
    causes: Mapping[str, str]


@dataclass(frozen=True)
class RoundRecord:
    """What is kept of a round that is behind the run; `reason` says why it is void."""

    number: int
    phase: str
    opened: bool
    reason: str
    causes: Mapping[str, str]


def recorded(report: RoundReport) -> RoundRecord:
    """Return what is kept of a round."""
    outcome = report.outcome
    reason = outcome.reason if isinstance(outcome, VoidRound) else ""
    opened = isinstance(outcome, OpenedSum)
    return RoundRecord(report.number, report.phase, opened, reason, report.causes)


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
    silences: int = 0
    catching_up: list[float] = field(default_factory=lambda: list(CATCHING_UP))

    def hear(self, reply: bytes | None, take: Take) -> None:
        """Take what the country said, or that it said nothing."""
        self.pause = 0.0
        if reply is None:
            self.silences += 1
            self.cause, self.over = NO_REPLY, self.silences == ATTEMPTS
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


class Conductor:
    """Leads one run."""

    def __init__(
        self,
        run: CoordinatorRun,
        roster: tuple[str, ...],
        carrier: Carrier,
        *,
        seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`seconds`: how long a country may take to reply before it is asked again."""
        self._run, self._roster, self._carrier = run, roster, carrier
        self._seconds, self._sleep = seconds, sleep

    def set_up(self) -> SetUpReplies:
        """Agree keys among all countries; returns what they said.

        Raises SetUpFailed naming those at fault.
        """
        replies: SetUpReplies = {}
        for step, (ask, take) in self._steps().items():
            gathered = self._gather(ask, take)
            if gathered.causes:
                raise SetUpFailed(gathered.causes)
            replies[step] = gathered.replies
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
        current = self._run.begin_round(number, phase, model)
        causes = self._gather(current.contribute_request, current.take_contribution).causes
        if not causes:
            causes = self._gather(current.answer_request, current.take_answer).causes
        return RoundReport(number, phase, time.monotonic() - started, current.open(), causes)

    def _steps(self) -> dict[str, tuple[Ask, Take]]:
        run = self._run
        return {
            "bundle": (run.bundle_request, run.take_bundle),
            "encapsulate": (run.encapsulate_request, run.take_encapsulation),
            "confirm": (run.confirm_request, run.take_confirmation),
        }

    def _gather(self, ask: Ask, take: Take) -> _Gathered:
        """Ask every country and take its reply."""
        gathered = _Gathered()
        open_questions = [_Question(country, ask(country)) for country in self._roster]
        while open_questions:
            frames = {question.country: question.frame for question in open_questions}
            replies = self._carrier.exchange(frames, self._seconds)
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
    return isinstance(fault, Refusal) and fault.code in BEHIND


def _cause(fault: ProtocolFault) -> str:
    return f"refused ({fault.code})" if isinstance(fault, Refusal) else fault.what
