import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from governance.documents.agreement import Agreement
from governance.documents.permit import NodeKeys
from governance.documents.succession import succeeding
from governance.trust.ceremony import Draft, SignatureSet
from governance.trust.layout import key_id
from keys.identity import VerifyKey
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.encoding import canonical_json
from tests.support.documents import NOW, node_keys, raw_key, study
from tests.support.narrowing import present
from tests.support.officers import OfficerCommands, agreed_with, bundle_version

POLICY = """@id("dk/no-sex")
@sentence("Denmark does not share the sex of patients.")
forbid (principal, action, resource) when { context.study.features.contains("sex") };
"""
PERMITTING = '@id("dk/all")\npermit (principal, action, resource);\n'


def offer(officer: OfficerCommands, agreement: Agreement | None = None) -> Draft:
    """Publish a draft at the exchange."""
    documents = officer.documents
    return Draft.from_canonical(documents.store.draft(agreement or documents.agreed, documents.now))


class TestDraft:
    def test_a_draft_is_shown_completely_before_it_is_signed(
        self, enrolled: OfficerCommands
    ) -> None:
        offer(enrolled)
        output = enrolled.done("sign", answer="y\n")
        for party in enrolled.documents.agreed.parties:
            assert VerifyKey.from_text(party.officer_key).fingerprint in output
        assert 'DK  "Health data authority of DK"' in output
        assert output.count("(yours)") == 1
        assert "ε = 3 at δ = 0.0001 in every 365 days" in output
        assert "any 1 of the countries (c = 1)" in output
        assert "2 honest countries (h = 2)" in output
        assert "3 of the 4 countries" in output
        assert "to 2028-01-01" in output
        assert '"No data of this federation serves marketing." ("Article 4(2)")' in output

    def test_a_draft_is_signed_by_the_document_key_alone(self, enrolled: OfficerCommands) -> None:
        draft = offer(enrolled)
        enrolled.done("sign", "--yes")
        [(kind, content)] = enrolled.exchange.submitted
        signatures = SignatureSet.from_canonical(content)
        key = enrolled.home.settings().verify_key
        assert kind == SubmitRequest.DRAFT_SIGNATURES
        assert signatures.draft == draft.digest
        assert [*signatures.root] == [*signatures.targets] == [key_id(key)]
        assert present(enrolled.documents.store.draft_status()).signed == ("DK",)

    def test_a_draft_is_not_signed_when_the_officer_says_no(
        self, enrolled: OfficerCommands
    ) -> None:
        offer(enrolled)
        assert "you answered no" in enrolled.refused("sign", answer="n\n").lower()

    def test_a_draft_is_not_signed_when_nobody_answers(self, enrolled: OfficerCommands) -> None:
        offer(enrolled)
        assert "nobody answered" in enrolled.refused("sign").lower()

    def test_a_draft_is_signed_once(self, enrolled: OfficerCommands) -> None:
        offer(enrolled)
        enrolled.done("sign", "--yes")
        assert "waits for other countries" in enrolled.done("sign", "--yes")
        assert len(enrolled.exchange.submitted) == 1

    def test_a_draft_that_replaces_a_signed_one_is_signed_again(
        self, enrolled: OfficerCommands
    ) -> None:
        offer(enrolled)
        enrolled.done("sign", "--yes")
        enrolled.documents.now += timedelta(minutes=1)
        offer(enrolled)
        enrolled.done("sign", "--yes")
        assert len(enrolled.exchange.submitted) == 2

    def test_without_a_draft_nothing_is_signed(self, enrolled: OfficerCommands) -> None:
        assert "No agreement waits" in enrolled.done("sign")
        assert json.loads(enrolled.run("sign", "--json").stdout) == {
            "signed": False,
            "waiting": False,
        }

    def test_signatures_of_enough_countries_publish_the_agreement(
        self, agreed: OfficerCommands
    ) -> None:
        assert agreed.documents.store.read("metadata/1.root.json") is not None
        assert "Nothing waits for you" in agreed.done("inbox")

    def test_sign_prints_json_on_request(self, enrolled: OfficerCommands) -> None:
        draft = offer(enrolled)
        result = enrolled.run("sign", "--yes", "--json")
        assert json.loads(result.stdout)["draft"] == draft.digest
        assert "Heart disease across four countries" in result.stderr


class TestDraftThatMustNotBeSigned:
    def test_a_draft_with_another_key_for_this_country_is_refused(
        self, enrolled: OfficerCommands
    ) -> None:
        stranger = raw_key(7)
        offer(enrolled, agreed_with(stranger))
        output = enrolled.refused("sign", "--yes")
        assert "another document key for DK than yours" in output
        assert stranger.public.fingerprint in output
        assert enrolled.home.settings().verify_key.fingerprint in output

    def test_a_draft_without_this_country_is_refused(self, enrolled: OfficerCommands) -> None:
        countries = ("EE", "NO", "PT", "SE")
        offer(enrolled, agreed_with(raw_key(7), countries=countries))
        assert "does not name DK" in enrolled.refused("sign", "--yes")

    @pytest.mark.parametrize(
        "tamper",
        [
            lambda data: data + b" ",
            lambda data: data[:-1],
            lambda data: data.replace(b'"honest":2', b'"honest":1'),
            lambda data: data.replace(b'"amendment_threshold":3', b'"amendment_threshold":2'),
            lambda data: canonical_json({**json.loads(data), "root": {"keys": {}}}),
            lambda _: b"",
            lambda _: b"\x80\x04pickled",
        ],
    )
    def test_a_changed_draft_is_refused(
        self, enrolled: OfficerCommands, tamper: Callable[[bytes], bytes]
    ) -> None:
        draft = offer(enrolled)
        enrolled.exchange.tampered["draft"] = tamper(draft.canonical())
        assert "not a signed draft" in enrolled.refused("sign", "--yes")

    def test_a_draft_other_than_the_one_that_is_counted_gets_no_signature(
        self, enrolled: OfficerCommands
    ) -> None:
        """A coordinator that shows each officer another agreement gets no signatures."""
        offer(enrolled)
        offered = offer_other_budget(enrolled)
        enrolled.exchange.tampered["draft"] = offered.canonical()
        result = enrolled.run("sign", "--yes")
        assert result.exit_code == 1
        assert "another draft" in result.stderr
        assert present(enrolled.documents.store.draft_status()).signed == ()

    @pytest.mark.parametrize(
        ("drafted", "why"),
        [(NOW + timedelta(days=1), "dated in the future"), (NOW, "is version 2")],
    )
    def test_a_draft_that_does_not_follow_the_root_in_force_is_refused(
        self, enrolled: OfficerCommands, drafted: datetime, why: str
    ) -> None:
        version = 2 if "version" in why else 1
        draft = Draft(version=version, drafted=drafted, agreement=enrolled.documents.agreed)
        enrolled.exchange.tampered["draft"] = draft.canonical()
        assert why in enrolled.refused("sign", "--yes")

    def test_a_draft_of_an_agreement_that_has_ended_is_refused(
        self, enrolled: OfficerCommands
    ) -> None:
        offer(enrolled)
        enrolled.now = NOW + timedelta(days=3000)
        enrolled.certified()
        assert "has ended" in enrolled.refused("sign", "--yes")

    def test_a_draft_that_cannot_be_fetched_is_not_signed(self, enrolled: OfficerCommands) -> None:
        offer(enrolled)
        enrolled.exchange.down = True
        assert "does not answer" in enrolled.refused("sign", "--yes")

    def test_a_first_draft_is_refused_if_an_agreement_is_in_force(
        self, agreed: OfficerCommands
    ) -> None:
        draft = Draft(version=1, drafted=NOW, agreement=agreed.documents.agreed)
        agreed.exchange.tampered["draft"] = Draft(
            version=1, drafted=NOW + timedelta(minutes=1), agreement=draft.agreement
        ).canonical()
        assert "is version 1; the next one is 2" in agreed.refused("sign", "--yes")


def offer_other_budget(officer: OfficerCommands) -> Draft:
    richer = {"budget": [{**officer.documents.agreed.budget[0].model_dump(), "epsilon": 9.0}]}
    document_key = officer.home.settings().document_key
    other = agreed_with(document_key, **richer)
    return Draft(version=1, drafted=NOW, agreement=other)


def test_another_text_under_the_same_root_is_pointed_out(enrolled: OfficerCommands) -> None:
    """Three others may outvote this officer, but not unnoticed."""
    draft = offer(enrolled)
    enrolled.home.trust.mkdir()
    (enrolled.home.trust / "draft.json").write_bytes(draft.canonical())
    offer(enrolled, offer_other_budget(enrolled).agreement)
    enrolled.documents.sign("EE", "NO", "PT")
    enrolled.documents.publish()
    output = enrolled.run("inbox").stderr
    assert "the agreement in force is not the text that you signed" in output


class TestAmendment:
    def amended(self, officer: OfficerCommands) -> Agreement:
        document_key = officer.home.settings().document_key
        return agreed_with(document_key, smallest_cohort=100)

    def test_an_amendment_is_shown_with_what_it_changes(self, agreed: OfficerCommands) -> None:
        offer(agreed, self.amended(agreed))
        output = agreed.done("sign", "--yes")
        assert "smallest cohort  now 50; then 100" in output
        assert "its version  2" in output

    def test_an_amendment_is_in_force_once_the_others_sign(self, agreed: OfficerCommands) -> None:
        offer(agreed, self.amended(agreed))
        assert "changed agreement" in agreed.done("inbox")
        agreed.documents.sign("EE", "NO")
        agreed.done("sign", "--yes")
        assert agreed.documents.view().agreement.smallest_cohort == 100
        agreed.done("inbox")


class TestInterruptedSubmission:
    def test_an_interrupted_submission_is_repaired_by_signing_again(
        self, enrolled: OfficerCommands
    ) -> None:
        draft = offer(enrolled)
        enrolled.exchange.submit_down = True
        assert enrolled.run("sign", "--yes").exit_code == 1
        enrolled.exchange.submit_down = False
        enrolled.done("sign", "--yes")
        assert present(enrolled.documents.store.draft_status()).digest == draft.digest
        assert present(enrolled.documents.store.draft_status()).signed == ("DK",)


FIRST = 1_000
"""Comes after the identity key in `node_keys("DK")`."""


class TestNodeKeys:
    def keys_file(self, officer: OfficerCommands, country: str = "DK", number: int = 0) -> Path:
        return officer.file("node-keys.json", node_keys(country, number).canonical())

    def test_node_keys_are_compared_signed_and_published(self, agreed: OfficerCommands) -> None:
        output = agreed.done("sign", self.keys_file(agreed), answer="y\n")
        keys = node_keys("DK")
        assert VerifyKey.from_text(keys.identity_key).fingerprint in output
        assert VerifyKey.from_text(keys.log_key).fingerprint in output
        assert keys.log_origin in output
        assert agreed.documents.view().node_keys("DK") == keys

    def test_node_keys_wait_until_the_agreement_is_in_force(
        self, enrolled: OfficerCommands
    ) -> None:
        output = enrolled.done("sign", self.keys_file(enrolled), "--yes")
        assert "not published yet" in output
        assert enrolled.exchange.submitted == []
        assert enrolled.own().node == node_keys("DK")

    def test_node_keys_wait_until_an_exchange_is_known(self, officer: OfficerCommands) -> None:
        assert "not enrolled" in officer.done("sign", self.keys_file(officer), "--yes")
        assert officer.own().node == node_keys("DK")

    def test_node_keys_that_replace_others_are_pointed_out(self, agreed: OfficerCommands) -> None:
        agreed.done("sign", self.keys_file(agreed), "--yes")
        output = agreed.done("sign", self.keys_file(agreed, number=5), "--yes", answer="y\n")
        assert "replace the keys" in output
        assert "its log and ledger start empty" in output
        assert agreed.own().node == node_keys("DK", 5)

    def succeeding(self, officer: OfficerCommands, former: int, new: int) -> tuple[Path, NodeKeys]:
        """Return a file in which DK's key of one number has signed the key of another."""
        keys = node_keys("DK").model_copy(update={"identity_key": raw_key(new).public.to_text()})
        stated = succeeding(raw_key(former), raw_key(new), keys.stated(), NOW)
        signed = keys.model_copy(update={"succession": stated})
        return officer.file("node-keys.json", signed.canonical()), signed

    def test_node_keys_that_the_former_key_has_signed_need_no_second_question(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.done("sign", self.keys_file(agreed), "--yes")
        file, keys = self.succeeding(agreed, FIRST, 7_001)
        assert "former key has signed these keys" in agreed.done("sign", file, "--yes")
        assert agreed.own().node == keys
        assert agreed.documents.view().node_keys("DK") == keys

    def test_node_keys_that_the_former_key_has_not_signed_need_confirmation_even_with_yes(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.done("sign", self.keys_file(agreed), "--yes")
        output = agreed.refused("sign", self.keys_file(agreed, number=5), "--yes")
        assert "THE FORMER KEY HAS NOT SIGNED THESE" in output
        assert agreed.own().node == node_keys("DK")
        assert agreed.documents.view().node_keys("DK") == node_keys("DK")

    def test_node_keys_that_another_key_has_signed_count_as_unsigned(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.done("sign", self.keys_file(agreed), "--yes")
        file, _ = self.succeeding(agreed, 6_666, 7_001)
        assert "HAS NOT SIGNED" in agreed.refused("sign", file, "--yes")

    def test_an_older_statement_does_not_restore_the_former_keys(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.done("sign", self.keys_file(agreed), "--yes")
        older, _ = self.succeeding(agreed, FIRST, 7_001)
        content = older.read_bytes()
        agreed.done("sign", older, "--yes")
        newer, keys = self.succeeding(agreed, 7_001, 7_002)
        agreed.done("sign", newer, "--yes")
        again = agreed.file("node-keys.json", content)
        assert "HAS NOT SIGNED" in agreed.refused("sign", again, "--yes")
        assert agreed.own().node == keys

    @pytest.mark.parametrize("field", ["log_key", "log_origin", "node_auth", "identity_key"])
    def test_a_statement_is_valid_for_these_keys_only(
        self, agreed: OfficerCommands, field: str
    ) -> None:
        _, keys = self.succeeding(agreed, FIRST, 7_001)
        changed = {
            "log_key": raw_key(7_003).public.to_text(),
            "identity_key": raw_key(7_003).public.to_text(),
            "log_origin": "nordic-heart/another",
            "node_auth": "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=",
        }[field]
        file = agreed.file("node-keys.json", keys.model_copy(update={field: changed}).canonical())
        assert "is not signed" in agreed.refused("sign", file, "--yes")

    def test_node_keys_of_another_country_are_refused(self, agreed: OfficerCommands) -> None:
        output = agreed.refused("sign", self.keys_file(agreed, "EE"), "--yes")
        assert "keys of a node of EE" in output

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"identity_key": "ed25519:AAAA"}, "identity_key"),
            ({"log_origin": "No Slug!"}, "log_origin"),
            ({"node_auth": "ssh-rsa AAAA"}, "node_auth"),
            ({"country": "Denmark"}, "country"),
            ({"passphrase": "secret"}, "no such field"),
            ({"kind": "permit"}, "permit"),
        ],
    )
    def test_node_keys_that_are_malformed_are_refused(
        self, agreed: OfficerCommands, change: dict[str, str], expected: str
    ) -> None:
        fields = json.loads(node_keys("DK").canonical()) | change
        file = agreed.file("node-keys.json", json.dumps(fields))
        assert expected in agreed.refused("sign", file, "--yes")

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"a: &x 1\nb: *x\n"])
    def test_node_keys_that_are_not_a_document_are_refused(
        self, agreed: OfficerCommands, content: bytes
    ) -> None:
        file = agreed.file("node-keys.json", content)
        assert "cannot be used" in agreed.refused("sign", file, "--yes")

    def test_node_keys_that_do_not_exist_are_refused(self, agreed: OfficerCommands) -> None:
        assert "cannot be read" in agreed.refused("sign", agreed.folder / "none.json", "--yes")

    def test_node_keys_are_not_signed_when_they_do_not_match(self, agreed: OfficerCommands) -> None:
        assert "answered no" in agreed.refused("sign", self.keys_file(agreed), answer="n\n")

    def test_node_keys_are_not_signed_while_the_exchange_is_down(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.exchange.down = True
        assert "does not answer" in agreed.refused("sign", self.keys_file(agreed), "--yes")


class TestPolicy:
    def test_a_national_policy_is_shown_and_signed(self, agreed: OfficerCommands) -> None:
        output = agreed.done("sign", agreed.file("dk.cedar", POLICY), answer="y\n")
        assert "does not share the sex of patients" in output
        assert agreed.published().policy == POLICY

    def test_a_signed_national_policy_forbids_studies(self, agreed: OfficerCommands) -> None:
        agreed.documents.propose(study(agreed.documents.agreed))
        agreed.done("sign", agreed.file("dk.cedar", POLICY), "--yes")
        output = agreed.refused("approve", "heart-by-sex", "--yes")
        assert '"Denmark does not share the sex of patients." (national/dk/no-sex)' in output

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (PERMITTING, "a country's policy can only forbid"),
            (POLICY + PERMITTING, "a country's policy can only forbid"),
            ("forbid (principal, action", "Cedar cannot read it"),
            ("forbid (principal, action, resource);", "its own id"),
            (POLICY.replace("study.features", "study.patients"), "does not fit the schema"),
            (POLICY + "// \x1b[2Ahidden", "control or invisible characters"),
            (POLICY + "// \u202enothing", "control or invisible characters"),
        ],
    )
    def test_a_national_policy_that_is_malformed_is_refused(
        self, agreed: OfficerCommands, text: str, why: str
    ) -> None:
        assert why in agreed.refused("sign", agreed.file("dk.cedar", text), "--yes")

    def test_a_national_policy_that_is_not_text_is_refused(self, agreed: OfficerCommands) -> None:
        file = agreed.file("dk.cedar", b"\xff\xfe")
        assert "not UTF-8" in agreed.refused("sign", file, "--yes")
        assert "cannot be read" in agreed.refused("sign", agreed.folder / "no.cedar", "--yes")

    def test_a_national_policy_is_not_signed_when_the_officer_says_no(
        self, agreed: OfficerCommands
    ) -> None:
        file = agreed.file("dk.cedar", POLICY)
        assert "answered no" in agreed.refused("sign", file, answer="n\n")


class TestRenewal:
    def test_renewal_extends_the_documents_by_seven_days(self, agreed: OfficerCommands) -> None:
        agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
        agreed.documents.now = agreed.now = NOW + timedelta(days=5)
        agreed.documents.refresh()
        assert "until 2026-09-13" in agreed.done("renew")
        assert agreed.own().version == 2
        assert agreed.own().node == node_keys("DK")
        assert agreed.published().version == 2

    def test_renewal_makes_expired_documents_valid_again(self, agreed: OfficerCommands) -> None:
        agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
        agreed.documents.now = agreed.now = NOW + timedelta(days=9)
        agreed.documents.refresh()
        agreed.done("renew")
        assert agreed.published().node == node_keys("DK")

    def test_renewal_is_refused_if_nothing_was_signed(self, agreed: OfficerCommands) -> None:
        assert "nothing to renew" in agreed.refused("renew")

    def test_renewal_submits_pending_documents(self, enrolled: OfficerCommands) -> None:
        file = enrolled.file("node-keys.json", node_keys("DK").canonical())
        enrolled.done("sign", file, "--yes")
        enrolled.agree()
        assert "have not reached the exchange" in enrolled.done("inbox")
        enrolled.done("renew")
        assert "Nothing waits for you" in enrolled.done("inbox")
        assert enrolled.documents.view().node_keys("DK") == node_keys("DK")

    def test_renewal_reaches_the_node_whatever_the_exchange_shows(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
        agreed.exchange.tampered["metadata/timestamp.json"] = b"{}"
        result = agreed.run("renew", "--node", agreed.make_node())
        assert "cannot be trusted" in result.stderr
        bundle = (agreed.node / "officer" / "country-DK.json").read_bytes()
        assert bundle_version(bundle) == 2

    def test_renewal_reports_that_the_exchange_is_down(self, agreed: OfficerCommands) -> None:
        agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
        agreed.exchange.down = True
        result = agreed.run("renew", "--bundle-out", agreed.folder / "carried")
        assert result.exit_code == 1
        assert "Version 2 is signed and kept" in result.stderr
        assert bundle_version((agreed.folder / "carried").read_bytes()) == 2
