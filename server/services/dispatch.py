"""Which request of the local desk is answered by what."""

from collections.abc import Callable, Mapping
from typing import Any

from governance.audit.exported import exported
from governance.errors import DocumentFault
from governance.runtime.local_rpc import Handler
from server.errors import OperationFault
from server.published_view import FIRST_ROOT
from server.runs.store import resumed
from server.services.agreements import Agreements
from server.services.context import CoordinatorContext
from server.services.parties import Parties
from server.services.studies import Studies


def request_handler(context: CoordinatorContext) -> Handler:
    """Return the handler of all requests."""
    methods = _methods(context)

    def answer(method: str, params: Mapping[str, Any]) -> Any:
        if method not in methods:
            raise OperationFault(
                f"The coordinator does not know the request {method!r}",
                fix="use the command of the same version as the daemon",
            )
        return methods[method](**params)

    return answer


def _methods(context: CoordinatorContext) -> dict[str, Callable[..., Any]]:
    parties, agreements, studies = Parties(context), Agreements(context), Studies(context)
    return {
        "status": lambda: _status(context),
        "log_entries": lambda: exported(context.log),
        "invite": parties.invite,
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
        "news": lambda count, wait: context.sessions.news(count, wait).to_json(),
        "release": studies.release,
    }


def _status(context: CoordinatorContext) -> dict[str, Any]:
    return {
        "federation": context.settings.federation,
        "address": context.settings.address,
        "authority": context.keys.transport.in_force(context.clock()).digest,
        "nodes": context.sessions.online(),
        "agreement": _agreement(context),
        "disputes": [f"{one.country} {one.role}" for one in context.enrolment.register.disputes()],
        "waiting": [one.country for one in context.enrolment.all() if one.status == "pending"],
        "running": [row.run_id for row in context.runs.unfinished()],
        "resumed": _resumed(context),
        "superlink": context.superlink.address,
        "log": {"origin": context.log.verifier.name, "size": context.log.size()},
        "observe": context.settings.observe,
    }


def _agreement(context: CoordinatorContext) -> dict[str, Any] | None:
    """Return until when the countries' signatures hold, and who has a new key; None before any."""
    if context.repository.read(FIRST_ROOT) is None:
        return None
    announced = sorted(context.repository.announced())
    try:
        left = context.view().signed_until - context.clock()
    except DocumentFault as fault:
        return {"fault": f"{fault.what}; {fault.why}", "announced": announced}
    return {"days_left": left.days, "announced": announced}


def _resumed(context: CoordinatorContext) -> dict[str, Any]:
    rows = [row for row in context.runs.unfinished() if row.resumed is not None]
    return {row.run_id: resumed(row, context.clock()) for row in rows}
