"""Show the officer's inbox, and explain a study."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from governance.budget.composition import schedule_rdp_micro
from governance.budget.ledger import LedgerView, Terms
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.officer.commands_sign import waiting_draft
from governance.officer.decision_rules import decision_on, is_permitted, permit_in_force
from governance.officer.delivery import read_delivered
from governance.officer.folder_recovery import seen_or_kept
from governance.officer.foreign_documents import sentence
from governance.officer.inbox import Item, Matter, Waiting, first_of_each, items, until
from governance.officer.key_rotation import waiting_key
from governance.officer.session import OfficerSession
from governance.officer.studies import find_study, kept_studies
from governance.policy.assessment import Assessment, ledger_terms
from governance.policy.explain import explain_study
from governance.policy.facts import share_of
from governance.runtime.wording import exact, rounded_up
from governance.trust.bundle import CountryDocuments
from governance.trust.ceremony import Draft
from governance.trust.view import TrustedView
from keys.certificates import peer_of


def show_inbox(session: OfficerSession) -> None:
    """List the items of the inbox, most urgent first, each with the command that deals with it."""
    draft, untrusted = _draft_to_sign(session)
    view = session.view_if_published()
    waiting = Waiting(
        country=session.country,
        now=session.now(),
        draft=draft,
        studies=tuple(view.studies.values()) if view else (),
        own=session.own(),
        unsent=_unsent(session, view),
        certificate_ends=_certificate_ends(session),
        new_key=waiting_key(session, view),
        signed_until=view.signed_until if view else None,
        foreign=_foreign(session, view),
    )
    listed = [*untrusted, *items(waiting)]
    _list(session, listed)
    session.terminal.answer([item.to_json() for item in listed])


def _foreign(session: OfficerSession, view: TrustedView | None) -> str:
    seen = seen_or_kept(session, view)
    return sentence(session.own(), seen) if seen else ""


def _list(session: OfficerSession, listed: list[Item]) -> None:
    if not listed:
        session.terminal.say("Nothing waits for you.")
    for number, item in enumerate(first_of_each(listed), start=1):
        session.terminal.say(f"{number}. {item.sentence}.")
        session.terminal.say(f"   To do: {item.command}")


def _draft_to_sign(session: OfficerSession) -> tuple[Draft | None, list[Item]]:
    """Return the draft that waits for this officer, or an item about one that is not trusted."""
    try:
        draft = waiting_draft(session)
    except DocumentFault as fault:
        sentence = f"The draft at the exchange cannot be trusted: {fault.why.rstrip('.')}"
        return None, [Item(Matter.DRAFT, sentence, "call the coordinator; do not sign it")]
    signed = draft is None or session.trust.has_signed(draft)
    return (None if signed else draft), []


def _unsent(session: OfficerSession, view: TrustedView | None) -> tuple[str, ...]:
    own, delivered = session.own(), read_delivered(session.home.handed_file)
    if own is None:
        return ()
    due = {
        "node": delivered.node if session.settings.node else own.version,
        "exchange": delivered.exchange if view else own.version,
    }
    return tuple(name for name, version in due.items() if version < own.version)


def _certificate_ends(session: OfficerSession) -> datetime:
    peer = peer_of(
        session.home.certificate_file.read_bytes(),
        authority_pem=session.home.authority_file.read_bytes(),
        now=session.clock(),
        revoked=(),
    )
    return peer.not_after


def show_study(session: OfficerSession, name: str) -> None:
    """Explain a study in plain words, and whether the country's rules and budget allow it."""
    view = session.view()
    study = find_study(view.studies.values(), name)
    ledger, own = session.ledger(study, view), session.own()
    assessment = session.weigh(study, view, ledger)
    permit = permit_in_force(study, view.agreement, own, session.now())
    session.terminal.labelled(explain_study(study, view.agreement, assessment, permit))
    session.terminal.heading("For your decision")
    session.terminal.facts(
        {
            **dict(_promises(session, study)),
            **dict(_budget(session, study, view.agreement, ledger)),
            "so far": decision_on(study.digest, own) or "you have not decided",
        }
    )
    session.terminal.say()
    session.terminal.say(_next(study, own, assessment, session.now()))
    session.terminal.answer(_as_json(study, own, assessment))


def _promises(session: OfficerSession, study: Study) -> Iterator[tuple[str, str]]:
    yield "proposed", f"{study.created:%Y-%m-%d}; decide by {until(study.expires, session.now())}"
    yield "your rules", _rules(session.own())
    if warning := session.records_warning():
        yield "your node", warning
    yield "for a patient", _for_a_patient(study)


def _for_a_patient(study: Study) -> str:
    """Return what ε and δ promise to one person (neighbours: one person added or removed)."""
    factor, chance = math.exp(study.privacy.epsilon), int(1 / Decimal(exact(study.privacy.delta)))
    return (
        "whether a patient takes part changes the probability of any result by at most a factor of "
        f"{rounded_up(factor)}; this may fail with probability 1 in {chance:,}"
    )


def _rules(own: CountryDocuments | None) -> str:
    if own is None or not own.policy:
        return "you have signed no national policy; the agreement's rules decide alone"
    return "your national policy was checked as well; it can only forbid"


def _budget(
    session: OfficerSession, study: Study, agreement: Agreement, ledger: LedgerView | None
) -> Iterator[tuple[str, str]]:
    """Yield the period's budget, what is spent of it, and what valid permits may spend."""
    whole = agreement.register_budget(study.population.register_name)
    if whole is None or session.now() < agreement.effective:
        return
    terms = ledger_terms(agreement, whole.register_name, session.now())
    allowed = (
        f"ε = {exact(whole.epsilon)} at δ = {exact(whole.delta)} for register {terms.register}"
    )
    start, end = f"{terms.period.start:%Y-%m-%d}", f"{terms.period.end:%Y-%m-%d}"
    yield "budget", f"{allowed} from {start} to {end}"
    yield "cost", f"{share_of(_cost(study, terms), terms.cap_micro)} of it"
    spent = share_of(ledger.spent_micro, terms.cap_micro) if ledger else ""
    unknown = "not known: your node cannot be asked now"
    if session.settings.node is None:
        unknown += " (give --node FOLDER once)"
    yield "spent", f"{spent} of it, says your node" if ledger else unknown
    permitted = sum(_cost(item, terms) for item in _permitted(session, terms.register))
    yield "permitted", f"up to {share_of(permitted, terms.cap_micro)} of it, by your valid permits"


def _permitted(session: OfficerSession, register: str) -> list[Study]:
    """Return the studies of the register for which this country has a valid permit."""
    own, now = session.own(), session.now()
    permits = own.permits if own else {}
    return [
        study
        for study in kept_studies(session.home.studies)
        if study.population.register_name == register
        and is_permitted(study.digest, own)
        and permits[study.digest].conditions.expires > now
    ]


def _cost(study: Study, terms: Terms) -> int:
    """Return the study's RDP at the terms' order, in micro-units."""
    return schedule_rdp_micro(study.mechanisms, study.accounting, terms.honest, terms.order)


def _next(study: Study, own: CountryDocuments | None, assessment: Assessment, now: datetime) -> str:
    if study.expires <= now:
        return "It has expired: there is nothing to decide."
    if is_permitted(study.digest, own):
        return f"To withdraw your permit: pratique-officer withdraw {study.id} --reason TEXT"
    refusal = f"pratique-officer refuse {study.id} --reason TEXT"
    if not assessment.allowed:
        return f"It cannot be approved. To refuse it: {refusal}"
    if decision_on(study.digest, own):
        return f"To approve it after all: pratique-officer approve {study.id} --reconsider"
    return f"Next: pratique-officer approve {study.id}, or {refusal}"


def _as_json(study: Study, own: CountryDocuments | None, assessment: Assessment) -> dict[str, Any]:
    charge = assessment.charge
    return {
        "id": study.id,
        "digest": study.digest,
        "allowed": assessment.allowed,
        "findings": [asdict(finding) for finding in assessment.findings],
        "charge": asdict(charge) if charge else None,
        "decision": decision_on(study.digest, own) or None,
        "study": study.model_dump(mode="json"),
    }
