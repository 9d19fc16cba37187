"""Finds what a request cites: the study, its permit, the keys of the coordinator and the countries.

What is not there, or does not count yet, is a Refusal.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from client.documents.store import CurrentDocuments
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.errors import DocumentFault
from keys.composite import PublicIdentity, read_identity
from keys.errors import PratiqueError
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import Request

BY_COUNTRY = "permit/by-country"


@contextmanager
def refusing(code: ReasonCode) -> Iterator[None]:
    """Turn faults into refusals with this reason code and the same sentences."""
    try:
        yield
    except Refusal:
        raise
    except PratiqueError as fault:
        raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from fault


def cited_study(request: Request, documents: CurrentDocuments) -> Study:
    """Return the study that a request names. Raises Refusal if it is not published."""
    agreement = documents.view.agreement
    if request.body.agreement != agreement.digest:
        raise Refusal(
            ReasonCode.STALE,
            "The request names another agreement than the one in force on this node",
            why=f"the agreement in force is {agreement.digest}",
            fix="do nothing here; the coordinator must start a new run",
        )
    try:
        study = documents.view.study(request.body.study)
    except DocumentFault as fault:
        raise Refusal(ReasonCode.UNKNOWN_STUDY, fault.what, why=fault.why, fix=fault.fix) from None
    if study is None:
        raise Refusal(
            ReasonCode.UNKNOWN_STUDY,
            "The request names a study that is not among the published documents",
            why="a study is identified by the digest that the coordinator signed and published",
            fix="ask the coordinator to propose the study, and wait for the next document sync",
        )
    return study


def cited_permit(documents: CurrentDocuments, study: Study) -> Permit:
    """Return the country's permit of a study. Raises Refusal if there is none, or not yet."""
    permit = documents.own.permit(study.digest)
    if permit is None:
        raise Refusal(ReasonCode.NO_PERMIT, "There is no permit for this study")
    if permit.issued > documents.view.now:
        raise Refusal(
            ReasonCode.NO_PERMIT,
            "The permit for this study has an issue time in the future",
            why=f"it was issued at {permit.issued:%Y-%m-%d %H:%M:%S} UTC by the officer's clock; "
            "the node could not distinguish a run charged before then from one without a permit",
            fix="correct both clocks; the permit counts when this node's clock reaches that time",
            clause="node/permit-from-the-future",
        )
    return permit


def require_roster(roster: tuple[str, ...], study: Study) -> None:
    """Raise Refusal unless all countries of a run are countries of its study."""
    if not set(roster) <= set(study.countries):
        raise Refusal(
            ReasonCode.ROSTER,
            "The run names countries that the study does not name",
            why=f"the study names {', '.join(study.countries)}",
        )


def require_every_permit(
    documents: CurrentDocuments, study: Study, roster: tuple[str, ...]
) -> None:
    """Raise Refusal unless every permit allows that each country's own sum is visible.

    A study with `by_country` needs that of each country of a run, and no other country of the study
    may have permitted it without. A country whose documents cannot be read may have: so it stops
    the run too, or a coordinator that withholds them could undo a refusal.
    """
    if not study.task.by_country:
        return
    view = documents.view
    permits = {country: view.permit(country, study.digest) for country in study.countries}
    lacking = [
        country
        for country, permit in permits.items()
        if country in view.absent
        or (country in roster if permit is None else not permit.conditions.by_country)
    ]
    if lacking:
        raise Refusal(
            ReasonCode.NO_PERMIT,
            f"{', '.join(lacking)} has not allowed that each country's own sum is visible",
            why="a study with `by_country` shows it, with noise only, and every permit must say so",
            fix="do nothing here; the coordinator must get the permits first",
            clause=BY_COUNTRY,
        )


def coordinator_keys(documents: CurrentDocuments) -> PublicIdentity:
    """Return the keys that the agreement states for the coordinator."""
    agreement = documents.view.agreement
    return agreement.signatures.public(read_identity(agreement.coordinator.identity_key))


def peer_keys(documents: CurrentDocuments, roster: tuple[str, ...]) -> dict[str, str]:
    """Return each country's node key, as text. Raises Refusal if one has none that counts."""
    view = documents.view
    keys = {country: view.node_keys(country) for country in roster}
    unknown = sorted(country for country, node in keys.items() if node is None)
    if unknown:
        why = "; ".join(view.absent.get(country, f"{country} has none") for country in unknown)
        raise Refusal(
            ReasonCode.ROSTER,
            f"The documents contain no node keys of {', '.join(unknown)}",
            why=why,
            fix="ask that country's officer to sign the node's keys, or to renew the documents",
        )
    with refusing(ReasonCode.ROSTER):
        view.require_signature_algorithms(roster)
    return {country: node.identity_key for country, node in keys.items() if node}
