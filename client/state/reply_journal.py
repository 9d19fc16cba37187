"""What was sent for each request: sent again as it is, or not at all.

One reply for each (run, round, phase). The same request gets the same bytes; another request for
the same place is refused. A request is told by its digest (`Request.digest`), 32 bytes. Rows are
written in the transaction that makes the reply final. The bytes are given up once nobody needs them
any more; their place stays taken, so that nothing is ever computed for it a second time.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select, update

from client.state.tables import journal, runs
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import Request
from protocols.proto.round_pb2 import Phase

CONTRIBUTE = "contribute"


@dataclass(frozen=True)
class Place:
    """Where a request belongs: `round` is 0 in set-up."""

    run: str
    round: int
    phase: str

    @classmethod
    def of(cls, request: Request) -> "Place":
        """Return the place that a request claims."""
        return cls(request.body.run_id.hex(), request.round_number, phase_name(request.phase))


def phase_name(phase: Phase) -> str:
    """Return a phase as logs and the journal name it, such as `contribute`."""
    return Phase.Name(phase).removeprefix("PHASE_").lower()


class ReplyJournal:
    """The journal in one state database. Safe among threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def repeated(self, place: Place, asked: bytes) -> bytes | None:
        """Return the reply that a request of this digest got, None where the place is free.

        Raises Refusal STALE where another request was answered at this place, or where the reply
        has been given up.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(_at(place)).one_or_none()
        if row is None:
            return None
        if row.request_digest != asked.hex():
            raise Refusal(
                ReasonCode.STALE,
                "Another request was answered at this place of the run",
                why=f"phase {place.phase}, round {place.round}: one reply each, and it was sent",
                fix="nothing to do here; the coordinator must send the same request or a new round",
            )
        if row.reply is None:
            raise _given_up(place)
        return bytes(row.reply)

    def context(self, place: Place) -> bytes | None:
        """Return the context that the reply at this place was made in."""
        with transaction(self._engine) as connection:
            row = connection.execute(_at(place)).one_or_none()
        return None if row is None else bytes(row.ctx)

    def latest(self, run: str, connection: Connection) -> datetime | None:
        """Return when a run's last reply was written, in the caller's transaction."""
        query = select(func.max(journal.c.created)).where(journal.c.run_id == run)
        found: datetime | None = connection.execute(query).scalar_one()
        return found

    def write(
        self,
        place: Place,
        asked: bytes,
        *,
        context: bytes,
        reply: bytes,
        now: datetime,
        connection: Connection,
    ) -> None:
        """Write a reply within the caller's transaction; a place is written once."""
        connection.execute(
            insert(journal).values(
                run_id=place.run,
                round=place.round,
                phase=place.phase,
                request_digest=asked.hex(),
                ctx=context,
                reply=reply,
                created=now,
            )
        )

    def forget(self, run: str, connection: Connection, *, before: int | None = None) -> None:
        """Give up a run's replies, or those of rounds below `before`; their places stay taken."""
        kept = update(journal).where(journal.c.run_id == run, journal.c.reply.is_not(None))
        chosen = kept if before is None else kept.where(journal.c.round < before)
        connection.execute(chosen.values(reply=None))

    def forget_ended(self, before: datetime) -> None:
        """Give up the replies of the runs that ended earlier than `before`."""
        ended = select(runs.c.run_id).where(runs.c.ended < before)
        chosen = journal.c.reply.is_not(None), journal.c.run_id.in_(ended)
        with transaction(self._engine) as connection:
            connection.execute(update(journal).where(*chosen).values(reply=None))


def _given_up(place: Place) -> Refusal:
    return Refusal(
        ReasonCode.STALE,
        "The reply to this request is no longer kept",
        why=f"phase {place.phase}, round {place.round}: it was sent, and the run has gone on",
        fix="nothing to do here; what was sent is never made a second time",
    )


def _at(place: Place) -> Select[Any]:
    return select(journal).where(
        journal.c.run_id == place.run,
        journal.c.round == place.round,
        journal.c.phase == place.phase,
    )
