"""Check whether an officer may permit or refuse a study, and build the permit or the refusal."""

from dataclasses import dataclass
from datetime import UTC, datetime, time

from pydantic import ValidationError

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit, PermitConditions, Withdrawal
from governance.documents.problems import first_problem
from governance.documents.purposes import nearest
from governance.documents.study import ReleaseKind, Study
from governance.officer.errors import OfficerFault
from governance.policy.assessment import Assessment
from governance.policy.by_country import OWN_SUM_VISIBLE
from governance.policy.minimum_countries import proposed_minimum
from governance.runtime.safe_text import named, quoted
from governance.trust.bundle import CountryDocuments


@dataclass(frozen=True)
class Conditions:
    """What the officer typed: conditions of a permit, and a sentence."""

    features: str | None = None
    epsilon_at_most: float | None = None
    expires: str | None = None
    sentence: str | None = None
    minimum_countries: int | None = None
    by_country: bool = False
    calibrate: bool = False

    @property
    def default_sentence(self) -> str:
        """The permit's sentence if the officer gave none; true whatever the conditions are."""
        limits = (self.features, self.epsilon_at_most, self.expires, self.minimum_countries)
        unlimited = all(limit is None for limit in limits)
        return "Approved." if unlimited else "Approved with conditions."


def require_open(study: Study, country: str, now: datetime) -> None:
    """Raise OfficerFault if the study does not ask this country, or has expired."""
    if country not in study.countries:
        raise OfficerFault(
            f"The study {study.id} does not ask {country}",
            why=f"it asks {', '.join(study.countries)}",
            fix="there is nothing for you to decide",
        )
    if study.expires <= now:
        raise OfficerFault(
            f"The study {study.id} expired on {study.expires:%Y-%m-%d %H:%M} UTC",
            why="nothing can be computed for it any more",
            fix="there is nothing for you to decide; a new proposal would be a new study",
        )


def require_undecided(study: Study, own: CountryDocuments | None, *, verb: str) -> None:
    """Raise OfficerFault if the country has decided on the study already."""
    decision = decision_on(study.digest, own)
    if decision:
        fixes = {
            "approve": "add --reconsider to replace that decision",
            "refuse": "use `pratique-officer withdraw` to withdraw a permit",
        }
        raise OfficerFault(f"You have decided on {study.id} already", why=decision, fix=fixes[verb])


def require_permit(study: Study, own: CountryDocuments | None) -> None:
    """Raise OfficerFault unless the country has permitted the study."""
    if not is_permitted(study.digest, own):
        raise OfficerFault(
            f"There is no permit for {study.id} to withdraw",
            why=decision_on(study.digest, own) or "you have not approved it",
            fix="use `pratique-officer refuse` for a study that you have not decided on",
        )


def is_permitted(study: str, own: CountryDocuments | None) -> bool:
    """Whether the study with this digest has a permit that was not withdrawn, expired or not."""
    return own is not None and study in own.permits and study not in own.withdrawals


def permit_in_force(
    study: Study, agreement: Agreement, own: CountryDocuments | None, now: datetime
) -> Permit | None:
    """Return the permit that a node still follows: under this agreement, neither expired nor gone.

    None as well if it was withdrawn.
    """
    permit = own.permit(study.digest) if own else None
    if permit is None or not is_permitted(study.digest, own):
        return None
    counts = permit.agreement == agreement.digest and permit.conditions.expires > now
    return permit if counts else None


def decision_on(study: str, own: CountryDocuments | None) -> str:
    """Return in words the decision on the study with this digest; empty if there is none."""
    if own is None:
        return ""
    withdrawal, permit = own.withdrawal(study), own.permit(study)
    approved = f"you approved it on {permit.issued:%Y-%m-%d}" if permit else ""
    if withdrawal:
        ended = f"{approved} and withdrew the permit on" if permit else "you refused it on"
        return f"{ended} {withdrawal.issued:%Y-%m-%d}: {quoted(withdrawal.reason)}"
    return f"{approved}, until {permit.conditions.expires:%Y-%m-%d %H:%M} UTC" if permit else ""


def require_allowed(study: Study, assessment: Assessment) -> None:
    """Raise OfficerFault with every clause that forbids the study."""
    if assessment.allowed:
        return
    clauses = [f"{finding.sentence} ({named(finding.clause)})" for finding in assessment.findings]
    raise OfficerFault(
        f"You cannot approve {study.id}: your rules or the agreement forbid it",
        why=" ".join(clauses),
        fix=f"refuse it with a reason, or {assessment.findings[0].fix}",
    )


def require_consent(study: Study, *, given: bool) -> None:
    """Raise OfficerFault if the officer has not allowed what `by_country` shows, or need not."""
    if study.task.by_country and not given:
        raise OfficerFault(
            f"The study {study.id} needs another permission from you: {OWN_SUM_VISIBLE}",
            why="it asks for a part of each sum by country (`by_country`), and every permit must "
            "allow that",
            fix=f"approve it with --by-country, or refuse it: pratique-officer refuse {study.id} "
            "--reason TEXT; nothing was signed",
        )
    if given and not study.task.by_country:
        raise OfficerFault(
            f"The study {study.id} shows no country's own sum",
            why="the option --by-country is for studies that do",
            fix="approve it without --by-country; nothing was signed",
        )


def require_model(study: Study) -> None:
    """Raise OfficerFault if the study releases no model that a node could calibrate."""
    if study.release.what is not ReleaseKind.MODEL:
        raise OfficerFault(
            f"The study {study.id} releases no model",
            why="the option --calibrate allows your node to calibrate a released model",
            fix="approve it without --calibrate; nothing was signed",
        )


def build_permit(
    study: Study,
    agreement: Agreement,
    country: str,
    authority: str,
    conditions: Conditions,
    now: datetime,
    *,
    former: Permit | None = None,
) -> Permit:
    """Return the permit; its number follows that of the `former` one.

    Raises OfficerFault if a condition does not fit the study.
    """
    try:
        return Permit(
            country=country,
            study=study.digest,
            agreement=study.agreement,
            conditions=PermitConditions(
                features=_features(study, conditions.features),
                epsilon_at_most=conditions.epsilon_at_most,
                expires=_expires(study, conditions.expires, now),
                minimum_countries=_minimum(study, agreement, conditions.minimum_countries),
                by_country=conditions.by_country,
                calibrate=conditions.calibrate,
            ),
            approved_by=authority,
            sentence=conditions.sentence or conditions.default_sentence,
            issued=now,
            earlier=former.number if former else None,
        )
    except ValidationError as error:
        raise _unusable(error) from None


def build_withdrawal(study: str, country: str, reason: str, now: datetime) -> Withdrawal:
    """Return the refusal of the study with this digest. Raises OfficerFault for a bad reason."""
    try:
        return Withdrawal(country=country, study=study, reason=reason, issued=now)
    except ValidationError as error:
        raise _unusable(error) from None


def _unusable(error: ValidationError) -> OfficerFault:
    problem = error.errors()[0]
    name = str(problem["loc"][-1]).replace("_", "-")
    return OfficerFault(
        f"The option --{name} cannot be used",
        why=first_problem(Permit, error),
        fix="correct it; nothing was signed",
    )


def _features(study: Study, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    declared = {feature.name: feature for feature in study.features}
    named = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in named:
        if name not in declared:
            raise OfficerFault(
                f"The study {study.id} has no feature {name!r}{nearest(name, declared)}",
                why=f"it declares {', '.join(declared)}",
                fix="name features of the study, separated by commas; nothing was signed",
            )
    return named


def _minimum(study: Study, agreement: Agreement, number: int | None) -> int:
    """Return the fewest countries of a run and a sum: what `show` says, or more."""
    least, most = proposed_minimum(study, agreement), len(study.countries)
    if number is not None and not least <= number <= most:
        raise OfficerFault(
            f"The option --minimum-countries cannot be {number}",
            why=f"a sum of {study.id} needs at least {least} countries, and it asks {most}",
            fix=f"give a number from {least} to {most}, or refuse the study; nothing was signed",
        )
    return least if number is None else number


def _expires(study: Study, text: str | None, now: datetime) -> datetime:
    """Return the permit's end, at most the study's. A date without a time means its last second."""
    if text is None:
        return study.expires
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise OfficerFault(
            f"The option --expires cannot be {text!r}",
            why="it is not a date",
            fix="write it such as 2027-03-31; nothing was signed",
        ) from None
    if "T" not in text and " " not in text:
        end = datetime.combine(end.date(), time(23, 59, 59))
    end = end.replace(tzinfo=end.tzinfo or UTC, microsecond=0)
    if end <= now:
        raise OfficerFault(
            "The date of --expires is in the past",
            why=f"it is {now:%Y-%m-%d %H:%M} UTC now",
            fix="give a later date, or refuse the study; nothing was signed",
        )
    return min(end, study.expires)
