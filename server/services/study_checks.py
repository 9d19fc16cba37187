"""Studies from their draft to their launch: complete, check, propose, list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance.budget.accounting import calibrate, epsilon
from governance.cedar.engine import Act
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.policy.assessment import Assessment, assess
from governance.trust.view import TrustedView
from protocols.errors import ProtocolFault
from server.errors import OperationFault


@dataclass(frozen=True)
class CountryCheck:
    """What one country's rules say to a study, and what it would cost that country's ledger."""

    country: str
    assessment: Assessment
    answer: str
    """`permitted`, `withdrawn`, or `no answer yet`."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        charge = self.assessment.charge
        return {
            "country": self.country,
            "allowed": self.assessment.allowed,
            "answer": self.answer,
            "clauses": list(self.assessment.clauses),
            "findings": [
                {"code": f.code, "clause": f.clause, "sentence": f.sentence, "fix": f.fix}
                for f in self.assessment.findings
            ],
            "charge": charge
            and {
                "register": charge.register,
                "share_of_period": charge.micro / charge.cap_micro,
                "rdp_micro": charge.micro,
                "order": charge.order,
                "epsilon": charge.epsilon,
                "delta": charge.delta,
            },
        }


def complete(study: Study, agreement: Agreement) -> Study:
    """Return the study with the least noise that keeps its promise of ε and δ.

    A study that brings its own schedule keeps it. Raises ProtocolFault where task and features
    do not fit or a sum may not fit its words, OperationFault where the schedule is weaker than the
    promise.
    """
    study.task.check(study.features)
    completed = _priced(study, agreement)
    for mechanism in (one for one in completed.mechanisms if one.leaves):
        mechanism.lane_bits(len(study.countries))
    return completed


def _priced(study: Study, agreement: Agreement) -> Study:
    if not study.mechanisms:
        schedule = calibrate(
            study.schedule(),
            study.task.shares(),
            agreement.honest,
            study.privacy.epsilon,
            study.privacy.delta,
        )
        return study.with_mechanisms(schedule)
    spent = epsilon(study.mechanisms, agreement.honest, study.privacy.delta)
    if spent > study.privacy.epsilon:
        raise OperationFault(
            f"The study's schedule costs ε={spent:.4g}, more than its ε={study.privacy.epsilon}",
            why=f"at δ={study.privacy.delta:g}, evaluation included",
            fix="leave `mechanisms` out and let `study check` choose the noise",
        )
    return study


def check(
    study: Study, view: TrustedView, *, act: Act, now: datetime, tasks: Sequence[str]
) -> tuple[CountryCheck, ...]:
    """Return what every country of the study would answer today."""
    return tuple(_check_one(study, view, country, act, now, tasks) for country in study.countries)


def _check_one(
    study: Study, view: TrustedView, country: str, act: Act, now: datetime, tasks: Sequence[str]
) -> CountryCheck:
    said = view.country(country)
    permit = said.permit(study.digest) if said else None
    withdrawal = said.withdrawal(study.digest) if said else None
    assessment = assess(
        study,
        view.agreement,
        country=country,
        now=now,
        act=act,
        permit=permit,
        withdrawal=withdrawal,
        national=said.policy if said else None,
        installed_tasks=tasks,
    )
    answer = "withdrawn" if withdrawal else "permitted" if permit else "no answer yet"
    return CountryCheck(country, assessment, answer)


def signatures_in_words(view: TrustedView, countries: Sequence[str]) -> str:
    """Return with what a run's messages are signed, and which nodes cannot do it yet."""
    said = view.agreement.signatures.in_words
    if not (lacking := view.ed25519_only(countries)):
        return said
    return f"{said}; the node of {', '.join(lacking)} cannot yet: `pratique-node rotate-keys` there"


def find(view: TrustedView, name: str) -> Study:
    """Return the published study of this id or digest. Raises OperationFault."""
    found = [s for s in view.studies.values() if name in (s.id, s.digest)]
    if not found:
        known = ", ".join(sorted(study.id for study in view.studies.values())) or "none"
        raise OperationFault(
            f"There is no study {name!r}", why=f"published: {known}", fix="see `study list`"
        )
    return found[0]


def require_launchable(checks: Sequence[CountryCheck]) -> None:
    """Raise OperationFault naming each country that would refuse, and why."""
    if any(not one.assessment.allowed for one in checks):
        raise OperationFault(
            "The study cannot be launched yet",
            why=_reasons(checks),
            fix="wait for the permits, or ask the officers named (`study check` shows the clauses)",
        )


def require_proposable(checks: Sequence[CountryCheck]) -> None:
    """Raise OperationFault where no country at all could permit the study."""
    if not any(one.assessment.allowed for one in checks):
        raise OperationFault(
            "The study was not proposed: no country could permit it",
            why=_reasons(checks),
            fix="`study check` shows every clause; change the study or drop it",
        )


def _reasons(checks: Sequence[CountryCheck]) -> str:
    """Return each first reason once, behind the countries that give it."""
    by_reason: dict[str, list[str]] = {}
    for one in checks:
        if not one.assessment.allowed:
            by_reason.setdefault(_first_reason(one.assessment), []).append(one.country)
    return "; ".join(f"{', '.join(who)}: {reason}" for reason, who in by_reason.items())


def _first_reason(assessment: Assessment) -> str:
    return assessment.findings[0].sentence.rstrip(".") if assessment.findings else "refused"


def fill_agreement(
    values: Mapping[str, Any], officers: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, Any]:
    """Return an agreement's fields with the officers' and the coordinator's keys filled in.

    `officers` maps country to admitted document key. A key that the text already names is left
    as it is. Raises ProtocolFault where a party has no admitted officer.
    """
    filled = dict(values)
    parties = filled.get("parties")
    if isinstance(parties, list):
        filled["parties"] = [_with_key(party, officers) for party in parties]
    if isinstance(filled.get("coordinator"), dict):
        filled["coordinator"] = {**keys, **filled["coordinator"]}
    return filled


def _with_key(party: Any, officers: Mapping[str, str]) -> Any:
    if not isinstance(party, dict) or "officer_key" in party:
        return party
    country = str(party.get("country"))
    if country not in officers:
        raise ProtocolFault(
            f"{country} has no admitted officer",
            why="its document key is taken from its officer's enrolment",
            fix="invite and admit its officer first, or write officer_key into the file",
        )
    return {**party, "officer_key": officers[country]}
