"""One node: it answers frames, imports documents, and executes its operator's commands.

There are no threads, sockets or signals here: the daemon provides them, and tests need none.
"""

from typing import Any

from client.border.request_handler import RequestHandler
from client.parts import NodeParts
from client.restore import Restoration
from client.state.decision_log import Subject
from client.state.restored import Restored
from client.status.model import NodeStatus
from client.status.report import StatusReport
from client.status.summary import LinkStatus
from client.upkeep import Upkeep
from governance.audit.events import EventKind, Outcome
from governance.audit.exported import export_head, export_page
from governance.runtime.database import fold_log
from governance.trust.bundle import CountryDocuments
from keys.identity import VerifyKey


class Node:
    """A node, built from its parts."""

    def __init__(
        self, parts: NodeParts, request_handler: RequestHandler, status_report: StatusReport
    ) -> None:
        self.parts, self._request_handler = parts, request_handler
        self._status_report = status_report
        self._upkeep = Upkeep(parts)

    def handle(self, frame: bytes) -> bytes:
        """Return the reply to a frame from the coordinator."""
        return self._request_handler.handle(frame)

    def sync(self) -> None:
        """Fetch the published documents. Raises DocumentFault, LinkFault."""
        self.parts.updates.sync()

    def do_upkeep(self) -> None:
        """Do the regular upkeep; a fault is logged, and `status` shows it."""
        self._upkeep.do_upkeep()

    def prepare(self) -> None:
        """Prepare the permitted studies, so that the first message need not wait."""
        self._upkeep.prepare()

    def deliver(self, bundle: bytes) -> CountryDocuments:
        """Store the country's documents from its officer. Raises DocumentFault."""
        own = self.parts.updates.deliver(bundle)
        self.parts.log_head.move()  # a copy made before this delivery must not count as the newest
        return own

    def approve_key(self, country: str, fingerprint: str) -> VerifyKey:
        """Accept another country's changed key. Raises DocumentFault if it is not in force."""
        key = self.parts.documents.approve_key(country, fingerprint, self.parts.clock())
        self.parts.keys.log(EventKind.KEY_APPROVED, key)
        self.parts.log_head.move()
        return key

    def pin_officer(self, key: VerifyKey) -> None:
        """Trust another key of the country's officer, and write it into the settings."""
        update = {"officer_key": key.to_text()}
        self.parts.home.write_settings(self.parts.settings.model_copy(update=update))
        self.parts.documents.pin_officer(key)
        self.parts.keys.log(EventKind.OFFICER_KEY_CHANGED, key)
        self.parts.log_head.move()

    def pause(self, reason: str) -> None:
        """Refuse every message until `resume`."""
        self.parts.pause.set(reason, self.parts.now())
        self._log(EventKind.NODE_PAUSED)

    def resume(self) -> None:
        """Take part again."""
        self.parts.pause.clear()
        self._log(EventKind.NODE_RESUMED)

    def restore(self) -> Restored:
        """Recover a node whose state was restored from a copy; the daemon must not run.

        Raises DocumentFault, LinkFault or NodeFault; then the node does not start until the
        call is repeated with success.
        """
        restoration = Restoration(self.parts)
        restoration.begin()
        self.parts.updates.collect()
        restoration.require_signed_since()
        self.sync()
        return restoration.complete()

    def note_start(self) -> None:
        """Log that the daemon has started. Raises NodeFault if its state is not the newest."""
        self.parts.log_head.move()
        fold_log(self.parts.engine)
        self._log(EventKind.NODE_STARTED)

    def note_stop(self) -> None:
        """Log the events that were only counted until now, and that the daemon ends."""
        self.parts.decisions.settle(ending=True)
        self._log(EventKind.NODE_STOPPED)

    def note_dispute(self) -> None:
        """Log that another machine has presented this node's identity to the coordinator."""
        self._log(EventKind.SESSION_DISPUTED)

    def status(self, link: LinkStatus) -> NodeStatus:
        """Return the status of the node, for its operator only."""
        return self._status_report.status(link)

    def log_head(self) -> dict[str, Any]:
        """Return the signed checkpoint of the log, its size, and the key for it."""
        return export_head(self.parts.log)

    def log_entries(self, start: int, end: int) -> dict[str, Any]:
        """Return a page of the exported log lines start ≤ index < end."""
        return export_page(self.parts.log, start, end)

    def check_state(self) -> None:
        """Raise NodeFault, LogFault or StorageFault if the database is not as this node left it."""
        self.parts.log_head.require_newest()

    def _log(self, kind: EventKind) -> None:
        self.parts.decisions.event(kind, Subject(), outcome=Outcome.DONE)
        self.parts.log_head.move()  # an earlier state must not count as the newest
