"""The wired node: deliveries, officer's files, lapsed runs, what it prepares and logs."""

import json
import re
from typing import Any

import pytest

from client.state.decision_log import log_origin
from client.status.summary import LinkStatus
from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from governance.documents.study import Study
from governance.errors import DocumentFault
from protocols.errors import ReasonCode
from protocols.wire.channel import LinkFault
from tests.support.documents import DAY, withdrawal
from tests.support.node_federation import NodeFederation, code_of, log_lines

UP = LinkStatus(connected=True)
DIGEST = re.compile(r"[0-9a-f]{32,}")


def kinds(node: Any) -> list[str]:
    return [json.loads(line)["entry"]["kind"] for line in log_lines(node)]


def test_a_delivery_is_logged_with_each_new_decision(
    federation: NodeFederation, study: Study
) -> None:
    node = federation.nodes["DK"]
    before = len(kinds(node))
    federation.withdraw("DK", study)
    assert kinds(node)[before:] == ["documents-accepted", "withdrawal-accepted"]
    federation.hand_over("DK")
    assert kinds(node)[before + 2 :] == ["documents-accepted"]


def test_a_refused_delivery_is_logged(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    with pytest.raises(DocumentFault):
        node.deliver(federation.documents.folders["EE"].bundle() or b"")
    assert kinds(node)[-1] == "documents-refused"


def test_files_that_the_officer_left_while_the_node_was_down_are_imported(
    federation: NodeFederation, study: Study
) -> None:
    folder, home = federation.documents.folders["DK"], federation.home("DK")
    federation.nodes["DK"].parts.engine.dispose()
    folder.withdraw(withdrawal(study, "DK"))
    bundle = folder.sign(federation.clock(), federation.documents.officers["DK"])
    file = home.officer / "country-DK.json"
    file.write_bytes(bundle)
    node = federation.restart("DK")
    node.do_upkeep()
    assert not file.exists()
    assert node.parts.documents.own(federation.clock()).withdrawal(study.digest)


def test_a_file_that_is_not_from_the_officer_is_set_aside(federation: NodeFederation) -> None:
    home, node = federation.home("DK"), federation.nodes["DK"]
    (home.officer / "country-DK.json").write_bytes(b'{"kind":"country-bundle"}')
    node.do_upkeep()
    assert [file.name for file in home.officer.iterdir()] == ["country-DK.refused"]


def test_upkeep_continues_after_a_lost_link(federation: NodeFederation) -> None:
    def gone(_: str) -> bytes | None:
        raise LinkFault("The exchange does not answer")

    node = federation.restart("DK", fetch=gone)
    node.do_upkeep()
    assert node.status(UP).waiting_for == "idle, connected"


def test_a_withdrawn_run_loses_its_secrets(federation: NodeFederation, study: Study) -> None:
    federation.ready(study)
    node = federation.nodes["DK"]
    assert len(node.parts.runs.summaries(live=True)) == 1
    node.do_upkeep()
    assert len(node.parts.runs.summaries(live=True)) == 1
    federation.withdraw("DK", study)
    node.do_upkeep()
    assert node.parts.runs.summaries(live=True) == []
    assert kinds(node)[-1] == "run-ended"


def test_a_run_of_an_expired_study_loses_its_secrets(
    federation: NodeFederation, study: Study
) -> None:
    federation.ready(study)
    federation.documents.now = study.expires + DAY
    for country in federation.nodes:
        federation.hand_over(country)
    federation.documents.refresh()
    node = federation.nodes["DK"]
    node.do_upkeep()
    assert node.parts.runs.summaries(live=True) == []


def test_a_run_without_a_message_for_a_week_loses_its_secrets(
    federation: NodeFederation, study: Study
) -> None:
    federation.ready(study)
    node = federation.nodes["DK"]
    for days, live in ((6, 1), (2, 0)):
        federation.documents.now += days * DAY
        for country in federation.nodes:
            federation.hand_over(country)
        federation.documents.refresh()
        node.do_upkeep()
        assert len(node.parts.runs.summaries(live=True)) == live


def test_upkeep_prepares_studies_before_their_first_message(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_schedule: list[tuple[Any, ...]] = []
    cost = "client.upkeep.schedule_epsilon"
    monkeypatch.setattr(cost, lambda *given: with_schedule.append(given))
    node = federation.nodes["DK"]
    node.do_upkeep()
    covered = study.releases_of(federation.documents.agreed)
    assert with_schedule == [(covered, study.accounting, 2, study.privacy.delta)]
    assert study.digest in {digest for digest, _ in node.parts.tasks._prepared}


def test_a_pause_outlives_a_restart(federation: NodeFederation, study: Study) -> None:
    federation.nodes["DK"].pause("audit week")
    node = federation.restart("DK")
    assert node.status(UP).waiting_for == "paused: audit week"
    frame = federation.run(study).request("bundle", "DK")
    assert code_of(node.handle(frame)) is ReasonCode.PAUSED
    node.resume()
    assert node.status(UP).paused is None
    assert kinds(node)[-1] == "node-resumed"


def test_the_log_verifies_with_the_key_in_the_documents(
    federation: NodeFederation, study: Study
) -> None:
    federation.ready(study).sum(1, "histogram")
    node = federation.nodes["DK"]
    head, lines = node.log_head(), log_lines(node)
    node_keys = node.parts.documents.current(federation.clock()).own.node
    assert node_keys is not None
    key = NoteKey.from_text(head["verifier"])
    assert key.key.to_text() == node_keys.log_key
    verified = verify_export([line.encode() for line in lines], head["checkpoint"].encode(), key)
    assert verified.size == head["size"] == len(lines)
    assert verified.origin == log_origin("DK") == "pratique/dk/node"


def test_a_part_of_the_log_can_be_requested(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    all_entries = log_lines(node)
    assert node.log_entries(1, 2)["entries"] == all_entries[1:2]


def test_starting_and_stopping_is_logged(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    node.note_start()
    node.note_stop()
    assert kinds(node)[-2:] == ["node-started", "node-stopped"]


def test_no_patient_id_and_no_count_is_in_the_log(federation: NodeFederation, study: Study) -> None:
    federation.ready(study).sum(1, "histogram")
    entries = str(log_lines(federation.nodes["DK"]))
    text = DIGEST.sub("", entries)  # five digits may be in a digest by chance
    assert '"p0"' not in text
    assert "10240" not in text
