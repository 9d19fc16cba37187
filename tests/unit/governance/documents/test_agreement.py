from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from governance.documents.agreement import Agreement
from tests.support.documents import COUNTRIES, agreement, agreement_fields, raw_key


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        agreement(**changes)
    return " ".join(str(error["msg"]) for error in caught.value.errors())


def budget(**changes: Any) -> list[dict[str, Any]]:
    return [agreement_fields()["budget"][0] | changes]


def parties(**changes: Any) -> list[dict[str, Any]]:
    first, *others = agreement_fields()["parties"]
    return [first | changes, *others]


def test_the_example_is_valid() -> None:
    agreed = agreement()
    assert agreed.countries == COUNTRIES
    assert agreed.party("DK") is not None
    assert agreed.party("SE") is None
    assert agreed.register_budget("patients") is agreed.budget[0]
    assert agreed.register_budget("others") is None


def test_fewer_than_two_honest_countries_are_refused() -> None:
    assert "greater than or equal to 2" in refused(honest=1)


def test_smallest_countries_covers_honest_and_colluding() -> None:
    assert "at least honest + colluding, 3" in refused(smallest_countries=2)
    assert "at most the number of parties, 4" in refused(smallest_countries=5)
    assert "at least honest + colluding, 5" in refused(honest=4, smallest_countries=4)


@pytest.mark.parametrize(("threshold", "sound"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 0)])
def test_thresholds_exceed_half_of_parties_and_colluding(threshold: int, sound: int) -> None:
    if sound:
        assert agreement(amendment_threshold=threshold)
    else:
        assert "from 3 to 4: more than (n + c)/2" in refused(amendment_threshold=threshold)


@given(n=st.integers(3, 9), c=st.integers(0, 4), m=st.integers(1, 9))
def test_two_groups_that_reach_the_threshold_share_an_honest_country(
    n: int, c: int, m: int
) -> None:
    countries = ("DK", "EE", "FI", "IE", "NL", "NO", "PT", "SE", "SI")[:n]
    h = 2
    if h + c > n:
        return
    fields = agreement_fields(
        countries, colluding=c, honest=h, smallest_countries=h + c, amendment_threshold=m
    )
    try:
        Agreement.model_validate(fields)
    except ValidationError:
        assert m > n or 2 * m - n <= c
    else:
        assert 2 * m - n > c


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"order": 1}, "greater than or equal to 2"),
        ({"epsilon": 0.0}, "greater than 0"),
        ({"epsilon": -1.0}, "greater than 0"),
        ({"epsilon": float("nan")}, "finite"),
        ({"delta": 0.0}, "greater than 0"),
        ({"delta": 0.5}, "less than 0.01"),
        ({"epsilon": 0.01, "delta": 1e-9, "order": 2}, "order"),
        ({"period_days": 0}, "greater than or equal to 1"),
        ({"register": "All Patients"}, "pattern"),
    ],
)
def test_invalid_budgets_are_refused(change: dict[str, Any], expected: str) -> None:
    assert expected in refused(budget=budget(**change))


def test_a_register_has_one_budget() -> None:
    assert "register is named twice" in refused(budget=budget() * 2)
    assert refused(budget=[])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"effective": "2028-01-01"}, "effective must be before sunset"),
        ({"effective": "2029-01-01"}, "effective must be before sunset"),
        ({"renewal": "2025-01-01"}, "renewal must be between"),
        ({"renewal": "2028-01-02"}, "renewal must be between"),
        ({"sunset": "2028-01-01T00:00:00"}, "time zone"),
    ],
)
def test_dates_are_in_order(change: dict[str, Any], expected: str) -> None:
    assert expected in refused(**change)


def test_a_country_and_a_key_belong_to_one_party() -> None:
    assert "a country is named twice" in refused(parties=parties(country="EE"))
    second = agreement_fields()["parties"][1]["officer_key"]
    assert "no key may be used twice" in refused(parties=parties(officer_key=second))


@pytest.mark.parametrize("name", ["identity_key", "document_key", "online_key"])
def test_no_key_serves_two_purposes(name: str) -> None:
    coordinator = agreement_fields()["coordinator"]
    officer = agreement_fields()["parties"][0]["officer_key"]
    assert "no key may be used twice" in refused(coordinator=coordinator | {name: officer})
    other = "document_key" if name == "identity_key" else "identity_key"
    assert "no key may be used twice" in refused(
        coordinator=coordinator | {name: coordinator[other]}
    )


def purposes(allowed: list[dict[str, Any]], *forbidden: dict[str, Any]) -> dict[str, Any]:
    rules = [{"clause": "Article 9", "sentence": "Not that."} | rule for rule in forbidden]
    return {"allowed": allowed, "forbidden": rules}


RESEARCH = {"ehds": "53-1-e", "purpose_of_use": ["HRESCH"]}


def test_article_54_cannot_be_allowed() -> None:
    marketing = {"ehds": "54-c", "purpose_of_use": ["HRESCH"]}
    assert "prohibited by Art. 54" in refused(purposes=purposes([marketing]))


@pytest.mark.parametrize("rule", [{"ehds": "53-1-e"}, {"purpose_of_use": "HRESCH"}])
def test_a_purpose_cannot_be_allowed_and_forbidden(rule: dict[str, str]) -> None:
    reason = refused(purposes=purposes([RESEARCH], rule))
    assert "53-1-e HRESCH is allowed, but Article 9 forbids it" in reason


def test_a_part_of_an_allowed_purpose_can_be_forbidden() -> None:
    agreed = agreement(purposes=purposes([RESEARCH], {"purpose_of_use": "POARCH"}))
    assert agreed.forbidding("53-1-e", "POARCH") is not None
    assert agreed.forbidding("53-1-e", "DSRCH") is None


def test_forbidding_a_code_forbids_the_codes_below_it() -> None:
    rules = ({"purpose_of_use": "CLINTRCH"}, {"ehds": "53-1-e"})
    allowed = [{"ehds": "53-1-a", "purpose_of_use": ["PUBHLTH"]}]
    agreed = agreement(purposes=purposes(allowed, *rules))
    assert agreed.forbidding("53-1-a", "CLINTRCHNPC") is agreed.purposes.forbidden[0]
    assert agreed.forbidding("53-1-e-ii", "PUBHLTH") is agreed.purposes.forbidden[1]


@pytest.mark.parametrize("codes", [{}, {"ehds": "54-a", "purpose_of_use": "HMARKT"}])
def test_a_rule_forbids_by_one_code(codes: dict[str, str]) -> None:
    assert "give either ehds or purpose_of_use" in refused(purposes=purposes([RESEARCH], codes))


def test_the_policy_must_be_readable_cedar() -> None:
    assert "policy:" in refused(policy="permit(")
    assert "does not fit the schema" in refused(
        policy='@id("a") forbid(principal, action, resource) when { context.nothing };'
    )


def test_an_emergency_cannot_need_more_countries_than_there_are() -> None:
    clause = {
        "id": "outbreak",
        "indicator": "A public health emergency is declared.",
        "concur": 5,
        "relaxes": ["budget"],
        "lapses_days": 14,
    }
    assert "more must concur than there are parties" in refused(emergency=[clause])
    assert agreement(emergency=[clause | {"concur": 4}]).emergency[0].lapses_days == 14


def test_two_parties_at_least() -> None:
    assert refused(parties=agreement_fields()["parties"][:1])


def test_a_key_of_the_wrong_kind_is_refused() -> None:
    assert "Ed25519" in refused(parties=parties(officer_key="ssh-ed25519 AAAA"))
    assert raw_key(1).public.to_text().startswith("ed25519:")


# ---- what the digest covers


def rekeyed(**keys: str) -> Agreement:
    return agreement(coordinator=agreement_fields()["coordinator"] | keys)


def test_keys_are_not_part_of_the_terms_digest() -> None:
    """Studies and permits refer to the terms, so they stay valid when a key changes."""
    first, key = agreement(), raw_key(900).public.to_text()
    for name in ("identity_key", "document_key", "online_key", "log_key"):
        other = rekeyed(**{name: key})
        assert other != first
        assert other.digest == first.digest
    assert first.with_officer_keys({"DK": key}).digest == first.digest


@pytest.mark.parametrize(
    "changes",
    [{"title": "Another"}, {"colluding": 0}, {"smallest_cohort": 51}, {"sunset": "2028-01-02"}],
)
def test_every_term_is_part_of_the_digest(changes: dict[str, Any]) -> None:
    assert agreement(**changes).digest != agreement().digest


def test_who_is_a_party_is_a_term() -> None:
    parties = agreement_fields()["parties"]
    parties[0]["authority"] = "Another authority"
    assert agreement(parties=parties).digest != agreement().digest


def test_an_agreement_without_a_log_key_keeps_its_bytes() -> None:
    assert b"log_key" not in agreement().canonical()
    text = rekeyed(log_key=raw_key(900).public.to_text()).canonical()
    assert Agreement.from_canonical(text).coordinator.log_key == raw_key(900).public.to_text()


def test_a_log_key_is_a_separate_key() -> None:
    with pytest.raises(ValidationError, match="no key may be used twice"):
        rekeyed(log_key=raw_key(1).public.to_text())


def test_only_keys_of_parties_are_replaced() -> None:
    same = agreement().with_officer_keys({"SE": raw_key(900).public.to_text()})
    assert same == agreement()
