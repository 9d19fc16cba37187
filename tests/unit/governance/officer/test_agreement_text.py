from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.documents.agreement import Agreement
from governance.errors import LedgerFault
from governance.officer.agreement_text import agreement_in_words, changes, spoken_digest
from governance.runtime.safe_text import quoted
from keys.errors import KeyFault
from keys.identity import VerifyKey
from tests.support.document_fields import others, places
from tests.support.documents import agreement

AGREED = agreement()
EMERGENCY = {
    "id": "outbreak",
    "indicator": "Cases double within a week.",
    "concur": 3,
    "relaxes": ["retention"],
    "lapses_days": 30,
}


def text_of(agreed: Agreement = AGREED, country: str = "DK") -> str:
    parts = agreement_in_words(agreed, country)
    lines = (f"{name}: {value}" for part in parts for name, value in part.facts.items())
    return "\n".join(lines)


def test_every_party_is_shown_with_its_fingerprint() -> None:
    output = text_of()
    for party in AGREED.parties:
        fingerprint = VerifyKey.from_text(party.officer_key).fingerprint
        assert f"{party.country}: {quoted(party.authority)}, key {fingerprint}" in output


def test_only_the_reader_s_own_key_is_called_yours() -> None:
    [line] = [line for line in text_of(country="NO").splitlines() if "(yours)" in line]
    assert line.startswith("NO: ")
    assert "(yours)" not in text_of(country="SE")


def test_every_key_of_the_coordinator_is_shown() -> None:
    coordinator = AGREED.coordinator
    for text in (coordinator.identity_key, coordinator.document_key, coordinator.online_key):
        assert VerifyKey.from_text(text).fingerprint in text_of()


def test_purposes_are_shown_with_code_and_sentence() -> None:
    output = text_of()
    assert "allowed 53-1-e: scientific research in health or care" in output
    assert "training a machine-learning model (MLTRAINING)" in output
    assert (
        'forbidden HMARKT: "No data of this federation serves marketing." ("Article 4(2)")'
        in output
    )
    assert "everything else: forbidden" in output


def test_budget_and_protection_are_shown_in_numbers() -> None:
    output = text_of(agreement(colluding=0))
    assert "ε = 3 at δ = 0.0001 in every 365 days" in output
    assert "against: the coordinator (c = 0)" in output
    assert "fewer than 3 countries, or fewer than 50 patients in a country" in output
    assert "against: the coordinator together with any 1 of the countries (c = 1)" in text_of()


def test_emergency_clauses_are_shown_completely() -> None:
    output = text_of(agreement(emergency=[EMERGENCY]))
    assert "outbreak: relaxes retention if 3 countries concur" in output
    assert "Cases double within a week." in output
    assert "at most 30 days" in output
    assert "emergency clauses: none" in text_of()


def test_a_policy_other_than_the_standard_one_is_pointed_out() -> None:
    changed_policy = agreement(
        policy=AGREED.policy + '\n@id("more")\nforbid (principal, action, resource);'
    )
    assert "ask a specialist to read it" in text_of(changed_policy)
    assert "rules: the standard policy" in text_of()


def test_an_amendment_is_shown_field_by_field() -> None:
    changed = agreement(smallest_cohort=100, title="A wider agreement")
    assert changes(AGREED, changed) == {
        "title": 'now "Heart disease across four countries"; then "A wider agreement"',
        "smallest cohort": "now 50; then 100",
    }
    assert changes(AGREED, AGREED) == {}


@pytest.mark.parametrize(
    ("field", "term", "texts"),
    [
        ("by_country", True, ("no", "yes")),
        ("cohort_count", None, ("(epsilon 1; delta 1e-05)", "none")),
    ],
)
def test_an_amendment_back_to_what_a_document_leaves_out_is_shown(
    field: str, term: Any, texts: tuple[str, str]
) -> None:
    other, (ours, theirs) = agreement(**{field: term}), texts
    name = field.replace("_", " ")
    assert changes(AGREED, other) == {name: f"now {ours}; then {theirs}"}
    assert changes(other, AGREED) == {name: f"now {theirs}; then {ours}"}


def test_the_agreement_says_whether_a_country_s_own_sum_may_be_visible() -> None:
    assert "a country's own sum: is never visible" in text_of()
    allowed = text_of(agreement(by_country=True))
    assert "a country's own sum: may be visible, with noise only" in allowed
    assert "if every country's permit allows it" in allowed


@given(st.binary(min_size=32, max_size=32), st.integers(0, 119))
def test_spoken_digests_differ_for_different_digests(raw: bytes, bit: int) -> None:
    other = bytearray(raw)
    other[bit // 8] ^= 1 << (bit % 8)
    one, another = spoken_digest(f"sha256:{raw.hex()}"), spoken_digest(f"sha256:{other.hex()}")
    assert one != another
    assert [len(group) for group in one.split("-")] == [4] * 6


NOT_TRIED = {
    "kind": "has one value",
    "schema_version": "has one value",
    "signatures": "would need other keys; shown as `messages signed with`",
    "officer_key": "a key that was changed by one character is no key; its fingerprint is shown",
    "document_key": "as officer_key",
    "online_key": "as officer_key",
    "identity_key": "as officer_key",
    "log_key": "as officer_key",
}
"""Fields that are not changed alone, with the reason."""
EVERYTHING: dict[str, Any] = {
    "emergency": [
        {"id": "wave", "indicator": "Cases double.", "concur": 2, "relaxes": ["budget"],
         "lapses_days": 30}
    ],
    "roles": [{"role": "observer", "may": ["read-log"]}],
}  # fmt: skip


def test_a_purpose_that_is_listed_twice_is_shown_twice() -> None:
    allowed = [{"ehds": "53-1-e", "purpose_of_use": [use]} for use in ("HRESCH", "MLTRAINING")]
    text = text_of(agreement(purposes={"allowed": allowed}))
    assert "(HRESCH); and scientific research" in text
    assert "(MLTRAINING)" in text


def test_a_change_of_any_field_is_shown_before_an_officer_signs() -> None:
    agreed = agreement(**EVERYTHING)
    before, hidden = text_of(agreed), set()
    for path, value, put in places(agreed):
        for variant in map(put, others(value) if value is not None else []):
            try:
                hidden |= {path} if text_of(variant) == before else set()
            except (KeyError, ValueError, KeyFault, LedgerFault):
                continue  # no such code, no such key, and no noise for such an ε
    assert [path for path in hidden if path[-1] not in NOT_TRIED] == []
