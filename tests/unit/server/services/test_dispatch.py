"""The coordinator's services for commands and for the server app, with real documents."""

import base64
import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from governance.documents.rotation import extended
from governance.documents.study import Study
from governance.results.result import RESULT_FILE, read_result
from governance.runtime.local_rpc import LocalRpcServer
from governance.trust.ceremony import Draft
from keys.composite import Suite
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.proto.exchange_pb2 import EnrolReply
from protocols.tasks.schedule import COHORT_FLOOR
from protocols.wire.invitation import Invitation
from server.app import DaemonClient
from server.errors import CoordinatorFault
from server.flower.bundle_guard import CONFIGURATION
from server.flower.presence import Presence
from server.runs import attempt as conducting
from server.runs.attempt import run_attempt
from server.runs.lock import is_run_locked
from server.runs.progress import Superseded
from server.runs.rounds import SetUpFailed
from server.runs.store import RunState
from tests.support.coordinator_services import (
    FIRST_FLOWER_RUN,
    Coordinator,
    LocalRunServices,
    NodesCarrier,
)
from tests.support.documents import COUNTRIES, agreement_fields, raw_key
from tests.support.enrolling import Applicant, node_statement, officer_statement
from tests.support.narrowing import present
from tests.support.node_federation import NodeFederation

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> NodeFederation:
    """A federation whose countries have all approved one study; tests take copies."""
    federation = NodeFederation(tmp_path_factory.mktemp("origin") / "federation")
    federation.approved()
    return federation


@pytest.fixture
def coordinator(
    origin: NodeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Coordinator]:
    federation = origin.copied(tmp_path / "federation")
    running = Coordinator(federation, tmp_path / "coordinator")

    monkeypatch.setattr(conducting, "utc_now", running.clock)
    yield running
    federation.close()


@pytest.fixture
def study(coordinator: Coordinator) -> Study:
    (approved,) = coordinator.context.view().studies.values()
    return approved


def launched(coordinator: Coordinator, study: Study) -> str:
    return str(coordinator.ask("study_launch", name=study.id)["run"])


def state(coordinator: Coordinator, run: str) -> tuple[str, str]:
    row = coordinator.context.runs.get(run)
    return row.state, row.reason


def charged_in(coordinator: Coordinator, country: str) -> list[str]:
    return [entry.phase for entry in coordinator.federation.nodes[country].parts.ledger.entries()]


def refused(coordinator: Coordinator, method: str, **params: Any) -> PratiqueError:
    with pytest.raises(PratiqueError) as caught:
        coordinator.ask(method, **params)
    assert caught.value.what
    return caught.value


def test_a_permitted_study_is_launched_with_a_bundle_of_configuration(
    coordinator: Coordinator, study: Study
) -> None:
    launched_run = coordinator.ask("study_launch", name=study.id)
    (bundle,) = coordinator.flower.bundles
    assert [file.name for file in bundle.iterdir()] == [CONFIGURATION]
    assert launched_run["run"] in (bundle / CONFIGURATION).read_text()
    row = coordinator.context.runs.get(launched_run["run"])
    assert (row.study, row.flower_run) == (study.digest, launched_run["flower_run"])
    assert "study-launched" in coordinator.log_kinds()


def test_a_study_without_every_permit_is_not_launched(coordinator: Coordinator) -> None:
    study = coordinator.federation.approved("NO", id="not-by-all")
    fault = refused(coordinator, "study_launch", name=study.id)
    assert "NO: " in fault.why
    assert not coordinator.flower.bundles
    assert coordinator.context.runs.latest_of(study.digest) is None


def test_a_withdrawn_study_is_not_launched(coordinator: Coordinator, study: Study) -> None:
    coordinator.federation.withdraw("EE", study)
    assert "EE: " in refused(coordinator, "study_launch", name=study.id).why
    assert not coordinator.flower.bundles


def test_a_study_whose_node_is_away_is_not_launched(coordinator: Coordinator, study: Study) -> None:
    coordinator.sessions.connected["PT"] = False
    fault = refused(coordinator, "study_launch", name=study.id)
    assert "PT" in fault.what
    assert "pratique-node up" in fault.fix


def test_a_running_study_is_not_launched_again(coordinator: Coordinator, study: Study) -> None:
    run = launched(coordinator, study)
    assert "running already" in refused(coordinator, "study_launch", name=study.id).what
    coordinator.context.runs.move(run, RunState.FAILED, coordinator.clock(), "x")
    assert launched(coordinator, study) != run


def test_a_launch_that_flower_refused_is_a_failed_run(
    coordinator: Coordinator, study: Study
) -> None:
    coordinator.flower.refusal = CoordinatorFault("Flower refused `flwr run`", why="It is down")
    refused(coordinator, "study_launch", name=study.id)
    row = present(coordinator.context.runs.latest_of(study.digest))
    assert (row.state, "It is down" in row.reason) == ("failed", True)
    coordinator.flower.refusal = None
    launched(coordinator, study)


@pytest.mark.parametrize("flower", [None, CoordinatorFault("Flower refused `flwr stop`")])
def test_a_run_can_be_stopped_even_if_flower_refuses(
    coordinator: Coordinator, study: Study, flower: CoordinatorFault | None
) -> None:
    run = launched(coordinator, study)
    coordinator.flower.refusal = flower
    assert coordinator.ask("study_stop", name=study.id)["run"] == run
    assert coordinator.flower.stopped == [FIRST_FLOWER_RUN]
    assert state(coordinator, run)[0] == "stopped"
    fault = refused(coordinator, "study_stop", name=study.id)
    assert "not running" in fault.what
    assert fault.why
    assert "study list" in fault.fix


def test_a_run_without_a_flower_run_can_be_stopped(coordinator: Coordinator, study: Study) -> None:
    run = secrets.token_hex(16)
    coordinator.context.runs.create(run, study.digest, coordinator.clock())
    coordinator.ask("study_stop", name=study.id)
    assert state(coordinator, run)[0] == "stopped"
    assert not coordinator.flower.stopped


@pytest.mark.parametrize("method", ["study_launch", "study_status", "study_stop"])
def test_a_study_that_is_not_published_is_not_found(
    coordinator: Coordinator, study: Study, method: str
) -> None:
    for name in ("", "nothing", "../heart-by-sex", "sha256:" + "0" * 64):
        fault = refused(coordinator, method, name=name)
        assert "There is no study" in fault.what
        assert study.id in fault.why


def test_before_the_first_launch_there_is_nothing_to_watch(
    coordinator: Coordinator, study: Study
) -> None:
    assert "never launched" in refused(coordinator, "study_status", name=study.id).what


# From a launched run to its end, over real nodes.


def test_a_run_ends_with_a_signed_release(coordinator: Coordinator, study: Study) -> None:
    run = launched(coordinator, study)
    services = LocalRunServices(coordinator)
    run_attempt(coordinator.home, run, 1, NodesCarrier(coordinator.federation), services, seconds=1)
    assert state(coordinator, run) == ("finished", "")
    assert services.released == [run]
    key = VerifyKey.from_text(raw_key(2).public.to_text())
    result = read_result(coordinator.home.results / study.id, [key])
    assert (result.study, result.run, result.countries) == (study.digest, run, COUNTRIES)
    published = coordinator.context.view()
    assert published.agreement.digest == result.agreement
    kinds = coordinator.log_kinds()
    assert kinds[-3:] == ["round-opened", "result-released", "study-finished"]
    opened, _, finished = coordinator.log_entries()[-3:]
    assert (opened["study"], opened["run"], opened["round"]) == (study.digest, run, 1)
    assert (finished["study"], finished["run"]) == (study.digest, run)
    assert opened["documents"].keys() == finished["documents"].keys() > {"root", "targets"}
    status = coordinator.ask("study_status", name=study.id)
    assert (status["over"], status["state"]) == (True, "finished")
    (only,) = status["history"]
    assert (only["outcome"], only["opened"]) == ("opened", list(COUNTRIES))


def test_a_study_that_has_its_result_is_not_launched_again(
    coordinator: Coordinator, study: Study
) -> None:
    run = launched(coordinator, study)
    carrier, services = NodesCarrier(coordinator.federation), LocalRunServices(coordinator)
    run_attempt(coordinator.home, run, 1, carrier, services, seconds=1)
    coordinator.sessions.connected.clear()
    fault = refused(coordinator, "study_launch", name=study.id)
    assert "already has its result" in fault.what
    assert "new id" in fault.fix


def test_a_study_whose_charged_run_failed_names_the_officers_to_ask(
    coordinator: Coordinator, study: Study
) -> None:
    run = launched(coordinator, study)
    services = LocalRunServices(coordinator)

    def full(*_: object) -> None:
        raise CoordinatorFault("The disk is full")

    services.release = full  # type: ignore[method-assign, assignment]
    with pytest.raises(CoordinatorFault, match="disk"):
        run_attempt(
            coordinator.home, run, 1, NodesCarrier(coordinator.federation), services, seconds=1
        )
    assert state(coordinator, run)[0] == "failed"
    coordinator.sessions.connected.clear()
    fault = refused(coordinator, "study_launch", name=study.id)
    assert "The permits of DK, EE, NO, PT for heart-by-sex are used up" in fault.what
    assert run in fault.why
    assert "The disk is full" in fault.why
    assert "approve heart-by-sex --reconsider" in fault.fix
    coordinator.federation.documents.now += SECOND
    for country in COUNTRIES[:-1]:
        coordinator.federation.permit(country, study)
    assert "The permits of PT for" in refused(coordinator, "study_launch", name=study.id).what
    coordinator.federation.permit("PT", study)
    assert "not connected" in refused(coordinator, "study_launch", name=study.id).what


def test_the_same_attempt_submitted_a_second_time_does_nothing(
    coordinator: Coordinator, study: Study
) -> None:
    run = launched(coordinator, study)
    services, carrier = LocalRunServices(coordinator), NodesCarrier(coordinator.federation)
    run_attempt(coordinator.home, run, 1, carrier, services, seconds=1)
    carrier.silent = set(COUNTRIES)  # any message would now wait for its reply
    with pytest.raises(Superseded, match="may not execute"):
        run_attempt(coordinator.home, run, 1, carrier, services, seconds=1)
    assert state(coordinator, run) == ("finished", "")
    assert services.released == [run]


def test_an_unknown_run_is_not_executed(coordinator: Coordinator, study: Study) -> None:
    carrier = NodesCarrier(coordinator.federation)
    for run in (secrets.token_hex(16), "", "../../x", "'; drop table runs"):
        with pytest.raises(CoordinatorFault):
            run_attempt(coordinator.home, run, 1, carrier, LocalRunServices(coordinator), seconds=1)


def test_a_run_with_a_silent_country_is_void_and_names_it(
    coordinator: Coordinator, study: Study
) -> None:
    run = launched(coordinator, study)
    carrier = NodesCarrier(coordinator.federation)
    carrier.silent = {"NO"}
    with pytest.raises(SetUpFailed):
        run_attempt(coordinator.home, run, 1, carrier, LocalRunServices(coordinator), seconds=0.01)
    run_state, reason = state(coordinator, run)
    assert run_state == "void"
    assert "NO: no reply in time" in reason
    assert "the permits stay" in reason
    assert not coordinator.home.results.exists()


def test_a_run_that_could_not_begin_is_launched_again_with_the_same_permits(
    coordinator: Coordinator, study: Study
) -> None:
    """Nothing was charged for it but the cohort counts, which are charged once."""
    carrier, services = NodesCarrier(coordinator.federation), LocalRunServices(coordinator)
    carrier.silent = {"NO"}
    first = launched(coordinator, study)
    with pytest.raises(SetUpFailed):
        run_attempt(coordinator.home, first, 1, carrier, services, seconds=0.01)
    assert charged_in(coordinator, "DK") == [COHORT_FLOOR]
    carrier.silent = set()
    again = launched(coordinator, study)
    run_attempt(coordinator.home, again, 1, carrier, services, seconds=1)
    assert state(coordinator, again)[0] == "finished"
    assert charged_in(coordinator, "DK") == [COHORT_FLOOR, *(m.phase for m in study.charged_by_run)]


def test_a_run_of_a_paused_country_is_void_with_its_code(
    coordinator: Coordinator, study: Study
) -> None:
    run = launched(coordinator, study)
    coordinator.federation.withdraw("EE", study)
    with pytest.raises(PratiqueError):
        run_attempt(
            coordinator.home,
            run,
            1,
            NodesCarrier(coordinator.federation),
            LocalRunServices(coordinator),
            seconds=1,
        )
    run_state, reason = state(coordinator, run)
    assert run_state in {"void", "failed"}
    assert "EE" in reason


class Broken:
    """A carrier that raises an unexpected fault."""

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    def exchange(self, *_: object) -> dict[str, bytes]:
        raise self._fault


@pytest.mark.parametrize("fault", [RuntimeError("grid"), KeyError("XX"), SystemExit(3)])
def test_an_unexpected_fault_ends_the_attempt_and_not_its_run(
    coordinator: Coordinator, study: Study, fault: BaseException
) -> None:
    run = launched(coordinator, study)
    with pytest.raises(type(fault)):
        run_attempt(
            coordinator.home, run, 1, Broken(fault), LocalRunServices(coordinator), seconds=1
        )
    run_state, reason = state(coordinator, run)
    assert run_state == "setting-up"
    assert type(fault).__name__ in reason
    assert not is_run_locked(coordinator.home, run)


def test_a_stopped_run_releases_nothing(coordinator: Coordinator, study: Study) -> None:
    run = launched(coordinator, study)
    services = LocalRunServices(coordinator)
    carrier = NodesCarrier(coordinator.federation)
    original_exchange = carrier.exchange

    def stop_late(frames: Any, seconds: float, largest_reply: int) -> Any:
        if coordinator.context.runs.get(run).state == "running":
            coordinator.ask("study_stop", name=study.id)
        return original_exchange(frames, seconds, largest_reply)

    carrier.exchange = stop_late  # type: ignore[method-assign]
    with pytest.raises(PratiqueError):
        run_attempt(coordinator.home, run, 1, carrier, services, seconds=1)
    assert state(coordinator, run) == ("stopped", "stopped by the coordinator")
    assert not services.released
    assert not coordinator.home.results.exists()


def test_nothing_is_released_for_a_run_of_another_study(
    coordinator: Coordinator, study: Study
) -> None:
    other = coordinator.federation.approved(id="another-question")
    run = launched(coordinator, study)
    outcome: dict[str, Any] = {"part": {"countries": []}, "findings": {}}
    for name, known in ((other.id, run), (study.id, secrets.token_hex(16))):
        fault = refused(coordinator, "release", study=name, run=known, outcome=outcome, model="")
        assert "run" in fault.what
    assert not coordinator.home.results.exists()


# Signing, logs, unknown requests.


def test_only_a_digest_is_signed(coordinator: Coordinator) -> None:
    for size in (0, 31, 33, 64, 1000):
        fault = refused(
            coordinator, "sign", message=base64.b64encode(bytes(size)).decode(), suite="ed25519"
        )
        assert "32-byte" in fault.what


def test_signatures_are_made_with_the_identity_key_of_the_coordinator(
    coordinator: Coordinator,
) -> None:
    text = base64.b64encode(b"m" * 32).decode()
    signature = base64.b64decode(coordinator.ask("sign", message=text, suite="ed25519"))
    raw_key(1).public.verify(signature, b"m" * 32)


def test_the_log_of_the_coordinator_verifies(coordinator: Coordinator, study: Study) -> None:
    launched(coordinator, study)
    head = coordinator.ask("log_head")
    page = coordinator.ask("log_entries", start=0, end=head["size"])
    lines = [line.encode() for line in page["entries"]]
    verify_export(lines, head["checkpoint"].encode(), NoteKey.from_text(head["verifier"]))
    assert coordinator.ask("check_state") is None
    assert json.loads(lines[0])["entry"]["actor"] == "coordinator"


def test_the_text_of_a_published_study_proposed_again_is_the_same_study(
    coordinator: Coordinator, study: Study
) -> None:
    """A store that lost it gets it back from the folder of an officer."""
    proposed = coordinator.ask(
        "study_propose", text=study.canonical().decode(), source="from-an-officer.json"
    )
    assert proposed["digest"] == study.digest


def test_the_status_says_why_the_timestamp_is_not_renewed(coordinator: Coordinator) -> None:
    assert coordinator.ask("status")["not_renewed"] == ""
    coordinator.context.documents.not_renewed = "the disk is full"
    assert coordinator.ask("status")["not_renewed"] == "the disk is full"


def test_an_unknown_request_is_refused(coordinator: Coordinator) -> None:
    for method in ("", "shutdown", "__class__", "keys", "study_launch "):
        assert "does not know" in refused(coordinator, method).what


# Parties.


def enrolled(coordinator: Coordinator, who: Applicant) -> tuple[Invitation, str]:
    stated = who.statement
    invited = coordinator.ask("invite", country=stated.country, role=stated.role)
    invitation = Invitation.model_validate(invited)
    request, services = who.request(invitation), coordinator.context.enrolment
    reply = services.enrol(stated.country, request, coordinator.clock())
    assert reply.status == EnrolReply.PENDING
    return invitation, reply.fingerprint


def test_a_party_is_invited_admitted_and_revoked_with_an_entry_each(
    coordinator: Coordinator,
) -> None:
    invitation, fingerprint = enrolled(coordinator, Applicant(officer_statement("DK")))
    assert invitation.exchange == "127.0.0.1:7443"
    assert coordinator.ask("status")["waiting"] == ["DK"]
    admitted = coordinator.ask("admit", fingerprint=fingerprint)
    assert admitted["status"] == "admitted"
    assert [one["status"] for one in coordinator.ask("enrolments")] == ["admitted"]
    assert coordinator.ask("revoke", country="DK", role="officer") == 1
    kinds = coordinator.log_kinds()
    assert kinds == ["party-invited", "party-admitted", "party-revoked"]
    assert not coordinator.sessions.seated


def test_an_admitted_node_gets_a_session(coordinator: Coordinator) -> None:
    node = node_statement("DK")
    _, fingerprint = enrolled(coordinator, Applicant(node))
    assert not coordinator.sessions.seated
    coordinator.ask("admit", fingerprint=fingerprint)
    assert coordinator.sessions.seated == [node]


def test_a_refused_party_gets_no_session(coordinator: Coordinator) -> None:
    _, fingerprint = enrolled(coordinator, Applicant(node_statement("DK")))
    coordinator.ask("turn_away", fingerprint=fingerprint)
    assert not coordinator.sessions.seated
    assert coordinator.log_kinds()[-1] == "party-refused"
    refused(coordinator, "admit", fingerprint=fingerprint)


def test_no_secret_of_an_invitation_is_logged(coordinator: Coordinator) -> None:
    invitation, _ = enrolled(coordinator, Applicant(officer_statement("DK")))
    text = json.dumps(coordinator.ask("log_entries", start=0, end=100))
    assert invitation.token not in text
    assert "PRIVATE KEY" not in text


def test_an_invitation_for_an_unknown_country_or_role_is_refused(coordinator: Coordinator) -> None:
    for country, role in (("dk", "officer"), ("DNK", "node"), ("DK", "coordinator"), ("DK", "")):
        refused(coordinator, "invite", country=country, role=role)
    assert coordinator.log_kinds() == []


def test_revoking_a_party_that_does_not_exist_is_refused(coordinator: Coordinator) -> None:
    assert "no certificate" in refused(coordinator, "revoke", country="DK", role="node").what


# Over the socket, as the server app does it. The path of a socket is short, so the name is, too.


def test_app_calls_daemon(coordinator: Coordinator, study: Study) -> None:
    run = launched(coordinator, study)
    answer = lambda method, params: coordinator.ask(method, **params)  # noqa: E731
    services = LocalRpcServer(coordinator.home.socket, answer)
    try:
        remote = DaemonClient(coordinator.home)
        update = remote.presence_update(4, 0)
        assert (update.count, update.present["EE"]) == (5, Presence(11, 1, 0.0))
        remote.announce(["EE", "DK"])
        assert coordinator.sessions.announced == ["EE", "DK"]
        run_attempt(
            coordinator.home, run, 1, NodesCarrier(coordinator.federation), remote, seconds=1
        )
        with pytest.raises(PratiqueError, match="32-byte"):
            remote.sign(b"short", Suite.ED25519)
    finally:
        services.close()
    assert (coordinator.home.results / study.id / RESULT_FILE).exists()


def test_the_agreement_in_force_is_drafted_again_for_another_year(
    coordinator: Coordinator,
) -> None:
    before = coordinator.ask("agreement_status")
    assert before["signed_until"].startswith("2027-09-01")
    assert coordinator.ask("status")["agreement"] == {"days_left": 365, "announced": []}
    status = coordinator.ask("agreement_renew")
    assert (status["state"], status["needed"]) == ("waiting for signatures", 3)
    documents = coordinator.federation.documents
    documents.now += timedelta(days=100)
    documents.refresh()
    coordinator.ask("agreement_renew")
    documents.sign("DK", "EE", "NO")
    after = coordinator.ask("agreement_publish")
    assert after["digest"] == before["digest"]
    assert after["signed_until"] > before["signed_until"]


def test_a_new_agreement_names_the_newest_key_of_each_country(coordinator: Coordinator) -> None:
    documents = coordinator.federation.documents
    services, former = documents.folders["DK"], documents.officers["DK"]
    services.set_history(extended(None, "DK", former, raw_key(200), documents.now))
    documents.sign_and_submit("DK")
    assert coordinator.ask("status")["agreement"]["announced"] == ["DK"]
    fields = agreement_fields(title="As amended")
    for party in fields["parties"]:
        del party["officer_key"]
    fields["coordinator"] = {"name": "Regional institute"}
    coordinator.ask("agreement_propose", text=json.dumps(fields), source="agreement.json")
    laid_out = Draft.from_canonical(documents.store.current_draft() or b"").agreement
    keys = {party.country: party.officer_key for party in laid_out.parties}
    assert keys["DK"] == raw_key(200).public.to_text()
    assert keys["EE"] == documents.officers["EE"].public.to_text()
    assert laid_out.coordinator.log_key == raw_key(4).public.to_text()


def test_nodes_with_a_copy_are_shown(coordinator: Coordinator) -> None:
    assert coordinator.ask("status")["copies"] == []
    coordinator.sessions.copied = ("DK",)
    assert coordinator.ask("status")["copies"] == ["DK"]
