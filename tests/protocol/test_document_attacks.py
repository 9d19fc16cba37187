"""Attacks by a malicious coordinator, country or clock on the documents, and their results.

Trust: a country trusts its own node and officer. The coordinator has the snapshot, timestamp and
coordinator keys and may show each country anything; a country's key may sign anything.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from governance.documents.agreement import Agreement
from governance.documents.permit import PermitConditions
from governance.errors import DocumentFault
from governance.policy.assessment import assess
from governance.trust.bundle import CountryBundle, own_country
from governance.trust.ceremony import Draft, SignatureSet, sign_draft
from governance.trust.layout import (
    COORDINATOR_ROLE,
    PARTY_FIELD,
    SIGNED_AT_FIELD,
    build_targets,
    key_id,
    node_path,
    permit_path,
    role_of,
    signed_field,
    signer,
    tuf_key,
    withdrawal_path,
)
from governance.trust.view import TrustedView, TrustHighWater
from keys.identity import SigningKey
from protocols.wire.channel import LinkFault
from tests.support.documents import (
    COUNTRIES,
    DAY,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    agreement,
    agreement_fields,
    country_metadata,
    node_keys,
    permit,
    raw_key,
    study,
    withdrawal,
)
from tests.support.narrowing import present


@pytest.fixture
def documents(tmp_path: Path) -> FederationDocuments:
    """Four countries with node keys; a proposed study that DK has permitted."""
    documents = FederationDocuments(tmp_path).publish_agreement()
    documents.propose(study(documents.agreed))
    for country in COUNTRIES:
        documents.folders[country].set_node(node_keys(country))
        documents.sign_and_submit(country)
    documents.folders["DK"].approve(permit(documents.agreed, study(documents.agreed)))
    documents.sign_and_submit("DK")
    return documents


@pytest.fixture
def liar(documents: FederationDocuments) -> LyingCoordinator:
    return LyingCoordinator(documents)


def untrusted(view: Callable[[], TrustedView]) -> str:
    with pytest.raises(DocumentFault) as caught:
        view()
    assert caught.value.fix
    return str(caught.value)


# ---- forgeries by the coordinator


@pytest.mark.parametrize("number", [2, 3, 999])
def test_a_country_s_documents_signed_by_another_key_are_absent(
    liar: LyingCoordinator, documents: FederationDocuments, number: int
) -> None:
    proposed = study(documents.agreed)
    forged = permit(documents.agreed, proposed, "NO").canonical()
    path = permit_path("NO", proposed.digest)
    metadata, files = country_metadata(raw_key(number), {path: forged}, version=2)
    liar.put("country-NO", metadata, files)
    view = liar.view()
    assert view.country("NO") is None
    assert "signed by 0/1" in view.absent["NO"]
    assert set(view.countries) == {"DK", "EE", "PT"}


def test_a_country_cannot_sign_for_another(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    proposed = study(documents.agreed)
    forged = permit(documents.agreed, proposed, "NO").canonical()
    path = permit_path("NO", proposed.digest)
    metadata, files = country_metadata(documents.officers["DK"], {path: forged}, version=3)
    liar.put("country-DK", metadata, files)
    view = liar.view()
    assert "not a path of this country" in view.absent["DK"]
    assert present(view.country("NO")).permit(proposed.digest) is None


def test_a_permit_of_another_country_under_this_country_s_path_is_refused(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    proposed = study(documents.agreed)
    path = permit_path("DK", proposed.digest)
    stolen = permit(documents.agreed, proposed, "NO").canonical()
    metadata, files = country_metadata(documents.officers["DK"], {path: stolen}, version=3)
    liar.put("country-DK", metadata, files)
    assert "that belongs to another path" in liar.view().absent["DK"]


def test_a_permit_moved_to_another_digest_is_refused(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    other = study(documents.agreed, id="another-study")
    moved = permit(documents.agreed, study(documents.agreed)).canonical()
    path = permit_path("DK", other.digest)
    metadata, files = country_metadata(documents.officers["DK"], {path: moved}, version=3)
    liar.put("country-DK", metadata, files)
    assert "that belongs to another path" in liar.view().absent["DK"]


def test_a_permit_for_another_digest_permits_nothing(documents: FederationDocuments) -> None:
    other = study(documents.agreed, id="another-study")
    given = present(documents.view().country("DK")).permit(study(documents.agreed).digest)
    decided = assess(
        other,
        documents.agreed,
        country="DK",
        now=NOW,
        permit=given,
        installed_tasks=["stats/histogram"],
    )
    assert [finding.clause for finding in decided.findings] == ["permit/other-study"]


def test_a_swapped_file_is_refused_as_not_signed(liar: LyingCoordinator) -> None:
    name = next(n for n in liar.files if n.startswith("targets/country-DK/permits/"))
    liar.files[name] = liar.files[name].replace(b"A. Officer", b"B. Officer")
    assert liar.view().country("DK") is None
    liar.files[name] = liar.files[name][:-1]
    assert liar.view().country("DK") is None
    del liar.files[name]
    assert "DK" in liar.view().absent


@pytest.mark.parametrize("suffix", ["agreement.json", ".targets.json", "timestamp.json"])
def test_a_changed_bit_in_top_level_metadata_is_refused(
    liar: LyingCoordinator, suffix: str
) -> None:
    name = next(n for n in liar.files if n.endswith(suffix))
    whole = liar.files[name]
    for position in range(0, len(whole), max(1, len(whole) // 40)):
        liar.files[name] = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
        untrusted(liar.view)
    liar.files[name] = whole
    assert liar.view()


def test_studies_under_another_key_than_the_agreement_names(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    proposed = study(documents.agreed, id="forged")
    targets = {"studies/forged.json": proposed.canonical()}
    metadata, files = country_metadata(raw_key(3), targets, version=5)
    liar.put(COORDINATOR_ROLE, metadata, files)
    assert "signed by 0/1" in untrusted(liar.view)


def test_the_coordinator_s_role_cannot_list_a_country_s_path(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    proposed = study(documents.agreed)
    path = permit_path("NO", proposed.digest)
    forged = permit(documents.agreed, proposed, "NO").canonical()
    metadata, files = country_metadata(documents.document_key, {path: forged}, version=5)
    liar.put(COORDINATOR_ROLE, metadata, files)
    view = liar.view()
    assert present(view.country("NO")).permit(proposed.digest) is None
    assert any(path in sentence and "ignored" in sentence for sentence in view.ignored)


# ---- the targets role, signed by a threshold of the countries


def overriding(
    documents: FederationDocuments, change: Callable[[Targets], None], version: int = 2
) -> bytes:
    """Return targets that a threshold of colluding officers has signed."""
    targets = build_targets(documents.agreed, version, NOW)
    change(targets)
    metadata = Metadata(targets)
    for country in ("EE", "NO", "PT"):
        metadata.sign(signer(documents.officers[country]), append=True)
    return metadata.to_bytes()


def test_targets_that_list_a_permit_under_a_country_s_path_are_ignored_and_reported(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    other = study(documents.agreed, id="another-study")
    forged = permit(documents.agreed, other).canonical()
    path = permit_path("DK", other.digest)
    target = TargetFile.from_data(path, forged)

    def add(targets: Targets) -> None:
        targets.targets[path] = target

    hashed = path.replace("permits/", f"permits/{target.hashes['sha256']}.")
    liar.put("targets", overriding(documents, add), {f"targets/{hashed}": forged})
    view = liar.view()
    assert present(view.country("DK")).permit(other.digest) is None
    assert any(path in sentence and "ignored" in sentence for sentence in view.ignored)


def test_targets_cannot_replace_a_country_s_node_keys(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    path = node_path("DK")
    false = node_keys("DK", 5).canonical()

    def add(targets: Targets) -> None:
        targets.targets[path] = TargetFile.from_data(path, false)

    liar.put("targets", overriding(documents, add))
    assert liar.view().node_keys("DK") == node_keys("DK")


def rekey_role(targets: Targets) -> None:
    assert targets.delegations is not None
    roles = targets.delegations.roles
    assert roles is not None
    false = tuf_key(raw_key(666).public, role_of("DK"))
    targets.delegations.keys[false.keyid] = false
    roles[role_of("DK")].keyids = [false.keyid]


def widen_role(targets: Targets) -> None:
    assert targets.delegations is not None
    roles = targets.delegations.roles
    assert roles is not None
    paths = roles[role_of("NO")].paths
    assert paths is not None
    paths.append("country-DK/permits/*")


def add_role(targets: Targets) -> None:
    assert targets.delegations is not None
    roles = targets.delegations.roles
    assert roles is not None
    no = roles[role_of("NO")]
    paths = ["country-DK/permits/*"]
    roles["shadow"] = DelegatedRole("shadow", no.keyids, 1, terminating=False, paths=paths)


def longer_life(targets: Targets) -> None:
    targets.expires += 1_000 * DAY


@pytest.mark.parametrize("change", [rekey_role, widen_role, add_role])
def test_delegations_that_the_agreement_does_not_imply_are_refused(
    liar: LyingCoordinator, documents: FederationDocuments, change: Callable[[Targets], None]
) -> None:
    liar.put("targets", overriding(documents, change))
    assert "not those of the agreement" in untrusted(liar.view)


def test_targets_that_would_outlive_the_agreement_are_refused(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    liar.put("targets", overriding(documents, longer_life))
    assert "valid after the agreement has ended" in untrusted(liar.view)


def test_two_signatures_where_three_are_needed_are_refused(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    metadata = Metadata(build_targets(documents.agreed, 2, NOW))
    for country in ("EE", "NO"):
        metadata.sign(signer(documents.officers[country]), append=True)
    liar.put("targets", metadata.to_bytes())
    assert "signed by 2/3" in untrusted(liar.view)


def test_one_officer_s_signature_under_three_ids_counts_once(
    liar: LyingCoordinator, documents: FederationDocuments
) -> None:
    metadata = Metadata(build_targets(documents.agreed, 2, NOW))
    metadata.sign(signer(documents.officers["EE"]))
    (only,) = metadata.signatures.values()
    for country in ("NO", "PT"):
        id_ = key_id(documents.officers[country].public)
        metadata.signatures[id_] = type(only)(id_, only.signature)
    liar.put("targets", metadata.to_bytes())
    assert "signed by 1/3" in untrusted(liar.view)


# ---- documents that the coordinator hides


def test_an_older_state_is_refused(documents: FederationDocuments) -> None:
    old = LyingCoordinator(documents)
    documents.now = NOW + timedelta(hours=1)
    documents.sign_and_submit("NO")
    high_water = documents.view().high_water
    assert "older state" in untrusted(lambda: old.view(high_water))


def test_without_a_high_water_mark_the_older_state_would_pass(
    documents: FederationDocuments,
) -> None:
    """Only the high-water mark detects it: each check begins again from the pinned root."""
    old = LyingCoordinator(documents)
    documents.sign_and_submit("NO")
    assert old.view().versions.countries["NO"] == 1


def test_a_country_rolled_back_under_fresh_signatures_is_absent(
    documents: FederationDocuments,
) -> None:
    old = LyingCoordinator(documents)._state().roles["country-DK"]
    documents.folders["DK"].withdraw(withdrawal(study(documents.agreed)))
    documents.sign_and_submit("DK")
    high_water = documents.view().high_water
    liar = LyingCoordinator(documents)
    liar.put("country-DK", old)
    view = liar.view(high_water)
    assert view.country("DK") is None
    assert "version 2, but 3 was seen" in view.absent["DK"]
    assert view.country("NO") is not None


def test_a_country_left_out_is_absent_and_named(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    liar.hide("country-NO")
    view = liar.view(documents.view().high_water)
    assert view.country("NO") is None
    assert "none is published" in view.absent["NO"]
    assert "country-NO" in view.versions.newer_in(documents.view().versions)


def test_a_withheld_withdrawal_stops_the_officer_s_own_node_at_once(
    documents: FederationDocuments,
) -> None:
    proposed = study(documents.agreed)
    documents.folders["DK"].withdraw(withdrawal(proposed))
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    withholding = LyingCoordinator(documents)
    view = withholding.view()
    assert present(view.country("DK")).withdrawal(proposed.digest) is None
    with_own = view.with_own(own_country(bundle, "DK", documents.officers["DK"].public, NOW))
    given = present(with_own.country("DK"))
    decided = assess(
        proposed,
        with_own.agreement,
        country="DK",
        now=with_own.now,
        permit=given.permit(proposed.digest),
        withdrawal=given.withdrawal(proposed.digest),
        installed_tasks=["stats/histogram"],
    )
    assert [finding.clause for finding in decided.findings] == ["permit/withdrawn"]


def test_others_see_from_the_versions_that_a_document_is_withheld(
    documents: FederationDocuments,
) -> None:
    withholding = LyingCoordinator(documents)
    documents.folders["DK"].withdraw(withdrawal(study(documents.agreed)))
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    own = own_country(bundle, "DK", documents.officers["DK"].public, NOW)
    versions_of_dk = withholding.view().with_own(own).versions
    versions_of_no = withholding.view().versions
    assert versions_of_no.newer_in(versions_of_dk) == ("country-DK",)


def test_others_see_a_withheld_withdrawal_when_the_old_documents_expire(
    documents: FederationDocuments,
) -> None:
    withholding = LyingCoordinator(documents)
    for day in range(1, 9):
        now = NOW + day * DAY
        withholding.date(now)
        view = withholding.view(now=now)
        assert (view.country("DK") is None) is (day >= 7)
    assert "expired" in view.absent["DK"]


def test_an_older_bundle_is_refused_by_the_country_s_own_node(
    documents: FederationDocuments,
) -> None:
    old = documents.folders["DK"].bundle()
    assert old is not None
    documents.folders["DK"].withdraw(withdrawal(study(documents.agreed)))
    newer = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    key = documents.officers["DK"].public
    version = own_country(newer, "DK", key, NOW).version
    with pytest.raises(DocumentFault):
        own_country(old, "DK", key, NOW, at_least=version)


# ---- time


def test_an_expired_timestamp_fails_closed(documents: FederationDocuments) -> None:
    documents.now = NOW + timedelta(hours=23, minutes=59)
    assert documents.view()
    documents.now = NOW + timedelta(hours=24)
    assert "expired" in untrusted(documents.view)


def test_turning_the_clock_back_does_not_make_expired_documents_valid(
    documents: FederationDocuments,
) -> None:
    frozen = LyingCoordinator(documents)
    documents.now = NOW + 2 * DAY
    documents.refresh()
    for country in COUNTRIES:
        documents.sign_and_submit(country)
    high_water = documents.view().high_water
    lower = high_water.model_copy(update={"timestamp": 0, "snapshot": 0, "countries": {}})
    assert "expired" in untrusted(lambda: frozen.view(lower, now=NOW))
    assert frozen.view(TrustHighWater(), now=NOW), (
        "without the latest signed time it would have passed"
    )


def test_an_expired_permit_stays_expired_when_the_clock_is_turned_back(
    documents: FederationDocuments,
) -> None:
    documents.now = NOW + 2 * DAY
    documents.refresh()
    high_water = documents.view().high_water
    view = TrustedView.load(documents.store.read, documents.pinned, NOW - 30 * DAY, high_water)
    brief = PermitConditions(expires=NOW + DAY)
    given = permit(documents.agreed, study(documents.agreed), conditions=brief)
    decided = assess(
        study(documents.agreed),
        documents.agreed,
        country="DK",
        now=view.now,
        permit=given,
        installed_tasks=["stats/histogram"],
    )
    assert [finding.clause for finding in decided.findings] == ["permit/expired"]


def test_a_signing_time_in_the_future_does_not_advance_the_clock(
    documents: FederationDocuments,
) -> None:
    liar = LyingCoordinator(documents)
    liar.date(NOW + timedelta(minutes=9))
    assert liar.view().high_water.latest == NOW + timedelta(minutes=9)
    liar.date(NOW + 400 * DAY)
    assert "signed in the future" in untrusted(liar.view)


def test_many_small_steps_into_the_future_do_not_advance_the_clock(
    documents: FederationDocuments,
) -> None:
    liar = LyingCoordinator(documents)
    liar.date(NOW + timedelta(minutes=9))
    high_water = liar.view().high_water
    assert liar.view(high_water).high_water == high_water, (
        "documents that were seen once stay readable"
    )
    liar.date(NOW + timedelta(minutes=18))
    assert "signed in the future" in untrusted(lambda: liar.view(high_water))


def test_many_small_steps_of_a_country_do_not_advance_the_clock(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    high_water = liar.view().high_water
    for version, minutes in ((2, 9), (3, 18)):
        born = NOW + timedelta(minutes=minutes)
        metadata, _ = country_metadata(documents.officers["NO"], {}, version=version, born=born)
        liar.put("country-NO", metadata)
        view = liar.view(high_water)
        high_water = view.high_water
    assert "signed in the future" in view.absent["NO"]
    assert high_water.latest == NOW + timedelta(minutes=9)


def test_a_country_s_signing_time_in_the_future_does_not_advance_the_clock(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    metadata, _ = country_metadata(documents.officers["NO"], {}, version=2, born=NOW + DAY)
    liar.put("country-NO", metadata)
    view = liar.view()
    assert "signed in the future" in view.absent["NO"]
    assert view.high_water.latest == NOW


def test_too_long_a_validity_of_timestamp_or_country_metadata_is_refused(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    metadata, _ = country_metadata(documents.officers["NO"], {}, version=2, life=8 * DAY)
    liar.put("country-NO", metadata)
    assert "longer than 7 days" in liar.view().absent["NO"]
    stamp = Metadata.from_bytes(liar.files["metadata/timestamp.json"])
    stamp.signed.expires += timedelta(seconds=1)
    stamp.sign(signer(documents.online_key))
    liar.files["metadata/timestamp.json"] = stamp.to_bytes()
    assert "longer than a day" in untrusted(liar.view)


def test_metadata_that_hide_when_they_were_signed_are_refused(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    stamp = Metadata.from_bytes(liar.files["metadata/timestamp.json"])
    del stamp.signed.unrecognized_fields[SIGNED_AT_FIELD]
    stamp.sign(signer(documents.online_key))
    liar.files["metadata/timestamp.json"] = stamp.to_bytes()
    assert "do not say when" in untrusted(liar.view)


def test_no_document_is_valid_after_sunset(documents: FederationDocuments) -> None:
    documents.now = documents.agreed.sunset - timedelta(days=200)
    amend(documents, documents.agreed)
    documents.now = documents.agreed.sunset - timedelta(hours=2)
    documents.refresh()
    assert documents.view().expires == documents.agreed.sunset
    documents.now = documents.agreed.sunset
    untrusted(documents.view)


# ---- roots and keys


def rekeyed(key: SigningKey) -> Agreement:
    first, *others = agreement_fields()["parties"]
    new = first | {"officer_key": key.public.to_text()}
    return agreement(parties=[new, *others], title="As amended")


def amend(documents: FederationDocuments, agreed: Agreement, *also: SigningKey) -> None:
    draft = documents.store.draft(agreed, documents.now)
    documents.sign("EE", "NO", "PT", draft=draft)
    read = Draft.from_canonical(draft)
    for key in also:
        signed = sign_draft(read, key, previous_root=documents.pinned, now=documents.now)
        documents.store.add_signatures(signed)
    documents.publish()


def test_a_country_s_new_key_signed_by_the_old_one_is_accepted(
    documents: FederationDocuments,
) -> None:
    high_water = documents.view().high_water
    amend(documents, rekeyed(raw_key(200)), raw_key(100), raw_key(200))
    documents.officers["DK"] = raw_key(200)
    documents.sign_and_submit("DK")
    view = documents.view(high_water)
    assert view.country("DK") is not None
    assert view.high_water.keys["DK"] == raw_key(200).public.to_text()


def publish_unproven_key(documents: FederationDocuments) -> None:
    """Publish a new key of DK that its old key has not signed, and documents under it."""
    amend(documents, rekeyed(raw_key(200)), raw_key(200))
    documents.officers["DK"] = raw_key(200)
    documents.sign_and_submit("DK")


def test_a_country_s_new_key_not_signed_by_the_old_one_is_refused(
    documents: FederationDocuments,
) -> None:
    high_water = documents.view().high_water
    publish_unproven_key(documents)
    view = documents.view(high_water)
    assert view.country("DK") is None
    assert "key of DK has changed" in view.absent["DK"]
    assert view.high_water.keys["DK"] == raw_key(100).public.to_text()
    assert view.country("NO") is not None


def test_a_refused_new_key_is_refused_again_at_the_next_check(
    documents: FederationDocuments,
) -> None:
    high_water = documents.view().high_water
    publish_unproven_key(documents)
    again = documents.view(documents.view(high_water).high_water)
    assert again.country("DK") is None


def test_a_refused_new_key_is_accepted_once_the_local_operator_approves_it(
    documents: FederationDocuments,
) -> None:
    high_water = documents.view().high_water
    publish_unproven_key(documents)
    wrong = high_water.with_approved_key("DK", raw_key(201).public)
    assert documents.view(wrong).country("DK") is None
    approved = high_water.with_approved_key("DK", raw_key(200).public)
    assert documents.view(approved).country("DK") is not None


def test_a_quorum_cannot_change_the_key_that_a_node_pinned_for_its_own_country(
    documents: FederationDocuments,
) -> None:
    """EE, NO and PT replace DK's key; DK's node uses only the key pinned at `init`."""
    pinned = TrustHighWater(keys={"DK": documents.officers["DK"].public.to_text()})
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    amend(documents, rekeyed(raw_key(200)), raw_key(200))
    view = documents.view(pinned)
    assert view.country("DK") is None
    own = own_country(bundle, "DK", documents.officers["DK"].public, NOW)
    with pytest.raises(DocumentFault, match="another document key for DK"):
        view.with_own(own)


def test_a_replaced_key_is_not_accepted_even_by_its_own_node(
    documents: FederationDocuments,
) -> None:
    """DK's stolen key was replaced, signed by the old one; the thief brings a bundle."""
    high_water = documents.view().high_water
    stolen = documents.folders["DK"].sign(NOW, raw_key(100))
    amend(documents, rekeyed(raw_key(200)), raw_key(100), raw_key(200))
    view = documents.view(high_water)
    own = own_country(stolen, "DK", raw_key(100).public, NOW)
    with pytest.raises(DocumentFault, match="another document key for DK"):
        view.with_own(own)
    fresh = documents.folders["DK"].sign(NOW, raw_key(200))
    assert view.with_own(own_country(fresh, "DK", raw_key(200).public, NOW)).country("DK")


def test_two_countries_cannot_swap_their_keys(documents: FederationDocuments) -> None:
    high_water = documents.view().high_water
    parties = agreement_fields()["parties"]
    keys = [party["officer_key"] for party in parties]
    swapped = [
        parties[0] | {"officer_key": keys[1]},
        parties[1] | {"officer_key": keys[0]},
        *parties[2:],
    ]
    documents.store.draft(agreement(parties=swapped), NOW)
    documents.sign("EE", "NO", "PT")
    documents.publish()
    view = documents.view(high_water)
    assert "key of DK has changed" in view.absent["DK"]
    assert view.high_water.keys["DK"] == high_water.keys["DK"]


def test_a_root_that_the_old_threshold_did_not_sign_is_refused(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    strangers = [raw_key(300 + n) for n in range(4)]
    taken_over = agreement(
        parties=[
            party | {"officer_key": key.public.to_text()}
            for party, key in zip(agreement_fields()["parties"], strangers, strict=True)
        ]
    )
    draft = Draft(version=2, drafted=NOW, agreement=taken_over)
    root = draft.root()
    for key in strangers:
        root.sign(signer(key), append=True)
    liar.files["metadata/2.root.json"] = root.to_bytes()
    assert "oot was signed by 0/3" in untrusted(liar.view)


def test_a_root_whose_threshold_was_lowered_is_refused_even_when_signed(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    root = Draft(version=2, drafted=NOW, agreement=documents.agreed).root()
    root.signed.roles["targets"].threshold = 1
    for country in ("EE", "NO", "PT"):
        root.sign(signer(documents.officers[country]), append=True)
    liar.files["metadata/2.root.json"] = root.to_bytes()
    assert "not those of the agreement" in untrusted(liar.view)


def test_a_root_that_renames_a_key_s_owner_is_refused(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    root = Draft(version=2, drafted=NOW, agreement=documents.agreed).root()
    id_ = key_id(documents.officers["NO"].public)
    root.signed.keys[id_].unrecognized_fields[PARTY_FIELD] = "country-DK"
    for country in ("EE", "NO", "PT"):
        root.sign(signer(documents.officers[country]), append=True)
    liar.files["metadata/2.root.json"] = root.to_bytes()
    assert "not those of the agreement" in untrusted(liar.view)


def test_another_federation_s_root_is_refused(documents: FederationDocuments) -> None:
    other = Draft(version=1, drafted=NOW, agreement=agreement(title="Other")).root()
    for n in range(4):
        other.sign(signer(raw_key(500 + n)), append=True)
    assert untrusted(lambda: TrustedView.load(documents.store.read, other.to_bytes(), NOW))
    for garbage in (b"", b"{}", b"\x00" * 100):
        assert untrusted(partial(TrustedView.load, documents.store.read, garbage, NOW))


def test_the_coordinator_alone_cannot_change_the_agreement(documents: FederationDocuments) -> None:
    documents.store.draft(agreement(title="Looser", smallest_cohort=14), NOW)
    status = documents.store.draft_status()
    assert status is not None
    forged = SignatureSet(draft=status.digest, root={}, targets={})
    before = documents.snapshot_of_store()
    for key in (documents.document_key, documents.online_key, raw_key(1)):
        root = Draft.from_canonical(documents.store.current_draft() or b"").root()
        root.sign(signer(key))
        table = {id_: s.signature for id_, s in root.signatures.items()}
        with pytest.raises(DocumentFault):
            documents.store.add_signatures(forged.model_copy(update={"root": table}).canonical())
    with pytest.raises(DocumentFault):
        documents.publish()
    assert documents.snapshot_of_store() == before
    assert documents.view().agreement == documents.agreed


# ---- oversized and malformed files


def test_endless_files_are_cut_off(liar: LyingCoordinator) -> None:
    fetched = liar.view().files
    for name in list(liar.files):
        whole = liar.files[name]
        liar.files[name] = whole + b" " * 6_000_000
        try:
            view = liar.view()
        except DocumentFault:
            pass
        else:
            assert view.absent or name not in fetched, name
        liar.files[name] = whole


@pytest.mark.parametrize("rubbish", [b"", b"null", b"{}", b"[]", b"\xff" * 50, b'{"a":' * 20_000])
def test_malformed_data_in_any_file_is_a_fault_or_makes_a_country_absent(
    liar: LyingCoordinator, documents: FederationDocuments, rubbish: bytes
) -> None:
    whole = documents.view()
    for name in sorted(whole.files):
        original = liar.files[name]
        liar.files[name] = rubbish
        try:
            view = liar.view()
        except DocumentFault:
            pass
        else:
            assert view.absent, name
        liar.files[name] = original


def test_a_file_that_cannot_be_read_is_a_fault_or_makes_a_country_absent(
    documents: FederationDocuments,
) -> None:
    whole = documents.view()
    for damaged in sorted(whole.files):

        def read(name: str, damaged: str = damaged) -> bytes | None:
            if name == damaged:
                raise OSError(errno.EIO, "Input/output error")
            return documents.store.read(name)

        try:
            view = TrustedView.load(read, documents.pinned, NOW)
        except DocumentFault as fault:
            assert "country-" not in damaged, damaged
            assert "Input/output error" in str(fault)  # noqa: PT017 (some files raise, some not)
        else:
            assert [f"country-{country}" in damaged for country in view.absent] == [True], damaged


def test_a_failed_fetch_is_a_fault_of_the_link_and_not_of_the_documents(
    documents: FederationDocuments,
) -> None:
    def broken(name: str) -> bytes | None:
        if name.endswith("timestamp.json"):
            raise LinkFault("The exchange does not answer")
        return documents.store.read(name)

    with pytest.raises(LinkFault):
        TrustedView.load(broken, documents.pinned, NOW)


def test_an_unreadable_study_does_not_hide_others(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    proposed = study(documents.agreed)
    targets = {
        "studies/broken.json": b'{"kind":"study"}',
        "studies/good.json": proposed.canonical(),
    }
    metadata, files = country_metadata(documents.document_key, targets, version=9)
    liar.put(COORDINATOR_ROLE, metadata, files)
    view = liar.view()
    assert list(view.studies) == [proposed.digest]
    broken = next(digest for digest in view.study_files if digest != proposed.digest)
    with pytest.raises(DocumentFault, match="not a signed study"):
        view.study(broken)


def test_a_withdrawal_outweighs_a_permit_for_the_same_study(documents: FederationDocuments) -> None:
    proposed = study(documents.agreed)
    documents.folders["DK"].withdraw(withdrawal(proposed))
    documents.sign_and_submit("DK")
    published = present(documents.view().country("DK"))
    assert published.permit(proposed.digest) is not None
    assert withdrawal_path("DK", proposed.digest) in _listed(documents, "country-DK")
    decided = assess(
        proposed,
        documents.agreed,
        country="DK",
        now=NOW,
        permit=published.permit(proposed.digest),
        withdrawal=published.withdrawal(proposed.digest),
        installed_tasks=["stats/histogram"],
    )
    assert not decided.allowed


def _listed(documents: FederationDocuments, role: str) -> dict[str, Any]:
    version = documents.view().versions.countries[role.removeprefix("country-")]
    data = documents.store.read(f"metadata/{version}.{role}.json")
    assert data is not None
    listed: dict[str, Any] = json.loads(data)["signed"]["targets"]
    return listed


def test_the_pinned_root_decides_and_not_the_first_file_of_the_exchange(
    documents: FederationDocuments, liar: LyingCoordinator
) -> None:
    liar.files["metadata/1.root.json"] = b"anything"
    assert liar.view().agreement == documents.agreed
    assert Metadata[Root].from_bytes(documents.pinned).signed.version == 1
    assert signed_field(NOW) == {SIGNED_AT_FIELD: "2026-09-01T12:00:00Z"}


def test_replacing_a_stolen_online_key_undoes_the_huge_version_it_signed(
    documents: FederationDocuments,
) -> None:
    thief = LyingCoordinator(documents)
    state = thief._state()
    snapshot = Metadata.from_bytes(state.snapshot or b"")
    snapshot.signed.version = 10**9
    snapshot.sign(signer(documents.online_key))
    huge = replace(state, snapshot=snapshot.to_bytes(), timestamp=10**9)
    thief.files |= huge.snapshot_and_timestamp(NOW, documents.online_key, force=True)
    high_water = thief.view().high_water
    assert high_water.timestamp > 10**9
    assert "older state" in untrusted(lambda: documents.view(high_water))
    coordinator = agreement_fields()["coordinator"] | {"online_key": raw_key(33).public.to_text()}
    documents.online_key = raw_key(33)
    amend(documents, agreement(coordinator=coordinator, title="With another online key"))
    view = documents.view(high_water)
    assert view.agreement.title == "With another online key"
    assert view.high_water.timestamp < 10**9
    assert "older state" in untrusted(
        lambda: documents.view(view.high_water.model_copy(update={"timestamp": 10**9}))
    )


def test_a_country_s_new_key_starts_its_versions_again(documents: FederationDocuments) -> None:
    metadata, _ = country_metadata(documents.officers["DK"], {}, version=10**9)
    thief = LyingCoordinator(documents)
    thief.put("country-DK", metadata)
    high_water = thief.view().high_water
    assert high_water.countries["DK"] == 10**9
    amend(documents, rekeyed(raw_key(200)), raw_key(100), raw_key(200))
    documents.officers["DK"] = raw_key(200)
    documents.sign_and_submit("DK")
    view = documents.view(high_water)
    assert view.country("DK") is not None
    assert view.high_water.countries["DK"] == documents.folders["DK"].version


@pytest.mark.parametrize(
    "hashes",
    [
        {"sha256": "../../../../etc/passwd"},
        {"sha256": "x/../../../draft.json#"},
        {"sha512": "ab" * 64},
        {"md5": "ab" * 16},
        {"unheard-of": "ab" * 32},
    ],
)
def test_a_hash_that_contains_a_path_reads_no_file(
    documents: FederationDocuments, liar: LyingCoordinator, hashes: dict[str, str]
) -> None:
    path = node_path("NO")
    targets = Targets(
        version=9,
        expires=NOW + 7 * DAY,
        targets={path: TargetFile(10, hashes, path)},
        unrecognized_fields=signed_field(NOW),
    )
    metadata = Metadata(targets)
    metadata.sign(signer(documents.officers["NO"]))
    liar.put("country-NO", metadata.to_bytes())
    requested: list[str] = []

    def fetch(name: str) -> bytes | None:
        requested.append(name)
        return liar.show(name)

    view = TrustedView.load(fetch, documents.pinned, NOW)
    assert "NO" in view.absent
    assert not [name for name in requested if ".." in name or "draft" in name]
    bundle = CountryBundle(
        country="NO", metadata=metadata.to_bytes().decode(), targets={path: "0123456789"}
    )
    before = sorted(p for p in documents.home.rglob("*") if p.is_file())
    with pytest.raises(DocumentFault):
        documents.store.accept_country(bundle.canonical(), NOW, online_key=documents.online_key)
    assert sorted(p for p in documents.home.rglob("*") if p.is_file()) == before
