"""One node: what it does with frames, documents and its operator's commands.

No thread, socket or signal is in here: the daemon brings them, and tests do without.
"""

from typing import Any

from client.border.request_handler import RequestHandler
from client.parts import NodeParts
from client.restore import Restoration
from client.state.decision_log import Subject
from client.state.restored import Restored
from client.status.report import StatusReport
from client.status.summary import LinkStatus
from client.upkeep import Upkeep
from governance.audit.events import EventKind, Outcome
from governance.audit.exported import exported
from governance.runtime.database import fold_log
from governance.trust.bundle import CountryDocuments
from keys.identity import VerifyKey


class Node:
    """A node around its parts."""

    def __init__(
        self, parts: NodeParts, request_handler: RequestHandler, status_report: StatusReport
    ) -> None:
        self.parts, self._request_handler = parts, request_handler
        self._status_report = status_report
        self._upkeep = Upkeep(parts)

    def handle(self, frame: bytes) -> bytes:
        """Return the reply to a frame of the coordinator's."""
        return self._request_handler.handle(frame)

    def sync(self) -> None:
        """Fetch the published documents. Raises DocumentFault, LinkFault."""
        self.parts.updates.sync()

    def tend(self) -> None:
        """Do what needs doing now and then; what goes wrong is kept for `status`."""
        self._upkeep.tend()

    def prepare(self) -> None:
        """Be ready for the first message."""
        self._upkeep.prepare()

    def deliver(self, bundle: bytes) -> CountryDocuments:
        """Take the country's documents from its officer. Raises DocumentFault."""
        own = self.parts.updates.deliver(bundle)
        self.parts.log_head.move()  # a copy from before the delivery must not pass for the newest
        return own

    def approve_key(self, country: str, fingerprint: str) -> VerifyKey:
        """Accept another country's changed key. Raises DocumentFault if it is not in force."""
        key = self.parts.documents.approve_key(country, fingerprint, self.parts.clock())
        self.parts.keys.log(EventKind.KEY_APPROVED, key)
        return key

    def pin_officer(self, key: VerifyKey) -> None:
        """Trust another key of the country's officer, and write it into the settings."""
        changed = {"officer_key": key.to_text()}
        self.parts.home.write_settings(self.parts.settings.model_copy(update=changed))
        self.parts.documents.pin_officer(key)
        self.parts.keys.log(EventKind.OFFICER_KEY_CHANGED, key)

    def pause(self, reason: str) -> None:
        """Refuse every message until `resume`."""
        self.parts.pause.set(reason, self.parts.now())
        self._log(EventKind.NODE_PAUSED)

    def resume(self) -> None:
        """Take part again."""
        self.parts.pause.clear()
        self._log(EventKind.NODE_RESUMED)

    def restore(self) -> Restored:
        """Recover state restored from an older copy; the daemon must not run.

        Raises DocumentFault, LinkFault or OperationFault; until it is repeated with success, the
        node does not start.
        """
        restoration = Restoration(self.parts)
        restoration.begin()
        self.parts.updates.collect()
        restoration.require_signed_since()
        self.sync()
        return restoration.complete()

    def note_start(self) -> None:
        """Log that the daemon has started. Raises OperationFault if its state is not the newest."""
        self.parts.log_head.move()
        fold_log(self.parts.engine)
        self._log(EventKind.NODE_STARTED)

    def note_stop(self) -> None:
        """Log what was only counted until now, and that the daemon ends."""
        self.parts.decisions.settle(ending=True)
        self._log(EventKind.NODE_STOPPED)
        self.parts.log_head.move()

    def status(self, link: LinkStatus) -> dict[str, Any]:
        """Return the node's status, for its operator only."""
        return self._status_report.status(link)

    def log_entries(self, start: int = 0, end: int | None = None) -> dict[str, Any]:
        """Return exported log lines start ≤ index < end, with the signed checkpoint."""
        return exported(self.parts.log, start, end)

    def _log(self, kind: EventKind) -> None:
        self.parts.decisions.event(kind, Subject(), outcome=Outcome.DONE)
