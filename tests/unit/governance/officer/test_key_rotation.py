"""An officer changes the country's key by commands, against a store of documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from governance.documents.agreement import Agreement
from governance.documents.rotation import extended
from governance.errors import DocumentFault
from governance.officer import home as home_module
from governance.officer.home import NEXT_KEY, Identity
from governance.officer.own_documents import read_own
from governance.runtime.files import write_atomic
from governance.trust import signing as signing_module
from governance.trust.bundle import CountryBundle, is_signed_by
from governance.trust.layout import key_id
from keys.errors import KeyFault
from keys.identity import SigningKey, VerifyKey
from keys.store import KeyStore
from protocols.proto.exchange_pb2 import SubmitRequest
from tests.support.documents import node_keys, raw_key
from tests.support.officers import PASSPHRASE, OfficerCommands


@pytest.fixture
def settled(agreed: OfficerCommands) -> OfficerCommands:
    """An officer of DK whose node's keys are signed and published."""
    agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
    return agreed


def identity(officer: OfficerCommands) -> Identity:
    return Identity.open(officer.home, officer.home.settings(), PASSPHRASE.encode())


def announced(officer: OfficerCommands) -> SigningKey:
    officer.done("rotate", "--yes")
    new = identity(officer).next_key
    assert new is not None
    return new


def others_sign(officer: OfficerCommands, *countries: str) -> None:
    documents = officer.documents
    documents.store.draft_renewal(documents.now)
    documents.sign(*countries)


def put_in_force(officer: OfficerCommands) -> None:
    others_sign(officer, "EE", "NO")
    officer.done("sign", "--yes")


def bundles(officer: OfficerCommands) -> list[CountryBundle]:
    kind = SubmitRequest.COUNTRY_BUNDLE
    sent = [content for what, content in officer.exchange.submitted if what == kind]
    return [CountryBundle.from_canonical(content) for content in sent]


class TestANewKey:
    def test_a_new_key_is_signed_by_the_former_key_and_documents_are_published_under_both(
        self, settled: OfficerCommands
    ) -> None:
        former = identity(settled).key
        new = announced(settled)
        present, later = bundles(settled)[-2:]
        assert is_signed_by(present.signed(), former.public)
        assert is_signed_by(later.signed(), new.public)
        assert present.targets == later.targets
        assert later.signed().signed.version == present.signed().signed.version + 1
        assert settled.documents.store.announced_keys() == {"DK": new.public.to_text()}

    def test_rotate_says_what_comes_next(self, settled: OfficerCommands) -> None:
        output = settled.done("rotate", "--yes")
        new = identity(settled).next_key
        assert new is not None
        assert new.public.fingerprint in output
        assert "Your former key signs until the new one is in force" in output
        assert f"Your new key {new.public.fingerprint} waits" in settled.done("inbox")

    def test_rotate_prints_json_on_request(self, settled: OfficerCommands) -> None:
        answer = json.loads(settled.run("rotate", "--yes", "--json").stdout)
        assert answer["key"] == settled.home.settings().verify_key.fingerprint
        assert answer["new key"]

    def test_a_new_key_is_not_created_without_confirmation(self, settled: OfficerCommands) -> None:
        assert "Nothing was signed" in settled.refused("rotate", answer="n\n")

    def test_a_new_key_is_not_created_before_there_is_an_agreement(
        self, enrolled: OfficerCommands
    ) -> None:
        assert "no agreement yet" in enrolled.refused("rotate", "--yes")

    def test_a_repeated_rotate_keeps_the_same_new_key(self, settled: OfficerCommands) -> None:
        new = announced(settled)
        assert announced(settled).public == new.public
        own = settled.own()
        assert own is not None
        assert own.history is not None
        assert len(own.history.rotations) == 1

    def test_rotate_reports_that_the_exchange_does_not_have_the_new_key(
        self, settled: OfficerCommands
    ) -> None:
        settled.exchange.submit_down = True
        assert settled.run("rotate", "--yes").exit_code == 1
        settled.exchange.submit_down = False
        assert "has not reached the exchange" in settled.done("inbox")
        settled.done("rotate", "--yes")
        assert settled.documents.store.announced_keys()

    def test_a_new_key_is_renewed_together_with_the_former_key(
        self, settled: OfficerCommands
    ) -> None:
        new = announced(settled)
        settled.done("renew")
        present, later = bundles(settled)[-2:]
        assert is_signed_by(later.signed(), new.public)
        assert later.signed().signed.version == present.signed().signed.version + 1

    def test_a_new_key_is_written_to_a_file_for_the_node(self, settled: OfficerCommands) -> None:
        out = settled.folder / "carry.json"
        settled.done("rotate", "--yes", "--bundle-out", out)
        new = identity(settled).next_key
        carried = CountryBundle.from_canonical(out.with_name("next-carry.json").read_bytes())
        assert new is not None
        assert is_signed_by(carried.signed(), new.public)

    def test_a_new_key_waits_in_the_folder_of_a_node_that_is_down(
        self, settled: OfficerCommands
    ) -> None:
        settled.done("rotate", "--yes", "--node", settled.make_node())
        files = sorted(file.name for file in (settled.node / "officer").iterdir())
        assert files == ["country-DK-next.json", "country-DK.json"]


class TestInForce:
    def test_both_keys_sign_the_agreement_that_names_the_new_key(
        self, settled: OfficerCommands
    ) -> None:
        former, new = identity(settled).key, announced(settled)
        put_in_force(settled)
        root = settled.documents.store.read("metadata/2.root.json")
        assert root is not None
        signed = {signature["keyid"] for signature in json.loads(root)["signatures"]}
        assert {key_id(former.public), key_id(new.public)} <= signed

    def test_the_former_key_is_destroyed(self, settled: OfficerCommands) -> None:
        former, new = identity(settled).key, announced(settled)
        put_in_force(settled)
        output = settled.run("inbox").stderr
        assert f"your new key {new.public.fingerprint} is in force" in output
        now = identity(settled)
        assert (now.key.public, now.next_key) == (new.public, None)
        assert NEXT_KEY not in now.store.names()
        assert former.to_bytes() not in [now.store.get(name) for name in now.store.names()]
        assert settled.home.key_file.read_text().strip() == new.public.to_text()

    def test_the_country_always_has_documents(self, settled: OfficerCommands) -> None:
        new = announced(settled)
        put_in_force(settled)
        documents = settled.documents.view().country("DK")
        assert documents is not None
        assert documents.key == new.public.to_text()
        assert documents.node == node_keys("DK")

    def test_the_new_key_signs_from_then_on(self, settled: OfficerCommands) -> None:
        new = announced(settled)
        put_in_force(settled)
        settled.done("inbox")
        settled.done("renew")
        assert is_signed_by(bundles(settled)[-1].signed(), new.public)
        own = settled.own()
        assert own is not None
        assert own.next_key is None

    def test_the_key_can_change_again(self, settled: OfficerCommands) -> None:
        keys = [announced(settled)]
        put_in_force(settled)
        settled.done("inbox")
        keys.append(announced(settled))
        put_in_force(settled)
        settled.done("inbox")
        assert identity(settled).key.public == keys[1].public
        own = settled.own()
        assert own is not None
        assert own.history is not None
        assert own.history.newest == keys[1].public.to_text()

    def test_the_next_command_of_the_officer_completes_the_change(
        self, settled: OfficerCommands
    ) -> None:
        new = announced(settled)
        others_sign(settled, "EE", "NO", "PT")
        settled.documents.publish()
        settled.done("renew")
        assert identity(settled).key.public == new.public
        assert is_signed_by(bundles(settled)[-1].signed(), new.public)


STEPS = range(1, 6)


@pytest.mark.parametrize("dies_at", STEPS)
def test_an_interrupted_change_is_completed_by_the_next_command(
    settled: OfficerCommands, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings, key store and documents change in turn; a crash may follow each of them."""
    new = announced(settled)
    put_in_force(settled)
    cut = _die_at(monkeypatch, dies_at)
    settled.run("renew")
    assert cut(), "this step is never reached"
    monkeypatch.undo()
    _set_up_again(settled, monkeypatch)
    settled.done("renew")
    now = identity(settled)
    assert (now.key.public, now.next_key) == (new.public, None)
    assert read_own(settled.home, settled.home.settings(), settled.now) is not None
    assert settled.documents.view().country("DK") is not None


def _die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Any:
    count = 0

    def counted(real: Any, fault: Exception) -> Any:
        def step_by_step(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count >= step:
                raise fault
            return real(*args, **kwargs)

        return step_by_step

    full = DocumentFault("The disk is full")
    monkeypatch.setattr(home_module, "write_atomic", counted(write_atomic, full))
    monkeypatch.setattr(signing_module, "write_atomic", counted(write_atomic, full))
    monkeypatch.setattr(KeyStore, "put", counted(KeyStore.put, KeyFault("The disk is full")))
    monkeypatch.setattr(KeyStore, "delete", counted(KeyStore.delete, KeyFault("The disk is full")))
    return lambda: count >= step


def _set_up_again(officer: OfficerCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the officer up again after everything was restored."""
    monkeypatch.setattr("governance.officer.unlock.dial", lambda *_, **__: officer.exchange)
    monkeypatch.setattr("governance.officer.unlock.utc_now", lambda: officer.now)


class TestKeysOfOtherCountries:
    """A draft that gives another country a new key."""

    def draft(self, officer: OfficerCommands, key: VerifyKey) -> Agreement:
        agreed = officer.documents.agreed.with_officer_keys({"EE": key.to_text()})
        officer.documents.store.draft(agreed, officer.documents.now)
        return agreed

    def test_a_new_key_signed_by_the_former_one_is_accepted(self, settled: OfficerCommands) -> None:
        documents, new = settled.documents, raw_key(201)
        folder = documents.folders["EE"]
        folder.set_history(extended(None, "EE", documents.officers["EE"], new, documents.now))
        documents.sign_and_submit("EE")
        self.draft(settled, new.public)
        assert "Signed and submitted" in settled.done("sign", "--yes")

    def test_a_new_key_not_signed_by_the_former_one_is_refused(
        self, settled: OfficerCommands
    ) -> None:
        self.draft(settled, raw_key(666).public)
        output = settled.refused("sign", "--yes")
        assert "gives EE a new key that its former key has not signed" in output
        assert raw_key(666).public.fingerprint in output

    def test_an_unsigned_new_key_is_accepted_if_the_officer_confirms_the_loss(
        self, settled: OfficerCommands
    ) -> None:
        self.draft(settled, raw_key(201).public)
        settled.refused("sign", "--yes", "--lost-key", "NO")
        assert "Signed and submitted" in settled.done("sign", "--yes", "--lost-key", "EE")


def test_a_key_without_its_folder_is_no_officer(settled: OfficerCommands, tmp_path: Path) -> None:
    """Settings and key store come from different backups: neither key is the named one."""
    announced(settled)
    settings = settled.home.settings()
    settled.home.save(settings.model_copy(update={"document_key": raw_key(5).public.to_text()}))
    assert "restore both from the same backup" in settled.run("inbox").stderr
