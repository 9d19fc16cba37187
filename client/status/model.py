"""The status of a node as frozen models; their JSON is what `pratique-node status --json` prints.

Times are ISO 8601 text. A fault is one or more sentences; None if there is none.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.errors import NodeFault
from client.state.decision_log import KeptRefusal
from client.state.pause import Pause
from client.state.restored import Restored


class _StatusPart(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class OwnDocuments(_StatusPart):
    """The documents that the officer of this node's country handed over."""

    version: int
    expires: str


class OfficerKeys(_StatusPart):
    """Fingerprints of the officer's key, and of its announced successor."""

    key: str
    announced: str | None


class DocumentStatus(_StatusPart):
    """The documents that the node works with; None or empty if there are none.

    `expires` is the end of their freshness, `ends` the sunset of the agreement. `countries` gives
    the expiry of each country's documents; `absent` says why a country has none; `ignored` lists
    published documents that do not verify.
    """

    agreement: str | None
    expires: str | None
    ends: str | None
    signatures: str | None
    countries: dict[str, str]
    versions: dict[str, int]
    own: OwnDocuments | None
    absent: dict[str, str]
    ignored: tuple[str, ...]
    fault: str | None
    officer: OfficerKeys


class DataStatus(_StatusPart):
    """The records; `version` and `patients` are None if none can be used.

    With a version and a fault, the node uses the records that it loaded last. `unmatched_opt_outs`
    counts entries of the opt-out list that match nobody and are not confirmed.
    """

    file: str
    version: str | None
    patients: int | None
    fault: str | None
    unmatched_opt_outs: int = 0


class LedgerStatus(_StatusPart):
    """The budget of one person register: in micro-units of RDP, and as the ε at δ they mean."""

    register_name: str = Field(alias="register")
    period_start: str
    period_end: str
    order: int
    cap_micro: int
    spent_micro: int
    left_micro: int
    lifetime_micro: int
    share_spent: float
    delta: float
    epsilon: float
    epsilon_spent: float
    epsilon_left: float
    epsilon_lifetime: float


class StudyStatus(_StatusPart):
    """A study that names this country; `standing` is the country's decision about it."""

    id: str
    title: str
    digest: str
    standing: str


class RunStatus(_StatusPart):
    """A live run: its id, the id of its study, and when this node entered it."""

    run: str
    study: str
    entered: str


class LogStatus(_StatusPart):
    """The audit log: its origin, and its number of entries."""

    origin: str
    size: int


class NodeStatus(_StatusPart):
    """Everything that `status` shows. It is for the operator only and never leaves the node.

    `disputed`: another machine has presented this node's identity to the coordinator.
    """

    country: str
    federation: str | None
    waiting_for: str
    connected: bool
    disputed: bool
    paused: Pause | None
    documents: DocumentStatus
    data: DataStatus
    ledger: LedgerStatus | None
    studies: tuple[StudyStatus, ...]
    runs: tuple[RunStatus, ...]
    refusals: tuple[KeptRefusal, ...]
    restored: Restored | None
    log: LogStatus
    clock: str | None = None
    """How this machine's clock differs from the exchange's, if it does."""

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the status in a daemon's answer. Raises NodeFault if it is none."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise NodeFault(
                "The status that the daemon sent cannot be read",
                why=f"{error.error_count()} of its fields are missing or of another kind",
                fix="use the command of the same version as the daemon",
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return self.model_dump(mode="json", by_alias=True)
