"""Every kind of logged event, by name, and the canonical form of a log entry.

An entry contains decisions and digests: no count, no value and no identifier of a patient.
"""

import json
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from governance.errors import LogFault
from protocols.errors import ReasonCode
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import Digest, canonical_json, check_json

ENTRY_VERSION = 1
LARGEST_ENTRY = 16_384
MOST_ROWS = 150
"""Rows that one entry can name; with the rest of it they stay below the largest entry."""


class EventKind(StrEnum):
    """Every event that a node or coordinator logs."""

    NODE_INITIALISED = "node-initialised"
    NODE_ENROLLED = "node-enrolled"
    NODE_STARTED = "node-started"
    NODE_STOPPED = "node-stopped"
    NODE_PAUSED = "node-paused"
    NODE_RESUMED = "node-resumed"
    OPT_OUTS_CONFIRMED = "opt-outs-confirmed"
    STATE_RESTORED = "state-restored"
    STATE_SIGNED = "state-signed"
    DOCUMENTS_ACCEPTED = "documents-accepted"
    DOCUMENTS_REFUSED = "documents-refused"
    OFFICER_KEY_CHANGED = "officer-key-changed"
    KEY_APPROVED = "key-approved"
    NODE_KEY_CHANGED = "node-key-changed"
    PERMIT_ACCEPTED = "permit-accepted"
    WITHDRAWAL_ACCEPTED = "withdrawal-accepted"
    REQUEST_ALLOWED = "request-allowed"
    REQUEST_REFUSED = "request-refused"
    REQUEST_REPEATED = "request-repeated"
    REQUESTS_COUNTED = "requests-counted"
    BUDGET_CHARGED = "budget-charged"
    COHORT_COUNTED = "cohort-counted"
    BUDGET_REFUSED = "budget-refused"
    MODEL_CALIBRATED = "model-calibrated"
    CALIBRATION_REFUSED = "calibration-refused"
    RUN_JOINED = "run-joined"
    RUN_ENDED = "run-ended"
    SUM_CONTRIBUTED = "sum-contributed"
    SET_AGREED = "set-agreed"
    SUM_ANSWERED = "sum-answered"
    COORDINATOR_INITIALISED = "coordinator-initialised"
    COORDINATOR_STARTED = "coordinator-started"
    COORDINATOR_STOPPED = "coordinator-stopped"
    PARTY_INVITED = "party-invited"
    PARTY_ADMITTED = "party-admitted"
    PARTY_REFUSED = "party-refused"
    PARTY_REVOKED = "party-revoked"
    CERTIFICATE_RENEWED = "certificate-renewed"
    CERTIFICATE_DISPUTED = "certificate-disputed"
    SESSION_DISPUTED = "session-disputed"
    AUTHORITY_FOLLOWED = "authority-followed"
    DOCUMENTS_PUBLISHED = "documents-published"
    STUDY_PROPOSED = "study-proposed"
    STUDY_LAUNCHED = "study-launched"
    STUDY_STOPPED = "study-stopped"
    RUN_RESUMED = "run-resumed"
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


UtcMoment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Line = Annotated[str, Field(max_length=600)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Event(BaseModel):
    """One event, as it is logged.

    `actor` did it (a country, "coordinator", an officer's fingerprint); `subject` is what it
    concerned, if not a study or run (a fingerprint, a document path); `policies` determined
    the decision; `reason` is in plain words for this party's own operator and officer; `body` is
    the digest of the bytes received or sent; `rows` are the digests of the rows of the database
    that were written with the entry (`governance.runtime.row_digest`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: EventKind
    at: UtcMoment
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
    rows: Annotated[tuple[Digest, ...], Field(max_length=MOST_ROWS)] = ()


def entry_bytes(event: Event, *, origin: str, index: int) -> bytes:
    """Return the canonical JSON of the entry at `index`. Raises LogFault if it is too large."""
    fields = event.model_dump(mode="json", exclude_none=True)
    header = {"v": ENTRY_VERSION, "origin": origin, "index": index}
    if not event.rows:
        fields.pop("rows")
    data = canonical_json({**fields, **header})
    if len(data) > LARGEST_ENTRY:
        raise LogFault("An event is too large to be logged", why=f"it has {len(data)} bytes")
    return data


def parse_entry(data: bytes) -> dict[str, Any]:
    """Return the entry's JSON object; anything not canonical is refused. Raises LogFault.

    An unknown kind of event is allowed: a later version of this program may have written it.
    """
    entry = parse_canonical(data, LARGEST_ENTRY)
    header = (entry.get("v"), type(entry.get("index")), type(entry.get("origin")))
    if header != (ENTRY_VERSION, int, str):
        raise LogFault(
            "This is not a log entry", why="version, index or origin is missing or wrong"
        )
    return entry


def parse_canonical(data: bytes, largest: int) -> dict[str, Any]:
    """Return the JSON object whose canonical form (RFC 8785) is `data`. Raises LogFault."""
    value: Any = None
    try:
        value = json.loads(check_json(data)) if len(data) <= largest else None
        canonical = isinstance(value, dict) and canonical_json(value) == data
    except ValueError:
        canonical = False
    if not canonical:
        raise LogFault(
            "This is not a canonical JSON object",
            why="it was changed, or was written in another form",
        )
    fields: dict[str, Any] = value
    return fields
