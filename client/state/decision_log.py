"""Writes every decision to the audit log, and keeps the last refusals for the node's operator.

The coordinator gets only a reason code. What happened, why and what to do stay on the node: in the
audit log, and in memory for `status`. No entry contains anything from a record. If there are many
refusals or repetitions in a row, the log gets the first ones and then their number (docs/adr/0010).
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Lock

from sqlalchemy import Connection

from client.state.reply_journal import phase_name
from governance.audit.events import Event, EventKind, Outcome
from governance.audit.log import AuditLog
from governance.audit.log_throttle import Counted, LogAction, LogThrottle
from keys.errors import PratiqueError
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import LARGEST_ROUND, RUN_ID_BYTES
from protocols.private_sum.messages import Request
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import DIGEST_PATTERN, digest
from protocols.wire.signed_message import COORDINATOR

KEPT = 20
"""How many refusals are kept in memory for `status`."""
COUNTING_BEGINS = "Too many to list: further ones are only counted, and their number follows"
LONGEST_LINE = 600

ASKED = frozenset(
    {EventKind.REQUEST_ALLOWED, EventKind.REQUEST_REPEATED, EventKind.REQUESTS_COUNTED}
)
"""Events whose actor is the coordinator; the actor of all others is this country."""

ThrottleKey = tuple[EventKind, ReasonCode | None]
"""Events with the same key are counted together."""
Clock = Callable[[], datetime]
_log = logging.getLogger("pratique.decisions")


@dataclass(frozen=True)
class KeptRefusal:
    """A refusal as `status` shows it; `study` and `run` are those that the request named."""

    at: str
    code: str
    what: str
    why: str
    fix: str
    clause: str
    study: str | None
    run: str | None
    round: int | None
    phase: str | None


@dataclass(frozen=True)
class Subject:
    """The study, run, round and phase of a decision, as far as the request could be read."""

    study: str | None = None
    run: str | None = None
    round: int | None = None
    phase: str | None = None
    body: str | None = None

    @classmethod
    def of(cls, frame: bytes, request: Request | None) -> "Subject":
        """Return the subject that a frame names; only its digest if the frame is unreadable."""
        if request is None:
            return cls(body=digest(frame))
        study, run = request.body.study, request.body.run_id
        return cls(
            study=study if DIGEST_PATTERN.fullmatch(study) else None,
            run=run.hex() if len(run) == RUN_ID_BYTES else None,
            round=request.round_number if 0 < request.round_number <= LARGEST_ROUND else None,
            phase=phase_name(request.phase),
            body=digest(frame),
        )


def log_origin(country: str) -> str:
    """Return the origin (name) of the audit log of a country's node."""
    return f"pratique/{country.lower()}/node"


class DecisionLog:
    """Writes decisions to the audit log of one node. Thread-safe."""

    def __init__(self, log: AuditLog, clock: Clock, country: str) -> None:
        self._log, self._clock, self._country = log, clock, country
        self._refusals: deque[KeptRefusal] = deque(maxlen=KEPT)
        self._throttle, self._lock = LogThrottle[ThrottleKey](), Lock()

    def event(
        self,
        kind: EventKind,
        subject: Subject,
        *,
        connection: Connection | None = None,
        actor: str | None = None,
        outcome: Outcome = Outcome.ALLOWED,
        policies: tuple[str, ...] = (),
        documents: DocumentVersions | None = None,
        reply: bytes | None = None,
        reason: str | None = None,
        rows: tuple[str, ...] = (),
    ) -> None:
        """Append a decision that allowed something; with `reply`, its digest replaces the frame's.

        `rows` are the digests of guarded rows that the transaction has written.

        The entry is durable on return, or when the caller's `connection` commits.
        """
        body = subject.body if reply is None else digest(reply)
        fields = {**asdict(subject), "body": body}
        event = Event(
            kind=kind,
            at=self._clock(),
            actor=actor or (COORDINATOR if kind in ASKED else self._country),
            outcome=outcome,
            policies=policies,
            documents=documents,
            reason=reason and reason[:LONGEST_LINE],
            rows=rows,
            **fields,
        )
        self._log.append(event, connection)

    def refused(self, refusal: Refusal, subject: Subject) -> None:
        """Append or count a refusal, and keep it for `status`.

        The refusal holds, and is kept in memory, even if the log cannot be written.
        """
        now = self._clock()
        self._keep(refusal, subject, now)
        kind = {ReasonCode.BUDGET: EventKind.BUDGET_REFUSED}.get(
            refusal.code, EventKind.REQUEST_REFUSED
        )
        with _log_faults_reported():
            event = Event(
                kind=kind,
                at=now,
                actor=COORDINATOR,
                outcome=Outcome.REFUSED,
                code=refusal.code,
                reason=refusal.sentence[:LONGEST_LINE],
                clause=refusal.clause[:LONGEST_LINE] or None,
                **asdict(subject),
            )
            self._append_or_count(event)

    def repeated(self, subject: Subject) -> None:
        """Append or count that a reply, logged when it was made, is sent again."""
        self._append_or_count(
            Event(
                kind=EventKind.REQUEST_REPEATED,
                at=self._clock(),
                actor=COORDINATOR,
                outcome=Outcome.ALLOWED,
                **asdict(subject),
            )
        )

    def settle(self, *, ending: bool = False) -> None:
        """Append the numbers counted in finished windows; with `ending`, in all windows."""
        now = self._clock()
        with _log_faults_reported(), self._lock:
            self._append_counted(now, ending=ending)

    def _append_or_count(self, event: Event) -> None:
        with self._lock:
            self._append_counted(event.at)
            key = (event.kind, event.code)
            action = self._throttle.note(key, event.at)
            if action is LogAction.WHOLE:
                self._log.append(event)
            elif action is LogAction.COUNTING_BEGINS:
                self._log.append(_summary(key, event.at, COUNTING_BEGINS))

    def _append_counted(self, now: datetime, *, ending: bool = False) -> None:
        for counted in self._throttle.settled(now, ending=ending):
            self._log.append(_summary(counted.kind, now, _count_sentence(counted)))

    def refusals(self) -> tuple[KeptRefusal, ...]:
        """Return the last refusals, newest first."""
        return tuple(reversed(self._refusals))

    def _keep(self, refusal: Refusal, subject: Subject, now: datetime) -> None:
        self._refusals.append(
            KeptRefusal(
                at=now.isoformat(timespec="seconds"),
                code=refusal.code.value,
                what=refusal.what,
                why=refusal.why,
                fix=refusal.fix,
                clause=refusal.clause,
                study=subject.study,
                run=subject.run,
                round=subject.round,
                phase=subject.phase,
            )
        )
        extra = {"code": refusal.code.value, "what": refusal.what, "run": subject.run}
        _log.warning("refused", extra=extra)


def _summary(key: ThrottleKey, now: datetime, reason: str) -> Event:
    counted, code = key
    return Event(
        kind=EventKind.REQUESTS_COUNTED,
        at=now,
        actor=COORDINATOR,
        outcome=Outcome.ALLOWED if code is None else Outcome.REFUSED,
        subject=counted,
        code=code,
        reason=reason,
    )


def _count_sentence(counted: Counted[ThrottleKey]) -> str:
    times = (counted.since, counted.until)
    since, until = (time.isoformat(timespec="seconds") for time in times)
    return f"{counted.number} more of them were counted between {since} and {until}"


@contextmanager
def _log_faults_reported() -> Iterator[None]:
    """Continue if the audit log cannot be written, and report it in the program's log."""
    try:
        yield
    except (PratiqueError, ValueError) as fault:  # ValueError: the entry itself cannot be made
        _log.error("the audit log could not be written", extra={"why": str(fault)})
