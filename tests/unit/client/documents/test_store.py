"""The document mirror: verified again at each use, never older than before."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest

from client.documents.store import OWN, DocumentStore
from client.state.tables import documents
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.database import transaction
from governance.trust.view import TrustedView
from keys.identity import SigningKey
from protocols.wire.channel import LinkFault
from tests.support.documents import DAY, withdrawal
from tests.support.node_federation import NodeFederation


def held_path(store: DocumentStore, ending: str) -> str:
    return next(path for path in store._files() if path.endswith(ending))


def tamper(store: DocumentStore, path: str, content: bytes) -> None:
    chosen = documents.update().where(documents.c.path == path)
    with transaction(store._engine) as connection:
        connection.execute(chosen.values(bytes=content))


def test_the_mirror_is_used_while_the_link_is_down(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.restart("DK", fetch=lambda _: None)
    current = node.parts.documents.current(federation.clock())
    assert current.view.study(study.digest) == study
    assert current.own.permit(study.digest) is not None


def test_a_sync_changes_nothing_if_one_fetch_fails_whichever_it_is(
    federation: NodeFederation,
) -> None:
    """In particular, a link lost at a country's file does not make that country absent."""
    node, names = federation.nodes["DK"], list[str]()
    before = node.parts.documents._files()

    def recorded(path: str) -> bytes | None:
        names.append(path)
        return federation.documents.store.read(path)

    federation.hand_over("EE")
    TrustedView.load(
        recorded, federation.documents.pinned, federation.clock(), held=before.get
    )  # what the node fetches
    assert any("country-EE" in name for name in names)
    for lost in names:
        with pytest.raises(LinkFault):
            node.parts.documents.sync(failing_at(lost, federation), federation.clock())
        assert node.parts.documents._files() == before
    node.parts.documents.current(federation.clock())


def failing_at(lost: str, federation: NodeFederation) -> Callable[[str], bytes | None]:
    def fetch(path: str) -> bytes | None:
        if path == lost:
            raise LinkFault("The exchange does not answer")
        return federation.documents.store.read(path)

    return fetch


def test_an_older_state_of_the_exchange_is_refused(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    old = federation.documents.snapshot_of_store()
    federation.hand_over("EE")
    node.sync()
    with pytest.raises(DocumentFault, match="cannot be trusted"):
        node.parts.documents.sync(old.get, federation.clock())


def test_the_highest_versions_survive_a_restart(federation: NodeFederation) -> None:
    old = federation.documents.snapshot_of_store()
    federation.hand_over("EE")
    federation.nodes["DK"].sync()
    node = federation.restart("DK")
    with pytest.raises(DocumentFault):
        node.parts.documents.sync(old.get, federation.clock())


def test_a_changed_file_in_the_mirror_is_detected_at_its_next_use(
    federation: NodeFederation,
) -> None:
    store = federation.nodes["DK"].parts.documents
    path = held_path(store, "agreement.json")
    tamper(store, path, store._files()[path].replace(b"heart", b"Heart"))
    with pytest.raises(DocumentFault):
        store.view(federation.clock())


def test_a_changed_bundle_of_the_officer_is_detected(federation: NodeFederation) -> None:
    store = federation.nodes["DK"].parts.documents
    tamper(store, OWN, store._files()[OWN].replace(b"In the interest", b"In the Interest"))
    with pytest.raises(DocumentFault):
        store.own(federation.clock())


def test_own_documents_signed_by_another_key_are_refused(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    bundle = federation.documents.folders["DK"].sign(federation.clock(), SigningKey.generate())
    with pytest.raises(DocumentFault, match="pinned"):
        node.parts.documents.deliver(bundle, federation.clock())


def test_documents_of_another_country_are_refused(federation: NodeFederation) -> None:
    bundle = federation.documents.folders["EE"].bundle() or b""
    with pytest.raises(DocumentFault, match="EE"):
        federation.nodes["DK"].parts.documents.deliver(bundle, federation.clock())


def test_an_older_bundle_is_refused(federation: NodeFederation, study: Study) -> None:
    """An older bundle does not restore a withdrawn permit."""
    old = federation.documents.folders["DK"].bundle() or b""
    federation.withdraw("DK", study)
    store = federation.nodes["DK"].parts.documents
    with pytest.raises(DocumentFault, match="seen before"):
        store.deliver(old, federation.clock())
    assert store.own(federation.clock()).withdrawal(study.digest)


def test_the_same_bundle_again_changes_nothing(federation: NodeFederation) -> None:
    store = federation.nodes["DK"].parts.documents
    bundle = federation.documents.folders["DK"].bundle() or b""
    assert (
        store.deliver(bundle, federation.clock()).version == store.own(federation.clock()).version
    )


def test_two_contents_under_one_version_are_refused(
    federation: NodeFederation, study: Study
) -> None:
    folder = federation.documents.folders["DK"]
    twin = federation.folder / "twin"
    shutil.copytree(folder._directory, twin)
    federation.withdraw("DK", study)
    other = type(folder)(twin, "DK")
    other.set_policy(None)
    bundle = other.sign(
        federation.clock() + timedelta(seconds=1), federation.documents.officers["DK"]
    )
    with pytest.raises(DocumentFault, match="carry version"):
        federation.nodes["DK"].parts.documents.deliver(
            bundle, federation.clock() + timedelta(seconds=1)
        )


def test_bytes_that_are_no_bundle_are_refused(federation: NodeFederation) -> None:
    for content in (b"", b"{}", b"\xff", b'{"kind":"country-bundle"}'):
        with pytest.raises(DocumentFault):
            federation.nodes["DK"].parts.documents.deliver(content, federation.clock())


def test_the_clock_never_falls_below_the_latest_signed_time(federation: NodeFederation) -> None:
    store = federation.nodes["DK"].parts.documents
    latest = store.latest_signed()
    assert latest is not None
    assert store.not_before(latest - 30 * DAY) == latest
    assert store.not_before(latest + DAY) == latest + DAY


def test_a_delivery_moves_the_latest_signed_time(federation: NodeFederation) -> None:
    federation.documents.now += timedelta(hours=3)
    federation.hand_over("DK")
    latest = federation.nodes["DK"].parts.documents.latest_signed()
    assert latest == federation.clock()


def test_a_node_without_a_root_trusts_nothing(federation: NodeFederation) -> None:
    node = federation.restart("DK", pinned_root=None)
    with pytest.raises(DocumentFault, match="federation"):
        node.parts.documents.view(federation.clock())


def test_a_node_without_documents_of_its_officer_says_what_to_do(
    federation: NodeFederation,
) -> None:
    node = federation.nodes["DK"]
    with transaction(node.parts.engine) as connection:
        connection.execute(documents.delete().where(documents.c.path == OWN))
    with pytest.raises(DocumentFault) as fault:
        node.parts.documents.current(federation.clock())
    assert "pratique-node accept" in fault.value.fix


def test_versions_are_those_of_the_documents_of_the_officer(federation: NodeFederation) -> None:
    folder = federation.documents.folders["DK"]
    bundle = folder.sign(federation.clock(), federation.documents.officers["DK"])
    node = federation.nodes["DK"]
    node.deliver(bundle)
    assert (
        node.parts.documents.current(federation.clock()).versions.countries["DK"] == folder.version
    )


def test_an_ignored_document_is_logged_once(
    federation: NodeFederation, caplog: pytest.LogCaptureFixture
) -> None:
    store = federation.nodes["DK"].parts.documents
    for ignored in (
        ("a permit in targets",),
        ("a permit in targets",),
        (),
        ("a permit in targets",),
    ):
        store._log_ignored(ignored)
    assert [
        vars(record)["why"] for record in caplog.records if record.name == "pratique.documents"
    ] == ["a permit in targets"] * 2


def test_a_slow_exchange_delays_no_withdrawal(federation: NodeFederation, study: Study) -> None:
    """However slow the exchange is, the officer's withdrawal counts at once, and stays."""
    store, folder = federation.nodes["DK"].parts.documents, federation.documents.folders["DK"]
    shown, asked, go_on = federation.documents.snapshot_of_store(), Event(), Event()

    def dripping(path: str) -> bytes | None:
        asked.set()
        assert go_on.wait(60)
        return shown.get(path)

    with ThreadPoolExecutor(2) as pool:
        syncing = pool.submit(store.sync, dripping, federation.clock())
        assert asked.wait(60)
        folder.withdraw(withdrawal(study))
        bundle = folder.sign(federation.documents.now, federation.documents.officers["DK"])
        delivering = pool.submit(store.deliver, bundle, federation.clock())
        try:
            assert delivering.result(10).withdrawal(study.digest)
        finally:
            go_on.set()
        syncing.result(60)
    assert store.own(federation.clock()).withdrawal(study.digest)
    assert store._high_water().countries["DK"] == delivering.result().version
