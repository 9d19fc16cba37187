"""Requests and replies of a run as they travel: reading, size limits, and who signs what."""

from dataclasses import dataclass

from protocols.errors import ReasonCode
from protocols.private_sum.context import DocumentVersions
from protocols.signed import Phase


@dataclass(frozen=True)
class Request:
    """A request as it came: claims, to be believed only when the run has authenticated them.

    `digest` is over the whole request: a journal compares it to tell a repeated request from
    another one. `roster` is filled in phase BUNDLE only; `round_number` and `phase_kind` in
    CONTRIBUTE, `round_number` in ANSWER, `model` in CONTRIBUTE; they are 0 and empty elsewhere.
    """

    phase: Phase
    agreement: str
    study: str
    run_id: bytes
    versions: DocumentVersions
    roster: tuple[str, ...]
    round_number: int
    phase_kind: str
    model: bytes
    digest: bytes


def read_request(data: bytes) -> Request:
    """Return what a request claims. Raises Refusal MALFORMED."""
    raise NotImplementedError


def refusal_reply(code: ReasonCode) -> bytes:
    """Return the reply that carries one reason code and nothing else."""
    raise NotImplementedError
