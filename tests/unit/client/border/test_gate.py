"""The requests that the gate admits, and every reason for a refusal."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client.border import gate as gate_module
from client.node import Node
from client.state.tables import journal
from governance.budget.accounting import rdp_micro
from governance.budget.ledger import LedgerView, Terms
from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.database import transaction
from protocols.errors import ReasonCode
from protocols.private_sum.messages import (
    LARGEST_REQUEST,
    refusal_reply,
    sign_request,
    write_request,
)
from protocols.proto.round_pb2 import PHASE_BUNDLE, BundleRequest, RequestBody
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import sign_message
from tests.support.documents import DAY, permit, raw_key, withdrawal
from tests.support.node_federation import (
    NodeFederation,
    altered_request,
    code_of,
    last_refusal,
    records,
)

FORBID_MALES = """
@id("dk/not-now") @clause("Order 12") @code("policy") @sentence("Nothing leaves in autumn.")
@fix("Ask again in winter.")
forbid (principal, action, resource);
"""


def refused(node: Node, frame: bytes, code: ReasonCode) -> dict[str, Any]:
    """Expect a refusal: only a reason code is sent, and the operator gets the full text."""
    before = node.parts.ledger.entries()
    reply = node.handle(frame)
    assert code_of(reply) is code
    assert reply == refusal_reply(code)
    refusal = dict(last_refusal(node))
    assert refusal["code"] == code
    assert refusal["what"]
    assert node.parts.ledger.entries() == before
    return refusal


def test_an_honest_request_is_answered(federation: NodeFederation, study: Study) -> None:
    run = federation.run(study)
    reply = federation.nodes["DK"].handle(run.request("bundle", "DK"))
    assert code_of(reply) is None
    run.take("bundle", "DK", reply)


def test_a_paused_node_refuses_even_what_it_cannot_read(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.nodes["DK"]
    node.pause("maintenance of the ward system")
    refusal = refused(node, b"\xff" * 40, ReasonCode.PAUSED)
    assert refusal["why"] == "maintenance of the ward system"
    refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.PAUSED)
    node.resume()
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None


@pytest.mark.parametrize("frame", [b"", b"\xff" * 100, b"\x80\x04\x95pickle", b"{}"])
def test_bytes_that_are_no_request_are_malformed(federation: NodeFederation, frame: bytes) -> None:
    refused(federation.nodes["DK"], frame, ReasonCode.MALFORMED)


def test_a_request_that_is_too_large_is_malformed(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    frame = federation.run(study).request("bundle", "DK")
    monkeypatch.setattr("protocols.private_sum.messages.LARGEST_REQUEST", len(frame) - 1)
    assert len(frame) < LARGEST_REQUEST
    refused(federation.nodes["DK"], frame, ReasonCode.MALFORMED)


def test_a_truncated_request_is_refused(federation: NodeFederation, study: Study) -> None:
    frame = federation.run(study).request("bundle", "DK")
    for cut in (1, len(frame) // 2, len(frame) - 1):
        assert code_of(federation.nodes["DK"].handle(frame[:cut])) is not None


def test_expired_published_documents_stop_the_node(
    federation: NodeFederation, study: Study
) -> None:
    frame = federation.run(study).request("bundle", "DK")
    federation.documents.now += 2 * DAY
    refused(federation.nodes["DK"], frame, ReasonCode.DOCUMENTS_EXPIRED)


def test_expired_documents_of_the_officer_stop_the_node(
    federation: NodeFederation, study: Study
) -> None:
    federation.documents.now += 8 * DAY
    for country in ("EE", "NO", "PT"):
        federation.hand_over(country)
    federation.documents.refresh()
    federation.nodes["DK"].sync()
    refusal = refused(
        federation.nodes["DK"],
        federation.run(study, versions=DocumentVersions(1, 1)).request("bundle", "DK"),
        ReasonCode.DOCUMENTS_EXPIRED,
    )
    assert "expired" in refusal["why"]


def test_a_clock_set_back_does_not_make_expired_documents_fresh(
    federation: NodeFederation, study: Study
) -> None:
    frame = federation.run(study).request("bundle", "DK")
    node = federation.nodes["DK"]
    federation.documents.now += 8 * DAY
    federation.documents.refresh()
    for country in ("EE", "NO", "PT"):
        federation.hand_over(country)
    node.sync()
    federation.documents.now -= 8 * DAY
    assert node.parts.now() == federation.documents.now + 8 * DAY
    refused(node, frame, ReasonCode.DOCUMENTS_EXPIRED)


def test_a_node_with_older_documents_fetches_and_answers(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.nodes["DK"]
    before = node.parts.documents.view(federation.clock()).versions.countries["EE"]
    federation.hand_over("EE")
    run = federation.run(study)
    assert code_of(node.handle(run.request("bundle", "DK"))) is None
    after = node.parts.documents.view(federation.clock()).versions.countries["EE"]
    assert after == before + 1


def test_a_node_that_still_has_older_documents_refuses(
    federation: NodeFederation, study: Study
) -> None:
    versions = federation.versions
    claimed = DocumentVersions(versions.root, versions.targets, {**versions.countries, "EE": 9})
    run = federation.run(study, versions=claimed)
    refusal = refused(
        federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.DOCUMENTS_BEHIND
    )
    assert "country-EE" in refusal["why"]


def test_a_node_with_older_documents_of_its_officer_than_published_refuses(
    federation: NodeFederation, study: Study
) -> None:
    """The exchange publishes a newer version than the officer gave: perhaps a withdrawal."""
    federation.documents.sign_and_submit("DK")
    run = federation.run(study)
    refusal = refused(
        federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.DOCUMENTS_BEHIND
    )
    assert "officer" in refusal["what"]


def test_a_node_with_older_documents_and_no_exchange_refuses(
    federation: NodeFederation, study: Study
) -> None:
    federation.hand_over("EE")
    node = federation.restart("DK", fetch=lambda _: None)
    refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.DOCUMENTS_BEHIND)


def claiming(federation: NodeFederation, study: Study) -> bytes:
    """Return a frame that claims a far newer version of EE's documents."""
    versions = federation.versions
    claimed = DocumentVersions(versions.root, versions.targets, {**versions.countries, "EE": 2**31})
    run = federation.run(study, versions=claimed, sign=raw_key(77).sign)
    return run.request("bundle", "DK")


class Watched:
    """The published documents, and a clock that advances while they are read."""

    def __init__(self, federation: NodeFederation) -> None:
        self.now, self.reads, self.takes = 0.0, 0, 0.0
        self._read = federation.documents.store.read

    def monotonic(self) -> float:
        return self.now

    def fetch(self, path: str) -> bytes | None:
        self.reads, self.now = self.reads + 1, self.now + self.takes
        return self._read(path)


def test_claims_to_newer_documents_make_the_node_fetch_once_in_five_seconds(
    federation: NodeFederation, study: Study
) -> None:
    watched = Watched(federation)
    node = federation.restart("DK", fetch=watched.fetch, monotonic=watched.monotonic)
    frame = claiming(federation, study)
    reads = []
    for moment in (0.0, 0.1, 4.9, 5.0, 9.9, 10.0):
        watched.now, watched.reads = moment, 0
        refused(node, frame, ReasonCode.DOCUMENTS_BEHIND)
        reads.append(watched.reads > 0)
    assert reads == [True, False, False, True, False, True]


def test_the_five_seconds_begin_when_the_fetch_ends(
    federation: NodeFederation, study: Study
) -> None:
    """A slow exchange does not make the node fetch more often."""
    watched = Watched(federation)
    watched.takes = 10.0
    node = federation.restart("DK", fetch=watched.fetch, monotonic=watched.monotonic)
    refused(node, claiming(federation, study), ReasonCode.DOCUMENTS_BEHIND)
    watched.reads = 0
    refused(node, claiming(federation, study), ReasonCode.DOCUMENTS_BEHIND)
    assert watched.reads == 0


def test_confirmed_claims_to_newer_documents_are_fetched_at_once(
    federation: NodeFederation, study: Study
) -> None:
    """Documents may change twice within five seconds, and a run begin after each."""
    watched = Watched(federation)
    node = federation.restart("DK", fetch=watched.fetch, monotonic=watched.monotonic)
    for _ in range(3):
        federation.hand_over("EE")
        watched.reads = 0
        assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None
        assert watched.reads > 0
        assert (
            node.parts.documents.view(federation.clock()).versions.countries["EE"]
            == (federation.versions.countries["EE"])
        )


def test_a_failed_fetch_starts_the_five_seconds_too(
    federation: NodeFederation, study: Study
) -> None:
    watched = Watched(federation)
    tried: list[str] = []

    def unreachable(path: str) -> bytes:
        tried.append(path)
        raise DocumentFault("The exchange cannot be reached")

    node = federation.restart("DK", fetch=unreachable, monotonic=watched.monotonic)
    refused(node, claiming(federation, study), ReasonCode.DOCUMENTS_BEHIND)
    once = len(tried)
    refused(node, claiming(federation, study), ReasonCode.DOCUMENTS_BEHIND)
    assert len(tried) == once > 0


def test_a_node_that_has_just_fetched_answers_requests_without_newer_claims(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.nodes["DK"]
    refused(node, claiming(federation, study), ReasonCode.DOCUMENTS_BEHIND)
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None


def test_a_study_that_was_not_published_is_unknown(federation: NodeFederation) -> None:
    other = federation.study(id="never-proposed")
    refusal = refused(
        federation.nodes["DK"],
        federation.run(other).request("bundle", "DK"),
        ReasonCode.UNKNOWN_STUDY,
    )
    assert refusal["study"] == other.digest


def test_a_permit_for_another_digest_is_no_permit(federation: NodeFederation, study: Study) -> None:
    changed = federation.study(id="heart-again", question="How many, by sex, once more?")
    federation.propose(changed)
    federation.sync()
    refusal = refused(
        federation.nodes["DK"],
        federation.run(changed).request("bundle", "DK"),
        ReasonCode.NO_PERMIT,
    )
    assert refusal["clause"]
    assert (
        code_of(federation.nodes["DK"].handle(federation.run(study).request("bundle", "DK")))
        is None
    )


def test_a_withdrawal_counts_at_once_and_in_the_middle_of_a_run(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    federation.withdraw("DK", study)
    coordinator_round = run.coordinator.begin_round(1, "histogram", b"")
    refusal = refused(
        federation.nodes["DK"], coordinator_round.contribute_request("DK"), ReasonCode.NO_PERMIT
    )
    assert "withdr" in f"{refusal['what']} {refusal['why']} {refusal['clause']}".lower()


def test_a_withdrawal_counts_although_the_exchange_hides_it(
    federation: NodeFederation, study: Study
) -> None:
    folder = federation.documents.folders["DK"]
    folder.withdraw(withdrawal(study, "DK"))
    bundle = folder.sign(federation.clock(), federation.documents.officers["DK"])
    federation.nodes["DK"].deliver(bundle)
    refused(
        federation.nodes["DK"],
        federation.run(study).request("bundle", "DK"),
        ReasonCode.NO_PERMIT,
    )


def test_an_expired_permit_does_not_count(federation: NodeFederation) -> None:
    study = federation.study(id="soon-over")
    federation.propose(study)
    ends = federation.clock() + timedelta(hours=1)
    federation.permit("DK", study, conditions=PermitConditions(expires=ends))
    federation.sync()
    run = federation.run(study)
    assert code_of(federation.nodes["DK"].handle(run.request("bundle", "DK"))) is None
    federation.documents.now += timedelta(hours=2)
    refused(
        federation.nodes["DK"],
        federation.run(study).request("bundle", "DK"),
        ReasonCode.NO_PERMIT,
    )


def test_a_coordinator_with_another_key_is_not_authentic(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.run(study, sign=raw_key(77).sign)
    refused(federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.NOT_AUTHENTIC)


def test_a_request_for_one_country_alone_is_stale(federation: NodeFederation, study: Study) -> None:
    """A node answers only a request that is the same, byte by byte, for all countries."""
    run = federation.run(study)
    for receiver in ("DK", "EE", "coordinator"):
        frame = alone(run.request("bundle", "DK"), receiver)
        refused(federation.nodes["DK"], frame, ReasonCode.STALE)
    assert run.request("bundle", "DK") == run.request("bundle", "EE")
    assert code_of(federation.nodes["DK"].handle(run.request("bundle", "EE"))) is None


def alone(frame: bytes, receiver: str) -> bytes:
    """Return a request that the coordinator addresses to one receiver."""
    signed = Envelope.FromString(frame).signed
    envelope_fields: dict[str, Any] = {
        "phase": signed.phase,
        "context": signed.context,
        "sender": signed.sender,
    }
    return write_request(
        sign_message(raw_key(1).sign, receiver=receiver, body=signed.body, **envelope_fields)
    )


def test_a_request_for_another_country_is_refused(federation: NodeFederation, study: Study) -> None:
    """Nothing is charged: the node sees before any charge that the proofs are for EE."""
    run = federation.ready(study)
    coordinator_round = run.coordinator.begin_round(1, "histogram", b"")
    frame = coordinator_round.contribute_request("EE")
    refused(federation.nodes["DK"], frame, ReasonCode.NOT_AUTHENTIC)
    cut = Envelope.FromString(coordinator_round.contribute_request("DK"))
    for parts in (b"", cut.parts[:-1], cut.parts + cut.parts[:32]):
        cut.parts = parts
        refused(federation.nodes["DK"], cut.SerializeToString(), ReasonCode.ROSTER)
    assert (
        code_of(federation.nodes["DK"].handle(coordinator_round.contribute_request("DK"))) is None
    )


def test_terms_that_the_coordinator_invented_are_stale(
    federation: NodeFederation, study: Study
) -> None:
    """Fewer honest countries than the agreement states: the node computes the context itself."""
    weaker = federation.terms(study, colluding=0)
    run = federation.run(study, terms=weaker)
    refused(federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.STALE)


@pytest.mark.parametrize(
    "roster",
    [("DK", "EE"), ("EE", "NO", "PT"), ("DK", "EE", "NO", "XX"), ("EE", "DK", "NO"), ()],
    ids=["below the floor", "without this country", "a stranger", "not sorted", "empty"],
)
def test_a_roster_that_differs_from_the_study_is_refused(
    federation: NodeFederation, study: Study, roster: tuple[str, ...]
) -> None:
    terms = federation.terms(study)
    body = RequestBody(
        agreement=terms.agreement,
        study=terms.study,
        run_id=terms.run_id,
        versions=federation.versions.to_proto(),
        bundle=BundleRequest(roster=roster),
    )
    fields: dict[str, Any] = {"context": terms.context, "phase": PHASE_BUNDLE}
    frame = write_request(sign_request(raw_key(1).sign, body=body, **fields))
    refused(federation.nodes["DK"], frame, ReasonCode.ROSTER)


def test_a_country_without_published_keys_stops_the_run(
    federation: NodeFederation, study: Study
) -> None:
    """Seven days after the last signature of EE's officer, no node begins a run with EE."""
    federation.documents.now += 6 * DAY
    for country in ("DK", "NO", "PT"):
        federation.hand_over(country)
    federation.documents.now += 2 * DAY
    federation.documents.refresh()
    federation.nodes["DK"].sync()
    run = federation.run(study, versions=DocumentVersions(1, 1))
    refusal = refused(federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.ROSTER)
    assert "EE" in refusal["what"]


def test_a_run_id_is_entered_once(federation: NodeFederation, study: Study) -> None:
    first = federation.ready(study, b"r" * 16)
    first.sum(1, "histogram")
    node = federation.nodes["DK"]
    again = federation.run(study, b"r" * 16, versions=DocumentVersions(1, 1))
    refused(node, again.request("bundle", "DK"), ReasonCode.STALE)
    with transaction(node.parts.engine) as connection:  # as a sweeper of old replies might
        connection.execute(journal.delete())
    refusal = refused(node, again.request("bundle", "DK"), ReasonCode.STALE)
    assert "used before" in refusal["why"]


def test_a_permit_is_for_one_charged_run(federation: NodeFederation, study: Study) -> None:
    """Repeated launches would cost the patients more privacy than the study states."""
    node = federation.nodes["DK"]
    early, first = federation.ready(study), federation.ready(study)
    first.sum(1, "histogram")
    refusal = refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.NO_PERMIT)
    assert refusal["clause"] == "node/permit-used"
    assert first.id in refusal["why"]
    entered = early.coordinator.begin_round(1, "histogram", b"").contribute_request("DK")
    refused(node, entered, ReasonCode.NO_PERMIT)
    federation.documents.now += timedelta(minutes=1)
    federation.permit("DK", study)
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None


def test_a_permit_issued_in_the_future_counts_from_that_time(
    federation: NodeFederation, study: Study
) -> None:
    """A run charged before the permit's issue time would not use up the permit."""
    node, issued = federation.nodes["DK"], federation.documents.now + timedelta(minutes=10)
    folder = federation.documents.folders["DK"]
    folder.approve(permit(federation.documents.agreed, study, "DK", issued=issued))
    federation.hand_over("DK")
    refusal = refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.NO_PERMIT)
    assert refusal["clause"] == "node/permit-from-the-future"
    federation.documents.now = issued
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None


def test_a_run_without_a_charge_uses_up_no_permit(federation: NodeFederation, study: Study) -> None:
    federation.ready(study)
    federation.ready(study).sum(1, "histogram")


def test_phases_of_a_run_that_was_never_entered_are_stale(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.run(study)
    run.set_up(until="encapsulation")

    def elsewhere(body: RequestBody) -> None:
        body.run_id = b"n" * 16

    frame = altered_request(run.request("encapsulation", "DK"), elsewhere, raw_key(1))
    refusal = refused(federation.nodes["DK"], frame, ReasonCode.STALE)
    assert "not entered" in refusal["why"]


def test_a_run_serves_the_study_it_was_entered_for(
    federation: NodeFederation, study: Study
) -> None:
    other = federation.approved(id="another-question")
    first = federation.run(study, b"s" * 16)
    first.set_up(until="encapsulation")
    frame = first.request("encapsulation", "DK")

    def rename(body: RequestBody) -> None:
        body.study = other.digest

    refusal = refused(
        federation.nodes["DK"], altered_request(frame, rename, raw_key(1)), ReasonCode.STALE
    )
    assert "another study" in refusal["what"]


def test_a_forbidden_purpose_is_refused_with_its_clause(federation: NodeFederation) -> None:
    study = federation.approved(
        id="marketing",
        purpose={
            "ehds": "53-1-e",
            "purpose_of_use": "HMARKT",
            "sentence": "To sell more of something.",
        },
    )
    refusal = refused(
        federation.nodes["DK"],
        federation.run(study).request("bundle", "DK"),
        ReasonCode.POLICY,
    )
    assert refusal["clause"]


def test_a_national_policy_can_forbid(federation: NodeFederation, study: Study) -> None:
    federation.documents.folders["DK"].set_policy(FORBID_MALES)
    federation.hand_over("DK")
    run = federation.run(study)
    refused(federation.nodes["DK"], run.request("bundle", "DK"), ReasonCode.POLICY)


def test_a_feature_that_the_dictionary_lacks_is_refused_without_a_record(
    federation: NodeFederation,
) -> None:
    features = [
        {"name": "age", "type": "numeric", "bounds": [0, 120]},
        {"name": "sex", "type": "categorical", "levels": ["female", "male"]},
        {"name": "disease", "type": "boolean"},
        {"name": "income", "type": "boolean"},
    ]
    study = federation.approved(
        id="income",
        features=features,
        task={
            "kind": "stats/histogram",
            "of": {"feature": "income"},
            "strata": [{"feature": "sex"}],
            "patients_bound": 10_000,
        },
    )
    refusal = refused(
        federation.nodes["DK"],
        federation.run(study).request("bundle", "DK"),
        ReasonCode.POLICY,
    )
    assert refusal["clause"] == "node/dictionary"
    assert "income" in refusal["what"]


def test_a_study_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    """The budget covers the first study, and not a second one of the same cost."""
    budget = {"register": "patients", "period_days": 365, "delta": 1e-4, "order": 8}
    small = NodeFederation(tmp_path / "small", changes={"budget": [{**budget, "epsilon": 1.135}]})
    first = small.approved(id="first")
    small.ready(first).sum(1, "histogram")
    second = small.approved(id="second")
    run = small.run(second)
    refusal = refused(small.nodes["DK"], run.request("bundle", "DK"), ReasonCode.BUDGET)
    assert refusal["fix"]
    small.close()


def test_the_budget_check_does_not_reveal_that_the_records_changed(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count stays charged under its permit, even if the file changes."""
    node = federation.nodes["DK"]
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is None
    federation.put_records("DK", records(81))
    node = federation.restart("DK")
    spent, view = node.parts.ledger.entries()[0].rdp_micro, node.parts.ledger.view
    honest = federation.documents.agreed.honest

    def nearly_full(terms: Terms) -> LedgerView:
        """Return terms of which all but the cost of this study, with its count, is spent."""
        cost = sum(rdp_micro(each, honest, terms.order) for each in study.mechanisms)
        return replace(view(terms), spent_micro=terms.cap_micro - cost + spent)

    monkeypatch.setattr(node.parts.ledger, "view", nearly_full)
    frame = federation.run(study).request("bundle", "DK")
    assert refused(node, frame, ReasonCode.DECLINED)["clause"] == "node/records-changed"


def test_another_register_opens_no_second_budget(federation: NodeFederation, study: Study) -> None:
    settings = federation.settings("DK", person_register="insured-persons")
    node = federation.restart("DK", settings=settings)
    refusal = refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.POLICY)
    assert refusal["clause"] == "node/register"


def test_a_task_that_is_not_installed_is_refused(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "INSTALLED", {"train/glm": ()})
    refused(
        federation.nodes["DK"],
        federation.run(study).request("bundle", "DK"),
        ReasonCode.TASK_UNKNOWN,
    )


def test_records_that_cannot_be_read_are_declined(federation: NodeFederation, study: Study) -> None:
    federation.put_records("DK", "id,age,sex,disease\nanna-42,forty,F,1\n")
    node = federation.restart("DK")
    refusal = refused(node, federation.run(study).request("bundle", "DK"), ReasonCode.DECLINED)
    assert "forty" not in str(refusal)
    assert "anna-42" not in str(node.log_entries())


def test_an_agreement_past_its_sunset_refuses(federation: NodeFederation, study: Study) -> None:
    frame = federation.run(study).request("bundle", "DK")
    federation.documents.now = federation.documents.agreed.sunset + DAY
    refusal = refused(federation.nodes["DK"], frame, ReasonCode.DOCUMENTS_EXPIRED)
    assert "expired" in refusal["why"] or "expired" in refusal["what"]


def test_every_refusal_is_in_the_log_with_its_reason(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.nodes["DK"]
    before = node.parts.log.size()
    frame = federation.run(study, sign=raw_key(77).sign).request("bundle", "DK")
    refused(node, frame, ReasonCode.NOT_AUTHENTIC)
    assert node.parts.log.size() == before + 1
    entry = node.log_entries()["entries"][-1]
    assert '"code":"not-authentic"' in entry
    assert "not signed by it" in entry


@pytest.mark.parametrize("phase", ["agree", "answer"])
def test_a_request_about_a_round_without_this_country_is_stale(
    federation: NodeFederation, study: Study, phase: str
) -> None:
    """PT gets the request for a country that contributed."""
    run = federation.ready(study)
    coordinator_round = run.agreed(run.contributed(1, "histogram", without={"PT"}))
    asks = {"agree": coordinator_round.agree_request, "answer": coordinator_round.answer_request}
    frame = asks[phase]("DK")
    refusal = refused(federation.nodes["PT"], frame, ReasonCode.STALE)
    assert "did not contribute to" in refusal["what"]
