"""The shared parts of the running daemon: its keys, stores, audit log and the SuperLink."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.trust.repository import Repository
from governance.trust.view import TrustedView
from protocols.wire.signed_message import COORDINATOR
from server.exchange.documents import ExchangeDocuments
from server.exchange.node_sessions import NodeSessions
from server.flower.superlink import SuperLink
from server.home import CoordinatorHome, CoordinatorKeys, Settings
from server.membership.enrolment import EnrolmentService
from server.published_view import read_published_view
from server.runs.store import RunStore


@dataclass(frozen=True)
class CoordinatorContext:
    """The parts that the daemon's services share."""

    home: CoordinatorHome
    settings: Settings
    keys: CoordinatorKeys
    enrolment: EnrolmentService
    repository: Repository
    documents: ExchangeDocuments
    runs: RunStore
    log: AuditLog
    superlink: SuperLink
    sessions: NodeSessions
    clock: Callable[[], datetime]

    def view(self) -> TrustedView:
        """Return the verified documents. Raises CoordinatorFault before the first agreement."""
        return read_published_view(self.home, self.clock())

    def note(
        self, kind: EventKind, *, connection: Connection | None = None, **details: Any
    ) -> None:
        """Append an event by the coordinator to the audit log, in `connection` if it is given."""
        event = Event(kind=kind, at=self.clock(), actor=COORDINATOR, **details)
        self.log.append(event, connection)
