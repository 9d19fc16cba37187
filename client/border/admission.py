"""What the gate lets in: a request with everything that its answer is made from."""

from collections.abc import Mapping
from dataclasses import dataclass

from client.documents.store import Held
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
    """A request that may be answered, and everything that its answer is made from.

    `record` is None for the request that enters a run; `round` is set where one is contributed to;
    `context` is what the reply is bound to; `peers` are the run's identity keys by country.
    """

    frame: bytes
    request: Request
    subject: Subject
    place: Place
    held: Held
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
    """A request that was answered before and may be answered again: with the same bytes."""

    reply: bytes
    subject: Subject
