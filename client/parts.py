"""The parts of one node, all over one state database; `client.wiring` makes them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from client.credentials.identity_keys import IdentityKeys
from client.documents.key_changes import KeyChanges
from client.documents.store import DocumentStore
from client.documents.updates import DocumentUpdates
from client.home import NodeHome
from client.records.store import RecordStore
from client.settings import NodeSettings
from client.state.decision_log import Clock, DecisionLog
from client.state.log_head import LogHeadGuard
from client.state.opt_out_confirmations import OptOutConfirmations
from client.state.pause import PauseSwitch
from client.state.reply_journal import ReplyJournal
from client.state.run_expiry import RunExpiry
from client.state.runs import RunStore
from client.tasks.prepared import PreparedTasks
from governance.audit.log import AuditLog
from governance.budget.ledger import Ledger


@dataclass(frozen=True)
class NodeParts:
    """The parts that the border, the upkeep, the status and the commands of a node share."""

    home: NodeHome
    settings: NodeSettings
    engine: Engine
    clock: Clock
    documents: DocumentStore
    updates: DocumentUpdates
    keys: KeyChanges
    identities: IdentityKeys
    log: AuditLog
    log_head: LogHeadGuard
    ledger: Ledger
    decisions: DecisionLog
    pause: PauseSwitch
    runs: RunStore
    journal: ReplyJournal
    run_expiry: RunExpiry
    record_store: RecordStore
    opt_outs: OptOutConfirmations
    tasks: PreparedTasks

    def now(self) -> datetime:
        """Return the time; it is never earlier than the latest signed time seen."""
        return self.documents.not_before(self.clock())
