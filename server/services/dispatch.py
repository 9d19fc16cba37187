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


def request_handler(office: CoordinatorContext) -> Handler:
    """Return the handler of all requests."""
    methods = _methods(office)

    def answer(method: str, params: Mapping[str, Any]) -> Any:
        if method not in methods:
            raise OperationFault(
                f"The coordinator does not know the request {method!r}",
                fix="use the command of the same version as the daemon",
            )
        return methods[method](**params)

    return answer


def _methods(office: CoordinatorContext) -> dict[str, Callable[..., Any]]:
    parties, agreements, studies = Parties(office), Agreements(office), Studies(office)
    return {
        "status": lambda: _status(office),
        "log_entries": lambda: exported(office.log),
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
        "announce": office.seats.announce,
        "news": lambda count, wait: office.seats.news(count, wait).to_json(),
        "release": studies.release,
    }


def _status(office: CoordinatorContext) -> dict[str, Any]:
    return {
        "federation": office.settings.federation,
        "address": office.settings.address,
        "authority": office.keys.transport.in_force(office.clock()).digest,
        "nodes": office.seats.online(),
        "agreement": _agreement(office),
        "disputes": [f"{one.country} {one.role}" for one in office.enrolment.register.disputes()],
        "waiting": [one.country for one in office.enrolment.all() if one.status == "pending"],
        "running": [row.run_id for row in office.runs.unfinished()],
        "resumed": _resumed(office),
        "superlink": office.superlink.address,
        "log": {"origin": office.log.verifier.name, "size": office.log.size()},
        "observe": office.settings.observe,
    }


def _agreement(office: CoordinatorContext) -> dict[str, Any] | None:
    """Return until when the countries' signatures hold, and who has a new key; None before any."""
    if office.repository.read(FIRST_ROOT) is None:
        return None
    announced = sorted(office.repository.announced())
    try:
        left = office.view().signed_until - office.clock()
    except DocumentFault as fault:
        return {"fault": f"{fault.what}; {fault.why}", "announced": announced}
    return {"days_left": left.days, "announced": announced}


def _resumed(office: CoordinatorContext) -> dict[str, Any]:
    rows = [row for row in office.runs.unfinished() if row.resumed is not None]
    return {row.run_id: resumed(row, office.clock()) for row in rows}
