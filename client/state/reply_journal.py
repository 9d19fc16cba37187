"""The journal of replies: a repeated request gets the same bytes again, or a refusal.

There is one reply for each (run, round, phase). The same request gets the same bytes; another
request for the same place is refused. A request is identified by its digest (`Request.digest`), 32
bytes. Rows are written in the transaction that makes the reply final. The bytes are erased once
nobody needs them any more. The row stays, so nothing is ever computed a second time for its place.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, func, insert, select, update

from client.state.tables import journal, runs
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import Request
from protocols.proto.round_pb2 import Phase

CONTRIBUTE = "contribute"


@dataclass(frozen=True)
class Place:
    """The place of a request in its run; `round` is 0 during set-up."""

    run: str
    round: int
    phase: str

    @classmethod
    def of(cls, request: Request) -> "Place":
        """Return the place that a request names."""
        return cls(request.body.run_id.hex(), request.round_number, phase_name(request.phase))


def phase_name(phase: Phase) -> str:
    """Return the name of a phase in logs and in the journal, such as `contribute`."""
    return Phase.Name(phase).removeprefix("PHASE_").lower()


@dataclass(frozen=True)
class _Row:
    """One row of the journal; `reply` is None once it is erased."""

    request_digest: str
    context: bytes
    reply: bytes | None


class ReplyJournal:
    """The journal in one state database. Safe for threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def repeated(self, place: Place, request_digest: bytes) -> bytes | None:
        """Return the reply that a request with this digest got; None if the place is free.

        Raises Refusal STALE if another request was answered at this place, or if the reply has
        been erased.
        """
        row = self._row(place)
        if row is None:
            return None
        if row.request_digest != request_digest.hex():
            raise Refusal(
                ReasonCode.STALE,
                "Another request was answered at this place of the run",
                why=f"phase {place.phase} of round {place.round} has one reply, and it was sent",
                fix="do nothing here; the coordinator must send the same request or a new round",
            )
        if row.reply is None:
            raise _erased_reply(place)
        return row.reply

    def context(self, place: Place) -> bytes | None:
        """Return the context that the reply at this place is bound to; None if there is none."""
        row = self._row(place)
        return None if row is None else row.context

    def latest(self, run: str, connection: Connection) -> datetime | None:
        """Return when the last reply of a run was written, in the caller's transaction."""
        query = select(func.max(journal.c.created)).where(journal.c.run_id == run)
        written: datetime | None = connection.execute(query).scalar_one()
        return written

    def write(
        self,
        place: Place,
        request_digest: bytes,
        *,
        context: bytes,
        reply: bytes,
        now: datetime,
        connection: Connection,
    ) -> None:
        """Write a reply in the caller's transaction; each place is written once."""
        connection.execute(
            insert(journal).values(
                run_id=place.run,
                round=place.round,
                phase=place.phase,
                request_digest=request_digest.hex(),
                ctx=context,
                reply=reply,
                created=now,
            )
        )

    def forget(self, run: str, connection: Connection, *, before: int | None = None) -> None:
        """Erase the replies of a run, or only those of rounds below `before`; their rows stay."""
        replies = update(journal).where(journal.c.run_id == run, journal.c.reply.is_not(None))
        statement = replies if before is None else replies.where(journal.c.round < before)
        connection.execute(statement.values(reply=None))

    def forget_ended(self, before: datetime) -> None:
        """Erase the replies of the runs that ended earlier than `before`."""
        ended = select(runs.c.run_id).where(runs.c.ended < before)
        conditions = journal.c.reply.is_not(None), journal.c.run_id.in_(ended)
        with transaction(self._engine) as connection:
            connection.execute(update(journal).where(*conditions).values(reply=None))

    def _row(self, place: Place) -> _Row | None:
        query = select(journal.c.request_digest, journal.c.ctx, journal.c.reply).where(
            journal.c.run_id == place.run,
            journal.c.round == place.round,
            journal.c.phase == place.phase,
        )
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        reply = None if row.reply is None else bytes(row.reply)
        return _Row(row.request_digest, bytes(row.ctx), reply)


def _erased_reply(place: Place) -> Refusal:
    return Refusal(
        ReasonCode.STALE,
        "The reply to this request is no longer stored",
        why=f"phase {place.phase} of round {place.round} was answered, and the run has moved on",
        fix="do nothing here; a reply that was sent is never computed a second time",
    )
