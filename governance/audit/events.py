"""What is logged: every kind of event, by name, and the one form of an entry.

An entry holds decisions and digests: no count, no value and no identifier of a patient.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from protocols.encoding import Digest
from protocols.errors import ReasonCode

ENTRY_VERSION = 1
LARGEST_ENTRY = 16_384


class EventKind(StrEnum):
    """Every event that a node or coordinator logs."""

    NODE_INITIALISED = "node-initialised"
    NODE_ENROLLED = "node-enrolled"
    NODE_STARTED = "node-started"
    NODE_STOPPED = "node-stopped"
    NODE_PAUSED = "node-paused"
    NODE_RESUMED = "node-resumed"
    DOCUMENTS_ACCEPTED = "documents-accepted"
    DOCUMENTS_REFUSED = "documents-refused"
    PERMIT_ACCEPTED = "permit-accepted"
    WITHDRAWAL_ACCEPTED = "withdrawal-accepted"
    REQUEST_ALLOWED = "request-allowed"
    REQUEST_REFUSED = "request-refused"
    REQUEST_REPEATED = "request-repeated"
    BUDGET_CHARGED = "budget-charged"
    BUDGET_REFUSED = "budget-refused"
    RUN_JOINED = "run-joined"
    RUN_ENDED = "run-ended"
    SUM_CONTRIBUTED = "sum-contributed"
    SUM_ANSWERED = "sum-answered"
    COORDINATOR_INITIALISED = "coordinator-initialised"
    COORDINATOR_STARTED = "coordinator-started"
    COORDINATOR_STOPPED = "coordinator-stopped"
    PARTY_INVITED = "party-invited"
    PARTY_ADMITTED = "party-admitted"
    PARTY_REFUSED = "party-refused"
    PARTY_REVOKED = "party-revoked"
    DOCUMENTS_PUBLISHED = "documents-published"
    STUDY_PROPOSED = "study-proposed"
    STUDY_LAUNCHED = "study-launched"
    STUDY_STOPPED = "study-stopped"
    STUDY_FINISHED = "study-finished"
    ROUND_OPENED = "round-opened"
    ROUND_VOID = "round-void"
    RESULT_RELEASED = "result-released"
    CALL_REFUSED = "call-refused"


class Outcome(StrEnum):
    """What was decided."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    DONE = "done"


class DocumentVersions(BaseModel):
    """The document versions that a decision was taken under."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Annotated[int, Field(ge=0)]
    targets: Annotated[int, Field(ge=0)]
    countries: dict[str, Annotated[int, Field(ge=0)]] = {}


Line = Annotated[str, Field(max_length=600)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Event(BaseModel):
    """One thing that happened.

    `actor` did it (a country, "coordinator", an officer's fingerprint); `subject` is what it was
    done to where that is no study or run (a fingerprint, a document path); `policies` determined
    the decision; `reason` is in plain words for this party's own operator and officer; `body` is
    the digest of the bytes received or sent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: EventKind
    at: datetime
    actor: Name
    outcome: Outcome = Outcome.DONE
    subject: Name | None = None
    study: Digest | None = None
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    round: Annotated[int, Field(ge=0)] | None = None
    phase: Name | None = None
    code: ReasonCode | None = None
    reason: Line | None = None
    clause: Line | None = None
    policies: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    documents: DocumentVersions | None = None
    body: Digest | None = None


def entry_bytes(event: Event, *, origin: str, index: int) -> bytes:
    """Return the canonical JSON of the entry at `index`. Raises LogFault where it is too large."""
    raise NotImplementedError


def parse_entry(data: bytes) -> dict[str, Any]:
    """Return the entry's JSON object; anything not canonical is refused. Raises LogFault."""
    raise NotImplementedError
