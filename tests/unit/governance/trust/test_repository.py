"""The coordinator's store publishes only what verifies, and a fault changes nothing."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.runtime.files import write_atomic
from governance.trust import repository as module
from governance.trust.bundle import CountryBundle
from governance.trust.ceremony import Draft, sign_draft
from governance.trust.repository import Repository
from governance.trust.signing import OfficerDocuments
from tests.support.documents import (
    COUNTRIES,
    DAY,
    NOW,
    FederationDocuments,
    agreement,
    agreement_fields,
    country_metadata,
    node_keys,
    permit,
    raw_key,
    study,
)


def refused(act: Callable[[], Any], documents: FederationDocuments) -> str:
    before = documents.snapshot_of_store()
    with pytest.raises(DocumentFault) as caught:
        act()
    assert documents.snapshot_of_store() == before
    assert caught.value.fix
    return str(caught.value)


# ---- the ceremony


def test_the_first_agreement_is_published_at_the_threshold(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path)
    documents.store.draft(documents.agreed, NOW)
    documents.sign("DK", "EE")
    status = documents.store.draft_status()
    assert status is not None
    assert (status.signed, status.unsigned, status.needed) == (("DK", "EE"), ("NO", "PT"), 1)
    assert "The draft needs 1 more signature." in refused(documents.publish, documents)
    documents.sign("PT")
    documents.publish()
    assert documents.store.draft_status() is None
    assert documents.view().agreement == documents.agreed
    assert documents.view().versions.by_name() == {"root": 1, "targets": 1}


def test_nothing_can_be_published_before_an_agreement(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path)
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    for act in (
        documents.refresh,
        lambda: documents.propose(study(documents.agreed)),
        lambda: documents.store.accept_country(bundle, NOW, online_key=documents.online_key),
    ):
        assert "No agreement is published yet" in refused(act, documents)
    assert "No draft waits" in refused(documents.publish, documents)
    assert documents.store.read("metadata/timestamp.json") is None


def test_a_new_draft_replaces_the_pending_one_and_its_signatures(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path)
    documents.store.draft(documents.agreed, NOW)
    documents.sign("DK", "EE", "NO")
    documents.store.draft(agreement(title="Corrected"), NOW)
    status = documents.store.draft_status()
    assert status is not None
    assert status.needed == 3


def test_signatures_over_the_replaced_draft_are_refused(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path)
    old = Draft.from_canonical(documents.store.draft(documents.agreed, NOW))
    late = sign_draft(old, documents.officers["DK"], previous_root=None, now=NOW)
    documents.store.draft(agreement(title="Corrected"), NOW)
    assert "over another draft" in refused(lambda: documents.store.add_signatures(late), documents)


@pytest.mark.parametrize("name", ["document_key", "online_key"])
def test_the_coordinator_s_keys_must_be_those_of_the_agreement(tmp_path: Path, name: str) -> None:
    documents = FederationDocuments(tmp_path)
    documents.store.draft(documents.agreed, NOW)
    documents.sign("DK", "EE", "NO")
    setattr(documents, name, raw_key(77))
    refused(documents.publish, documents)
    assert documents.store.read("metadata/1.root.json") is None


def test_an_agreement_that_has_ended_is_not_published(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path)
    documents.store.draft(documents.agreed, NOW)
    documents.sign("DK", "EE", "NO")
    documents.now = documents.agreed.sunset
    assert "expired" in refused(documents.publish, documents)


# ---- amendments


def amended(**changes: Any) -> Agreement:
    return agreement(title="As amended", **changes)


def rekeyed(country: str) -> list[dict[str, Any]]:
    number = 200 + COUNTRIES.index(country)
    return [
        party | {"officer_key": raw_key(number).public.to_text()}
        if party["country"] == country
        else party
        for party in agreement_fields()["parties"]
    ]


def amend(documents: FederationDocuments, agreed: Agreement, *signers: str) -> None:
    documents.store.draft(agreed, documents.now)
    documents.sign(*signers)
    documents.publish()
    documents.agreed = agreed


def test_an_amendment_keeps_the_countries_documents(full: FederationDocuments) -> None:
    amend(full, amended(), "EE", "NO", "PT")
    view = full.view()
    assert view.agreement.title == "As amended"
    assert (view.versions.root, view.versions.targets) == (2, 2)
    assert set(view.countries) == set(COUNTRIES)


def test_studies_of_the_old_agreement_stay_readable(full: FederationDocuments) -> None:
    proposed = study(full.agreed)
    full.propose(proposed)
    amend(full, amended(), "EE", "NO", "PT")
    assert full.view().study(proposed.digest) == proposed


def test_an_amendment_needs_three_of_the_old_keys_too(full: FederationDocuments) -> None:
    full.store.draft(amended(parties=rekeyed("DK")), NOW)
    full.sign("EE", "NO")
    full.officers["DK"] = raw_key(200)
    full.sign("DK")
    assert "The draft needs 1 more signature." in refused(full.publish, full)
    full.sign("PT")
    full.publish()


def test_documents_signed_by_a_former_key_are_removed(full: FederationDocuments) -> None:
    amend(full, amended(parties=rekeyed("DK")), "EE", "NO", "PT")
    view = full.view()
    assert set(view.countries) == {"EE", "NO", "PT"}
    assert "none is published" in view.absent["DK"]
    old = full.folders["DK"].sign(NOW, raw_key(100))
    refused(lambda: full.store.accept_country(old, NOW, online_key=full.online_key), full)
    full.officers["DK"] = raw_key(200)
    full.sign_and_submit("DK")
    assert full.view().country("DK") is not None


def test_the_coordinator_s_own_keys_can_change(full: FederationDocuments) -> None:
    proposed = study(full.agreed)
    full.propose(proposed)
    coordinator = agreement_fields()["coordinator"] | {
        "document_key": raw_key(12).public.to_text(),
        "online_key": raw_key(13).public.to_text(),
    }
    full.document_key, full.online_key = raw_key(12), raw_key(13)
    amend(full, amended(coordinator=coordinator), "EE", "NO", "PT")
    assert full.view().study(proposed.digest) == proposed
    full.online_key = raw_key(3)
    refused(full.refresh, full)


def test_a_country_can_leave(full: FederationDocuments) -> None:
    parties = agreement_fields()["parties"][1:]
    amend(full, amended(parties=parties), "EE", "NO", "PT")
    assert set(full.view().countries) == {"EE", "NO", "PT"}
    bundle = full.folders["DK"].sign(NOW, full.officers["DK"])
    refused(lambda: full.store.accept_country(bundle, NOW, online_key=full.online_key), full)


@pytest.mark.parametrize("dies_after", range(1, 8))
def test_an_interrupted_publication_is_completed_by_the_next(
    full: FederationDocuments, dies_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full.store.draft(amended(), NOW)
    full.sign("EE", "NO", "PT")
    written: list[Path] = []
    real = write_atomic

    def dying(path: Path, data: bytes) -> None:
        if len(written) == dies_after:
            raise DocumentFault("The disk is full")
        written.append(path)
        real(path, data)

    monkeypatch.setattr(module, "write_atomic", dying)
    try:
        full.publish()
    except DocumentFault:
        title = full.view().agreement.title
        assert title == "Heart disease across four countries"
    monkeypatch.setattr(module, "write_atomic", real)
    if full.store.current_draft() is not None:
        full.publish()
    assert full.view().agreement.title == "As amended"


# ---- countries


def test_a_country_s_documents_are_published_and_renewed(documents: FederationDocuments) -> None:
    documents.folders["DK"].set_node(node_keys("DK"))
    documents.sign_and_submit("DK")
    documents.sign_and_submit("DK")
    assert documents.view().versions.countries == {"DK": 2}
    assert documents.view().node_keys("DK") == node_keys("DK")


def test_the_same_bundle_again_changes_nothing(documents: FederationDocuments) -> None:
    bundle = documents.sign_and_submit("DK")
    before = documents.snapshot_of_store()
    documents.store.accept_country(bundle, NOW, online_key=documents.online_key)
    assert documents.snapshot_of_store() == before


def test_an_older_or_equal_version_is_refused(
    documents: FederationDocuments, tmp_path: Path
) -> None:
    old = documents.sign_and_submit("DK")
    documents.sign_and_submit("DK")
    accept = documents.store.accept_country
    reason = refused(lambda: accept(old, NOW, online_key=documents.online_key), documents)
    assert "version 1; version 2 is published" in reason
    other = OfficerDocuments(tmp_path / "other", "DK")
    other.set_node(node_keys("DK", 2))
    fork = other.sign(NOW, documents.officers["DK"], newer_than=1)
    why = refused(lambda: accept(fork, NOW, online_key=documents.online_key), documents)
    assert "version 2 is published" in why


def test_a_bundle_signed_by_another_country_is_refused(documents: FederationDocuments) -> None:
    bundle = documents.folders["DK"].sign(NOW, documents.officers["NO"])
    reason = refused(
        lambda: documents.store.accept_country(bundle, NOW, online_key=documents.online_key),
        documents,
    )
    assert "documents of DK are not published" in reason


def test_a_stranger_s_bundle_is_refused(documents: FederationDocuments, tmp_path: Path) -> None:
    bundle = OfficerDocuments(tmp_path / "se", "SE").sign(NOW, raw_key(50))
    refused(
        lambda: documents.store.accept_country(bundle, NOW, online_key=documents.online_key),
        documents,
    )


def test_an_expired_bundle_is_refused(documents: FederationDocuments) -> None:
    bundle = documents.folders["DK"].sign(NOW - 8 * DAY, documents.officers["DK"])
    reason = refused(
        lambda: documents.store.accept_country(bundle, NOW, online_key=documents.online_key),
        documents,
    )
    assert "expired" in reason


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * (5 * 1024 * 1024)])
def test_random_bytes_are_refused(documents: FederationDocuments, data: bytes) -> None:
    refused(
        lambda: documents.store.accept_country(data, NOW, online_key=documents.online_key),
        documents,
    )


# ---- studies and releases


def test_a_study_is_published_once_and_never_changed(full: FederationDocuments) -> None:
    proposed = study(full.agreed)
    full.propose(proposed)
    before = full.snapshot_of_store()
    full.propose(proposed)
    assert full.snapshot_of_store() == before
    other = study(full.agreed, question="How many patients, really?")
    assert "already published with another text" in refused(lambda: full.propose(other), full)


def test_a_study_under_another_agreement_is_refused(full: FederationDocuments) -> None:
    stray = study(agreement(title="Another"))
    assert "written for another agreement" in refused(lambda: full.propose(stray), full)


def test_a_study_signed_by_another_key_is_refused(full: FederationDocuments) -> None:
    full.document_key = raw_key(66)
    refused(lambda: full.propose(study(full.agreed)), full)


def test_releases_are_published_beside_studies(full: FederationDocuments) -> None:
    full.propose(study(full.agreed))
    keys = {"document_key": full.document_key, "online_key": full.online_key}
    full.store.add_release("heart-by-sex", b'{"n":4}', NOW, **keys)
    assert b'{"n":4}' in full.snapshot_of_store().values()
    view = full.view()
    assert len(view.studies) == 1
    assert not [name for name in view.files if "/releases/" in name]  # no reader needs it


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", "a" * 64])
def test_a_release_has_a_safe_name(full: FederationDocuments, name: str) -> None:
    keys = {"document_key": full.document_key, "online_key": full.online_key}
    refused(lambda: full.store.add_release(name, b"{}", NOW, **keys), full)


# ---- daily refresh


def test_a_refresh_signs_a_timestamp_and_once_a_day_a_snapshot(full: FederationDocuments) -> None:
    first = full.view().high_water
    full.now = NOW + timedelta(hours=6)
    full.refresh()
    second = full.view().high_water
    assert (second.timestamp, second.snapshot) == (first.timestamp + 1, first.snapshot)
    full.now = NOW + timedelta(hours=25)
    full.refresh()
    assert full.view().high_water.snapshot == first.snapshot + 1


def test_refreshing_keeps_the_repository_readable_for_weeks(full: FederationDocuments) -> None:
    for day in range(1, 22):
        full.now = NOW + day * DAY
        full.refresh()
        assert full.view().agreement == full.agreed


def test_a_refresh_by_another_key_is_refused(full: FederationDocuments) -> None:
    full.online_key = raw_key(66)
    refused(full.refresh, full)


@pytest.mark.parametrize(
    "name",
    [
        "metadata/../draft.json",
        "../draft.json",
        "draft.json",
        "/etc/passwd",
        "metadata/timestamp.json\n",
        "metadata/0.root.json",
        "metadata/root.json",
        "targets/agreement.json",
        "targets/country-DK/../../lock",
        "",
    ],
)
def test_no_other_file_can_be_read(full: FederationDocuments, name: str) -> None:
    full.store.draft(full.agreed, NOW)
    assert full.store.read(name) is None


def test_every_published_file_can_be_read(full: FederationDocuments) -> None:
    full.propose(study(full.agreed))
    full.folders["DK"].approve(permit(full.agreed, study(full.agreed)))
    full.folders["DK"].set_policy('@id("a") forbid (principal, action, resource);')
    full.sign_and_submit("DK")
    for name, data in full.snapshot_of_store().items():
        assert full.store.read(name) == data


def test_a_lost_file_is_named(full: FederationDocuments, tmp_path: Path) -> None:
    next((tmp_path / "store" / "public" / "metadata").glob("*.snapshot.json")).with_name(
        f"{full.view().high_water.snapshot}.snapshot.json"
    ).unlink()
    with pytest.raises(DocumentFault, match="has lost metadata"):
        full.refresh()


def test_concurrent_writers_lose_nothing(full: FederationDocuments, tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def work(country: str) -> None:
        try:
            store = Repository(tmp_path / "store")
            for _ in range(4):
                bundle = full.folders[country].sign(NOW, full.officers[country])
                store.accept_country(bundle, NOW, online_key=full.online_key)
                store.refresh(NOW, online_key=full.online_key)
        except DocumentFault as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(c,)) for c in COUNTRIES]
    for thread in threads:
        thread.start()
    reads = [full.view().versions for _ in range(20)]
    for thread in threads:
        thread.join()
    assert not faults
    assert reads
    assert full.view().versions.countries == dict.fromkeys(COUNTRIES, 5)


def test_a_country_s_metadata_may_come_from_other_software(documents: FederationDocuments) -> None:
    metadata, _ = country_metadata(documents.officers["DK"], {}, version=9)
    bundle = CountryBundle(country="DK", metadata=metadata.decode(), targets={})
    for published in (9, None):  # the same bundle again publishes nothing
        version = documents.store.accept_country(
            bundle.canonical(), NOW, online_key=documents.online_key
        )
        assert version == published
    assert documents.view().versions.countries == {"DK": 9}
