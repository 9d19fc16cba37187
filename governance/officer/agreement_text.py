"""Describe an agreement in plain words, and list what a draft would change in it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from governance.cedar.texts import BASE_POLICY
from governance.documents.agreement import Agreement
from governance.documents.purposes import DATA_CATEGORIES, EHDS_CODES, PURPOSE_OF_USE
from governance.policy.facts import day
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, exact
from keys.composite import algorithms, read_identity
from keys.identity import VerifyKey, spoken
from protocols.tasks.schedule import INTEGER_SCALE, CohortThreshold


@dataclass(frozen=True)
class AgreementPart:
    """A heading and the named facts under it."""

    heading: str
    facts: Mapping[str, str]


def spoken_digest(digest: str) -> str:
    """Return the first 120 bits of `sha256:<hex>` in six groups, for reading out by voice."""
    return spoken(bytes.fromhex(digest.removeprefix("sha256:")))


def agreement_in_words(agreement: Agreement, country: str) -> list[AgreementPart]:
    """Return what an officer of `country` must know about the agreement before signing."""
    return [
        AgreementPart("The agreement", _names(agreement)),
        AgreementPart("Who agrees", _parties(agreement, country)),
        AgreementPart("Who coordinates", _coordinator(agreement)),
        AgreementPart("What for", _merged(_purposes(agreement))),
        AgreementPart("With which data, by which methods", _scope(agreement)),
        AgreementPart("What it may cost in privacy", _budgets(agreement)),
        AgreementPart("How results are protected", _protection(agreement)),
        AgreementPart("Who decides, and how long it lasts", _governance(agreement)),
    ]


def _names(agreement: Agreement) -> dict[str, str]:
    return {
        "name": f"{agreement.id}: {quoted(agreement.title)}",
        "federation": agreement.federation,
    }


def _parties(agreement: Agreement, country: str) -> dict[str, str]:
    return {
        party.country: f"{quoted(party.authority)}, key {_fingerprint(party.officer_key)}"
        + (" (yours)" if party.country == country else "")
        for party in sorted(agreement.parties, key=lambda party: party.country)
    }


def _coordinator(agreement: Agreement) -> dict[str, str]:
    coordinator = agreement.coordinator
    return {
        "name": quoted(coordinator.name),
        "key for messages": identity_in_words(coordinator.identity_key),
        "key for studies": _fingerprint(coordinator.document_key),
        "key for freshness": _fingerprint(coordinator.online_key),
        "key of its log": _fingerprint(coordinator.log_key)
        if coordinator.log_key
        else "none named",
    }


def _purposes(agreement: Agreement) -> Iterator[tuple[str, str]]:
    for allowed in agreement.purposes.allowed:
        uses = "; ".join(
            f"{PURPOSE_OF_USE[use].sentence} ({use})" for use in allowed.purpose_of_use
        )
        yield f"allowed {allowed.ehds}", f"{EHDS_CODES[allowed.ehds].sentence}, for {uses}"
    for rule in agreement.purposes.forbidden:
        yield f"forbidden {rule.code}", f"{quoted(rule.sentence)} ({quoted(rule.clause)})"
    yield "everything else", "forbidden"


def _merged(facts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the facts by name; a code that the agreement lists twice keeps both of its facts."""
    merged: dict[str, str] = {}
    for name, fact in facts:
        merged[name] = f"{merged[name]}; and {fact}" if name in merged else fact
    return merged


def _scope(agreement: Agreement) -> dict[str, str]:
    categories = (DATA_CATEGORIES[category].sentence for category in agreement.data_categories)
    return {"data": "; ".join(categories), "methods": ", ".join(agreement.task_kinds)}


def _budgets(agreement: Agreement) -> dict[str, str]:
    return {
        f"register {budget.register_name}": f"all studies together at most "
        f"ε = {exact(budget.epsilon)} at δ = {exact(budget.delta)} in every "
        f"{counted(budget.period_days, 'day')}, added up at the Rényi order {budget.order}"
        for budget in agreement.budget
    }


def _protection(agreement: Agreement) -> dict[str, str]:
    colluding = agreement.colluding
    honest = counted(agreement.honest, "honest country", "honest countries")
    others = f" together with any {colluding} of the countries" if colluding else ""
    return {
        "against": f"the coordinator{others} (c = {colluding})",
        "relying on": f"the noise of {honest} (h = {agreement.honest})",
        "no study with": "fewer than "
        f"{counted(agreement.smallest_countries, 'country', 'countries')}, or fewer than "
        f"{counted(agreement.smallest_cohort, 'patient')} in a country",
        "counting a cohort": _cohort_count(agreement),
        "a country's own sum": _own_sum(agreement),
        "messages signed with": agreement.signatures.in_words,
        "results kept": f"at most {counted(agreement.retention.results_days, 'day')}",
        "logs kept": counted(agreement.retention.logs_days, "day"),
    }


def _own_sum(agreement: Agreement) -> str:
    if not agreement.by_country:
        return "is never visible: only sums over countries are"
    return (
        "may be visible, with noise only, in a study that asks for it (by_country), if every "
        "country's permit allows it; every other study shows sums over countries only"
    )


def _cohort_count(agreement: Agreement) -> str:
    count = agreement.cohort_count
    if count is None:
        return "is part of the cost of each study"
    threshold = CohortThreshold(agreement.smallest_cohort, count.noise_std, INTEGER_SCALE)
    return (
        f"costs ε = {exact(count.epsilon)} at δ = {exact(count.delta)} beside the studies, once "
        f"for each register, population and version of the records; {threshold.sentence()}"
    )


def _governance(agreement: Agreement) -> dict[str, str]:
    needed, all_of_them = agreement.amendment_threshold, len(agreement.parties)
    return {
        "to sign and to change it": f"{needed} of the {all_of_them} countries",
        "each permit": "is your country's decision alone, and can be withdrawn at any time",
        "who may do what": _roles(agreement),
        "in force": f"from {day(agreement.effective)} to {day(agreement.sunset)}",
        "to be renewed by": day(agreement.renewal),
        "emergency clauses": _emergencies(agreement),
        "rules": "the standard policy"
        if agreement.policy == BASE_POLICY
        else "another policy than the standard one, below: ask a specialist to read it",
    }


def _roles(agreement: Agreement) -> str:
    roles = (f"{role.role}: {', '.join(role.may) or 'nothing'}" for role in agreement.roles)
    return "; ".join(roles) or "no roles are named"


def _emergencies(agreement: Agreement) -> str:
    clauses = (
        f"{clause.id}: relaxes {', '.join(clause.relaxes)} if "
        f"{counted(clause.concur, 'country concurs', 'countries concur')} "
        f"({quoted(clause.indicator)}), for at most {counted(clause.lapses_days, 'day')}"
        for clause in agreement.emergency
    )
    return "; ".join(clauses) or "none"


def changes(before: Agreement, after: Agreement) -> dict[str, str]:
    """Return what an amendment changes: each field's name, with its old and its new value."""
    old, new = _fields(before), _fields(after)
    return {
        name.replace("_", " "): f"now {_value(old.get(name))}; then {_value(new[name])}"
        for name in new
        if new[name] != old.get(name)
    }


def _fields(agreement: Agreement) -> dict[str, Any]:
    """Return every field. The dump leaves out a default, but an amendment can return to it."""
    left_out = {
        "signatures": agreement.signatures.value,
        "by_country": agreement.by_country,
        "cohort_count": None,
    }
    return left_out | agreement.model_dump(mode="json")


def _value(value: Any) -> str:
    """Return a value of a document in words: numbers exactly, text that is no name quoted."""
    if isinstance(value, Mapping):
        return f"({'; '.join(f'{name} {_value(inner)}' for name, inner in value.items())})"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return named(value)
    return "none" if value is None else exact(value)


def _fingerprint(text: str) -> str:
    return VerifyKey.from_text(text).fingerprint


def identity_in_words(text: str) -> str:
    """Return the fingerprint and the algorithms of a key for messages."""
    key = read_identity(text)
    return f"{key.fingerprint} ({algorithms(key)})"
