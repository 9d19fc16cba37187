"""Dispatches each request on the daemon's local socket to the service that answers it."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from governance.audit.exported import export_log
from governance.errors import DocumentFault
from governance.runtime.local_rpc import Handler
from governance.trust.layout import FIRST_ROOT
from server.answers import (
    AgreementFault,
    CoordinatorStatus,
    LogSummary,
    Resumptions,
    SignatureTerm,
)
from server.errors import CoordinatorFault
from server.runs.store import resumed
from server.services.agreements import Agreements
from server.services.context import CoordinatorContext
from server.services.parties import Parties
from server.services.studies import Studies


def request_handler(context: CoordinatorContext) -> Handler:
    """Return the handler of all requests; it answers with JSON values."""
    methods = _methods(context)

    def answer(method: str, params: Mapping[str, Any]) -> Any:
        if method not in methods:
            raise CoordinatorFault(
                f"The coordinator does not know the request {method!r}",
                fix="use the command of the same version as the daemon",
            )
        return _as_json(methods[method](**params))

    return answer


def _as_json(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_as_json(item) for item in answer]
    return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer


def _methods(context: CoordinatorContext) -> dict[str, Callable[..., Any]]:
    parties, agreements, studies = Parties(context), Agreements(context), Studies(context)
    return {
        "status": lambda: _status(context),
        "log_entries": lambda: export_log(context.log),
        "invite": parties.invite,
        "invitations": parties.invitations,
        "revoke_invitation": parties.revoke_invitation,
        "enrolments": parties.enrolments,
        "admit": parties.admit,
        "turn_away": parties.turn_away,
        "revoke": parties.revoke,
        "agreement_propose": agreements.propose,
        "agreement_publish": agreements.publish,
        "agreement_renew": agreements.renew,
        "agreement_status": agreements.status,
        "study_check": studies.check,
        "study_propose": studies.propose,
        "study_list": studies.list,
        "study_launch": studies.launch,
        "study_status": studies.status,
        "study_stop": studies.stop,
        "sign": studies.sign,
        "announce": context.sessions.announce,
        "news": lambda count, wait: context.sessions.presence_update(count, wait).to_json(),
        "release": studies.release,
    }


def _status(context: CoordinatorContext) -> CoordinatorStatus:
    register = context.enrolment.register
    enrolments = context.enrolment.all()
    return CoordinatorStatus(
        federation=context.settings.federation,
        address=context.settings.address,
        authority=context.keys.transport.in_force(context.clock()).digest,
        nodes=context.sessions.online(),
        agreement=_agreement(context),
        not_renewed=context.documents.not_renewed,
        disputes=tuple(f"{dispute.country} {dispute.role}" for dispute in register.disputes()),
        waiting=tuple(party.country for party in enrolments if party.status == "pending"),
        running=tuple(run.run_id for run in context.runs.unfinished()),
        resumed=_resumed(context),
        superlink=context.superlink.address,
        log=LogSummary(origin=context.log.verifier.name, size=context.log.size()),
        observe=context.settings.observe,
    )


def _agreement(context: CoordinatorContext) -> SignatureTerm | AgreementFault | None:
    """Return how long the signatures hold, and who has a new key; None before an agreement."""
    if context.repository.read(FIRST_ROOT) is None:
        return None
    announced = tuple(sorted(context.repository.announced_keys()))
    try:
        left = context.view().signed_until - context.clock()
    except DocumentFault as fault:
        return AgreementFault(fault=fault.sentence, announced=announced)
    return SignatureTerm(days_left=left.days, announced=announced)


def _resumed(context: CoordinatorContext) -> dict[str, Resumptions]:
    runs = [run for run in context.runs.unfinished() if run.resumed is not None]
    return {run.run_id: resumed(run, context.clock()) for run in runs}
