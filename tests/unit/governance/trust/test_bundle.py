"""The bundle of a country's officer: accepted by the pinned key only, and only under its paths."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Delegations, Metadata, TargetFile, Targets

from governance.cedar.engine import FORBID_ALL, check_national
from governance.documents.models import MAX_BYTES
from governance.errors import DocumentFault
from governance.trust.bundle import CountryBundle, CountryDocuments, own_country
from governance.trust.layout import (
    build_root,
    node_path,
    permit_path,
    policy_path,
    signed_field,
    signer,
    withdrawal_path,
)
from governance.trust.limits import OF_COUNTRY
from governance.trust.signing import OfficerDocuments
from keys.identity import SigningKey
from tests.support.documents import (
    DAY,
    NOW,
    agreement,
    node_keys,
    permit,
    raw_key,
    study,
    withdrawal,
)

AGREED = agreement()
ASKED = study(AGREED)
KEY = raw_key(100)
POLICY = '@id("dk/none") forbid (principal, action, resource) when { context.now < 0 };'


def signed_bundle(
    targets: dict[str, str],
    *,
    key: SigningKey = KEY,
    country: str = "DK",
    version: int = 1,
    life: timedelta = 7 * DAY,
    born: timedelta = timedelta(0),
    alter: Callable[[Targets], None] = lambda _: None,
) -> bytes:
    """Return a bundle that an officer could have signed with other software."""
    signed = Targets(
        version=version,
        expires=NOW + born + life,
        targets={path: TargetFile.from_data(path, text.encode()) for path, text in targets.items()},
        unrecognized_fields=signed_field(NOW + born),
    )
    alter(signed)
    metadata = Metadata(signed)
    metadata.sign(signer(key))
    return CountryBundle(
        country=country, metadata=metadata.to_bytes().decode(), targets=targets
    ).canonical()


def all_targets() -> dict[str, str]:
    return {
        node_path("DK"): node_keys("DK").canonical().decode(),
        permit_path("DK", ASKED.digest): permit(AGREED, ASKED).canonical().decode(),
        withdrawal_path("DK", AGREED.digest): withdrawal_of(AGREED.digest),
        policy_path("DK"): POLICY,
    }


def withdrawal_of(digest: str, country: str = "DK") -> str:
    changed = withdrawal(ASKED, country).model_copy(update={"study": digest})
    return changed.canonical().decode()


def verified_documents(bundle: bytes, **changes: Any) -> CountryDocuments:
    at_least = changes.pop("at_least", 0)
    defaults: dict[str, Any] = {"country": "DK", "pinned": KEY.public, "now": NOW}
    return own_country(bundle, **(defaults | changes), at_least=at_least)


def refused(bundle: bytes, **changes: Any) -> str:
    with pytest.raises(DocumentFault) as caught:
        verified_documents(bundle, **changes)
    assert caught.value.fix
    return str(caught.value)


def test_all_documents_of_a_country_are_read() -> None:
    documents = verified_documents(signed_bundle(all_targets()))
    assert documents.node == node_keys("DK")
    assert documents.permit(ASKED.digest) == permit(AGREED, ASKED)
    assert documents.withdrawal(AGREED.digest) is not None
    assert documents.permit(AGREED.digest) is None
    assert documents.policy == POLICY
    assert (documents.version, documents.signed_at, documents.expires) == (1, NOW, NOW + 7 * DAY)


def test_an_empty_bundle_has_no_documents() -> None:
    documents = verified_documents(signed_bundle({}))
    assert documents.node is None
    assert documents.policy is None
    assert not documents.permits


def test_another_key_is_refused() -> None:
    assert "not signed by the key that is pinned" in refused(
        signed_bundle(all_targets(), key=raw_key(101))
    )
    assert "not signed by the key that is pinned" in refused(
        signed_bundle({}), pinned=raw_key(5).public
    )


def test_a_signature_under_the_pinned_key_s_name_must_verify() -> None:
    bundle = CountryBundle.from_canonical(signed_bundle(all_targets()))
    metadata = json.loads(bundle.metadata)
    metadata["signed"]["version"] = 2
    forged = bundle.model_copy(update={"metadata": json.dumps(metadata)})
    assert "not signed by the key" in refused(forged.canonical())


def test_an_older_version_than_seen_is_refused() -> None:
    assert verified_documents(signed_bundle({}, version=4), at_least=4)
    assert "version 4, but 5 was seen" in refused(signed_bundle({}, version=4), at_least=5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"born": -8 * DAY}, "expired"),
        ({"born": -7 * DAY}, "expired"),
        ({"life": 7 * DAY + timedelta(seconds=1)}, "longer than 7 days"),
        ({"life": 365 * DAY}, "longer than 7 days"),
        ({"born": timedelta(minutes=11)}, "signed in the future"),
    ],
)
def test_validity_is_short_and_current(changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(signed_bundle({}, **changes))


def test_a_small_difference_of_clocks_is_forgiven() -> None:
    assert verified_documents(signed_bundle({}, born=timedelta(minutes=9)))


def test_another_country_s_bundle_is_refused() -> None:
    assert "The bundle belongs to NO" in refused(signed_bundle({}, country="NO"))


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (node_path("DK"), node_keys("NO").canonical().decode(), "node keys are those of NO"),
        (
            permit_path("DK", ASKED.digest),
            permit(AGREED, ASKED, "NO").canonical().decode(),
            "permit that belongs to another path",
        ),
        (
            permit_path("DK", AGREED.digest),
            permit(AGREED, ASKED).canonical().decode(),
            "permit that belongs to another path",
        ),
        (
            permit_path("DK", ASKED.digest),
            withdrawal(ASKED).canonical().decode(),
            "not a signed permit",
        ),
        (
            withdrawal_path("DK", ASKED.digest),
            withdrawal_of(AGREED.digest),
            "belongs to another path",
        ),
        (
            withdrawal_path("DK", ASKED.digest),
            withdrawal_of(ASKED.digest, "NO"),
            "belongs to another path",
        ),
        (permit_path("DK", ASKED.digest), "{}", "not a signed permit"),
        (
            permit_path("DK", ASKED.digest),
            permit(AGREED, ASKED).canonical().decode() + " ",
            "canonical",
        ),
        (policy_path("DK"), '@id("a") permit (principal, action, resource);', "can only forbid"),
        (policy_path("DK"), "forbid (", "Cedar cannot read it"),
    ],
)
def test_a_document_that_cannot_be_read_is_named_and_no_permit_counts(
    path: str, text: str, expected: str
) -> None:
    good = {path: text for path, text in all_targets().items() if path != policy_path("DK")}
    documents = verified_documents(signed_bundle(good | {path: text}))
    assert len(documents.unreadable) == 1
    assert documents.unreadable[0].startswith(f"{path}: ")
    assert expected in documents.unreadable[0]
    assert expected in documents.fault
    assert not documents.permits
    withdrawn = AGREED.digest if path != withdrawal_path("DK", AGREED.digest) else None
    assert withdrawn is None or documents.withdrawal(withdrawn) is not None


def test_several_unreadable_documents_are_counted() -> None:
    documents = verified_documents(
        signed_bundle(dict.fromkeys(all_targets(), "{}") | {policy_path("DK"): "x"})
    )
    assert len(documents.unreadable) == len(all_targets())
    assert documents.fault.startswith("4 documents of DK cannot be read")
    assert (documents.node, documents.withdrawals) == (None, {})


def test_an_unreadable_national_policy_counts_as_one_that_forbids_everything() -> None:
    documents = verified_documents(signed_bundle(all_targets() | {policy_path("DK"): "forbid ("}))
    assert documents.policy == FORBID_ALL
    check_national(FORBID_ALL)


@pytest.mark.parametrize(
    "path",
    [node_path("NO"), permit_path("NO", ASKED.digest), "agreement.json", "country-DK/notes.json"],
)
def test_a_path_that_is_not_the_country_s_is_refused(path: str) -> None:
    assert "is not a path of this country" in refused(signed_bundle({path: "{}"}))


def test_a_target_that_is_not_what_was_signed_is_refused() -> None:
    bundle = CountryBundle.from_canonical(signed_bundle(all_targets()))
    for path in bundle.targets:
        swapped = bundle.model_copy(update={"targets": bundle.targets | {path: "{}"}})
        assert f"{path} is not what was signed" in refused(swapped.canonical())
        fewer = {each: text for each, text in bundle.targets.items() if each != path}
        missing = bundle.model_copy(update={"targets": fewer})
        assert f"{path} is listed, but is not in the bundle" in refused(missing.canonical())


def test_a_country_s_role_delegates_to_nobody() -> None:
    def delegate(signed: Targets) -> None:
        signed.delegations = Delegations({}, {})

    assert "delegates to nobody" in refused(signed_bundle({}, alter=delegate))


def with_length(path: str, length: int) -> CountryDocuments:
    """Return documents of which one claims another length than it has."""

    def claim(signed: Targets) -> None:
        signed.targets[path].length = length

    return verified_documents(signed_bundle(all_targets(), alter=claim))


def test_a_target_too_large_is_not_read_and_no_permit_counts() -> None:
    documents = with_length(node_path("DK"), MAX_BYTES + 1)
    assert documents.node is None
    assert not documents.permits
    assert documents.withdrawals
    assert documents.policy == POLICY
    assert documents.fault == (
        "DK lists a document of 262145 bytes, and each may have 262144, so its permits do not count"
    )


def test_documents_too_large_together_restrict_and_do_not_permit() -> None:
    documents = with_length(permit_path("DK", ASKED.digest), OF_COUNTRY.total)
    assert not documents.permits
    assert documents.withdrawals
    assert "lists documents of" in documents.fault


@pytest.mark.parametrize(
    "metadata", ["", "{}", "[]", "null", '{"a":' * 50_000, "[" * 50_000, '{"signed": 1}']
)
def test_malformed_metadata_are_refused(metadata: str) -> None:
    bundle = CountryBundle(country="DK", metadata=metadata, targets={})
    assert "not metadata of a country" in refused(bundle.canonical())


def test_metadata_of_another_type_are_refused() -> None:
    root = Metadata(build_root(AGREED, 1, NOW))
    root.sign(signer(KEY))
    bundle = CountryBundle(country="DK", metadata=root.to_bytes().decode(), targets={})
    assert "not metadata of a country" in refused(bundle.canonical())


def test_random_bytes_are_refused() -> None:
    for data in (b"", b"\x00", b"{}", base64.b64encode(signed_bundle({})), signed_bundle({})[:-1]):
        assert "bundle of a country" in refused(data)


def test_the_officer_s_own_folder_creates_such_bundles(tmp_path: Path) -> None:
    folder = OfficerDocuments(tmp_path, "DK")
    folder.set_node(node_keys("DK"))
    folder.approve(permit(AGREED, ASKED))
    assert verified_documents(folder.sign(NOW, KEY)).permit(ASKED.digest) is not None
