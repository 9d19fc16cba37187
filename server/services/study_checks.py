"""Checks of a study before its launch: complete the draft, and ask each country's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance.budget.composition import calibrate_schedule, schedule_epsilon
from governance.cedar.engine import Act
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.policy.assessment import Assessment, assess
from governance.runtime.wording import exact, rounded_up, without_country
from governance.trust.view import TrustedView
from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import Mechanism
from server.answers import ChargeEstimate, CohortCharge, CountryAnswer, FindingText
from server.errors import CoordinatorFault


@dataclass(frozen=True)
class CountryCheck:
    """The decision of one country's rules about a study, and its cost to that country's ledger."""

    country: str
    assessment: Assessment
    decision: str
    """Of its officer: `permitted`, `withdrawn`, or `no answer yet`."""
    minimum_countries: int
    """The fewest countries of a run that its permit demands; 0 if it demands none."""

    def to_reply(self) -> CountryAnswer:
        """Return the check as the daemon's reply shows it."""
        return CountryAnswer(
            country=self.country,
            allowed=self.assessment.allowed,
            answer=self.decision,
            minimum_countries=self.minimum_countries or None,
            clauses=tuple(self.assessment.clauses),
            findings=tuple(
                FindingText(
                    code=finding.code,
                    clause=finding.clause,
                    sentence=finding.sentence,
                    fix=finding.fix,
                )
                for finding in self.assessment.findings
            ),
            charge=_charge(self.assessment),
        )


def _charge(assessment: Assessment) -> ChargeEstimate | None:
    charge = assessment.charge
    if charge is None:
        return None
    return ChargeEstimate(
        register=charge.register,
        share_of_period=charge.micro / charge.cap_micro,
        rdp_micro=charge.micro,
        order=charge.order,
        epsilon=charge.epsilon,
        delta=charge.delta,
    )


def cohort_charge(agreement: Agreement) -> CohortCharge | None:
    """Return what the agreement states that the count of a cohort costs beside a study."""
    count = agreement.cohort_count
    return None if count is None else CohortCharge(epsilon=count.epsilon, delta=count.delta)


def complete(study: Study, agreement: Agreement) -> Study:
    """Return the study with the least noise that keeps its promise of ε and δ.

    A study with its own schedule keeps that schedule. Raises ProtocolFault if the features do not
    fit the task, or if a sum could overflow its words; CoordinatorFault if the schedule costs more
    than the promised ε.
    """
    study.task.check(study.features)
    completed = _with_schedule(study, agreement)
    for mechanism in completed.mechanisms:
        if mechanism.leaves_country:
            mechanism.require_fitting_lane(len(study.countries))
    return completed


def _with_schedule(study: Study, agreement: Agreement) -> Study:
    if not study.mechanisms:
        return study.with_mechanisms(_calibrated(study, agreement))
    spent = schedule_epsilon(
        study.releases_of(agreement), study.accounting, agreement.honest, study.privacy.delta
    )
    if spent > study.privacy.epsilon:
        raise CoordinatorFault(
            f"The study's schedule costs ε = {rounded_up(spent)}, more than its "
            f"ε = {exact(study.privacy.epsilon)}",
            why=f"this is the cost of all its releases at δ = {exact(study.privacy.delta)}",
            fix="remove `mechanisms` from the study; `study check` then chooses the noise",
        )
    return study


def _calibrated(study: Study, agreement: Agreement) -> tuple[Mechanism, ...]:
    """Return the schedule with its noise; the first release is the count of the cohort."""
    templates, shares = study.schedule(), study.task.cost_fractions()
    terms = study.accounting, agreement.honest, study.privacy.epsilon, study.privacy.delta
    if agreement.cohort_count is None:
        return calibrate_schedule(templates, shares, *terms)
    count = templates[0].model_copy(update={"noise_std": agreement.cohort_count.noise_std})
    return count, *calibrate_schedule(templates[1:], shares[1:], *terms)


def check(
    study: Study, view: TrustedView, *, act: Act, now: datetime, tasks: Sequence[str]
) -> tuple[CountryCheck, ...]:
    """Return what the rules of every country of the study would answer now."""
    return tuple(
        _check_country(study, view, country, act, now, tasks) for country in study.countries
    )


def _check_country(
    study: Study, view: TrustedView, country: str, act: Act, now: datetime, tasks: Sequence[str]
) -> CountryCheck:
    documents = view.country(country)
    documents = view.country(country)
    permit = documents.permit(study.digest) if documents else None
    withdrawal = documents.withdrawal(study.digest) if documents else None
    assessment = assess(
        study,
        view.agreement,
        country=country,
        now=now,
        act=act,
        permit=permit,
        withdrawal=withdrawal,
        national=documents.policy if documents else None,
        installed_tasks=tasks,
    )
    decision = "withdrawn" if withdrawal else "permitted" if permit else "no answer yet"
    return CountryCheck(country, assessment, decision, permit.minimum_countries if permit else 0)


def signatures_in_words(view: TrustedView, countries: Sequence[str]) -> str:
    """Return how a run's messages are signed, and which nodes cannot yet sign in this way."""
    signatures = view.agreement.signatures.in_words
    if not (lacking := view.ed25519_only(countries)):
        return signatures
    one = len(lacking) == 1
    node, operator = ("the node", "its operator") if one else ("the nodes", "their operators")
    return (
        f"{signatures}; {node} of {', '.join(lacking)} cannot yet; "
        f"{operator} must run `pratique-node rotate-keys`"
    )


def find(view: TrustedView, name: str) -> Study:
    """Return the published study with this id or digest. Raises CoordinatorFault."""
    studies = [study for study in view.studies.values() if name in (study.id, study.digest)]
    if not studies:
        known = ", ".join(sorted(study.id for study in view.studies.values()))
        raise CoordinatorFault(
            f"There is no study {name!r}",
            why=f"the published studies are: {known}" if known else "no study is published",
            fix="see `study list`" if known else "propose it with `study propose FILE`",
        )
    return studies[0]


def require_launchable(checks: Sequence[CountryCheck]) -> None:
    """Raise CoordinatorFault if a country would refuse; name each such country and why."""
    if any(not checked.assessment.allowed for checked in checks):
        raise CoordinatorFault(
            "The study cannot be launched yet",
            why=_reasons(checks),
            fix="wait for the permits, or ask the officers of these countries; `study check` shows "
            "the clauses",
        )


def require_enough_countries(study: Study, checks: Sequence[CountryCheck]) -> None:
    """Raise CoordinatorFault if a permit demands more countries than the study asks."""
    asked = len(study.countries)
    if more := {c.country: c.minimum_countries for c in checks if c.minimum_countries > asked}:
        listed = ", ".join(f"{country} at least {number}" for country, number in more.items())
        raise CoordinatorFault(
            f"The study {study.id} asks {asked} countries, fewer than its permits demand",
            why=f"demanded are: {listed}; their nodes would refuse every run",
            fix="propose a study that asks more countries, under a new id",
        )


def require_proposable(checks: Sequence[CountryCheck]) -> None:
    """Raise CoordinatorFault if not one country could permit the study."""
    if not any(checked.assessment.allowed for checked in checks):
        raise CoordinatorFault(
            "The study was not proposed: no country could permit it",
            why=_reasons(checks),
            fix="`study check` shows every clause; change the study or abandon it",
        )


def _reasons(checks: Sequence[CountryCheck]) -> str:
    """Return the countries that refuse, grouped by the first reason that each gives."""
    by_reason: dict[str, list[str]] = {}
    for checked in checks:
        if not checked.assessment.allowed:
            by_reason.setdefault(_first_reason(checked.assessment), []).append(checked.country)
    return "; ".join(f"{', '.join(countries)}: {reason}" for reason, countries in by_reason.items())


def _first_reason(assessment: Assessment) -> str:
    """Return the first reason, without the country at its beginning, which stands before it."""
    if not assessment.findings:
        return "refused"
    return without_country(assessment.findings[0].sentence, assessment.country).rstrip(".")


def fill_in_keys(
    values: Mapping[str, Any], officer_keys: Mapping[str, str], coordinator_keys: Mapping[str, str]
) -> dict[str, Any]:
    """Return an agreement's fields with the officers' and the coordinator's keys filled in.

    `officer_keys` maps each country to its document key, `coordinator_keys` each field of the
    coordinator's entry to its key. A key that the text already names is not changed. Raises
    ProtocolFault if a party has no admitted officer.
    """
    filled = dict(values)
    parties = filled.get("parties")
    if isinstance(parties, list):
        filled["parties"] = [_with_key(party, officer_keys) for party in parties]
    if isinstance(filled.get("coordinator"), dict):
        filled["coordinator"] = {**coordinator_keys, **filled["coordinator"]}
    return filled


def _with_key(party: Any, officer_keys: Mapping[str, str]) -> Any:
    if not isinstance(party, dict) or "officer_key" in party:
        return party
    country = str(party.get("country"))
    if country not in officer_keys:
        raise ProtocolFault(
            f"{country} has no admitted officer",
            why="its document key comes from its officer's enrolment",
            fix="invite and admit its officer first, or write `officer_key` into the file",
        )
    return {**party, "officer_key": officer_keys[country]}
