"""What the node shows its operator of its life: counts, whether it is stuck, whether it is ready.

It reads what the daemon sees anyway. Nothing in here holds the text of a fault of the records: that
may quote one, and what is shown here may be read by every user of the machine.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from client.home import NodeHome
from client.state.reply_journal import phase_name
from governance.runtime.health import HealthFinding, HealthReport
from governance.runtime.metrics import NodeMetrics
from governance.runtime.progress import Progress
from keys.errors import KeyFault
from keys.renewal import ends_of
from protocols.errors import ReasonCode
from protocols.private_sum.messages import CONTENT
from protocols.proto.round_pb2 import Reply, Request

SERVE, TEND = "serve", "tend"
NOT_YET = HealthFinding(good=False, says="not looked at yet")

Found = Mapping[str, Any]


class NodeHealth:
    """One node's life as its operator may see it. Safe among threads."""

    def __init__(self, home: NodeHome, clock: Callable[[], datetime]) -> None:
        """`home` holds the certificates."""
        self._home, self._clock = home, clock
        self.progress = Progress()
        self.metrics = NodeMetrics(map(phase_name, CONTENT), (code.value for code in ReasonCode))
        self._link = HealthFinding(good=False, says="connecting")
        self._seen: Mapping[str, HealthFinding] = dict.fromkeys(("documents", "records"), NOT_YET)

    @property
    def shown(self) -> HealthReport:
        """What the endpoint shows."""
        return HealthReport(self.metrics.registry, self.live, self.ready)

    def linked(self, fault: str = "") -> None:
        """Note that the coordinator is reached, or why it is not."""
        self._link = HealthFinding(good=not fault, says=fault or "connected")
        self.metrics.link(up=not fault)

    def replied(self, frame: bytes, reply: bytes, seconds: float) -> None:
        """Count a reply, by what the two say of themselves."""
        self.metrics.replied(phase_of(frame), refusal_of(reply), seconds)

    def tended(self, status: Found) -> None:
        """Take note of the node's status after it looked after documents and records."""
        self.metrics.tended(self._clock())
        self.saw(status)

    def saw(self, status: Found) -> None:
        """Take note of the node's status."""
        documents, ledger = status["documents"], status["ledger"]
        self.metrics.documents(documents["versions"], self._expiries(status))
        self.metrics.log_size(status["log"]["size"])
        self.metrics.ledger({ledger["register"]: ledger["share_spent"]} if ledger else {})
        self._seen = {
            "documents": _documents(documents),
            "records": _records(status["data"]),
            "pause": _pause(status["paused"]),
        }

    def live(self) -> dict[str, HealthFinding]:
        """Return whether each loop moves."""
        stuck = self.progress.stuck()
        return {loop: _moving(loop not in stuck) for loop in (SERVE, TEND)}

    def ready(self) -> dict[str, HealthFinding]:
        """Return whether the node would answer the coordinator now."""
        expired = [name for name, at in self._own_expiries().items() if at <= self._clock()]
        says = f"expired: {', '.join(expired)}" if expired else "in force"
        held = {"certificates": HealthFinding(good=not expired, says=says)}
        return {**self.live(), "link": self._link, **held, **self._seen}

    def _expiries(self, status: Found) -> dict[str, datetime]:
        documents = status["documents"]
        own = {status["country"]: documents["own"]["expires"]} if documents["own"] else {}
        ends = {"agreement": documents["ends"], "metadata": documents["expires"]}
        told = {**documents["countries"], **own, **ends}
        times = {name: datetime.fromisoformat(at) for name, at in told.items() if at}
        return {**times, **self._own_expiries()}

    def _own_expiries(self) -> dict[str, datetime]:
        files = {"certificate": self._home.certificate, "authority": self._home.authority}
        found = {name: expires_at(file) for name, file in files.items()}
        return {name: at for name, at in found.items() if at is not None}


def phase_of(frame: bytes) -> str:
    """Return the phase that a frame claims; `unreadable` where it is no request."""
    try:
        phase = Request.FromString(frame).signed.phase
    except DecodeError:
        return "unreadable"
    return phase_name(phase) if phase in CONTENT else "unreadable"


def refusal_of(reply: bytes) -> str | None:
    """Return the code in one of this node's own replies, None where it is an answer."""
    try:
        said = Reply.FromString(reply)
    except DecodeError:
        return None
    return said.refused.code if said.WhichOneof("content") == "refused" else None


def expires_at(file: Path) -> datetime | None:
    """Return when the certificate in a file expires, None where there is none to be read."""
    try:
        return ends_of(file.read_bytes())
    except (OSError, KeyFault):
        return None


def _documents(documents: Found) -> HealthFinding:
    fault = documents["fault"]
    return HealthFinding(good=not fault, says=fault or "in force")


def _records(data: Found) -> HealthFinding:
    if data["fault"]:
        return HealthFinding(
            good=False, says="cannot be used: `pratique-node doctor` names the place"
        )
    return HealthFinding(
        good=data["version"] is not None, says="read" if data["version"] else "not read"
    )


def _pause(paused: Found | None) -> HealthFinding:
    return HealthFinding(
        good=paused is None, says="paused by its operator" if paused else "not paused"
    )


def _moving(moves: bool) -> HealthFinding:  # noqa: FBT001 (an answer, yes or no)
    return HealthFinding(good=moves, says="moving" if moves else "stuck")
