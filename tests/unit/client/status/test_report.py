"""The status of a real node in each state."""

import json
from datetime import timedelta

from client.status.model import NodeStatus
from client.status.summary import LinkStatus
from governance.documents.study import Study
from tests.support.documents import DAY, node_keys, raw_key
from tests.support.node_federation import NodeFederation

UP = LinkStatus(connected=True)


def waiting(federation: NodeFederation, link: LinkStatus = UP) -> str:
    return federation.nodes["DK"].status(link).waiting_for


def test_a_node_with_nothing_to_do_is_idle(federation: NodeFederation) -> None:
    assert waiting(federation) == "idle, connected"


def test_a_node_waits_for_the_coordinator(federation: NodeFederation) -> None:
    sentence = waiting(federation, LinkStatus(fault="The exchange at h:1 does not answer"))
    assert sentence == "waiting for the coordinator: The exchange at h:1 does not answer"


def test_a_node_waits_for_documents(federation: NodeFederation) -> None:
    federation.documents.now += 2 * DAY
    assert waiting(federation).startswith("waiting for documents: The documents have expired")


def test_a_node_waits_until_its_officer_has_signed_its_keys(
    federation: NodeFederation,
) -> None:
    federation.documents.folders["DK"].set_node(
        node_keys("EE").model_copy(update={"country": "DK"})
    )
    federation.hand_over("DK")
    assert "keys of another node" in waiting(federation)


def test_a_node_waits_for_records(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    (node.parts.home.path / "records.csv").unlink()
    node.parts.record_store.refresh()
    assert waiting(federation).startswith("waiting for records: ")


def test_a_node_goes_on_with_the_records_that_it_loaded_last(federation: NodeFederation) -> None:
    federation.put_records("DK", "broken\n")
    federation.nodes["DK"].parts.record_store.refresh()
    assert waiting(federation) == "idle, connected"
    data = federation.nodes["DK"].status(UP).data
    assert data.patients == 80
    assert "has no column" in (data.fault or "")


def test_a_node_waits_for_a_permit(federation: NodeFederation) -> None:
    federation.approved("DK", id="second-question")
    assert waiting(federation) == "waiting for a permit for study second-question"


def test_a_study_of_other_countries_is_not_shown(federation: NodeFederation) -> None:
    federation.approved("DK", id="without-us", countries=["EE", "NO", "PT"])
    assert waiting(federation) == "idle, connected"
    status = federation.nodes["DK"].status(UP)
    assert [study.id for study in status.studies] == ["heart-by-sex"]


def test_a_node_in_a_run_says_which_study(federation: NodeFederation, study: Study) -> None:
    run = federation.ready(study)
    assert waiting(federation) == "taking part in study heart-by-sex"
    (shown,) = federation.nodes["DK"].status(UP).runs
    assert (shown.run, shown.study) == (run.id, "heart-by-sex")


def test_a_study_that_was_launched_twice_is_named_once(
    federation: NodeFederation, study: Study
) -> None:
    """A run that was charged stays open beside the next one of another permit."""
    federation.ready(study).contributed(1, "histogram")
    federation.documents.now += timedelta(minutes=1)
    for country in federation.nodes:
        federation.permit(country, study, earlier=1)
    federation.ready(study)
    assert len(federation.nodes["DK"].status(UP).runs) == 2
    assert waiting(federation) == "taking part in study heart-by-sex"


def test_a_run_without_recent_messages_is_counted_as_open(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.run(study)
    run.set_up(until="confirmation")
    federation.documents.now += timedelta(minutes=9)
    run.take("confirmation", "DK", federation.nodes["DK"].handle(run.request("confirmation", "DK")))
    federation.documents.now += timedelta(minutes=9)
    assert waiting(federation) == "taking part in study heart-by-sex"
    federation.documents.now += timedelta(minutes=2)
    assert waiting(federation) == "idle, connected; 1 earlier run is still open on this node"


def test_the_status_is_json(federation: NodeFederation, study: Study) -> None:
    federation.ready(study)
    status = federation.nodes["DK"].status(UP)
    assert NodeStatus.from_json(json.loads(json.dumps(status.to_json()))) == status


def test_the_budget_is_shown_in_numbers(federation: NodeFederation, study: Study) -> None:
    federation.ready(study).sum(1, "histogram")
    ledger = federation.nodes["DK"].status(UP).ledger
    assert ledger is not None
    assert ledger.register_name == "patients"
    assert ledger.spent_micro + ledger.left_micro == ledger.cap_micro
    assert ledger.epsilon == 3.0
    assert ledger.epsilon_spent + ledger.epsilon_left == 3.0


def test_a_node_that_does_not_know_its_register_shows_no_budget(federation: NodeFederation) -> None:
    settings = federation.settings("DK", person_register="nobody-s")
    node = federation.restart("DK", settings=settings)
    assert node.status(UP).ledger is None


def test_the_last_refusals_come_with_what_to_do(federation: NodeFederation, study: Study) -> None:
    run = federation.run(study, sign=raw_key(9).sign)
    federation.nodes["DK"].handle(run.request("bundle", "DK"))
    (shown,) = federation.nodes["DK"].status(UP).refusals
    assert shown.code == "not-authentic"
    assert shown.run == run.id


def test_a_fault_in_a_record_is_shown_to_the_operator(federation: NodeFederation) -> None:
    text = "id,age,sex,disease\nx1,old,F,1\n"
    federation.put_records("DK", text)
    federation.nodes["DK"].parts.record_store.refresh()
    assert "'old'" in (federation.nodes["DK"].status(UP).data.fault or "")
