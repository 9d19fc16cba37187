"""Rotation of the coordinator's keys: the countries sign for new ones, and each start uses the
right ones, whatever was interrupted before."""

from datetime import timedelta
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.trust.ceremony import Draft
from keys.composite import Suite
from keys.errors import KeyFault
from keys.store import KeyStore
from protocols.errors import ReasonCode
from server.exchange.documents import ExchangeDocuments
from server.home import CoordinatorHome, CoordinatorKeys, NextKeys, Settings, create_home
from server.key_rotation import (
    NEXT,
    ROTATED,
    key_fields,
    make_next_keys,
    open_keys,
)
from tests.support.documents import (
    COUNTRIES,
    NOW,
    FederationDocuments,
    agreement,
    node_keys,
    raw_key,
    study,
)
from tests.support.keystore import LOWEST_SCRYPT_COST, PASSPHRASE
from tests.support.narrowing import opened_sum
from tests.support.node_federation import NodeFederation, code_of

SETTINGS = Settings(federation="nordic-heart", listen="127.0.0.1:7443", address="127.0.0.1:7443")


@pytest.fixture(autouse=True)
def _cheap_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    create = KeyStore.create.__func__  # type: ignore[attr-defined]
    cheap = classmethod(
        lambda cls, path, word, cost=LOWEST_SCRYPT_COST: create(cls, path, word, cost=cost)
    )
    monkeypatch.setattr(KeyStore, "create", cheap)


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    new_home = CoordinatorHome(tmp_path / "coordinator")
    create_home(new_home, SETTINGS, PASSPHRASE, NOW)
    return new_home


@pytest.fixture
def documents(home: CoordinatorHome, tmp_path: Path) -> FederationDocuments:
    """A federation whose coordinator has the keys in that folder."""
    keys = CoordinatorKeys.load(home, KeyStore.open(home.keys, PASSPHRASE))
    agreed = agreement().with_coordinator_keys(key_fields(keys))
    federation_documents = FederationDocuments(tmp_path / "documents", agreed=agreed)
    federation_documents.document_key, federation_documents.online_key = (
        keys.document_key,
        keys.online_key,
    )
    home.repository.symlink_to(tmp_path / "documents" / "store")
    federation_documents.publish_agreement()
    for country in COUNTRIES:
        federation_documents.folders[country].set_node(node_keys(country))
        federation_documents.sign_and_submit(country)
    return federation_documents


def daemon(documents: FederationDocuments, keys: CoordinatorKeys) -> ExchangeDocuments:
    return ExchangeDocuments(
        documents.store,
        document_key=keys.document_key,
        online_key=keys.online_key,
        clock=lambda: documents.now,
        on_change=lambda _: None,
        next_keys=keys.next_keys,
    )


def lay_out(documents: FederationDocuments, keys: CoordinatorKeys) -> Draft:
    draft = Draft.from_canonical(documents.store.draft_renewal(documents.now, key_fields(keys)))
    documents.sign("DK", "EE", "NO")
    return draft


def public(keys: CoordinatorKeys | NextKeys) -> dict[str, str]:
    rotated = (keys.identity, keys.document_key, keys.online_key)
    return {name: key.public.to_text() for name, key in zip(ROTATED, rotated, strict=True)}


def waiting(keys: CoordinatorKeys) -> NextKeys:
    assert keys.next_keys is not None
    return keys.next_keys


def test_keys_for_messages_have_two_halves_and_the_others_one(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    for held in (keys, waiting(keys)):
        assert Suite.COMPOSITE.admits(held.identity.public)
        assert not Suite.COMPOSITE.admits(held.document_key.public)


def test_a_key_of_one_half_is_replaced_by_one_of_two_halves(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    KeyStore.open(home.keys, PASSPHRASE).put("identity", raw_key(9).to_bytes())
    assert open_keys(home, PASSPHRASE).identity.public == raw_key(9).public
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    lay_out(documents, keys)
    daemon(documents, keys).publish()
    assert Suite.COMPOSITE.admits(open_keys(home, PASSPHRASE).identity.public)


def test_new_keys_are_created_once(home: CoordinatorHome, documents: FederationDocuments) -> None:
    before = open_keys(home, PASSPHRASE)
    new_fingerprints = make_next_keys(home, PASSPHRASE)
    assert set(new_fingerprints) == {"identity_key", "document_key", "online_key"}
    assert make_next_keys(home, PASSPHRASE) == new_fingerprints
    after = open_keys(home, PASSPHRASE)
    assert public(after) == public(before)
    later = waiting(after)
    fingerprints = [
        key.public.fingerprint for key in (later.identity, later.document_key, later.online_key)
    ]
    assert fingerprints == list(new_fingerprints.values())


def test_the_former_keys_sign_until_the_countries_have_signed(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    draft = lay_out(documents, keys)
    assert draft.agreement.coordinator.identity_key == waiting(keys).identity.public.to_text()
    assert draft.agreement.digest == documents.agreed.digest
    documents.store.refresh(documents.now, online_key=keys.online_key)
    assert public(open_keys(home, PASSPHRASE)) == public(keys)


def test_new_keys_in_force_are_used_at_the_next_start(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    lay_out(documents, keys)
    running = daemon(documents, keys)
    running.publish()
    assert running.uses_next_keys
    opened = open_keys(home, PASSPHRASE)
    assert public(opened) == public(waiting(keys))
    assert opened.log_key.public == keys.log_key.public
    assert opened.next_keys is None
    names = KeyStore.open(home.keys, PASSPHRASE).names()
    assert not [name for name in names if name.startswith(NEXT)]
    documents.now += timedelta(hours=2)
    documents.store.refresh(documents.now, online_key=opened.online_key)
    with pytest.raises(DocumentFault):
        documents.store.refresh(documents.now, online_key=keys.online_key)


def test_documents_and_studies_stay_valid_under_the_new_keys(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    some_study = study(documents.agreed)
    documents.propose(some_study)
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    lay_out(documents, keys)
    daemon(documents, keys).publish()
    view = documents.view()
    assert set(view.countries) == set(COUNTRIES)
    assert view.study(some_study.digest) == some_study
    assert view.agreement.digest == documents.agreed.digest


def test_a_daemon_without_the_new_keys_cannot_publish_their_agreement(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    stale = open_keys(home, PASSPHRASE)
    make_next_keys(home, PASSPHRASE)
    lay_out(documents, open_keys(home, PASSPHRASE))
    before = documents.view()
    with pytest.raises(DocumentFault):
        daemon(documents, stale).publish()
    assert documents.view().versions == before.versions


def test_a_draft_without_the_new_keys_is_published_by_the_keys_in_force(
    home: CoordinatorHome, documents: FederationDocuments
) -> None:
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    documents.store.draft_renewal(documents.now)
    documents.sign("DK", "EE", "NO")
    running = daemon(documents, keys)
    running.publish()
    assert not running.uses_next_keys
    assert public(open_keys(home, PASSPHRASE)) == public(keys)


@pytest.mark.parametrize("method", ["put", "delete"])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_an_interrupted_start_is_completed_by_the_next_one(
    home: CoordinatorHome,
    documents: FederationDocuments,
    method: str,
    dies_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_next_keys(home, PASSPHRASE)
    keys = open_keys(home, PASSPHRASE)
    lay_out(documents, keys)
    daemon(documents, keys).publish()
    _die_at(monkeypatch, method, dies_at)
    with pytest.raises(KeyFault):
        open_keys(home, PASSPHRASE)
    monkeypatch.undo()
    opened = open_keys(home, PASSPHRASE)
    assert public(opened) == public(waiting(keys))
    assert public(open_keys(home, PASSPHRASE)) == public(opened)


def test_an_interrupted_creation_of_keys_leaves_the_keys_in_force(
    home: CoordinatorHome, documents: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_keys(home, PASSPHRASE)
    _die_at(monkeypatch, "put", 2)
    with pytest.raises(KeyFault):
        make_next_keys(home, PASSPHRASE)
    monkeypatch.undo()
    keys = open_keys(home, PASSPHRASE)
    assert (public(keys), keys.next_keys) == (public(before), None)


def _die_at(monkeypatch: pytest.MonkeyPatch, method: str, step: int) -> None:
    real, count = getattr(KeyStore, method), 0

    def counted(store: KeyStore, *args: object) -> None:
        nonlocal count
        count += 1
        if count >= step:
            raise KeyFault("The disk is full")
        real(store, *args)

    monkeypatch.setattr(KeyStore, method, counted)


def test_a_run_continues_under_the_new_identity_key(tmp_path: Path) -> None:
    """Nodes use the coordinator's key in their newest documents, even during a run."""
    federation = NodeFederation(tmp_path / "federation")
    federation.sync()
    documents, asked, new = federation.documents, federation.approved(), raw_key(501)
    signing = [raw_key(1)]

    def sign(message: bytes) -> bytes:
        return signing[-1].sign(message)

    run = federation.run(asked, sign=sign)
    run.set_up()
    documents.store.draft_renewal(documents.now, {"identity_key": new.public.to_text()})
    documents.sign("DK", "EE", "NO")
    documents.publish()
    signing.append(new)
    federation.sync()
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES
    thief = federation.run(asked)
    reply = federation.nodes["DK"].handle(thief.request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.NOT_AUTHENTIC
