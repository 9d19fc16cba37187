"""The signature suite that documents declare: old documents unchanged, new ones exact."""

import hashlib
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from governance.documents.agreement import Agreement
from governance.documents.permit import NodeKeys
from governance.documents.succession import succeeding
from governance.errors import DocumentFault
from governance.officer.agreement_text import agreement_in_words, changes
from keys.composite import CompositeSigningKey, Identity, Suite
from tests.support.documents import (
    BOTH,
    agreement,
    agreement_fields,
    node_keys,
    raw_key,
    two_algorithm_key,
)

NOW = datetime(2026, 9, 1, tzinfo=UTC)
CANONICAL = "186609cc4fbda5ea0ee7c7c523abc794529c704c9d2415b5fb77c5d700c3a053"
"""SHA-256 of an agreement's canonical bytes from before the suite could be chosen."""
DIGEST = "sha256:92b8cd0c7fec3cb02999ac021dec2545008d48902d890c189bda508c371ce4bc"
NODE_DIGEST = "sha256:c8f7b38b70101ee88d92c180fbe669985649c23c1a85b3fe0395119a883a9df3"


def succession(former: Identity, new: Identity) -> NodeKeys:
    """Return DK's node keys, from one identity to the next."""
    keys = node_keys("DK").model_copy(update={"identity_key": new.public.to_text()})
    statement = succeeding(former, new, keys.stated(), NOW)
    return keys.model_copy(update={"succession": statement})


# ---- the agreement


def test_documents_without_a_suite_keep_their_bytes_and_digests() -> None:
    agreed = agreement(cohort_count=None)
    assert hashlib.sha256(agreed.canonical()).hexdigest() == CANONICAL
    assert agreed.digest == DIGEST
    assert agreed.signatures is Suite.ED25519
    assert node_keys("DK").digest == NODE_DIGEST


def test_stating_the_default_suite_changes_nothing() -> None:
    assert agreement(signatures="ed25519").canonical() == agreement().canonical()


def test_an_agreement_with_both_signatures_is_another_one_and_is_read_back() -> None:
    agreed = agreement(**BOTH)
    assert agreed.digest != DIGEST
    again = Agreement.from_canonical(agreed.canonical())
    assert again == agreed
    assert again.signatures is Suite.COMPOSITE


def test_a_document_that_states_the_default_suite_is_not_canonical() -> None:
    data = agreement().canonical()
    with_default = data.replace(b'"smallest_cohort"', b'"signatures":"ed25519","smallest_cohort"')
    with pytest.raises(DocumentFault, match="canonical form"):
        Agreement.from_canonical(with_default)


@pytest.mark.parametrize("suite", ["mldsa65", "ed25519+mldsa44", "none", "", None, 1])
def test_other_suites_are_refused(suite: object) -> None:
    with pytest.raises(ValidationError):
        agreement(signatures=suite)


def test_the_coordinator_s_key_must_fit_the_suite() -> None:
    coordinator = agreement_fields()["coordinator"]
    with pytest.raises(ValidationError, match="pratique-coordinator rotate"):
        agreement(**BOTH, coordinator=coordinator)


def test_both_forms_of_keys_fit_an_agreement_without_a_suite() -> None:
    coordinator = agreement_fields(**BOTH)["coordinator"]
    agreed = agreement(coordinator=coordinator, cohort_count=None)
    assert agreed.digest == DIGEST
    assert agreed.signatures.public(two_algorithm_key(1).public) == raw_key(1).public


@pytest.mark.parametrize(
    "shared", [raw_key(2), two_algorithm_key(2), raw_key(100), two_algorithm_key(100)]
)
def test_a_half_that_is_another_s_key_is_refused(shared: Identity) -> None:
    """Key 2 is the coordinator's key for documents, key 100 an officer's."""
    coordinator = agreement_fields()["coordinator"] | {"identity_key": shared.public.to_text()}
    with pytest.raises(ValidationError, match="no key may be used twice"):
        agreement(coordinator=coordinator)


@pytest.mark.parametrize("name", ["document_key", "online_key", "log_key"])
def test_documents_and_logs_are_signed_with_ed25519_alone(name: str) -> None:
    coordinator = agreement_fields()["coordinator"] | {name: two_algorithm_key(7).public.to_text()}
    with pytest.raises(ValidationError, match="not an Ed25519 key"):
        agreement(coordinator=coordinator)


# ---- in readable text


def test_the_officer_reads_which_signatures_messages_have() -> None:
    def facts_of(agreed: Agreement) -> dict[str, str]:
        return {k: v for part in agreement_in_words(agreed, "DK") for k, v in part.facts.items()}

    assert facts_of(agreement())["messages signed with"] == "Ed25519"
    both = facts_of(agreement(**BOTH))
    assert "ML-DSA-65, both of which must be valid" in both["messages signed with"]
    assert "(Ed25519 and ML-DSA-65)" in both["key for messages"]
    assert "(Ed25519 only)" in facts_of(agreement())["key for messages"]


@pytest.mark.parametrize(
    ("before", "after"), [(Suite.ED25519, Suite.COMPOSITE), (Suite.COMPOSITE, Suite.ED25519)]
)
def test_an_amendment_of_the_signatures_is_shown_either_way(before: Suite, after: Suite) -> None:
    """Removing the suite leaves the field out; the officer must still see that protection ends."""
    coordinator = agreement_fields(**BOTH)["coordinator"]
    old, new = (
        agreement(coordinator=coordinator, signatures=suite.value) for suite in (before, after)
    )
    assert changes(old, new) == {"signatures": f"now {before.value}; then {after.value}"}


# ---- node keys and their succession


def test_node_keys_of_two_halves_read_back() -> None:
    keys = node_keys("DK", both=True)
    assert NodeKeys.from_canonical(keys.canonical()) == keys


def test_no_half_of_the_identity_is_the_log_s_key() -> None:
    shared = two_algorithm_key(1_000).ed25519.public.to_text()
    fields = node_keys("DK", both=True).model_dump() | {"log_key": shared}
    with pytest.raises(ValidationError, match="two keys"):
        NodeKeys.model_validate(fields)


@pytest.mark.parametrize("former", [raw_key(1), two_algorithm_key(1)])
@pytest.mark.parametrize("new", [raw_key(2), two_algorithm_key(2)])
def test_a_statement_may_name_either_form_of_key_as_the_next(
    former: Identity, new: Identity
) -> None:
    keys = succession(former, new)
    assert NodeKeys.from_canonical(keys.canonical()) == keys


def test_a_statement_needs_both_halves_of_each_key() -> None:
    """A holder of the Ed25519 half, alone or beside another ML-DSA key, cannot name new keys."""
    true = succession(two_algorithm_key(1), two_algorithm_key(2)).succession
    stranger = CompositeSigningKey.from_bytes(two_algorithm_key(1).to_bytes()[:32] + b"s" * 32)
    half = succession(two_algorithm_key(1).ed25519, two_algorithm_key(2).ed25519).succession
    mixed = succession(stranger, two_algorithm_key(2)).succession
    assert true
    assert half
    assert mixed
    for forged in (
        {"by_former": half.by_former},
        {"by_former": mixed.by_former},
        {"by_new": half.by_new},
    ):
        keys = succession(two_algorithm_key(1), two_algorithm_key(2))
        bad = keys.model_copy(update={"succession": true.model_copy(update=forged)})
        with pytest.raises(DocumentFault, match="succession is not signed"):
            NodeKeys.from_canonical(bad.canonical())
