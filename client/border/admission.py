"""The result of the gate: an admitted request with everything that its answer needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from client.documents.store import CurrentDocuments
from client.state.decision_log import Subject
from client.state.reply_journal import Place
from client.state.runs import RunRecord
from governance.budget.ledger import Terms
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.policy.assessment import Assessment
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import Request


@dataclass(frozen=True)
class Admission:
    """A request that may be answered, and everything that its answer needs.

    `record` is None if the request enters a run. `round` is set if the request asks for a
    contribution. The reply is bound to `context`. `peers` are the identity keys of the run by
    country.
    """

    frame: bytes
    request: Request
    subject: Subject
    place: Place
    documents: CurrentDocuments
    study: Study
    permit: Permit
    assessment: Assessment
    budget: Terms
    roster: tuple[str, ...]
    peers: Mapping[str, str]
    run: CountryRun
    record: RunRecord | None
    round: RoundTerms | None
    context: bytes


@dataclass(frozen=True)
class Repetition:
    """A request that was answered before and may be answered again with the same bytes."""

    reply: bytes
    subject: Subject
