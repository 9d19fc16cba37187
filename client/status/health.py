"""Health and metrics of a node: counts, whether a loop is stuck, whether the node is ready.

It uses what the daemon sees anyway. Every user of the machine may read what is shown here, so it
never contains the text of a fault in the records: such a text may quote a record.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from google.protobuf.message import DecodeError

from client.home import NodeHome
from client.state.pause import Pause
from client.state.reply_journal import phase_name
from client.status.model import DataStatus, DocumentStatus, NodeStatus
from governance.runtime.health import HealthFinding, HealthReport
from governance.runtime.metrics import NodeMetrics
from governance.runtime.progress import Progress
from keys.errors import KeyFault
from keys.renewal import ends_of
from protocols.errors import ReasonCode
from protocols.private_sum.messages import CONTENT
from protocols.proto.round_pb2 import Reply, Request

SERVE, UPKEEP = "serve", "tend"
NOT_YET = HealthFinding(good=False, says="not checked yet")


class NodeHealth:
    """The health and metrics of one node. Thread-safe."""

    def __init__(self, home: NodeHome, clock: Callable[[], datetime]) -> None:
        """`home` holds the certificates."""
        self._home, self._clock = home, clock
        self.progress = Progress()
        self.metrics = NodeMetrics(map(phase_name, CONTENT), (code.value for code in ReasonCode))
        self._link = HealthFinding(good=False, says="connecting")
        self._findings: Mapping[str, HealthFinding] = dict.fromkeys(
            ("documents", "records"), NOT_YET
        )

    @property
    def report(self) -> HealthReport:
        """The content of the HTTP endpoint."""
        return HealthReport(self.metrics.registry, self.live, self.ready)

    def set_link(self, fault: str = "") -> None:
        """Record that the coordinator is reached, or why it is not."""
        self._link = HealthFinding(good=not fault, says=fault or "connected")
        self.metrics.link(up=not fault)

    def count_reply(self, frame: bytes, reply: bytes, seconds: float) -> None:
        """Count a reply by the phase of its request and by its reason code."""
        self.metrics.count_reply(phase_of(frame), refusal_of(reply), seconds)

    def record_upkeep(self, status: NodeStatus) -> None:
        """Record the status of the node after a turn of upkeep, and the time of that turn."""
        self.metrics.set_last_upkeep(self._clock())
        self.record_status(status)

    def record_status(self, status: NodeStatus) -> None:
        """Record the status of the node."""
        documents, ledger = status.documents, status.ledger
        self.metrics.documents(documents.versions, self._expiries(status))
        self.metrics.log_size(status.log.size)
        self.metrics.ledger({ledger.register_name: ledger.share_spent} if ledger else {})
        self._findings = {
            "documents": _documents(documents),
            "records": _records(status.data),
            "pause": _pause(status.paused),
        }

    def live(self) -> dict[str, HealthFinding]:
        """Return, for each loop, whether it moves."""
        stuck = self.progress.stuck()
        return {loop: _moving(loop not in stuck) for loop in (SERVE, UPKEEP)}

    def ready(self) -> dict[str, HealthFinding]:
        """Return whether the node would answer the coordinator now."""
        expired = [name for name, at in self._certificate_expiries().items() if at <= self._clock()]
        says = f"expired: {', '.join(expired)}" if expired else "in force"
        certificates = HealthFinding(good=not expired, says=says)
        return {
            **self.live(),
            "link": self._link,
            "certificates": certificates,
            **self._findings,
        }

    def _expiries(self, status: NodeStatus) -> dict[str, datetime]:
        documents = status.documents
        own = {status.country: documents.own.expires} if documents.own else {}
        ends = {"agreement": documents.ends, "metadata": documents.expires}
        texts = {**documents.countries, **own, **ends}
        times = {name: datetime.fromisoformat(at) for name, at in texts.items() if at}
        return {**times, **self._certificate_expiries()}

    def _certificate_expiries(self) -> dict[str, datetime]:
        files = {"certificate": self._home.certificate, "authority": self._home.authority}
        expiries = {name: expires_at(file) for name, file in files.items()}
        return {name: at for name, at in expiries.items() if at is not None}


def phase_of(frame: bytes) -> str:
    """Return the phase that a frame names; `unreadable` if it is no request."""
    try:
        phase = Request.FromString(frame).signed.phase
    except DecodeError:
        return "unreadable"
    return phase_name(phase) if phase in CONTENT else "unreadable"


def refusal_of(reply: bytes) -> str | None:
    """Return the reason code in a reply of this node; None if the reply is an answer."""
    try:
        message = Reply.FromString(reply)
    except DecodeError:
        return None
    return message.refused.code if message.WhichOneof("content") == "refused" else None


def expires_at(file: Path) -> datetime | None:
    """Return when the certificate in a file expires; None if there is none that can be read."""
    try:
        return ends_of(file.read_bytes())
    except (OSError, KeyFault):
        return None


def _documents(documents: DocumentStatus) -> HealthFinding:
    return HealthFinding(good=not documents.fault, says=documents.fault or "in force")


def _records(data: DataStatus) -> HealthFinding:
    if data.fault:
        used = "cannot be used"
        if data.version:
            used = "the current file cannot be used, so the node uses the records loaded last"
        return HealthFinding(
            good=False, says=f"{used}: `pratique-node doctor` shows where the fault is"
        )
    if data.unmatched_opt_outs:
        return HealthFinding(good=False, says="the opt-out list has entries that match nobody")
    return HealthFinding(good=data.version is not None, says="read" if data.version else "not read")


def _pause(pause: Pause | None) -> HealthFinding:
    return HealthFinding(
        good=pause is None, says="paused by its operator" if pause else "not paused"
    )


def _moving(moves: bool) -> HealthFinding:  # noqa: FBT001 (an answer, yes or no)
    return HealthFinding(good=moves, says="moving" if moves else "stuck")
