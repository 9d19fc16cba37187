"""Another person signs with the officer's key, or the officer's folder is an old copy."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.documents.permit import NodeKeys
from governance.documents.rotation import extended
from governance.documents.study import Study
from governance.officer.agent_service import shown
from governance.officer.folder_recovery import QUESTION
from governance.officer.foreign_documents import (
    MAX_NAMED,
    MAX_REFUSALS,
    ForeignDocuments,
    kept,
    take_over_refusals,
)
from governance.officer.home import Identity
from governance.trust.bundle import CountryDocuments, own_country
from governance.trust.limits import OF_COUNTRY, Allowance
from governance.trust.signing import OfficerDocuments
from tests.support.documents import DAY, node_keys, permit, raw_key, study, withdrawal
from tests.support.narrowing import present
from tests.support.officers import PASSPHRASE, OfficerCommands
from tests.unit.governance.officer.test_agent import agent_of, pass_time

pytestmark = pytest.mark.enable_socket
FOREIGN = "THE EXCHANGE SHOWS DOCUMENTS THAT THIS FOLDER DID NOT SIGN"
POLICY = '@id("dk/none")\nforbid (principal, action, resource);\n'
Work = Callable[[OfficerDocuments], None]


@pytest.fixture
def settled(agreed: OfficerCommands) -> OfficerCommands:
    """An officer who vouches for a node and has permitted one of two studies."""
    agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
    for each in studies(agreed):
        agreed.documents.propose(each)
    agreed.done("approve", studies(agreed)[0].id, "--yes")
    return agreed


def studies(officer: OfficerCommands) -> tuple[Study, Study]:
    agreed = officer.documents.agreed
    return study(agreed), study(agreed, id="asked-later")


def publish(officer: OfficerCommands, work: Work, *, versions_ahead: int = 4) -> None:
    """Sign with the officer's key in another folder and submit that, as a thief would."""
    documents, own = officer.documents, officer.own()
    other = OfficerDocuments(officer.folder / "other", "DK")
    work(other)
    key = documents.officers["DK"]
    bundle = other.sign(documents.now, key, newer_than=own.version + versions_ahead)
    documents.store.accept_country(bundle, documents.now, online_key=documents.online_key)


def foreign_work(officer: OfficerCommands) -> Work:
    """Return a thief's documents: its own node, a permit for the other study, and no policy."""

    def work(other: OfficerDocuments) -> None:
        other.set_node(strange_keys())
        other.approve(permit(officer.documents.agreed, studies(officer)[1]))

    return work


def strange_keys() -> NodeKeys:
    return node_keys("DK").model_copy(update={"identity_key": raw_key(77).public.to_text()})


def have_same_content(before: CountryDocuments | None, after: CountryDocuments | None) -> bool:
    return bool(before and after) and all(
        getattr(before, each) == getattr(after, each)
        for each in ("node", "permits", "withdrawals", "policy")
    )


class TestRenewing:
    def test_renewing_signs_a_higher_version_and_reports_foreign_documents(
        self, settled: OfficerCommands
    ) -> None:
        settled.done("sign", settled.file("policy.cedar", POLICY), "--yes")
        before = settled.own()
        publish(settled, foreign_work(settled))
        result = settled.run("renew", "--node", settled.make_node())
        assert have_same_content(before, settled.own())
        assert have_same_content(before, settled.documents.view().country("DK"))
        assert settled.own().version == before.version + 6
        for named in (
            FOREIGN,
            "the keys of a node",
            "no national policy",
            studies(settled)[1].digest,
        ):
            assert named in result.stderr
        assert studies(settled)[0].digest not in result.stderr

    def test_renewing_sends_no_foreign_document_to_the_node(self, settled: OfficerCommands) -> None:
        before = settled.own()
        publish(settled, foreign_work(settled))
        settled.done("renew", "--node", settled.make_node())
        handed = (settled.node / "officer" / "country-DK.json").read_bytes()
        key = settled.home.settings().verify_key
        assert have_same_content(before, own_country(handed, "DK", key, settled.now))

    def test_renewing_reports_foreign_documents_once_and_as_json(
        self, settled: OfficerCommands
    ) -> None:
        publish(settled, foreign_work(settled))
        assert FOREIGN in json.loads(settled.run("renew", "--json").stdout)["not_signed_here"]
        result = settled.run("renew", "--json")
        assert "not_signed_here" not in json.loads(result.stdout)
        assert FOREIGN not in result.stderr

    def test_documents_missing_at_the_exchange_do_not_affect_renewal(
        self, settled: OfficerCommands
    ) -> None:
        before = settled.own()
        publish(settled, lambda other: None)
        assert FOREIGN in settled.run("renew").stderr
        assert have_same_content(before, settled.own())

    def test_renewing_notices_foreign_documents_of_the_same_version(
        self, settled: OfficerCommands
    ) -> None:
        settled.exchange.submit_down = True
        before = settled.own()
        settled.run("renew")
        settled.exchange.submit_down = False
        publish(settled, foreign_work(settled), versions_ahead=-1)
        assert settled.published().version == settled.own().version
        assert FOREIGN in settled.run("renew").stderr
        assert have_same_content(before, settled.own())

    def test_renewing_does_not_report_earlier_documents_of_this_folder(
        self, settled: OfficerCommands
    ) -> None:
        """The exchange still shows a refusal that was reconsidered; it is not restored."""
        proposed = studies(settled)[0]
        settled.done("withdraw", proposed.id, "--reason", "Stop.", "--yes")
        settled.exchange.submit_down = True
        settled.run("approve", proposed.id, "--reconsider", "--yes")
        settled.exchange.submit_down = False
        assert FOREIGN not in settled.run("renew").stderr
        assert settled.own().withdrawal(proposed.digest) is None

    def test_renewing_names_a_limited_number_of_foreign_documents(
        self, settled: OfficerCommands
    ) -> None:
        agreed = settled.documents.agreed
        asked = [study(agreed, id=f"for-a-thief-{n}") for n in range(MAX_NAMED + 3)]
        for each in asked:
            settled.documents.propose(each)
        many = [permit(agreed, each) for each in asked]

        def approve_all(other: OfficerDocuments) -> None:
            for each in many:
                other.approve(each)

        publish(settled, approve_all)
        output = settled.run("renew").stderr
        assert output.count("a permit for") == MAX_NAMED
        assert "and 3 more" in output


class TestAForeignRefusal:
    def test_a_foreign_refusal_is_copied_into_the_folder(self, settled: OfficerCommands) -> None:
        proposed, other = studies(settled)

        def stopped(folder: OfficerDocuments) -> None:
            folder.withdraw(withdrawal(proposed))
            folder.withdraw(withdrawal(other))

        publish(settled, stopped)
        assert f"a refusal of {proposed.digest}" in settled.run("renew").stderr
        assert set(settled.own().withdrawals) == {proposed.digest, other.digest}

    def test_many_foreign_refusals_do_not_fill_the_folder(self, settled: OfficerCommands) -> None:
        """With a full folder the officer could not withdraw from anything."""
        proposed, agreed = studies(settled)[0], settled.documents.agreed
        foreign = ForeignDocuments(
            version=9,
            node=None,
            permits=(),
            withdrawals=(
                *(withdrawal(study(agreed, id=f"none-{n}")) for n in range(MAX_REFUSALS + 5)),
                withdrawal(proposed),
            ),
            policy=None,
            next_key=None,
        )
        documents = OfficerDocuments(settled.home.documents, "DK")
        take_over_refusals(documents, settled.own(), foreign)
        documents.sign(settled.now, settled.documents.officers["DK"])
        own = settled.own()
        assert proposed.digest in own.withdrawals
        assert len(own.withdrawals) == MAX_REFUSALS + 1
        take_over_refusals(documents, own, foreign)
        documents.sign(settled.now, settled.documents.officers["DK"])
        assert len(settled.own().withdrawals) == MAX_REFUSALS + 1

    def test_foreign_refusals_leave_half_of_the_folder_s_room(
        self, settled: OfficerCommands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        documents = OfficerDocuments(settled.home.documents, "DK")
        used = OF_COUNTRY.documents - documents.room
        small = Allowance(documents=used + 10, total=OF_COUNTRY.total)
        monkeypatch.setattr("governance.trust.signing.OF_COUNTRY", small)
        agreed = settled.documents.agreed
        many = tuple(withdrawal(study(agreed, id=f"none-{n}")) for n in range(20))
        seen = ForeignDocuments(
            version=9, node=None, permits=(), withdrawals=many, policy=None, next_key=None
        )
        take_over_refusals(documents, settled.own(), seen)
        assert documents.room == 5


class TestRotating:
    def test_a_rotation_signs_no_foreign_document_under_either_key(
        self, settled: OfficerCommands
    ) -> None:
        before = settled.own()
        publish(settled, foreign_work(settled))
        assert FOREIGN in settled.run("rotate", "--yes").stderr
        kept_now = Identity.open(settled.home, settled.home.settings(), PASSPHRASE.encode())
        documents = OfficerDocuments(settled.home.documents, "DK")
        for key in kept_now.keys:
            signed = present(documents.bundle(key.public))
            assert have_same_content(before, own_country(signed, "DK", key.public, settled.now))

    def test_a_foreign_successor_is_reported_and_not_copied(self, settled: OfficerCommands) -> None:
        documents = settled.documents
        key_history = extended(None, "DK", documents.officers["DK"], raw_key(78), documents.now)
        publish(settled, lambda other: other.set_history(key_history))
        output = settled.run("renew").stderr
        assert f"a new document key ({raw_key(78).public.fingerprint})" in output
        assert settled.own().next_key is None

    def test_foreign_documents_are_forgotten_with_the_former_key(
        self, settled: OfficerCommands
    ) -> None:
        publish(settled, foreign_work(settled))
        settled.done("rotate", "--yes")
        documents = settled.documents
        documents.store.draft_renewal(documents.now)
        documents.sign("EE", "NO", "PT")
        documents.publish()
        assert "DID NOT SIGN" not in settled.done("inbox")
        assert "nothing to take over" in settled.refused("renew", "--take-over", answer="y\n")


class TestForeignDocumentsAndTheAgent:
    def test_the_agent_copies_no_foreign_document_and_is_not_ready(
        self, settled: OfficerCommands, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent, before = agent_of(settled), settled.own()
        pass_time(settled, DAY)
        publish(settled, foreign_work(settled))
        with caplog.at_level(logging.WARNING, "pratique.agent"):
            agent.look()
        assert have_same_content(before, settled.documents.view().country("DK"))
        assert [r.message for r in caplog.records] == ["documents that this folder did not sign"]
        assert FOREIGN in agent.status.sentence()
        report = shown(agent).ready()["documents"]
        assert not report.good
        assert FOREIGN in report.says

    def test_the_agent_reports_foreign_documents_until_they_are_resolved(
        self, settled: OfficerCommands
    ) -> None:
        agent = agent_of(settled)
        pass_time(settled, DAY)
        publish(settled, foreign_work(settled))
        settled.exchange.submit_down = True
        agent.look()
        settled.exchange.submit_down = False
        for _ in range(3):
            pass_time(settled, DAY)
            agent.look()
        assert agent.status.failures == 0
        assert FOREIGN in agent.status.foreign
        assert not agent.status.well(settled.now)


class TestTakingOver:
    @pytest.fixture
    def old(self, settled: OfficerCommands) -> tuple[OfficerCommands, CountryDocuments]:
        """A folder restored from an old copy, and the documents that were signed since."""
        files = list(settled.home.documents.rglob("*.json"))
        copy = {path: path.read_bytes() for path in files}
        settled.done("approve", studies(settled)[1].id, "--yes")
        settled.done("sign", settled.file("policy.cedar", POLICY), "--yes")
        settled.done("withdraw", studies(settled)[0].id, "--reason", "Stop.", "--yes")
        lost = settled.own()
        for path, content in copy.items():
            path.write_bytes(content)
        return settled, lost

    def test_taking_over_restores_all_lost_documents(
        self, old: tuple[OfficerCommands, CountryDocuments]
    ) -> None:
        officer, lost = old
        output = officer.done("renew", "--take-over", answer="y\n")
        assert have_same_content(lost, officer.own())
        assert have_same_content(lost, officer.documents.view().country("DK"))
        assert "a national policy" in output
        assert QUESTION in output
        assert "DID NOT SIGN" not in officer.done("inbox")

    def test_taking_over_still_works_after_the_agent_signed_the_folder(
        self, old: tuple[OfficerCommands, CountryDocuments]
    ) -> None:
        officer, lost = old
        pass_time(officer, DAY)
        agent_of(officer).look()
        assert studies(officer)[1].digest not in officer.own().permits
        assert officer.done("inbox").startswith(f"1. {FOREIGN}")
        officer.done("renew", "--take-over", answer="y\n")
        assert have_same_content(lost, officer.own())

    def test_taking_over_needs_a_person_to_confirm(
        self, old: tuple[OfficerCommands, CountryDocuments]
    ) -> None:
        officer, _ = old
        assert "answered no" in officer.refused("renew", "--take-over", answer="n\n")
        assert "--yes does not answer" in officer.refused("renew", "--take-over")
        assert officer.run("renew", "--take-over", "--yes").exit_code == 2

    def test_taking_over_without_foreign_documents_is_refused(
        self, settled: OfficerCommands
    ) -> None:
        assert "nothing to take over" in settled.refused("renew", "--take-over", answer="y\n")

    def test_taking_over_never_restores_a_permit_that_was_withdrawn_here(
        self, settled: OfficerCommands
    ) -> None:
        proposed = studies(settled)[0]
        settled.done("withdraw", proposed.id, "--reason", "Stop.", "--yes")
        publish(settled, lambda o: o.approve(permit(settled.documents.agreed, proposed)))
        settled.done("renew", "--take-over", answer="y\n")
        assert present(settled.own().withdrawal(proposed.digest)).reason == "Stop."

    @pytest.mark.parametrize("content", ["", "{", '{"version": 1}'])
    def test_a_damaged_file_of_foreign_documents_is_ignored(
        self, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "kept").write_text(content)
        assert kept(tmp_path / "kept") is None
        assert kept(tmp_path / "none") is None
