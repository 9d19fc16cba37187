"""Errors of the protocols, and the only codes that a refusal may send to the coordinator."""

from enum import StrEnum

from keys.errors import PratiqueError


class ProtocolFault(PratiqueError):
    """A message is malformed, out of order, repeated or not authentic."""


class ReasonCode(StrEnum):
    """What a coordinator may learn about a refusal: one code, nothing derived from records."""

    MALFORMED = "malformed"
    NOT_AUTHENTIC = "not-authentic"
    STALE = "stale"
    DOCUMENTS_BEHIND = "documents-behind"
    DOCUMENTS_EXPIRED = "documents-expired"
    UNKNOWN_STUDY = "unknown-study"
    NO_PERMIT = "no-permit"
    POLICY = "policy"
    BUDGET = "budget"
    TASK_UNKNOWN = "task-unknown"
    ROSTER = "roster"
    PAUSED = "paused"
    DECLINED = "declined"


class Refusal(ProtocolFault):
    """A node's refusal: `code` for the coordinator; what, why and fix for its operator and officer.

    `clause` names the rule or document clause that decided, if any.
    """

    def __init__(
        self, code: ReasonCode, what: str, *, why: str = "", fix: str = "", clause: str = ""
    ) -> None:
        self.code, self.clause = code, clause
        super().__init__(what, why=why, fix=fix)
