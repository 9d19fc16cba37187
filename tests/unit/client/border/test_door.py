"""The door: what is sent, in which order of steps, and the state after a crash between two."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from client.border.door import Door
from client.border.outbox import Outbox
from client.node import Node
from client.state.tables import journal, runs
from client.tasks.assignment import Assignment
from governance.budget.ledger import Ledger
from governance.documents.study import Study
from governance.errors import StorageFault
from governance.runtime.database import transaction
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import SEALED_BYTES, read_contribution
from protocols.proto.round_pb2 import Reply, RequestBody
from protocols.wire.signed_message import serialise
from tests.support.documents import raw_key
from tests.support.node_federation import (
    NodeFederation,
    Run,
    altered_request,
    code_of,
    last_refusal,
    log_lines,
    records,
)

PHASE = "histogram"
SCALE = 128
ONE_FLOOR_AND_ONE_TABLE = ["cohort-floor", "histogram"]


class RecordingNoise:
    """A noise source that records each request, and always draws the same numbers."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.asked.append((std, size))
        return np.full(size, 7, np.int64)


@pytest.fixture
def run(federation: NodeFederation, study: Study) -> Run:
    """A run of the approved study whose set-up is complete."""
    return federation.ready(study)


@pytest.fixture
def coordinator_round(run: Run) -> CoordinatorRound:
    """The run's first round, in which nobody has contributed."""
    return run.coordinator.begin_round(1, PHASE, b"")


def phases_charged(node: Node, run: Run) -> list[str]:
    return sorted(entry.phase for entry in node.parts.ledger.entries())


def test_the_sum_over_four_countries_equals_the_counts_in_the_records(run: Run) -> None:
    outcome = run.sum(1, PHASE)
    assert isinstance(outcome, OpenedSum)
    women, ill_women, men, ill_men = 160, 0, 80, 80
    assert outcome.values.tolist() == [n * SCALE for n in (women, ill_women, men, ill_men)]
    assert outcome.countries == ("DK", "EE", "NO", "PT")


def test_each_country_adds_the_noise_that_the_mechanism_states(
    federation: NodeFederation, study: Study
) -> None:
    sources = {country: RecordingNoise() for country in federation.nodes}
    for country, source in sources.items():
        federation.restart(country, noise=source)
    outcome = federation.ready(study).sum(1, PHASE)
    assert isinstance(outcome, OpenedSum)
    silent = [160 * SCALE, 0, 80 * SCALE, 80 * SCALE]
    assert outcome.values.tolist() == [value + 4 * 7 for value in silent]
    floor, table = (m.noise_std for m in study.mechanisms)
    assert all(source.asked == [(floor, 1), (table, 4)] for source in sources.values())


def test_the_steps_of_a_release_run_in_the_fixed_order(
    federation: NodeFederation, coordinator_round: CoordinatorRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permit and policy, charge, log, contribution, noise, mask, journal; then it is sent."""
    steps: list[str] = []

    def watch(owner: type, name: str, step: str) -> None:
        inner = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            steps.append(step)
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    source = RecordingNoise()
    node = federation.restart("DK", noise=source)
    watch(type(node._request_handler._gate), "_assessed", "permit and policy")
    watch(Ledger, "reserve", "charge")
    watch(type(node.parts.decisions), "event", "log")
    watch(Assignment, "lattice_sum", "contribution")
    watch(RecordingNoise, "draw", "noise")
    watch(CountryRun, "contribute", "mask")
    watch(Outbox, "keep", "journal")
    reply = node.handle(coordinator_round.contribute_request("DK"))
    assert code_of(reply) is None
    assert steps == [
        "permit and policy",
        "charge",
        "log",
        "contribution",
        "noise",
        "mask",
        "journal",
        "log",
    ]


def test_the_whole_schedule_is_charged_once(
    federation: NodeFederation, run: Run, study: Study
) -> None:
    node = federation.nodes["DK"]
    assert phases_charged(node, run) == ["cohort-floor"]
    run.sum(1, PHASE)
    assert phases_charged(node, run) == ONE_FLOOR_AND_ONE_TABLE
    charged = node.parts.ledger.entries(run=run.id)
    assert [entry.mechanism for entry in charged] == [study.mechanisms[1]]


def test_the_same_request_gets_the_same_bytes(
    federation: NodeFederation, run: Run, coordinator_round: CoordinatorRound
) -> None:
    node = federation.nodes["DK"]
    request = coordinator_round.contribute_request("DK")
    first = node.handle(request)
    assert node.handle(request) == first
    assert federation.restart("DK").handle(request) == first
    assert phases_charged(federation.nodes["DK"], run) == ONE_FLOOR_AND_ONE_TABLE


def test_a_repeated_request_of_any_phase_gets_the_same_reply(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.run(study)
    node = federation.nodes["DK"]
    for step in ("bundle", "encapsulation", "confirmation"):
        request = run.request(step, "DK")
        reply = node.handle(request)
        assert code_of(reply) is None
        assert node.handle(request) == reply
        for country in run.terms.roster:
            set_up_request = run.request(step, country)
            run.take(step, country, federation.nodes[country].handle(set_up_request))
    coordinator_round = run.contributed(1, PHASE)
    request = coordinator_round.answer_request("DK")
    assert node.handle(request) == node.handle(request)


def test_another_request_for_the_same_round_is_refused(
    federation: NodeFederation, run: Run, coordinator_round: CoordinatorRound
) -> None:
    """A coordinator that sends another model in the same round gets no sum."""
    node = federation.nodes["DK"]
    request = coordinator_round.contribute_request("DK")
    assert code_of(node.handle(request)) is None

    def change(body: RequestBody) -> None:
        body.versions.root = 0

    assert code_of(node.handle(altered_request(request, change, raw_key(1)))) is ReasonCode.STALE
    assert "has one reply" in last_refusal(node)["why"]


def test_another_answer_in_the_same_round_is_refused(federation: NodeFederation, run: Run) -> None:
    coordinator_round = run.contributed(1, PHASE)
    node = federation.nodes["DK"]
    request = coordinator_round.answer_request("DK")
    assert code_of(node.handle(request)) is None

    def fewer(body: RequestBody) -> None:
        body.answer.countries[:] = ["DK", "EE", "NO"]

    assert code_of(node.handle(altered_request(request, fewer, raw_key(1)))) is ReasonCode.STALE


def test_an_answer_without_a_contribution_is_refused(
    federation: NodeFederation, run: Run, coordinator_round: CoordinatorRound
) -> None:
    for country in ("EE", "NO", "PT"):
        reply = federation.nodes[country].handle(coordinator_round.contribute_request(country))
        coordinator_round.take_contribution(country, reply)
    node = federation.nodes["DK"]
    reply_of_node = node.handle(coordinator_round.contribute_request("DK"))
    coordinator_round.take_contribution("DK", reply_of_node)
    with transaction(node.parts.engine) as connection:
        connection.execute(journal.delete().where(journal.c.phase == "contribute"))
    assert code_of(node.handle(coordinator_round.answer_request("DK"))) is ReasonCode.STALE


def test_a_round_beyond_the_schedule_is_refused(federation: NodeFederation, run: Run) -> None:
    """A void round counts: its number is used although no sum was opened."""
    run.contributed(1, PHASE)
    second = run.coordinator.begin_round(2, PHASE, b"")
    node = federation.nodes["DK"]
    assert code_of(node.handle(second.contribute_request("DK"))) is ReasonCode.BUDGET


def test_a_release_with_the_noise_of_one_country_alone_is_never_sent(
    federation: NodeFederation, run: Run
) -> None:
    """The count of the cohort floor is in the schedule, but no request may ask for it."""
    coordinator_round = run.coordinator.begin_round(1, "cohort-floor", b"")
    node = federation.nodes["DK"]
    assert (
        code_of(node.handle(coordinator_round.contribute_request("DK"))) is ReasonCode.TASK_UNKNOWN
    )
    assert last_refusal(node)["clause"] == "node/door"
    assert phases_charged(node, run) == ["cohort-floor"]


def test_a_model_in_a_request_for_a_table_is_refused(federation: NodeFederation, run: Run) -> None:
    coordinator_round = run.coordinator.begin_round(1, PHASE, b"0" * 8)
    node = federation.nodes["DK"]
    assert code_of(node.handle(coordinator_round.contribute_request("DK"))) is ReasonCode.MALFORMED


def test_records_that_changed_since_the_run_began_are_declined(
    federation: NodeFederation, coordinator_round: CoordinatorRound
) -> None:
    node, home = federation.nodes["DK"], federation.home("DK")
    (home.path / "records.csv").write_text(records(79))
    node.parts.record_store.refresh()
    assert code_of(node.handle(coordinator_round.contribute_request("DK"))) is ReasonCode.DECLINED


def test_a_patient_who_opts_out_during_a_run_is_left_out(
    federation: NodeFederation, study: Study
) -> None:
    list_of_ids = federation.folder / "opt-out.txt"
    list_of_ids.write_text("")
    node = federation.restart("DK", settings=federation.settings("DK", opt_out=list_of_ids))
    run = federation.ready(study)
    list_of_ids.write_text("p0\n")  # a man who is ill
    node.parts.record_store.refresh()
    outcome = run.sum(1, PHASE)
    assert isinstance(outcome, OpenedSum)
    assert outcome.values.tolist()[-1] == (80 - 1) * SCALE


class Crash(BaseException):
    """The process dies here: no handler may catch it."""


def die(*_: Any, **__: Any) -> Any:
    raise Crash


def after(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `inner`, after which the process dies."""

    def taken(*args: Any, **kwargs: Any) -> Any:
        inner(*args, **kwargs)
        raise Crash

    return taken


STEPS: list[tuple[type, str]] = [
    (Ledger, "reserve"),
    (Door, "_charge"),
    (Assignment, "lattice_sum"),
    (CountryRun, "contribute"),
    (Outbox, "_finished"),
    (Outbox, "keep"),
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_crash_never_releases_uncharged_nor_charges_twice(
    federation: NodeFederation,
    run: Run,
    coordinator_round: CoordinatorRound,
    owner: type,
    name: str,
    moment: str,
) -> None:
    request = coordinator_round.contribute_request("DK")
    inner = getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, die if moment == "before" else after(inner))
        with pytest.raises(Crash):
            federation.nodes["DK"].handle(request)
    node = federation.restart("DK")
    journalled_reply = journalled(node, run)
    if journalled_reply is not None:
        assert phases_charged(node, run) == ONE_FLOOR_AND_ONE_TABLE
    reply = node.handle(request)
    assert code_of(reply) is None
    assert journalled_reply in (None, reply)
    assert phases_charged(node, run) == ONE_FLOOR_AND_ONE_TABLE
    assert node.handle(request) == reply
    finish(federation, run, coordinator_round, reply)


def journalled(node: Node, run: Run) -> bytes | None:
    query = select(journal.c.reply).where(
        journal.c.run_id == run.id, journal.c.phase == "contribute"
    )
    with transaction(node.parts.engine) as connection:
        found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def finish(
    federation: NodeFederation, run: Run, coordinator_round: CoordinatorRound, reply: bytes
) -> None:
    """Let the other countries contribute and all answer, and check the sum."""
    coordinator_round.take_contribution("DK", reply)
    for country in ("EE", "NO", "PT"):
        contribute_request = coordinator_round.contribute_request(country)
        coordinator_round.take_contribution(
            country, federation.nodes[country].handle(contribute_request)
        )
    for country in run.terms.roster:
        answer = federation.nodes[country].handle(coordinator_round.answer_request(country))
        coordinator_round.take_answer(country, answer)
    outcome = coordinator_round.open()
    assert isinstance(outcome, OpenedSum)
    assert outcome.values.sum() == 4 * 80 * SCALE


@pytest.mark.parametrize("step", ["bundle", "encapsulation", "confirmation"])
def test_a_crash_in_set_up_gives_the_same_bytes_or_none(
    federation: NodeFederation, study: Study, step: str
) -> None:
    run = federation.run(study)
    run.set_up(until=step)
    request = run.request(step, "DK")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outbox, "keep", after(Outbox.keep))
        with pytest.raises(Crash):
            federation.nodes["DK"].handle(request)
    node = federation.restart("DK")
    reply = node.handle(request)
    assert node.handle(request) == reply
    run.take(step, "DK", reply)


@pytest.mark.parametrize("name", ["reserve", "keep"])
def test_a_full_disk_releases_nothing_and_is_reported(
    federation: NodeFederation,
    run: Run,
    coordinator_round: CoordinatorRound,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise StorageFault("The disk is full", why="SQLite says: full", fix="free some space")

    monkeypatch.setattr(Ledger if name == "reserve" else Outbox, name, full)
    node = federation.nodes["DK"]
    assert code_of(node.handle(coordinator_round.contribute_request("DK"))) is ReasonCode.DECLINED
    assert last_refusal(node)["what"] == "The disk is full"
    assert last_refusal(node)["fix"] == "free some space"
    assert journalled(node, run) is None


def test_a_log_that_cannot_be_written_stops_the_release(
    federation: NodeFederation,
    run: Run,
    coordinator_round: CoordinatorRound,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = federation.nodes["DK"]

    def broken(*_: Any, **__: Any) -> Any:
        raise StorageFault("The disk does not read or write")

    monkeypatch.setattr(node.parts.log, "append", broken)
    assert code_of(node.handle(coordinator_round.contribute_request("DK"))) is ReasonCode.DECLINED
    assert phases_charged(node, run) == ["cohort-floor"]
    assert journalled(node, run) is None
    assert last_refusal(node)["what"] == "The disk does not read or write"


def test_the_secrets_of_a_finished_run_are_erased(federation: NodeFederation, run: Run) -> None:
    node = federation.nodes["DK"]
    assert [one.run for one in node.parts.runs.summaries(live=True)] == [run.id]
    run.sum(1, PHASE)
    assert node.parts.runs.summaries(live=True) == []
    with transaction(node.parts.engine) as connection:
        row = connection.execute(select(runs).where(runs.c.run_id == run.id)).one()
    assert row.state is None
    assert row.ended == federation.clock()


def test_the_last_answer_is_repeated_after_the_run_is_over(
    federation: NodeFederation, run: Run
) -> None:
    coordinator_round = run.contributed(1, PHASE)
    node = federation.nodes["DK"]
    request = coordinator_round.answer_request("DK")
    reply = node.handle(request)
    assert node.parts.runs.summaries(live=True) == []
    assert node.handle(request) == reply


def test_every_step_of_a_release_is_logged(
    federation: NodeFederation, run: Run, study: Study
) -> None:
    run.sum(1, PHASE)
    node = federation.nodes["DK"]
    entries = [line for line in log_lines(node) if run.id in line]
    kinds = [line.split('"kind":"')[1].split('"')[0] for line in entries]
    assert kinds == [
        "budget-charged",
        "cohort-counted",
        "run-joined",
        "request-allowed",
        "request-allowed",
        "budget-charged",
        "sum-contributed",
        "sum-answered",
        "run-ended",
    ]
    assert all(study.digest in line for line in entries)


def test_a_contribution_contains_only_the_fields_of_the_protocol(
    federation: NodeFederation, coordinator_round: CoordinatorRound
) -> None:
    reply = federation.nodes["DK"].handle(coordinator_round.contribute_request("DK"))
    contribution, words = read_contribution(reply, "DK", 8 * coordinator_round.terms.words)
    assert len(words) == 8 * coordinator_round.terms.words
    assert len(contribution.shares) == 3 * SEALED_BYTES
    assert len(contribution.commitments) == 4 * 32
    expected = Reply(contribution=contribution, words=bytes(words))
    assert serialise(expected) == reply, "there is nothing else in it"
